package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	policyv1 "github.com/concordat-dev/concordat/gen/go/policy/v1"
	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/kittest/echo"
	"github.com/concordat-dev/concordat/kit/server"
)

func TestEachMethodIsOpenToItsAudienceAlone(t *testing.T) {
	var seen atomic.Value
	h := kittest.Start(t, echo.Handlers{Unary: func(ctx context.Context, req proto.Message) (proto.Message, error) {
		seen.Store(identity.From(ctx).Key())
		return req, nil
	}}.Register)
	expired := h.TokenFor(identity.User{ID: "u1", Scopes: []string{"echo"}, ExpiresAt: time.Now().Add(-time.Minute)})
	for _, tc := range []struct {
		who    string
		conn   *grpc.ClientConn
		method string
		code   codes.Code
		reason string // or, for OK, who the handler saw
	}{
		{"anybody", h.Anonymous(), echo.Public, codes.OK, "address:bufconn"},
		{"a user", h.As("u1", "echo"), echo.Own, codes.OK, "user:u1"},
		{"an administrator", h.As("u2", "echo", "echo.admin"), echo.Own, codes.OK, "user:u2"},
		{"another user", h.As("u2", "echo"), echo.Own, codes.PermissionDenied, "NOT_SELF"},
		{"a user without the scope", h.As("u1"), echo.Own, codes.PermissionDenied, "SCOPE_MISSING"},
		{"nobody", h.Anonymous(), echo.Own, codes.Unauthenticated, "CREDENTIALS_MISSING"},
		{"a service", h.AsService("orders"), echo.Own, codes.Unauthenticated, "CREDENTIALS_MISSING"},
		{"an expired token", h.WithToken(expired), echo.Own, codes.Unauthenticated, "TOKEN_EXPIRED"},
		{"a forged token", h.WithToken("a.b.c"), echo.Own, codes.Unauthenticated, "TOKEN_INVALID"},
		{"a forged token where none is looked at", h.WithToken("a.b.c"), echo.Public, codes.OK, "address:bufconn"},
		{"a service", h.AsService("orders"), echo.Service, codes.OK, "service:orders"},
		{"a service that is not named", h.AsService("users"), echo.Service, codes.PermissionDenied, "CALLER_REFUSED"},
		{"the edge", h.Anonymous(), echo.Service, codes.PermissionDenied, "CALLER_REFUSED"},
		{"a user through the edge", h.As("u1", "echo"), echo.Service, codes.PermissionDenied, "CALLER_REFUSED"},
	} {
		t.Run(tc.who+" calls "+tc.method, func(t *testing.T) {
			_, err := echo.Call(t, tc.conn, tc.method, "hi", "u1")
			if tc.code != codes.OK {
				kittest.WantFault(t, err, tc.code, tc.reason)
				return
			}
			if err != nil || seen.Load() != tc.reason {
				t.Errorf("err %v, handler saw %v, want %v", err, seen.Load(), tc.reason)
			}
		})
	}
}

func TestTheOrderOfThePathIsStated(t *testing.T) {
	want := []string{"observe", "faults", "recover", "deadline", "authenticate", "authorize", "limit", "receive", "admit", "validate", "use"}
	if got := server.Steps(); !slices.Equal(got, want) {
		t.Errorf("path = %v, want %v", got, want)
	}
}

// Whoever may not call is told so before anything of the message was read: it never comes here.
func TestWhoMayNotCallNeedNotSendAMessage(t *testing.T) {
	h := kittest.Start(t, echo.Handlers{}.Register)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	announce := func(method string) error {
		s, err := h.Anonymous().NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
		if err != nil {
			t.Fatal(err)
		}
		return s.RecvMsg(echo.Message("", ""))
	}
	kittest.WantFault(t, announce(echo.Own), codes.Unauthenticated, "CREDENTIALS_MISSING")
	kittest.WantFault(t, announce(echo.Service), codes.PermissionDenied, "CALLER_REFUSED")
	for range 2 { // what the rate allows
		if _, err := echo.Call(t, h.Anonymous(), echo.Limited, "", ""); err != nil {
			t.Fatal(err)
		}
	}
	kittest.WantFault(t, announce(echo.Limited), codes.ResourceExhausted, "RATE_LIMITED")
}

