package grpcfault_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/grpcfault"
)

func TestAFaultArrivesAsWhatItWas(t *testing.T) {
	sent := fault.New(fault.AlreadyExists, "EMAIL_TAKEN", "another user has the email").
		With("hint", "sign in").WithViolation("user.email", "unique", "is taken").WithRetryAfter(3 * time.Second).
		Because(errors.New("UNIQUE constraint failed: users.email"))
	wire := grpcfault.Status(fmt.Errorf("create user: %w", sent), "users.v1")
	b, err := proto.Marshal(wire)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), "UNIQUE") || strings.Contains(string(b), "create user") {
		t.Errorf("the wire carries the cause: %q", b)
	}
	got := grpcfault.FromError(status.FromProto(wire).Err())
	if !errors.Is(got, fault.New(fault.AlreadyExists, "EMAIL_TAKEN", "").WithDomain("users.v1")) {
		t.Errorf("got %v %s %s", got.Kind(), got.Domain(), got.Reason())
	}
	if got.Text() != sent.Text() || got.Unwrap() != nil {
		t.Errorf("text %q, cause %v", got.Text(), got.Unwrap())
	}
	if v := got.Violations(); len(v) != 1 || v[0].Field != "user.email" || v[0].Rule != "unique" {
		t.Errorf("violations = %v", v)
	}
	if got.RetryAfter() != 3*time.Second || got.Metadata()["hint"] != "sign in" {
		t.Errorf("retry %v metadata %v", got.RetryAfter(), got.Metadata())
	}
}

func TestWhatIsNotAFaultOfTheServiceIsHidden(t *testing.T) {
	secret := "SELECT password FROM accounts"
	for name, tc := range map[string]struct {
		err  error
		code codes.Code
	}{
		"a plain error":                      {errors.New(secret), codes.Internal},
		"an internal fault":                  {fault.New(fault.Internal, "BROKEN", secret), codes.Internal},
		"a status of a peer":                 {status.Error(codes.NotFound, secret), codes.Internal},
		"a fault of another service":         {fault.New(fault.NotFound, "X_NOT_FOUND", secret).WithDomain("other.v1"), codes.Internal},
		"a deadline, with what ran out":      {fmt.Errorf("%s: %w", secret, context.DeadlineExceeded), codes.DeadlineExceeded},
		"a caller that left, with the place": {fmt.Errorf("%s: %w", secret, context.Canceled), codes.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			st := grpcfault.Status(tc.err, "users.v1")
			if codes.Code(st.GetCode()) != tc.code {
				t.Errorf("code = %v, want %v", codes.Code(st.GetCode()), tc.code)
			}
			if strings.Contains(st.String(), secret) {
				t.Errorf("the text leaves: %v", st)
			}
		})
	}
}

func TestWhatTheTransportSaysIsForLogsAlone(t *testing.T) {
	secret := `dial tcp 10.1.2.3:50051: connect: connection refused`
	got := grpcfault.FromError(status.Error(codes.Unavailable, secret))
	if got.Reason() != "UPSTREAM_UNAVAILABLE" || got.Domain() != fault.Domain {
		t.Errorf("%s of %s", got.Reason(), got.Domain())
	}
	if !strings.Contains(got.Error(), secret) {
		t.Errorf("the log says %q, and not what the transport said", got.Error())
	}
	// A handler that hands it on as it is tells its own caller nothing of it.
	if wire := grpcfault.Status(got, "users.v1"); strings.Contains(wire.String(), "10.1.2.3") {
		t.Errorf("the address leaves: %v", wire)
	}
}

