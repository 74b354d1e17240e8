package policy_test

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"

	policyv1 "github.com/concordat-dev/concordat/gen/go/policy/v1"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/policy"
	"github.com/concordat-dev/concordat/kit/token"
)

// service returns a service with one method, Call, of that policy, whose request has user_id, charge.customer_id, count
// and the repeated tags.
func service(t *testing.T, p *policyv1.MethodPolicy, level descriptorpb.MethodOptions_IdempotencyLevel) protoreflect.ServiceDescriptor {
	t.Helper()
	opts := &descriptorpb.MethodOptions{IdempotencyLevel: level.Enum()}
	if p != nil {
		proto.SetExtension(opts, policyv1.E_Method, p)
	}
	str, num := descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(), descriptorpb.FieldDescriptorProto_TYPE_INT32.Enum()
	one, many := descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(), descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
	fd, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("t/v1/t.proto"), Package: proto.String("t.v1"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{
			{Name: proto.String("Req"), Field: []*descriptorpb.FieldDescriptorProto{
				{Name: proto.String("user_id"), Number: proto.Int32(1), Type: str, Label: one},
				{Name: proto.String("charge"), Number: proto.Int32(2), Type: descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), TypeName: proto.String(".t.v1.Charge"), Label: one},
				{Name: proto.String("count"), Number: proto.Int32(3), Type: num, Label: one},
				{Name: proto.String("tags"), Number: proto.Int32(4), Type: str, Label: many},
			}},
			{Name: proto.String("Charge"), Field: []*descriptorpb.FieldDescriptorProto{
				{Name: proto.String("customer_id"), Number: proto.Int32(1), Type: str, Label: one},
			}},
		},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("S"), Method: []*descriptorpb.MethodDescriptorProto{
			{Name: proto.String("Call"), InputType: proto.String(".t.v1.Req"), OutputType: proto.String(".t.v1.Req"), Options: opts},
		}}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return fd.Services().Get(0)
}

const (
	pub  = policyv1.Audience_AUDIENCE_PUBLIC
	usr  = policyv1.Audience_AUDIENCE_USER
	svc  = policyv1.Audience_AUDIENCE_SERVICE
	path = "/t.v1.S/Call"
)

func compile(t *testing.T, p *policyv1.MethodPolicy) *policy.Method {
	t.Helper()
	p.Timeout = durationpb.New(1e9)
	table, err := policy.Compile(service(t, p, descriptorpb.MethodOptions_IDEMPOTENT))
	if err != nil {
		t.Fatal(err)
	}
	return table[path]
}