func TestAMethodWithAnIdempotencyKeyIsNotCalledWithoutOne(t *testing.T) {
	h := kittest.Start(t, echo.Handlers{}.Register)
	_, err := echo.Call(t, h.Anonymous(), echo.Keyed, "text", "")
	f := kittest.WantFault(t, err, codes.InvalidArgument, "INVALID_REQUEST")
	if v := f.Violations(); len(v) != 1 || v[0].Field != "owner" || v[0].Rule != "idempotency_key.required" {
		t.Errorf("violations %v", v)
	}
	if _, err := echo.Call(t, h.Anonymous(), echo.Keyed, "text", "key"); err != nil {
		t.Error(err)
	}
}

func TestWhatAHandlerReturnsLeavesWithoutItsInside(t *testing.T) {
	const secret = "SELECT hash FROM accounts"
	taken := fault.New(fault.AlreadyExists, "EMAIL_TAKEN", "the email is taken")
	for name, tc := range map[string]struct {
		err    error
		code   codes.Code
		reason string
		domain string
	}{
		"a fault":                 {fmt.Errorf("create: %w", taken.Because(errors.New(secret))), codes.AlreadyExists, "EMAIL_TAKEN", "echo.v1"},
		"an error":                {errors.New(secret), codes.Internal, "INTERNAL", "policy.v1"},
		"a wrapped status":        {fmt.Errorf("x: %w", status.Error(codes.NotFound, secret)), codes.Internal, "INTERNAL", "policy.v1"},
		"another service's fault": {fault.New(fault.NotFound, "X_MISSING", secret).WithDomain("x.v1"), codes.Internal, "INTERNAL", "policy.v1"},
		"a panic":                 {nil, codes.Internal, "INTERNAL", "policy.v1"},
	} {
		t.Run(name, func(t *testing.T) {
			fail := func() error {
				if tc.err == nil {
					panic(secret)
				}
				return tc.err
			}
			h := kittest.Start(t, echo.Handlers{
				Unary: func(context.Context, proto.Message) (proto.Message, error) { return nil, fail() },
				Watch: func(proto.Message, grpc.ServerStream) error { return fail() },
			}.Register)
			_, err := echo.Call(t, h.Anonymous(), echo.Public, "", "")
			for _, err := range []error{err, watchOnce(t, h.Anonymous())} {
				f := kittest.WantFault(t, err, tc.code, tc.reason)
				if f.Domain() != tc.domain {
					t.Errorf("domain %s, want %s", f.Domain(), tc.domain)
				}
				if strings.Contains(fmt.Sprint(status.Convert(err).Proto()), secret) {
					t.Errorf("the inside leaves: %v", err)
				}
			}
			if err := h.Stop(); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(h.Log.String(), secret) {
				t.Errorf("the log does not say why:\n%s", h.Log)
			}
		})
	}
}

// watchOnce opens a Watch and returns how it ended.
func watchOnce(t *testing.T, conn *grpc.ClientConn) error {
	t.Helper()
	s := openStream(t, t.Context(), conn, echo.Watch, echo.Message("", ""))
	for {
		if err := s.RecvMsg(echo.Message("", "")); err != nil {
			return err
		}
	}
}