func TestTheIDOfARequestIsReadFromItsAnswer(t *testing.T) {
	taken := fault.New(fault.AlreadyExists, "EMAIL_TAKEN", "another user has the email")
	answer := func(err error, extra ...protoadapt.MessageV1) error {
		return grpcfault.FromError(status.FromProto(grpcfault.Status(err, "users.v1", extra...)).Err())
	}
	info := &errdetails.RequestInfo{RequestId: "request-7"}
	for name, tc := range map[string]struct {
		err  error
		want string
	}{
		"of an answer":                  {answer(taken, info), "request-7"},
		"of one that was wrapped":       {fmt.Errorf("create: %w", answer(taken, info)), "request-7"},
		"of one that became a cause":    {fault.New(fault.Internal, "BROKEN", "x").Because(answer(taken, info)), "request-7"},
		"of one that was refined":       {grpcfault.FromError(answer(taken, info)).With("upstream", "users"), "request-7"},
		"none of an answer without one": {answer(taken), ""},
		"none of what is no answer":     {taken, ""},
		"none of nothing":               {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := grpcfault.RequestID(tc.err); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
			if tc.want == "" {
				return
			}
			if f, _ := fault.As(tc.err); strings.Contains(grpcfault.Status(f, "users.v1").String(), tc.want) {
				t.Error("the id of another service's request leaves with the fault")
			}
		})
	}
}

// FuzzFromStatus holds that whatever a peer sends becomes a valid fault, which survives being sent on.
func FuzzFromStatus(f *testing.F) {
	add := func(p *spb.Status) {
		b, err := proto.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, "")
	}
	add(nil)
	add(&spb.Status{Code: 99, Message: "what is this"})
	add(grpcfault.Status(fault.New(fault.AlreadyExists, "EMAIL_TAKEN", "taken").With("hint", "x").
		WithViolation("user.email", "unique", "is taken").WithRetryAfter(time.Second), "users.v1", &errdetails.RequestInfo{RequestId: "r"}))
	bad, err := status.New(codes.NotFound, "").WithDetails(
		&errdetails.ErrorInfo{Reason: "not a reason", Domain: "x", Metadata: map[string]string{"": "v", "k y": "v"}},
		&errdetails.ErrorInfo{Reason: "FINE", Domain: "x", Metadata: map[string]string{"ok": "v", "_no": "v"}},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{}}},
		&errdetails.RetryInfo{RetryDelay: &durationpb.Duration{Seconds: -1, Nanos: 5}},
	)
	if err != nil {
		f.Fatal(err)
	}
	add(bad.Proto())
	f.Add([]byte{8, 14}, "\xff\xfe transport") // grpc-message is any bytes
	f.Fuzz(func(t *testing.T, b []byte, message string) {
		p := &spb.Status{}
		if proto.Unmarshal(b, p) != nil {
			return
		}
		if message != "" {
			p.Message = message
		}
		got := grpcfault.FromStatus(p)
		if got == nil {
			if codes.Code(p.GetCode()) != codes.OK {
				t.Fatalf("%v is no fault", p)
			}
			return
		}
		if err := got.Valid(); err != nil || got.Domain() == "" {
			t.Fatalf("%v of %q: %v", got.Reason(), got.Domain(), err)
		}
		wire := grpcfault.Status(got, got.Domain())
		if _, err := proto.Marshal(wire); err != nil {
			t.Fatalf("it cannot be sent on: %v", err)
		}
		again := grpcfault.FromStatus(wire)
		if got.Kind() == fault.Internal { // masked on the way
			if again.Kind() != fault.Internal || again.Reason() != "INTERNAL" || len(again.Metadata()) > 0 {
				t.Fatalf("of an internal one arrives %v", again)
			}
			return
		}
		if !errors.Is(again, got) || again.Text() != got.Text() || !maps.Equal(again.Metadata(), got.Metadata()) ||
			!slices.Equal(again.Violations(), got.Violations()) || again.RetryAfter() != got.RetryAfter() {
			t.Fatalf("sent on, %#v is %#v", got, again)
		}
	})
}

func TestEachKindHasACodeOfItsOwn(t *testing.T) {
	seen := map[codes.Code]fault.Kind{}
	for k := fault.Internal; k <= fault.DataLoss; k++ {
		c := grpcfault.Code(k)
		if other, dup := seen[c]; dup {
			t.Errorf("%v and %v are both %v", k, other, c)
		}
		seen[c] = k
		if k == fault.Internal {
			continue
		}
		if got := grpcfault.FromStatus(status.New(c, "x").Proto()); got.Kind() != k || got.Valid() != nil {
			t.Errorf("%v comes back as %v (%v)", k, got.Kind(), got.Valid())
		}
	}
}