// TestTheTruthTable is the whole of who may call what: each audience against each way to come.
func TestTheTruthTable(t *testing.T) {
	good := &identity.User{ID: "u1", Scopes: []string{"s"}}
	bare := &identity.User{ID: "u1"}
	type way struct {
		name string
		c    policy.Credentials
	}
	ways := []way{
		{"edge", policy.Credentials{Peer: "gateway", Edge: true}},
		{"edge+user", policy.Credentials{Peer: "gateway", Edge: true, HasToken: true, User: good}},
		{"edge+user without scope", policy.Credentials{Peer: "gateway", Edge: true, HasToken: true, User: bare}},
		{"edge+bad token", policy.Credentials{Peer: "gateway", Edge: true, HasToken: true, TokenErr: token.ErrInvalid}},
		{"service", policy.Credentials{Peer: "orders"}},
		{"service+user", policy.Credentials{Peer: "orders", HasToken: true, User: good}},
		{"service+bad token", policy.Credentials{Peer: "orders", HasToken: true, TokenErr: token.ErrInvalid}},
		{"nobody", policy.Credentials{}},
	}
	const (
		anon, user, service = "anonymous", "user", "service"
		missing, refused    = "CREDENTIALS_MISSING", "CALLER_REFUSED"
		scope, invalid      = "SCOPE_MISSING", "TOKEN_INVALID"
	)
	for _, row := range []struct {
		audience []policyv1.Audience
		want     [8]string // as ways
	}{
		{[]policyv1.Audience{pub}, [8]string{anon, anon, anon, anon, anon, anon, anon, anon}},
		{[]policyv1.Audience{usr}, [8]string{missing, user, scope, invalid, missing, user, invalid, missing}},
		{[]policyv1.Audience{svc}, [8]string{refused, refused, refused, refused, service, refused, refused, refused}},
		{[]policyv1.Audience{pub, usr}, [8]string{anon, user, scope, invalid, anon, user, invalid, anon}},
		{[]policyv1.Audience{pub, svc}, [8]string{anon, anon, anon, anon, service, anon, anon, anon}},
		{[]policyv1.Audience{usr, svc}, [8]string{missing, user, scope, invalid, service, user, invalid, missing}},
		{[]policyv1.Audience{pub, usr, svc}, [8]string{anon, user, scope, invalid, service, user, invalid, anon}},
	} {
		p := &policyv1.MethodPolicy{Audience: row.audience}
		for _, a := range row.audience {
			if a == usr {
				p.Scopes = []string{"s"}
			}
		}
		m := compile(t, p)
		for i, w := range ways {
			if got := verdict(m.Decide(w.c)); got != row.want[i] {
				t.Errorf("%v, %s: %s, want %s", row.audience, w.name, got, row.want[i])
			}
		}
	}
}

func verdict(c identity.Caller, err error) string {
	switch {
	case err != nil:
		var f interface{ Reason() string }
		if errors.As(err, &f) {
			return f.Reason()
		}
		return err.Error()
	case c.User != nil:
		return "user"
	case c.AsService:
		return "service"
	default:
		return "anonymous"
	}
}

func TestCallersNameThePeersWhoMayBeAtTheOtherEnd(t *testing.T) {
	m := compile(t, &policyv1.MethodPolicy{Audience: []policyv1.Audience{pub, usr, svc}, Callers: []string{"gateway", "orders"}})
	for peer, want := range map[string]string{"gateway": "anonymous", "orders": "service", "users": "CALLER_REFUSED", "": "CALLER_REFUSED"} {
		if got := verdict(m.Decide(policy.Credentials{Peer: peer, Edge: peer == "gateway"})); got != want {
			t.Errorf("%q: %s, want %s", peer, got, want)
		}
	}
}