func openStream(t *testing.T, ctx context.Context, conn *grpc.ClientConn, method string, first proto.Message) grpc.ClientStream {
	t.Helper()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	if err != nil {
		t.Fatal(err)
	}
	if first != nil {
		if err := s.SendMsg(first); err != nil {
			t.Fatal(err)
		}
	}
	if method == echo.Watch {
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestMessagesAreHeldAgainstTheirRulesOnEveryKindOfCall(t *testing.T) {
	h := kittest.Start(t, echo.Handlers{Chat: echo.Back, Watch: func(m proto.Message, s grpc.ServerStream) error { return s.SendMsg(m) }}.Register)
	long := strings.Repeat("x", 11)
	_, err := echo.Call(t, h.Anonymous(), echo.Public, long, "")
	kittest.WantViolations(t, kittest.WantFault(t, err, codes.InvalidArgument, "INVALID_REQUEST"), "text")

	s := openStream(t, t.Context(), h.Anonymous(), echo.Watch, echo.Message(long, ""))
	kittest.WantViolations(t, kittest.WantFault(t, s.RecvMsg(echo.Message("", "")), codes.InvalidArgument, "INVALID_REQUEST"), "text")

	s = openStream(t, t.Context(), h.Anonymous(), echo.Chat, echo.Message("fine", ""))
	if err := s.RecvMsg(echo.Message("", "")); err != nil {
		t.Fatal(err)
	}
	if err := s.SendMsg(echo.Message(long, "")); err != nil {
		t.Fatal(err)
	}
	kittest.WantViolations(t, kittest.WantFault(t, s.RecvMsg(echo.Message("", "")), codes.InvalidArgument, "INVALID_REQUEST"), "text")

	// Self is of each message too: the second is about somebody else.
	s = openStream(t, t.Context(), h.As("u1"), echo.Chat, echo.Message("", "u1"))
	if err := s.RecvMsg(echo.Message("", "")); err != nil {
		t.Fatal(err)
	}
	if err := s.SendMsg(echo.Message("", "u2")); err != nil {
		t.Fatal(err)
	}
	kittest.WantFault(t, s.RecvMsg(echo.Message("", "")), codes.PermissionDenied, "NOT_SELF")
}

// raw sends bytes as they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)      { return v.([]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { return nil }
func (raw) Name() string                       { return "proto" }

func TestAMethodThatNobodyWroteIsUnimplementedAndAnotherStatusOfAHandlerIsMasked(t *testing.T) {
	answer := status.Error(codes.Unimplemented, "method Public not implemented") // as generated stubs say it
	h := kittest.Start(t, echo.Handlers{Unary: func(context.Context, proto.Message) (proto.Message, error) { return nil, answer }}.Register)
	call := func() error {
		return h.Anonymous().Invoke(t.Context(), echo.Public, echo.Message("", ""), echo.Message("", ""))
	}
	kittest.WantFault(t, call(), codes.Unimplemented, "UNIMPLEMENTED")
	answer = status.Error(codes.Unimplemented, "the table of orders is missing")
	kittest.WantFault(t, call(), codes.Internal, "INTERNAL")
}

func TestGarbageAndOversizeAreRefusedInOurWordsAndLogged(t *testing.T) {
	h := kittest.Start(t, echo.Handlers{}.Register)
	conn := h.Anonymous()
	err := conn.Invoke(t.Context(), echo.Public, []byte{0xff, 0xff, 0xff}, nil, grpc.ForceCodec(raw{}))
	kittest.WantFault(t, err, codes.InvalidArgument, "MALFORMED_REQUEST")
	// There is no field of number 0.
	err = conn.Invoke(t.Context(), echo.Public, []byte{0x00}, nil, grpc.ForceCodec(raw{}))
	kittest.WantFault(t, err, codes.InvalidArgument, "MALFORMED_REQUEST")

	big := echo.Message(strings.Repeat("x", 5<<20), "")
	err = conn.Invoke(t.Context(), echo.Public, big, echo.Message("", ""))
	kittest.WantFault(t, err, codes.ResourceExhausted, "MESSAGE_TOO_LARGE")
	err = conn.Invoke(t.Context(), "/echo.v1.EchoService/Nope", echo.Message("", ""), echo.Message("", ""))
	kittest.WantFault(t, err, codes.Unimplemented, "UNIMPLEMENTED")
	if err := h.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"MALFORMED_REQUEST", "ResourceExhausted", "EchoService/Nope"} {
		if !strings.Contains(h.Log.String(), want) {
			t.Errorf("the log misses %s:\n%s", want, h.Log)
		}
	}
}

func TestNoCallIsForEver(t *testing.T) {
	left := make(chan time.Duration, 1)
	h := kittest.Start(t, echo.Handlers{
		Unary: func(ctx context.Context, req proto.Message) (proto.Message, error) {
			d, ok := ctx.Deadline()
			if !ok {
				left <- -1
			} else {
				left <- time.Until(d)
			}
			return req, nil
		},
		// A handler that sits in a receive and never looks at its context.
		Collect: func(s grpc.ServerStream) error {
			for {
				if err := s.RecvMsg(echo.Message("", "")); err != nil {
					return err
				}
			}
		},
	}.Register)
	conn := h.Anonymous()
	if _, err := echo.Call(t, conn, echo.Public, "", ""); err != nil {
		t.Fatal(err)
	}
	if d := <-left; d <= time.Second || d > 2*time.Second {
		t.Errorf("without a deadline the handler has %s, want the policy's two seconds", d)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	if err := conn.Invoke(ctx, echo.Public, echo.Message("", ""), echo.Message("", "")); err != nil {
		t.Fatal(err)
	}
	if d := <-left; d > 2*time.Second {
		t.Errorf("an hour is granted: %s", d)
	}
	ctx, cancel = context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := conn.Invoke(ctx, echo.Public, echo.Message("", ""), echo.Message("", "")); err != nil {
		t.Fatal(err)
	}
	if d := <-left; d > 980*time.Millisecond {
		t.Errorf("of a second the handler has %s, want 20 ms less", d)
	}
	s := openStream(t, t.Context(), conn, echo.Collect, echo.Message("", ""))
	kittest.WantFault(t, s.RecvMsg(echo.Message("", "")), codes.DeadlineExceeded, "DEADLINE_EXCEEDED")
}

func TestAStreamEndsWithItsToken(t *testing.T) {
	h := kittest.Start(t, echo.Handlers{Watch: func(_ proto.Message, s grpc.ServerStream) error {
		<-s.Context().Done()
		return s.Context().Err()
	}}.Register)
	// Tokens count in whole seconds.
	soon := h.TokenFor(identity.User{ID: "u1", ExpiresAt: time.Now().Add(1100 * time.Millisecond)})
	kittest.WantFault(t, watchOnce(t, h.WithToken(soon)), codes.Unauthenticated, "TOKEN_EXPIRED")
}

func TestARateIsHeldAndSaysWhenToComeBack(t *testing.T) {
	clk := clocktest.New(time.Now())
	h := kittest.Start(t, echo.Handlers{}.Register, func(o *kittest.Options) { o.Clock = clk })
	from := func(address string) error {
		ctx := metadata.AppendToOutgoingContext(t.Context(), server.ClientAddressHeader, address)
		return h.Anonymous().Invoke(ctx, echo.Limited, echo.Message("", ""), echo.Message("", ""))
	}
	for range 2 {
		if err := from("198.51.100.1"); err != nil {
			t.Fatal(err)
		}
	}
	f := kittest.WantFault(t, from("198.51.100.1"), codes.ResourceExhausted, "RATE_LIMITED")
	if f.RetryAfter() <= 9*time.Second || f.RetryAfter() > 10*time.Second {
		t.Errorf("retry after %s, want ten seconds", f.RetryAfter())
	}
	if err := from("198.51.100.2"); err != nil {
		t.Errorf("another address: %v", err)
	}
	clk.Advance(f.RetryAfter())
	if err := from("198.51.100.1"); err != nil {
		t.Errorf("when it said: %v", err)
	}
	if _, err := echo.Call(t, h.Anonymous(), echo.ByText, "a", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := echo.Call(t, h.Anonymous(), echo.ByText, "b", ""); err != nil {
		t.Fatal(err)
	}
	for _, same := range []string{"a", "A", " a "} {
		_, err := echo.Call(t, h.Anonymous(), echo.ByText, same, "")
		kittest.WantFault(t, err, codes.ResourceExhausted, "RATE_LIMITED")
	}
	// What breaks the rules of its message is refused for that, and counts for nothing.
	for range 3 {
		_, err := echo.Call(t, h.Anonymous(), echo.ByText, strings.Repeat("x", 11), "")
		kittest.WantFault(t, err, codes.InvalidArgument, "INVALID_REQUEST")
	}
}

func TestWhoMisspellsTheirOwnIDIsToldThat(t *testing.T) {
	h := kittest.Start(t, echo.Handlers{}.Register)
	_, err := echo.Call(t, h.As("u1", "echo"), echo.Own, strings.Repeat("x", 11), "u2")
	kittest.WantViolations(t, kittest.WantFault(t, err, codes.InvalidArgument, "INVALID_REQUEST"), "text")
	if _, err := echo.Call(t, h.As("u1", "echo"), echo.Own, "", "U1"); err != nil {
		t.Errorf("one's own id in capitals: %v", err)
	}
}

func TestOnlyTheEdgeSaysWhereACallCameFrom(t *testing.T) {
	var seen atomic.Value
	h := kittest.Start(t, echo.Handlers{Unary: func(ctx context.Context, req proto.Message) (proto.Message, error) {
		seen.Store(identity.From(ctx).Address)
		return req, nil
	}}.Register)
	for peer, want := range map[string]string{"gateway": "198.51.100.1", "orders": "bufconn"} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), server.ClientAddressHeader, "198.51.100.1")
		if err := h.AsService(peer).Invoke(ctx, echo.Public, echo.Message("", ""), echo.Message("", "")); err != nil {
			t.Fatal(err)
		}
		if seen.Load() != want {
			t.Errorf("%s: address %v, want %s", peer, seen.Load(), want)
		}
	}
}

