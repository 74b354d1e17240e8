package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/concordat-dev/concordat/kit/client"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/kittest/echo"
	"github.com/concordat-dev/concordat/kit/policy"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serve runs echo.v1 on a port and returns a connection of the service orders to it.
func serve(t *testing.T, h echo.Handlers, server string) (*grpc.ClientConn, *kittest.Harness) {
	t.Helper()
	l := listen(t)
	harness := kittest.Start(t, h.Register, func(o *kittest.Options) { o.Listener, o.Name = l, "echo" })
	conn, err := client.Dial(client.Config{
		Target: "dns:///" + l.Addr().String(), Server: server, Identity: harness.Identity("orders"),
		Services: []protoreflect.ServiceDescriptor{echo.Contract()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn, harness
}

func TestACallThatFailedForTheMomentIsRepeatedWhereThePolicyAllows(t *testing.T) {
	var calls atomic.Int32
	busy := fault.New(fault.Unavailable, "BUSY", "come back")
	conn, _ := serve(t, echo.Handlers{Unary: func(_ context.Context, m proto.Message) (proto.Message, error) {
		if calls.Add(1) < 3 {
			return nil, busy
		}
		return m, nil
	}}, "echo")
	if got, err := echo.Call(t, conn, echo.Public, "hi", ""); err != nil || got != "hi" || calls.Load() != 3 {
		t.Errorf("with a retry policy: %q, %v after %d calls; want hi after 3", got, err, calls.Load())
	}
	calls.Store(0)
	_, err := echo.Call(t, conn, echo.Service, "hi", "")
	if kittest.WantFault(t, err, codes.Unavailable, "BUSY"); calls.Load() != 1 {
		t.Errorf("without one: %d calls, want 1", calls.Load())
	}
}

func TestAnErrorArrivesAsTheFaultThatItWas(t *testing.T) {
	taken := fault.New(fault.AlreadyExists, "EMAIL_TAKEN", "the email is taken")
	conn, _ := serve(t, echo.Handlers{
		Unary: func(context.Context, proto.Message) (proto.Message, error) { return nil, taken },
		Watch: func(proto.Message, grpc.ServerStream) error { return taken },
	}, "echo")
	_, err := echo.Call(t, conn, echo.Public, "", "")
	if !errors.Is(err, taken.WithDomain("echo.v1")) {
		t.Errorf("unary: %v is not EMAIL_TAKEN of echo.v1", err)
	}
	s, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, echo.Watch)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.SendMsg(echo.Message("", "")), s.CloseSend()); err != nil {
		t.Fatal(err)
	}
	if err := s.RecvMsg(echo.Message("", "")); !errors.Is(err, taken) {
		t.Errorf("stream: %v is not EMAIL_TAKEN", err)
	}
}

func TestAServerOfAnotherNameIsNotTalkedTo(t *testing.T) {
	var calls atomic.Int32
	conn, _ := serve(t, echo.Handlers{Unary: func(_ context.Context, m proto.Message) (proto.Message, error) {
		calls.Add(1)
		return m, nil
	}}, "payments")
	_, err := echo.Call(t, conn, echo.Public, "", "")
	f := kittest.WantFault(t, err, codes.Unavailable, "UPSTREAM_UNAVAILABLE")
	if f.Metadata()["upstream"] != "payments" || calls.Load() != 0 {
		t.Errorf("metadata %v, %d calls", f.Metadata(), calls.Load())
	}
}

func TestTheRequestIDTravelsOn(t *testing.T) {
	seen := make(chan string, 1)
	conn, _ := serve(t, echo.Handlers{Unary: func(ctx context.Context, m proto.Message) (proto.Message, error) {
		seen <- identity.RequestID(ctx)
		return m, nil
	}}, "echo")
	ctx := identity.WithRequestID(t.Context(), "request-7")
	if err := conn.Invoke(ctx, echo.Public, echo.Message("", ""), echo.Message("", "")); err != nil {
		t.Fatal(err)
	}
	if got := <-seen; got != "request-7" {
		t.Errorf("request id %q", got)
	}
}

func TestAServiceThatIsNotThereYetIsFoundOnceItIs(t *testing.T) {
	l := listen(t)
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	first := kittest.Start(t, echo.Handlers{}.Register, func(o *kittest.Options) { o.Dir = dir }) // for its certificates
	conn, err := client.Dial(client.Config{
		Target: "dns:///" + address, Server: "echo", Identity: first.Identity("orders"), Services: []protoreflect.ServiceDescriptor{echo.Contract()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = echo.Call(t, conn, echo.Service, "", "")
	kittest.WantFault(t, err, codes.Unavailable, "UPSTREAM_UNAVAILABLE")
	if l, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	kittest.Start(t, echo.Handlers{}.Register, func(o *kittest.Options) { o.Listener, o.Name, o.Dir = l, "echo", dir })
	if err := conn.Invoke(t.Context(), echo.Public, echo.Message("", ""), echo.Message("", ""), grpc.WaitForReady(true)); err != nil {
		t.Errorf("once it is there: %v", err)
	}
}

func TestTheServiceConfigIsThePolicys(t *testing.T) {
	table, err := policy.Compile(echo.Contract())
	if err != nil {
		t.Fatal(err)
	}
	text, err := client.ServiceConfig(table)
	if err != nil {
		t.Fatal(err)
	}
	var cfg struct {
		LoadBalancingConfig []map[string]any
		MethodConfig        []struct {
			Name                   []struct{ Service, Method string }
			Timeout                string
			MaxRequestMessageBytes int
			RetryPolicy            *struct {
				MaxAttempts                int
				InitialBackoff, MaxBackoff string
				BackoffMultiplier          float64
				RetryableStatusCodes       []string
			}
		}
		RetryThrottling struct{ MaxTokens, TokenRatio float64 }
	}
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		t.Fatal(err)
	}
	if _, ok := cfg.LoadBalancingConfig[0]["round_robin"]; !ok {
		t.Errorf("balancing: %v", cfg.LoadBalancingConfig)
	}
	if cfg.RetryThrottling.MaxTokens != 100 || cfg.RetryThrottling.TokenRatio != 0.1 {
		t.Errorf("throttling: %v", cfg.RetryThrottling)
	}
	got := map[string]string{}
	for _, m := range cfg.MethodConfig {
		retry := "never"
		if r := m.RetryPolicy; r != nil {
			retry = fmt.Sprintf("%d %s %s %g %v", r.MaxAttempts, r.InitialBackoff, r.MaxBackoff, r.BackoffMultiplier, r.RetryableStatusCodes)
		}
		got[m.Name[0].Method] = fmt.Sprint(m.Timeout, " ", m.MaxRequestMessageBytes, " ", retry)
	}
	for method, want := range map[string]string{
		"Public": "2s 4194304 3 0.05s 1s 2 [UNAVAILABLE]",
		"Keyed":  "2s 4194304 3 0.001s 0.002s 1.5 [UNAVAILABLE RESOURCE_EXHAUSTED ABORTED]",
		"Own":    "2s 4194304 never",
		"Hedged": "2s 4194304 never",
		"Packed": "2s 1000 never",
		"Watch":  " 4194304 never",
	} {
		if got[method] != want {
			t.Errorf("%s: %q, want %q", method, got[method], want)
		}
	}
}
