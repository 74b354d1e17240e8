package client_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	policyv1 "github.com/concordat-dev/concordat/gen/go/policy/v1"
	"github.com/concordat-dev/concordat/kit/client"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/kittest/echo"
)

// dial returns a connection of the service orders to a harness that serves echo on a port.
func dial(t *testing.T, h *kittest.Harness, target string, change func(*client.Config)) *grpc.ClientConn {
	t.Helper()
	cfg := client.Config{
		Target: target, Server: "echo", Identity: h.Identity("orders"), Services: []protoreflect.ServiceDescriptor{echo.Contract()},
	}
	change(&cfg)
	conn, err := client.Dial(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestACallIsRepeatedWhenTheServerSays(t *testing.T) {
	busy := fault.New(fault.ResourceExhausted, "BUSY", "come back")
	atWork := fault.New(fault.Aborted, "AT_WORK", "the first is still at work")
	down := fault.New(fault.Unavailable, "DOWN", "come back")
	for name, tc := range map[string]struct {
		method  string
		answer  *fault.Fault
		trailer string // grpc-retry-pushback-ms
		calls   int32
		least   time.Duration
	}{
		"after the time that it says":                           {echo.Keyed, busy.WithRetryAfter(60 * time.Millisecond), "60", 3, 120 * time.Millisecond},
		"after another code that the policy names":              {echo.Keyed, atWork.WithRetryAfter(1500 * time.Microsecond), "2", 3, 4 * time.Millisecond},
		"later than the policy says, where it says so":          {echo.Public, down.WithRetryAfter(300 * time.Millisecond), "300", 3, 600 * time.Millisecond},
		"when the policy says, where it says nothing":           {echo.Public, down, "", 3, 100 * time.Millisecond},
		"never, where it must and says nothing":                 {echo.Keyed, busy, "-1", 1, 0},
		"never, where it must and says nothing of another code": {echo.Keyed, atWork, "-1", 1, 0},
		"never, where that would be too late":                   {echo.Keyed, busy.WithRetryAfter(time.Hour), "-1", 1, 0},
		"never, where that would be too late, whatever failed":  {echo.Public, down.WithRetryAfter(time.Hour), "-1", 1, 0},
		"never, where the policy does not name the code":        {echo.Public, busy.WithRetryAfter(time.Millisecond), "1", 1, 0},
		"never, where the policy has no repetitions":            {echo.Packed, down.WithRetryAfter(time.Hour), "3600000", 1, 0},
		"never, where nobody says anything":                     {echo.Packed, busy, "", 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var calls atomic.Int32
			conn, _ := serve(t, echo.Handlers{Unary: func(context.Context, proto.Message) (proto.Message, error) {
				calls.Add(1)
				return nil, tc.answer
			}}, "echo")
			var trailer metadata.MD
			start := time.Now()
			_, err := echo.Call(t, conn, tc.method, "", "key", grpc.Trailer(&trailer))
			took := time.Since(start)
			// The policy's pauses vary by a fifth.
			if !errors.Is(err, tc.answer) || calls.Load() != tc.calls || took < tc.least*4/5 {
				t.Errorf("%v after %d calls and %v; want %s after %d calls and at least %v", err, calls.Load(), took, tc.answer.Reason(), tc.calls, tc.least)
			}
			if got := strings.Join(trailer.Get("grpc-retry-pushback-ms"), ","); got != tc.trailer {
				t.Errorf("the trailer says %q, want %q", got, tc.trailer)
			}
			if f, _ := fault.As(err); f.RetryAfter() != tc.answer.RetryAfter() {
				t.Errorf("the answer says %v, want %v", f.RetryAfter(), tc.answer.RetryAfter())
			}
		})
	}
}

func TestACallThatMayBeRepeatedIsNotSentWithoutItsKey(t *testing.T) {
	var calls atomic.Int32
	conn, _ := serve(t, echo.Handlers{
		Unary:   func(_ context.Context, m proto.Message) (proto.Message, error) { calls.Add(1); return m, nil },
		Collect: func(s grpc.ServerStream) error { calls.Add(1); <-s.Context().Done(); return s.Context().Err() },
	}, "echo")
	_, err := echo.Call(t, conn, echo.Keyed, "hi", "")
	kittest.WantViolations(t, kittest.WantFault(t, err, codes.InvalidArgument, "INVALID_REQUEST"), "owner")
	if calls.Load() != 0 {
		t.Error("it was sent")
	}
	if got, err := echo.Call(t, conn, echo.Keyed, "hi", "key"); err != nil || got != "hi" {
		t.Errorf("with its key: %q, %v", got, err)
	}
	// A stream ends at the message that lacks it.
	s, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, echo.Feed)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SendMsg(echo.Message("", "key")); err != nil {
		t.Fatal(err)
	}
	kittest.WantFault(t, s.SendMsg(echo.Message("", "")), codes.InvalidArgument, "INVALID_REQUEST")
	if s.Context().Err() == nil {
		t.Error("the stream goes on")
	}
	kittest.WantFault(t, s.RecvMsg(echo.Message("", "")), codes.InvalidArgument, "INVALID_REQUEST")
}