func TestEveryAnswerCarriesTheRequestID(t *testing.T) {
	h := kittest.Start(t, echo.Handlers{}.Register)
	var header metadata.MD
	ctx := metadata.AppendToOutgoingContext(t.Context(), server.RequestIDHeader, "order-7.retry_2")
	if err := h.Anonymous().Invoke(ctx, echo.Public, echo.Message("", ""), echo.Message("", ""), grpc.Header(&header)); err != nil {
		t.Fatal(err)
	}
	if got := header.Get(server.RequestIDHeader); !slices.Equal(got, []string{"order-7.retry_2"}) {
		t.Errorf("header = %v", got)
	}
	header = nil
	bad := metadata.AppendToOutgoingContext(t.Context(), server.RequestIDHeader, "evil\" level=ERROR")
	if err := h.Anonymous().Invoke(bad, echo.Public, echo.Message("", ""), echo.Message("", ""), grpc.Header(&header)); err != nil {
		t.Fatal(err)
	}
	if got := header.Get(server.RequestIDHeader); len(got) != 1 || len(got[0]) != 36 {
		t.Errorf("a request id that would forge log lines is answered with %v, want a new one", got)
	}
	err := h.Anonymous().Invoke(ctx, echo.Own, echo.Message("", ""), echo.Message("", ""))
	if got := fmt.Sprint(status.Convert(err).Details()); !strings.Contains(got, "order-7.retry_2") {
		t.Errorf("details = %s", got)
	}
}

