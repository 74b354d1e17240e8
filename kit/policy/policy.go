// Package policy reads what a contract says about its methods (the option policy.v1.method) and decides by it. What has
// no policy is denied.
package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	policyv1 "github.com/concordat-dev/concordat/gen/go/policy/v1"
)

// Method is the compiled policy of one method.
type Method struct {
	// FullName is the name on the wire: "/payments.v1.PaymentService/Charge".
	FullName string
	// Package is the proto package of the service: the domain of its faults.
	Package string
	// Public, User and Service are the audiences; at least one holds.
	Public, User, Service bool
	// Scopes are what a user's token must carry, all of them.
	Scopes []string
	// Callers are the peers that may be at the other end of the connection; nil means any.
	Callers []string
	// Self is the field that must name the user; nil where the request has no owner.
	Self *Field
	// OrScope is the scope that lifts Self; "" means that nothing does.
	OrScope string
	// Timeout is the default deadline and the longest.
	Timeout time.Duration
	// Retry says how a client repeats the call; nil means never.
	Retry *Retry
	// Hedge says when a client sends the call again before it is answered; nil means never. Retry is nil then.
	Hedge *Hedge
	// Gzip is true where clients compress their requests.
	Gzip bool
	// MaxRequestBytes is how large one message from a client may be, uncompressed: 1 to MaxMessageBytes.
	MaxRequestBytes int
	// Rates bound how often the method is called, each of them; nil means that nothing of its own does.
	Rates []Rate
	// Key is the field that makes a repetition the same call; nil where there is none.
	Key *Field
	// Framework is true for health and reflection, whose handlers are grpc-go's and answer with statuses of their own.
	Framework bool
	// ClientStream and ServerStream say how many messages there are each way.
	ClientStream, ServerStream bool
}

// MaxMessageBytes is the largest message that any method takes, and that any method answers with.
const MaxMessageBytes = 4 << 20

// Rate is a token bucket.
type Rate struct {
	PerSecond float64
	Burst     int
	Per       policyv1.RateKey
	Field     *Field // for RATE_KEY_FIELD and RATE_KEY_FIELD_AND_ADDRESS, else nil
}

// Table holds the policies of methods by their FullName.
type Table map[string]*Method

// Framework returns the fixed policy of a method that is not ours and carries no option: health and reflection, for
// every peer with a valid certificate. ok is false for every other method.
func Framework(fullName string) (m *Method, ok bool) {
	service, _, _ := strings.Cut(strings.TrimPrefix(fullName, "/"), "/")
	switch service {
	case "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection":
		return &Method{FullName: fullName, Package: service[:strings.LastIndex(service, ".")], Public: true, Timeout: time.Hour, MaxRequestBytes: MaxMessageBytes, Framework: true}, true
	}
	return nil, false
}

// Compile returns the policies of all methods of the services. Its error names every method that has none, or one that
// contradicts itself.
func Compile(services ...protoreflect.ServiceDescriptor) (Table, error) {
	table := Table{}
	var problems []error
	for _, s := range services {
		for i := range s.Methods().Len() {
			m, err := compile(s.Methods().Get(i))
			if err != nil {
				problems = append(problems, fmt.Errorf("%s: %w", s.Methods().Get(i).FullName(), err))
				continue
			}
			table[m.FullName] = m
		}
	}
	return table, errors.Join(problems...)
}

func compile(md protoreflect.MethodDescriptor) (*Method, error) {
	opts, _ := md.Options().(*descriptorpb.MethodOptions)
	if opts == nil || !proto.HasExtension(opts, policyv1.E_Method) {
		return nil, errors.New("has no policy (option (policy.v1.method))")
	}
	p := proto.GetExtension(opts, policyv1.E_Method).(*policyv1.MethodPolicy)
	m := &Method{
		FullName:     fmt.Sprintf("/%s/%s", md.Parent().FullName(), md.Name()),
		Package:      string(md.ParentFile().Package()),
		Scopes:       p.GetScopes(),
		Callers:      p.GetCallers(),
		OrScope:      p.GetSelf().GetOrScope(),
		Timeout:      p.GetTimeout().AsDuration(),
		ClientStream: md.IsStreamingClient(),
		ServerStream: md.IsStreamingServer(),
	}
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	for _, a := range p.GetAudience() {
		switch a {
		case policyv1.Audience_AUDIENCE_PUBLIC:
			m.Public = true
		case policyv1.Audience_AUDIENCE_USER:
			m.User = true
		case policyv1.Audience_AUDIENCE_SERVICE:
			m.Service = true
		default:
			bad("audience %v is not known", a)
		}
	}
	if !m.Public && !m.User && !m.Service {
		bad("audience is empty")
	}
	if !m.User && (len(m.Scopes) > 0 || p.GetSelf() != nil) {
		bad("scopes and self bind users, and users are not in the audience")
	}
	if m.Timeout <= 0 {
		bad("timeout is not set")
	}
	field := func(option, path string) *Field {
		f, err := compileField(md.Input(), path)
		if err != nil {
			bad("%s: %w", option, err)
		}
		return f
	}
	if s := p.GetSelf(); s != nil {
		m.Self = field("self.field", s.GetField())
	}
	if k := p.GetIdempotencyKey(); k != "" {
		m.Key = field("idempotency_key", k)
	}
	m.repetition(p, opts.GetIdempotencyLevel(), bad)
	m.messages(p, bad)
	for _, r := range p.GetRate() {
		rate := Rate{PerSecond: r.GetPerSecond(), Burst: int(r.GetBurst()), Per: r.GetPer()}
		if !(r.GetPerSecond() > 0) || r.GetBurst() < 1 {
			bad("rate needs per_second above 0 and burst of at least 1")
		}
		switch r.GetPer() {
		case policyv1.RateKey_RATE_KEY_CALLER, policyv1.RateKey_RATE_KEY_ADDRESS:
			if r.GetField() != "" {
				bad("rate.field is for rates by a field")
			}
		case policyv1.RateKey_RATE_KEY_FIELD, policyv1.RateKey_RATE_KEY_FIELD_AND_ADDRESS:
			rate.Field = field("rate.field", r.GetField())
		default:
			bad("rate.per %v is not known", r.GetPer())
		}
		m.Rates = append(m.Rates, rate)
	}
	return m, errors.Join(problems...)
}

// allows reports whether a peer of that name may be at the other end of the connection.
func (m *Method) allows(peer string) bool {
	return len(m.Callers) == 0 || slices.Contains(m.Callers, peer)
}