// foreign is a context that package context does not know: for each context below it that has not ended it keeps a goroutine.
type foreign struct{ context.Context }

func (foreign) Done() <-chan struct{} { return make(chan struct{}) }

func TestAStreamWithKeysThatWentWellLeavesNothingBehind(t *testing.T) {
	conn, _ := serve(t, echo.Handlers{Collect: func(s grpc.ServerStream) error {
		for {
			if err := s.RecvMsg(echo.Message("", "")); err == io.EOF {
				return s.SendMsg(echo.Message("", ""))
			} else if err != nil {
				return err
			}
		}
	}}, "echo")
	s, err := conn.NewStream(foreign{t.Context()}, &grpc.StreamDesc{ClientStreams: true}, echo.Feed)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.SendMsg(echo.Message("", "key")), s.CloseSend(), s.RecvMsg(echo.Message("", ""))); err != nil {
		t.Fatal(err)
	}
	stacks := make([]byte, 1<<20)
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); runtime.Gosched() {
		if !strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "propagateCancel") {
			return
		}
	}
	t.Error("a context of the call has not ended")
}

func TestACallHasWhatIsLeftOfTheCallThatItIsMadeFor(t *testing.T) {
	left := make(chan time.Duration, 1)
	conn, _ := serve(t, echo.Handlers{Unary: func(ctx context.Context, m proto.Message) (proto.Message, error) {
		d, _ := ctx.Deadline()
		left <- time.Until(d)
		return m, nil
	}}, "echo")
	invoke := func(ctx context.Context) error {
		return conn.Invoke(ctx, echo.Public, echo.Message("", ""), echo.Message("", ""))
	}
	if err := invoke(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := <-left; d > 2*time.Second || d < time.Second {
		t.Errorf("with a deadline of nobody's, %v are left, want nearly the 2 s of the policy", d)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := invoke(ctx); err != nil {
		t.Fatal(err)
	}
	if d := <-left; d > 500*time.Millisecond {
		t.Errorf("of 500 ms, %v are left", d)
	}
	for name, make := range map[string]func() (context.Context, context.CancelFunc){
		"over": func() (context.Context, context.CancelFunc) { return context.WithTimeout(t.Context(), -time.Second) },
		"hopeless": func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(t.Context(), time.Millisecond)
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := make()
			defer cancel()
			f := kittest.WantFault(t, invoke(ctx), codes.DeadlineExceeded, "DEADLINE_TOO_SHORT")
			_, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, echo.Watch)
			kittest.WantFault(t, err, codes.DeadlineExceeded, "DEADLINE_TOO_SHORT")
			if f.Domain() != fault.Domain || len(left) != 0 {
				t.Errorf("domain %s, %d calls arrived", f.Domain(), len(left))
			}
		})
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	kittest.WantFault(t, invoke(gone), codes.Canceled, "CANCELED")
	if len(left) != 0 {
		t.Error("a call whose caller has gone was sent")
	}
}