func TestAStopLetsCallsFinishAndTellsStreams(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	answer := sync.OnceFunc(func() { close(release) })
	defer answer()
	h := kittest.Start(t, echo.Handlers{
		Unary: func(_ context.Context, req proto.Message) (proto.Message, error) {
			close(entered)
			<-release
			return req, nil
		},
		Watch: func(_ proto.Message, s grpc.ServerStream) error {
			return server.Follow(s.Context(), silent{}, func(_ *int, token string) error { return s.SendMsg(echo.Message(token, "")) })
		},
	}.Register)
	conn := h.Anonymous()
	answered := make(chan error, 1)
	go func() {
		_, err := echo.Call(t, conn, echo.Public, "", "")
		answered <- err
	}()
	<-entered
	s := openStream(t, t.Context(), conn, echo.Watch, echo.Message("", ""))
	first := echo.Message("", "")
	if err := s.RecvMsg(first); err != nil || echo.TextOf(first) != "here" {
		t.Fatalf("first message %q, %v; want the bare resume point", echo.TextOf(first), err)
	}
	h.Begin()
	f := kittest.WantFault(t, s.RecvMsg(echo.Message("", "")), codes.Unavailable, "DRAINING")
	if f.Metadata()["resume_token"] != "here" {
		t.Errorf("resume_token = %q", f.Metadata()["resume_token"])
	}
	answer()
	if err := <-answered; err != nil {
		t.Errorf("the call in flight: %v", err)
	}
	if err := h.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestAStopHasAnEnd(t *testing.T) {
	h := kittest.Start(t, echo.Handlers{Watch: func(_ proto.Message, s grpc.ServerStream) error {
		if err := s.SendMsg(echo.Message("", "")); err != nil {
			return err
		}
		<-s.Context().Done() // deaf to the drain
		return s.Context().Err()
	}}.Register, func(o *kittest.Options) { o.DrainTimeout = 50 * time.Millisecond })
	s := openStream(t, t.Context(), h.Anonymous(), echo.Watch, echo.Message("", ""))
	if err := s.RecvMsg(echo.Message("", "")); err != nil {
		t.Fatal(err)
	}
	if err := h.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if err := s.RecvMsg(echo.Message("", "")); err == nil || err == io.EOF {
		t.Errorf("the stream ended with %v", err)
	}
}

// silent is a subscription without events.
type silent struct{}

func (silent) Next(ctx context.Context) (int, string, error) {
	<-ctx.Done()
	return 0, "", ctx.Err()
}
func (silent) Position() string  { return "here" }
func (silent) OnCut(func(error)) {}

func TestHealthFollowsTheChecks(t *testing.T) {
	clk := clocktest.New(time.Now())
	var broken atomic.Bool
	h := kittest.Start(t, echo.Handlers{}.Register, func(o *kittest.Options) {
		o.Clock = clk
		o.Checks = map[string]func(context.Context) error{"store": func(context.Context) error {
			if broken.Load() {
				return errors.New("disk is gone")
			}
			return nil
		}}
	})
	watch, err := healthpb.NewHealthClient(h.AsService("orders")).Watch(t.Context(), &healthpb.HealthCheckRequest{Service: "echo.v1.EchoService"})
	if err != nil {
		t.Fatal(err)
	}
	until := func(want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for {
			got, err := watch.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if got.GetStatus() == want {
				return
			}
		}
	}
	until(healthpb.HealthCheckResponse_SERVING)
	broken.Store(true)
	tick(t, clk)
	until(healthpb.HealthCheckResponse_NOT_SERVING)
	broken.Store(false)
	tick(t, clk)
	until(healthpb.HealthCheckResponse_SERVING)
}

func TestHealthAnswersAsTheProtocolSays(t *testing.T) {
	h := kittest.Start(t, echo.Handlers{}.Register)
	client := healthpb.NewHealthClient(h.AsService("orders"))
	if _, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "nobody.v1.None"}); status.Code(err) != codes.NotFound {
		t.Errorf("an unknown service: %v, want NotFound", err)
	}
	ctx, leave := context.WithCancel(t.Context())
	watch, err := client.Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	leave()
	if err := h.Stop(); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(h.Log.String(), `"level":"ERROR"`) {
		t.Errorf("a watcher that leaves is no error of ours:\n%s", h.Log)
	}
}

// tick lets the server ask its checks once more.
func tick(t *testing.T, clk *clocktest.Manual) {
	t.Helper()
	if err := clk.WaitPending(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	clk.Advance(time.Minute)
}

func TestEveryAnswerOfThePathHasAReasonInTheContract(t *testing.T) {
	for _, f := range server.Faults {
		if _, ok := policyv1.ErrorReason_value["ERROR_REASON_"+f.Reason()]; !ok || f.Domain() != fault.Domain || f.Valid() != nil {
			t.Errorf("%s of %q is not in policy.v1.ErrorReason", f.Reason(), f.Domain())
		}
	}
}