func TestSelfBindsUsersToWhatIsTheirs(t *testing.T) {
	p := &policyv1.MethodPolicy{
		Audience: []policyv1.Audience{usr, svc}, Timeout: durationpb.New(1e9),
		Self: &policyv1.Self{Field: "charge.customer_id", OrScope: "admin"},
	}
	sd := service(t, p, descriptorpb.MethodOptions_IDEMPOTENT)
	table, err := policy.Compile(sd)
	if err != nil {
		t.Fatal(err)
	}
	m := table[path]
	in := sd.Methods().Get(0).Input()
	about := func(owner string) proto.Message {
		req := dynamicpb.NewMessage(in)
		if owner != "" {
			charge := req.Mutable(in.Fields().ByName("charge")).Message()
			charge.Set(charge.Descriptor().Fields().ByName("customer_id"), protoreflect.ValueOfString(owner))
		}
		return req
	}
	user := func(id string, scopes ...string) identity.Caller {
		return identity.Caller{User: &identity.User{ID: id, Scopes: scopes}}
	}
	for name, tc := range map[string]struct {
		caller identity.Caller
		owner  string
		want   error
	}{
		"their own":                      {user("u1"), "u1", nil},
		"another's":                      {user("u1"), "u2", policy.ErrNotSelf},
		"nobody's":                       {user("u1"), "", policy.ErrNotSelf},
		"nobody's, by a user without id": {user(""), "", policy.ErrNotSelf},
		"another's, by an administrator": {user("u1", "admin"), "u2", nil},
		"another's, by a service":        {identity.Caller{Peer: "orders", AsService: true}, "u2", nil},
	} {
		if err := m.CheckSelf(tc.caller, about(tc.owner)); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}

func hedge(attempts uint32, delay time.Duration) *policyv1.Hedge {
	return &policyv1.Hedge{Attempts: attempts, Delay: durationpb.New(delay)}
}

func TestAHedgeIsForCallsOfOneMessageEachWay(t *testing.T) {
	p := &policyv1.MethodPolicy{Audience: []policyv1.Audience{pub}, Timeout: durationpb.New(1e9), Hedge: hedge(2, 1e8)}
	file := protodesc.ToFileDescriptorProto(service(t, p, descriptorpb.MethodOptions_NO_SIDE_EFFECTS).ParentFile())
	file.Service[0].Method[0].ServerStreaming = proto.Bool(true)
	fd, err := protodesc.NewFile(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := policy.Compile(fd.Services().Get(0)); err == nil || !strings.Contains(err.Error(), "unary") {
		t.Errorf("err = %v, want one that says that a hedge is for unary methods", err)
	}
}

func TestWhatAPolicyLeavesOutHasADefault(t *testing.T) {
	bare := compile(t, &policyv1.MethodPolicy{Audience: []policyv1.Audience{pub}, Retry: &policyv1.Retry{Attempts: 3}})
	want := &policy.Retry{Attempts: 3, InitialBackoff: 50 * time.Millisecond, MaxBackoff: time.Second, Multiplier: 2, Codes: []fault.Kind{fault.Unavailable}}
	if !reflect.DeepEqual(bare.Retry, want) {
		t.Errorf("retry: %+v, want %+v", bare.Retry, want)
	}
	if bare.Hedge != nil || bare.Gzip || bare.MaxRequestBytes != policy.MaxMessageBytes {
		t.Errorf("hedge %v, gzip %v, %d bytes; want none, none, %d", bare.Hedge, bare.Gzip, bare.MaxRequestBytes, policy.MaxMessageBytes)
	}
}

func TestWhatAPolicySaysOfRepetitionsIsRead(t *testing.T) {
	m := compile(t, &policyv1.MethodPolicy{
		Audience: []policyv1.Audience{pub}, Compression: policyv1.Compression_COMPRESSION_GZIP, MaxRequestBytes: 1000,
		Retry: &policyv1.Retry{
			Attempts: 5, InitialBackoff: durationpb.New(time.Millisecond), MaxBackoff: durationpb.New(time.Minute), Multiplier: 1.5,
			Codes: []policyv1.RetryCode{policyv1.RetryCode_RETRY_CODE_ABORTED, policyv1.RetryCode_RETRY_CODE_RESOURCE_EXHAUSTED},
		},
	})
	want := &policy.Retry{
		Attempts: 5, InitialBackoff: time.Millisecond, MaxBackoff: time.Minute, Multiplier: 1.5,
		Codes: []fault.Kind{fault.Aborted, fault.ResourceExhausted},
	}
	if !reflect.DeepEqual(m.Retry, want) {
		t.Errorf("retry: %+v, want %+v", m.Retry, want)
	}
	if !m.Gzip || m.MaxRequestBytes != 1000 {
		t.Errorf("gzip %v, %d bytes", m.Gzip, m.MaxRequestBytes)
	}
	for _, k := range fault.Kinds() {
		if got, want := m.Repeats(k), k == fault.Aborted || k == fault.ResourceExhausted; got != want {
			t.Errorf("Repeats(%v) = %v, want %v", k, got, want)
		}
	}
}

func TestAFieldIsFoundInAnotherVersionOfItsMessage(t *testing.T) {
	sd := service(t, &policyv1.MethodPolicy{
		Audience: []policyv1.Audience{pub}, Timeout: durationpb.New(1e9), Retry: &policyv1.Retry{Attempts: 2}, IdempotencyKey: "charge.customer_id",
	}, descriptorpb.MethodOptions_IDEMPOTENT)
	table, err := policy.Compile(sd)
	if err != nil {
		t.Fatal(err)
	}
	other := service(t, nil, descriptorpb.MethodOptions_IDEMPOTENT).Methods().Get(0).Input()
	req := dynamicpb.NewMessage(other)
	if !table[path].LacksKey(req) {
		t.Error("a request without the key does not lack it")
	}
	charge := req.Mutable(other.Fields().ByName("charge")).Message()
	charge.Set(charge.Descriptor().Fields().ByName("customer_id"), protoreflect.ValueOfString("k"))
	if table[path].LacksKey(req) {
		t.Error("a request with the key lacks it")
	}
	if !table[path].LacksKey(&policyv1.Self{Field: "k"}) {
		t.Error("a message that has no such field does not lack the key")
	}
}

func TestAPolicyThatContradictsItselfIsRefusedWithEveryReason(t *testing.T) {
	second := durationpb.New(1e9)
	for name, tc := range map[string]struct {
		p     *policyv1.MethodPolicy
		level descriptorpb.MethodOptions_IdempotencyLevel
		want  string
	}{
		"no policy":                        {nil, 1, "has no policy"},
		"no audience":                      {&policyv1.MethodPolicy{Timeout: second}, 1, "audience is empty"},
		"no timeout":                       {&policyv1.MethodPolicy{Audience: []policyv1.Audience{pub}}, 1, "timeout is not set"},
		"scopes without users":             {&policyv1.MethodPolicy{Audience: []policyv1.Audience{svc}, Timeout: second, Scopes: []string{"s"}}, 1, "bind users"},
		"retry of what is not safe":        {&policyv1.MethodPolicy{Audience: []policyv1.Audience{pub}, Timeout: second, Retry: &policyv1.Retry{Attempts: 3}}, 0, "idempotency_level"},
		"too many attempts":                {&policyv1.MethodPolicy{Audience: []policyv1.Audience{pub}, Timeout: second, Retry: &policyv1.Retry{Attempts: 6}}, 2, "attempts is 6"},
		"self on a missing field":          {&policyv1.MethodPolicy{Audience: []policyv1.Audience{usr}, Timeout: second, Self: &policyv1.Self{Field: "nope"}}, 1, `no field "nope"`},
		"self on a number":                 {&policyv1.MethodPolicy{Audience: []policyv1.Audience{usr}, Timeout: second, Self: &policyv1.Self{Field: "count"}}, 1, "no string"},
		"self on a repeated field":         {&policyv1.MethodPolicy{Audience: []policyv1.Audience{usr}, Timeout: second, Self: &policyv1.Self{Field: "tags"}}, 1, "repeated"},
		"a path through a scalar":          {&policyv1.MethodPolicy{Audience: []policyv1.Audience{usr}, Timeout: second, IdempotencyKey: "user_id.x"}, 1, "no message"},
		"a rate of nothing":                {&policyv1.MethodPolicy{Audience: []policyv1.Audience{usr}, Timeout: second, Rate: []*policyv1.Rate{{Burst: 1, Per: 1}}}, 1, "per_second"},
		"a rate by nothing":                {&policyv1.MethodPolicy{Audience: []policyv1.Audience{usr}, Timeout: second, Rate: []*policyv1.Rate{{PerSecond: 1, Burst: 1}}}, 1, "rate.per"},
		"a multiplier that shortens":       {&policyv1.MethodPolicy{Audience: []policyv1.Audience{pub}, Timeout: second, Retry: &policyv1.Retry{Attempts: 3, Multiplier: 0.5}}, 1, "retry.multiplier is 0.5"},
		"a multiplier that is no number":   {&policyv1.MethodPolicy{Audience: []policyv1.Audience{pub}, Timeout: second, Retry: &policyv1.Retry{Attempts: 3, Multiplier: math.NaN()}}, 1, "retry.multiplier is NaN"},
		"a pause of nothing":               {&policyv1.MethodPolicy{Audience: []policyv1.Audience{pub}, Timeout: second, Retry: &policyv1.Retry{Attempts: 3, InitialBackoff: durationpb.New(0)}}, 1, "backs off from 0s"},
		"a retry of an unknown code":       {&policyv1.MethodPolicy{Audience: []policyv1.Audience{pub}, Timeout: second, Retry: &policyv1.Retry{Attempts: 3, Codes: []policyv1.RetryCode{13}}}, 1, "retry.codes has 13"},
		"a retry of a code twice":          {&policyv1.MethodPolicy{Audience: []policyv1.Audience{pub}, Timeout: second, Retry: &policyv1.Retry{Attempts: 3, Codes: []policyv1.RetryCode{14, 14}}}, 1, "twice"},
		"a hedge beside a retry":           {&policyv1.MethodPolicy{Audience: []policyv1.Audience{pub}, Timeout: second, Retry: &policyv1.Retry{Attempts: 3}, Hedge: hedge(2, 1e8)}, 1, "exclude each other"},
		"a hedge of what changes anything": {&policyv1.MethodPolicy{Audience: []policyv1.Audience{pub}, Timeout: second, Hedge: hedge(2, 1e8)}, 2, "NO_SIDE_EFFECTS"},
		"a hedge of one":                   {&policyv1.MethodPolicy{Audience: []policyv1.Audience{pub}, Timeout: second, Hedge: hedge(1, 1e8)}, 1, "hedge.attempts is 1"},
		"a hedge of six":                   {&policyv1.MethodPolicy{Audience: []policyv1.Audience{pub}, Timeout: second, Hedge: hedge(6, 1e8)}, 1, "hedge.attempts is 6"},
		"a hedge without a delay":          {&policyv1.MethodPolicy{Audience: []policyv1.Audience{pub}, Timeout: second, Hedge: hedge(2, 0)}, 1, "hedge.delay is 0s"},
		"a hedge after the timeout":        {&policyv1.MethodPolicy{Audience: []policyv1.Audience{pub}, Timeout: second, Hedge: hedge(2, 1e9)}, 1, "hedge.delay is 1s"},
		"an unknown compression":           {&policyv1.MethodPolicy{Audience: []policyv1.Audience{pub}, Timeout: second, Compression: 9}, 1, "compression 9"},
		"messages beyond what is taken":    {&policyv1.MethodPolicy{Audience: []policyv1.Audience{pub}, Timeout: second, MaxRequestBytes: 4<<20 + 1}, 1, "max_request_bytes is 4194305"},
		"a rate by a field without it":     {&policyv1.MethodPolicy{Audience: []policyv1.Audience{usr}, Timeout: second, Rate: []*policyv1.Rate{{PerSecond: 1, Burst: 1, Per: 3}}}, 1, "rate.field"},
		"a rate by an address and field":   {&policyv1.MethodPolicy{Audience: []policyv1.Audience{usr}, Timeout: second, Rate: []*policyv1.Rate{{PerSecond: 1, Burst: 1, Per: 2, Field: "user_id"}}}, 1, "rate.field"},
		"the second rate is wrong":         {&policyv1.MethodPolicy{Audience: []policyv1.Audience{usr}, Timeout: second, Rate: []*policyv1.Rate{{PerSecond: 1, Burst: 1, Per: 2}, {PerSecond: 1, Burst: 1, Per: 4}}}, 1, "rate.field"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := policy.Compile(service(t, tc.p, tc.level))
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "t.v1.S.Call") {
				t.Errorf("err = %v, want one that names the method and says %q", err, tc.want)
			}
		})
	}
}