// encodings notes how messages are compressed each way.
type encodings struct{ out, in string }

func (*encodings) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (*encodings) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*encodings) HandleConn(context.Context, stats.ConnStats)                       {}
func (e *encodings) HandleRPC(_ context.Context, s stats.RPCStats) {
	switch s := s.(type) {
	case *stats.OutHeader:
		if strings.HasPrefix(s.FullMethod, "/echo.") {
			e.out = s.Compression
		}
	case *stats.InHeader:
		e.in = s.Compression
	}
}

func TestRequestsAreCompressedWhereThePolicySays(t *testing.T) {
	l := listen(t)
	h := kittest.Start(t, echo.Handlers{}.Register, func(o *kittest.Options) { o.Listener, o.Name = l, "echo" })
	for method, want := range map[string]string{echo.Packed: "gzip", echo.Public: ""} {
		var seen encodings
		conn := dial(t, h, "passthrough:///"+l.Addr().String(), func(c *client.Config) {
			// No balancer that checks health: the only stream is the call.
			c.Options = append(c.Options, grpc.WithStatsHandler(&seen), grpc.WithDisableHealthCheck())
		})
		if got, err := echo.Call(t, conn, method, "hi", strings.Repeat("x", 500)); err != nil || got != "hi" {
			t.Fatalf("%s: %q, %v", method, got, err)
		}
		if seen.out != want || seen.in != want {
			t.Errorf("%s: sent %q, answered %q, want %q", method, seen.out, seen.in, want)
		}
	}
}

func TestARequestLargerThanThePolicyAllowsIsNotSent(t *testing.T) {
	var calls atomic.Int32
	conn, _ := serve(t, echo.Handlers{Unary: func(_ context.Context, m proto.Message) (proto.Message, error) {
		calls.Add(1)
		return m, nil
	}}, "echo")
	// What gzip cannot make smaller: the client counts what it sends.
	noise := make([]byte, 3000)
	for i, x := 0, uint32(1); i < len(noise); i++ {
		x = x*1664525 + 1013904223
		noise[i] = ' ' + byte(x>>24)%94
	}
	_, err := echo.Call(t, conn, echo.Packed, "", string(noise))
	kittest.WantFault(t, err, codes.ResourceExhausted, "RESOURCE_EXHAUSTED")
	_, err = echo.Call(t, conn, echo.Public, "", strings.Repeat("x", 5<<20))
	kittest.WantFault(t, err, codes.ResourceExhausted, "RESOURCE_EXHAUSTED")
	if calls.Load() != 0 {
		t.Errorf("%d calls were sent", calls.Load())
	}
}

func TestACallSaysWhoMakesIt(t *testing.T) {
	seen := make(chan []string, 1)
	conn, _ := serve(t, echo.Handlers{Unary: func(ctx context.Context, m proto.Message) (proto.Message, error) {
		seen <- metadata.ValueFromIncomingContext(ctx, client.ClientHeader)
		return m, nil
	}}, "echo")
	for name, ctx := range map[string]context.Context{"by itself": t.Context(), "for another one": identity.WithRequestID(t.Context(), "r")} {
		if err := conn.Invoke(ctx, echo.Public, echo.Message("", ""), echo.Message("", "")); err != nil {
			t.Fatal(err)
		}
		if got := <-seen; len(got) != 1 || !strings.HasPrefix(got[0], "orders/") || got[0] == "orders/" {
			t.Errorf("%s, %s: %q", name, client.ClientHeader, got)
		}
	}
}

