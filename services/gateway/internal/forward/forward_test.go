package forward

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	policyv1 "github.com/concordat-dev/concordat/gen/go/policy/v1"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/grpcfault"
	"github.com/concordat-dev/concordat/kit/identity"
)

func TestTheClientIsTheLastHopThatNobodyTrustedReports(t *testing.T) {
	proxies := Proxies{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for name, c := range map[string]struct {
		remote    string
		forwarded []string
		want      string
	}{
		"a stranger who says nothing":        {"192.0.2.1:5000", nil, "192.0.2.1"},
		"a stranger who says something":      {"192.0.2.1:5000", []string{"203.0.113.9"}, "192.0.2.1"},
		"a proxy":                            {"10.0.0.1:5000", []string{"203.0.113.9"}, "203.0.113.9"},
		"a proxy behind which somebody lies": {"10.0.0.1:5000", []string{"198.51.100.1, 203.0.113.9"}, "203.0.113.9"},
		"a proxy behind a proxy":             {"10.0.0.1:5000", []string{"203.0.113.9, 10.0.0.2"}, "203.0.113.9"},
		"two headers":                        {"10.0.0.1:5000", []string{"198.51.100.1", "203.0.113.9,10.0.0.2"}, "203.0.113.9"},
		"a proxy that says nothing":          {"10.0.0.1:5000", nil, "10.0.0.1"},
		"a proxy that says nonsense":         {"10.0.0.1:5000", []string{"nonsense"}, "10.0.0.1"},
		"nonsense behind a proxy":            {"10.0.0.1:5000", []string{"unknown, 10.0.0.2"}, "10.0.0.2"},
		"a hop with a port":                  {"10.0.0.1:5000", []string{"203.0.113.9:4711"}, "203.0.113.9"},
		"IPv6":                               {"[fd00::1]:5000", []string{"2001:db8::9"}, "2001:db8::9"},
		"IPv6 with a port":                   {"[fd00::1]:5000", []string{"[2001:db8::9]:80"}, "2001:db8::9"},
		"IPv4 in IPv6":                       {"[::ffff:10.0.0.1]:5000", []string{"203.0.113.9"}, "203.0.113.9"},
		"proxies all the way":                {"10.0.0.1:5000", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
	} {
		if got := proxies.Client(c.remote, c.forwarded); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	if got := Proxies(nil).Client("10.0.0.1:5000", []string{"203.0.113.9"}); got != "10.0.0.1" {
		t.Errorf("without trust: %q", got)
	}
}

func TestOnlyWhatTheContractKnowsPasses(t *testing.T) {
	in := metadata.Pairs("authorization", "Bearer x", "traceparent", "00-a", "tracestate", strings.Repeat("x", 513), "cookie", "a=b",
		"x-request-id", "theirs", "x-concordat-client-address", "203.0.113.9", "x-concordat-anything", "1", "grpc-timeout", "1S", ":authority", "x")
	ctx, err := outgoing(metadata.NewIncomingContext(t.Context(), in), &call{id: "ours", address: "192.0.2.1"})
	if err != nil {
		t.Fatal(err)
	}
	out, _ := metadata.FromOutgoingContext(ctx)
	want := metadata.MD{"authorization": {"Bearer x"}, "x-concordat-client-address": {"192.0.2.1"}}
	if left, _ := metadata.FromIncomingContext(ctx); len(left) > 0 {
		t.Errorf("the connection could carry on %v", left)
	}
	if !maps.EqualFunc(out, want, slices.Equal) || identity.RequestID(ctx) != "ours" {
		t.Errorf("got %v, request id %q", out, identity.RequestID(ctx))
	}
	in.Append("authorization", strings.Repeat("x", maxAuthorization))
	if _, err := outgoing(metadata.NewIncomingContext(t.Context(), in), &call{}); !errors.Is(err, ErrMalformed) {
		t.Errorf("an endless token: %v", err)
	}
	back := returned(metadata.Pairs("grpc-retry-pushback-ms", "7", "idempotency-replayed", "true", "etag", "x", "content-type", "application/grpc", "x-request-id", "y",
		"grpc-status-details-bin", "z", "x-envoy-upstream-service-time", "1", "date", "now"))
	if want := (metadata.MD{"grpc-retry-pushback-ms": {"7"}, "idempotency-replayed": {"true"}, "etag": {"x"}}); !maps.EqualFunc(back, want, slices.Equal) {
		t.Errorf("back comes %v", back)
	}
}

func TestTheTransportsWordsStayInside(t *testing.T) {
	detailed, err := status.New(codes.Unavailable, "theirs").WithDetails(&errdetails.ErrorInfo{Reason: "X", Domain: "y.v1"})
	if err != nil {
		t.Fatal(err)
	}
	const secret = "dial tcp 10.1.2.3:50051"
	for name, c := range map[string]struct {
		err    error
		code   codes.Code // OK where the status passes as it is
		reason string
	}{
		"a status with details":         {detailed.Err(), codes.OK, ""},
		"a status that is a service's":  {status.Error(codes.NotFound, "theirs"), codes.OK, ""},
		"a connection that is refused":  {status.Error(codes.Unavailable, secret), codes.Unavailable, "UPSTREAM_UNAVAILABLE"},
		"a reset":                       {status.Error(codes.Internal, secret), codes.Internal, "INTERNAL"},
		"a panic of a proxy":            {status.Error(codes.Unknown, secret), codes.Internal, "INTERNAL"},
		"a message that is too large":   {status.Error(codes.ResourceExhausted, secret), codes.ResourceExhausted, "MESSAGE_TOO_LARGE"},
		"the end of the time":           {status.Error(codes.DeadlineExceeded, secret), codes.DeadlineExceeded, "DEADLINE_EXCEEDED"},
		"the caller's leaving":          {status.Error(codes.Canceled, secret), codes.Canceled, "CANCELED"},
		"a proxy that does not know us": {status.Error(codes.PermissionDenied, secret), codes.PermissionDenied, "CALLER_REFUSED"},
		"a method that is not there":    {status.Error(codes.Unimplemented, secret), codes.Unimplemented, "UNIMPLEMENTED"},
	} {
		f := upstreamFault(c.err, "payments")
		if c.code == codes.OK {
			if f != nil {
				t.Errorf("%s becomes %v", name, f)
			}
			continue
		}
		if f == nil {
			t.Errorf("%s passes", name)
			continue
		}
		st := status.FromProto(statusOf(f, "id"))
		got := grpcfault.FromError(st.Err())
		if st.Code() != c.code || got.Reason() != c.reason || strings.Contains(st.Message(), "10.1") {
			t.Errorf("%s: %v %s %q", name, st.Code(), got.Reason(), st.Message())
		}
		if !strings.Contains(f.Error(), secret) {
			t.Errorf("%s: the log does not hear of it: %v", name, f)
		}
	}
}

// counted is a buffer that knows how many references there are.
type counted struct {
	mem.Buffer
	refs *int
}

func (c counted) Ref()  { *c.refs++ }
func (c counted) Free() { *c.refs-- }

func TestTheCodecKeepsCountOfItsBuffers(t *testing.T) {
	refs := 1 // grpc's own, for as long as Unmarshal runs
	data := mem.BufferSlice{counted{mem.SliceBuffer("abc"), &refs}}
	c := newCodec()
	var f frame
	if err := c.Unmarshal(data, &f); err != nil {
		t.Fatal(err)
	}
	data.Free()
	if refs != 1 {
		t.Fatalf("%d references after receiving, want the frame's", refs)
	}
	out, err := c.Marshal(&f)
	if err != nil || string(out.Materialize()) != "abc" {
		t.Fatalf("%q, %v", out.Materialize(), err)
	}
	if f.free(); refs != 1 {
		t.Fatalf("%d references after the frame is done, want the sender's", refs)
	}
	if out.Free(); refs != 0 {
		t.Fatalf("%d references at the end", refs)
	}
	b, err := c.Marshal(wrapperspb.String("x")) // health and reflection
	if err != nil {
		t.Fatal(err)
	}
	var m wrapperspb.StringValue
	if err := c.Unmarshal(b, &m); err != nil || m.GetValue() != "x" {
		t.Errorf("%v, %v", &m, err)
	}
}

func TestEveryFaultOfTheEdgeHasAReasonInTheContract(t *testing.T) {
	for _, f := range []*fault.Fault{
		ErrUnknownMethod, ErrMalformed, ErrTooLarge, ErrCompression, ErrUpstream, errNoMessage, errHeaderTooLarge, errUpstreamLarge, broken(nil),
	} {
		if _, ok := policyv1.ErrorReason_value["ERROR_REASON_"+f.Reason()]; !ok || f.Valid() != nil || f.Domain() != fault.Domain {
			t.Errorf("%s of %q is not in policy.v1.ErrorReason, or not valid: %v", f.Reason(), f.Domain(), f.Valid())
		}
	}
}

func TestRequestIDsOfCallersAreShortAndPlain(t *testing.T) {
	for id, want := range map[string]bool{
		"a": true, "0199a3c0-0000-7000-8000-0000000000ad": true, "A.b_c": true, strings.Repeat("x", 64): true,
		"": false, strings.Repeat("x", 65): false, "a b": false, "a\nb": false, "ä": false, "a;b": false,
	} {
		if got := ValidRequestID(id); got != want {
			t.Errorf("%q: %t", id, got)
		}
	}
}

func TestWhyAReceiveFailed(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want error
	}{
		"the caller has left":  {context.Canceled, status.Error(codes.Canceled, "")},
		"the time is over":     {status.Error(codes.DeadlineExceeded, "x"), status.Error(codes.DeadlineExceeded, "")},
		"too large":            {status.Error(codes.ResourceExhausted, "x"), status.Error(codes.ResourceExhausted, "")},
		"a body that is cut":   {status.Error(codes.Internal, "x"), status.Error(codes.InvalidArgument, "")},
		"a broken compression": {status.Error(codes.Unimplemented, "x"), status.Error(codes.InvalidArgument, "")},
	} {
		if got := grpcfault.Code(ReceiveFault(c.err).Kind()); got != status.Code(c.want) {
			t.Errorf("%s: %v", name, got)
		}
	}
}