func TestATokenGoesToTheMethodsForUsersAlone(t *testing.T) {
	l := listen(t)
	h := kittest.Start(t, echo.Handlers{Unary: func(ctx context.Context, m proto.Message) (proto.Message, error) {
		c := identity.From(ctx)
		return echo.Message(c.UserID()+c.Service(), ""), nil
	}}.Register, func(o *kittest.Options) { o.Listener, o.Name = l, "echo" })
	var asked atomic.Int32
	source := func(context.Context) (string, error) { asked.Add(1); return h.Token("u1", "echo"), nil }
	conn := dial(t, h, "dns:///"+l.Addr().String(), func(c *client.Config) { c.Token = client.Token(source) })
	for _, tc := range []struct {
		method, owner, want string
		asked               int32
	}{
		{echo.Own, "u1", "u1", 1},
		{echo.Service, "", "orders", 0}, // with a token it would be refused
		{echo.Public, "", "", 0},
	} {
		asked.Store(0)
		if got, err := echo.Call(t, conn, tc.method, "", tc.owner); err != nil || got != tc.want || asked.Load() != tc.asked {
			t.Errorf("%s: %q, %v, %d tokens; want %q and %d tokens", tc.method, got, err, asked.Load(), tc.want, tc.asked)
		}
	}
}

func TestACallWhoseTokenCannotBeHadEndsWithTheReason(t *testing.T) {
	l := listen(t)
	h := kittest.Start(t, echo.Handlers{}.Register, func(o *kittest.Options) { o.Listener, o.Name = l, "echo" })
	down := fault.New(fault.Unavailable, "SIGN_IN_DOWN", "nobody signs in").WithDomain("auth.v1")
	for name, tc := range map[string]struct {
		token  string
		err    error
		code   codes.Code
		reason string
	}{
		"a fault":          {"", down, codes.Unavailable, "SIGN_IN_DOWN"},
		"any other error":  {"", errors.New("the file is gone"), codes.Unauthenticated, "CREDENTIALS_MISSING"},
		"no token":         {"", nil, codes.Unauthenticated, "CREDENTIALS_MISSING"},
		"one that is none": {"nonsense", nil, codes.Unauthenticated, "TOKEN_INVALID"},
	} {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, h, "dns:///"+l.Addr().String(), func(c *client.Config) {
				c.Token = client.Token(func(context.Context) (string, error) { return tc.token, tc.err })
			})
			_, err := echo.Call(t, conn, echo.Own, "", "u1")
			f := kittest.WantFault(t, err, tc.code, tc.reason)
			if name == "any other error" && (strings.Contains(f.Text(), "file") || !strings.Contains(err.Error(), "the file is gone")) {
				t.Errorf("text %q, error %q: the cause is for us alone", f.Text(), err)
			}
		})
	}
}

func TestATokenNeverGoesOverAConnectionThatIsNotEncrypted(t *testing.T) {
	l := listen(t)
	got := make(chan metadata.MD, 1)
	plain := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		md, _ := metadata.FromIncomingContext(s.Context())
		got <- md
		return nil
	}))
	healthpb.RegisterHealthServer(plain, health.NewServer())
	go func() { _ = plain.Serve(l) }()
	defer plain.Stop()
	secret := client.Token(func(context.Context) (string, error) { return "secret", nil })

	if _, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithPerRPCCredentials(secret)); err == nil {
		t.Error("a plain connection took the credentials")
	}
	h := kittest.Start(t, echo.Handlers{}.Register)
	conn := dial(t, h, "dns:///"+l.Addr().String(), func(c *client.Config) {
		c.Token = secret
		c.Options = append(c.Options, grpc.WithTransportCredentials(insecure.NewCredentials()))
	})
	_, err := echo.Call(t, conn, echo.Own, "", "u1")
	if kittest.WantFault(t, err, codes.Unauthenticated, "CREDENTIALS_MISSING"); len(got) != 0 {
		t.Errorf("it was sent: %v", <-got)
	}
	// And a connection that stays what Dial makes it does not speak plain at all.
	tlsOnly := dial(t, h, "dns:///"+l.Addr().String(), func(c *client.Config) { c.Token = secret })
	_, err = echo.Call(t, tlsOnly, echo.Own, "", "u1")
	if kittest.WantFault(t, err, codes.Unavailable, "UPSTREAM_UNAVAILABLE"); len(got) != 0 {
		t.Errorf("it was sent: %v", <-got)
	}
}

func TestAStaticTargetThatCannotBeIsRefusedAtOnce(t *testing.T) {
	h := kittest.Start(t, echo.Handlers{}.Register)
	for target, want := range map[string]string{
		"static:///":                        "missing port",
		"static:///a:1,":                    "missing port",
		"static:///a:1,b":                   "missing port",
		"static:///a:1,:2":                  "not host:port",
		"static:///a:0":                     "not host:port",
		"static:///a:x":                     "not host:port",
		"static:///a:70000":                 "not host:port",
		"static:///a:1,b:2,a:1":             "twice",
		"static://a:1,b:2":                  "looks like",
		"static:a:1":                        "looks like",
		"static:///[::1]:50051,[::2]:50051": "",
	} {
		conn, err := client.Dial(client.Config{Target: target, Server: "echo", Identity: h.Identity("orders"), Services: []protoreflect.ServiceDescriptor{echo.Contract()}})
		if err == nil {
			_ = conn.Close()
		}
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", target, err, want)
		}
	}
}

func TestErrorsOfStreamsAreFaultsWhereverTheyShow(t *testing.T) {
	taken := fault.New(fault.AlreadyExists, "EMAIL_TAKEN", "the email is taken").With("index", "1")
	conn, _ := serve(t, echo.Handlers{
		// Collect ends after the first message, whatever the client goes on to send.
		Collect: func(s grpc.ServerStream) error {
			if err := s.RecvMsg(echo.Message("", "")); err != nil {
				return err
			}
			return taken
		},
		Chat: func(s grpc.ServerStream) error {
			if err := errors.Join(s.RecvMsg(echo.Message("", "")), s.SendMsg(echo.Message("one", ""))); err != nil {
				return err
			}
			return taken
		},
		Watch: func(_ proto.Message, s grpc.ServerStream) error { return taken },
	}, "echo")
	check := func(t *testing.T, err error) {
		t.Helper()
		f, ok := fault.As(err)
		if !ok || !errors.Is(err, taken.WithDomain("echo.v1")) || f.Metadata()["index"] != "1" {
			t.Errorf("%v is not EMAIL_TAKEN of echo.v1 with its metadata", err)
		}
	}
	t.Run("CloseAndRecv, after SendMsg has found that the call is over", func(t *testing.T) {
		s, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, echo.Collect)
		if err != nil {
			t.Fatal(err)
		}
		// As generated code has it; the messages look alike on the wire.
		typed := &grpc.GenericClientStream[policyv1.Self, policyv1.Self]{ClientStream: s}
		for err == nil {
			err = typed.Send(&policyv1.Self{})
		}
		if err != io.EOF {
			t.Errorf("Send returned %v, want io.EOF", err)
		}
		_, err = typed.CloseAndRecv()
		check(t, err)
	})
	t.Run("RecvMsg after a message", func(t *testing.T) {
		s, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, echo.Chat)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.SendMsg(echo.Message("", "")), s.RecvMsg(echo.Message("", ""))); err != nil {
			t.Fatal(err)
		}
		check(t, s.RecvMsg(echo.Message("", "")))
	})
	t.Run("Header of a call that has none", func(t *testing.T) {
		s, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, echo.Watch)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.SendMsg(echo.Message("", "")), s.CloseSend()); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Header(); err != nil {
			check(t, err)
		}
		check(t, s.RecvMsg(echo.Message("", "")))
		if _, ok := s.Trailer()[client.RequestIDHeader]; !ok {
			t.Errorf("trailers %v have no request id", s.Trailer())
		}
	})
	t.Run("a call whose caller leaves", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, echo.Chat)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		kittest.WantFault(t, s.RecvMsg(echo.Message("", "")), codes.Canceled, "CANCELED")
	})
}
