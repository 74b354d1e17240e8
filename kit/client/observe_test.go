package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/concordat-dev/concordat/kit/client"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/kittest/echo"
	"github.com/concordat-dev/concordat/kit/telemetry"
)

// told is what one process tells of itself.
type told struct {
	t        *testing.T
	tele     *telemetry.Telemetry
	exporter *tracetest.InMemoryExporter
}

// kept is an exporter that does not forget when it is shut down.
type kept struct{ *tracetest.InMemoryExporter }

func (kept) Shutdown(context.Context) error { return nil }

func tell(t *testing.T, ratio float64, options ...func(*telemetry.Config)) *told {
	t.Helper()
	tt := &told{t: t, exporter: tracetest.NewInMemoryExporter()}
	cfg := telemetry.Config{
		Registry: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler), Now: time.Now, Random: rand.Uint64,
		TraceRatio: ratio, Exporter: kept{tt.exporter},
	}
	for _, o := range options {
		o(&cfg)
	}
	var err error
	if tt.tele, err = telemetry.New(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	return tt
}

func (tt *told) service(name string) *telemetry.Service {
	tt.t.Helper()
	s, err := tt.tele.Service(name)
	if err != nil {
		tt.t.Fatal(err)
	}
	return s
}

// serve runs echo.v1 on a port, and returns a connection of the service orders to it that tells of its calls.
func (tt *told) serve(h echo.Handlers, options ...func(*kittest.Options)) (*grpc.ClientConn, *kittest.Harness, net.Addr) {
	tt.t.Helper()
	l := listen(tt.t)
	harness := kittest.Start(tt.t, h.Register, append(options, func(o *kittest.Options) { o.Listener, o.Name = l, "echo" })...)
	conn := dial(tt.t, harness, "dns:///"+l.Addr().String(), func(c *client.Config) { c.Telemetry = tt.service("orders") })
	return conn, harness, l.Addr()
}

// inMemory is serve without a port, for a bubble of package synctest.
func (tt *told) inMemory(h echo.Handlers) *grpc.ClientConn {
	tt.t.Helper()
	tt.t.Cleanup(func() { _ = tt.tele.Shutdown(context.Background()) }) // what runs in a bubble ends with it
	memory := bufconn.Listen(1 << 20)
	harness := kittest.Start(tt.t, h.Register, func(o *kittest.Options) { o.Listener, o.Name = memory, "echo" })
	return dial(tt.t, harness, "passthrough:///echo", func(c *client.Config) {
		c.Telemetry = tt.service("orders")
		c.Options = []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return memory.DialContext(ctx) })}
	})
}

// inBubble has a test run in a bubble of package synctest.
func inBubble(test func(t *testing.T)) func(t *testing.T) {
	return func(t *testing.T) { synctest.Test(t, test) }
}

// spans returns the spans of the process, which ends with it.
func (tt *told) spans(kind trace.SpanKind) []tracetest.SpanStub {
	tt.t.Helper()
	if err := tt.tele.Shutdown(tt.t.Context()); err != nil {
		tt.t.Fatal(err)
	}
	return slices.DeleteFunc(tt.exporter.GetSpans(), func(s tracetest.SpanStub) bool { return s.SpanKind != kind })
}

// want fails the test unless the metrics of the client are these, of those that are not 0: name, labels, value.
func (tt *told) want(lines ...string) {
	tt.t.Helper()
	families, err := tt.tele.Registry().Gather()
	if err != nil {
		tt.t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		name, ok := strings.CutPrefix(f.GetName(), "grpc_client_")
		if !ok {
			continue
		}
		for _, m := range f.GetMetric() {
			value := m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			if value == 0 {
				continue
			}
			labels := make(map[string]string)
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["service"] != "orders" {
				tt.t.Errorf("%s is of %q", f.GetName(), labels["service"])
			}
			got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s %v %s", name, labels["grpc_type"],
				labels["grpc_service"]+"/"+labels["grpc_method"], value, labels["grpc_code"])))
		}
	}
	slices.Sort(got)
	slices.Sort(lines)
	if !slices.Equal(got, lines) {
		tt.t.Errorf("metrics\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(lines, "\n"))
	}
}

func TestACallThatIsMadeIsCountedOnceHoweverOftenItIsSent(t *testing.T) {
	busy := fault.New(fault.Unavailable, "BUSY", "come back")
	ok := func(method string) []string {
		m := "unary echo.v1.EchoService/" + method
		return []string{
			"started_total " + m + " 1", "msg_sent_total " + m + " 1", "msg_received_total " + m + " 1", "handling_seconds " + m + " 1", "handled_total " + m + " 1 OK",
		}
	}
	t.Run("repeated", func(t *testing.T) {
		tt := tell(t, 0)
		var sent atomic.Int32
		conn, _, _ := tt.serve(echo.Handlers{Unary: func(_ context.Context, m proto.Message) (proto.Message, error) {
			if sent.Add(1) < 3 {
				return nil, busy
			}
			return m, nil
		}})
		if _, err := echo.Call(t, conn, echo.Public, "hi", ""); err != nil || sent.Load() != 3 {
			t.Fatalf("%v after %d", err, sent.Load())
		}
		tt.want(ok("Public")...)
	})
	t.Run("hedged", func(t *testing.T) {
		tt := tell(t, 0)
		var sent atomic.Int32
		conn, _, _ := tt.serve(echo.Handlers{Unary: func(ctx context.Context, m proto.Message) (proto.Message, error) {
			if sent.Add(1) == 1 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return m, nil
		}})
		if _, err := echo.Call(t, conn, echo.Hedged, "hi", ""); err != nil || sent.Load() < 2 {
			t.Fatalf("%v after %d", err, sent.Load())
		}
		tt.want(ok("Hedged")...)
	})
	t.Run("refused before it is sent, by the other side, and of no contract", func(t *testing.T) {
		tt := tell(t, 0)
		conn, _, _ := tt.serve(echo.Handlers{Unary: func(context.Context, proto.Message) (proto.Message, error) {
			return nil, fault.New(fault.NotFound, "GONE", "no such thing")
		}})
		_, err := echo.Call(t, conn, echo.Keyed, "hi", "")
		kittest.WantFault(t, err, codes.InvalidArgument, "INVALID_REQUEST")
		_, err = echo.Call(t, conn, echo.Public, "hi", "")
		kittest.WantFault(t, err, codes.NotFound, "GONE")
		if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
		tt.want(
			"started_total unary echo.v1.EchoService/Keyed 1", "handling_seconds unary echo.v1.EchoService/Keyed 1", "handled_total unary echo.v1.EchoService/Keyed 1 InvalidArgument",
			"started_total unary echo.v1.EchoService/Public 1", "msg_sent_total unary echo.v1.EchoService/Public 1",
			"handling_seconds unary echo.v1.EchoService/Public 1", "handled_total unary echo.v1.EchoService/Public 1 NotFound",
			"started_total unary _OTHER/_OTHER 1", "msg_sent_total unary _OTHER/_OTHER 1", "msg_received_total unary _OTHER/_OTHER 1",
			"handling_seconds unary _OTHER/_OTHER 1", "handled_total unary _OTHER/_OTHER 1 OK",
		)
	})
	t.Run("a stream that cannot be opened", func(t *testing.T) {
		tt := tell(t, 0)
		_, h, _ := tt.serve(echo.Handlers{})
		l := listen(t)
		if err := l.Close(); err != nil { // nobody is there
			t.Fatal(err)
		}
		conn := dial(t, h, "passthrough:///"+l.Addr().String(), func(c *client.Config) { c.Telemetry = tt.service("orders") })
		_, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, echo.Watch)
		kittest.WantFault(t, err, codes.Unavailable, "UPSTREAM_UNAVAILABLE")
		m := "server_stream echo.v1.EchoService/Watch 1"
		tt.want("started_total "+m, "handling_seconds "+m, "handled_total "+m+" Unavailable")
	})
	t.Run("streams", inBubble(func(t *testing.T) {
		tt := tell(t, 0)
		conn := tt.inMemory(echo.Handlers{Chat: echo.Back, Watch: func(m proto.Message, s grpc.ServerStream) error {
			return errors.Join(s.SendMsg(m), s.SendMsg(m), busy)
		}, Collect: func(s grpc.ServerStream) error { <-s.Context().Done(); return s.Context().Err() }})
		s, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, echo.Watch)
		if err := errors.Join(err, s.SendMsg(echo.Message("", "")), s.CloseSend()); err != nil {
			t.Fatal(err)
		}
		for err == nil {
			err = s.RecvMsg(echo.Message("", ""))
		}
		ctx, leave := context.WithCancel(t.Context())
		s, err = conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, echo.Chat)
		if err := errors.Join(err, s.SendMsg(echo.Message("", "")), s.RecvMsg(echo.Message("", ""))); err != nil {
			t.Fatal(err)
		}
		leave() // and looks at it no more
		<-s.Context().Done()
		s, err = conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, echo.Feed)
		if err != nil {
			t.Fatal(err)
		}
		kittest.WantFault(t, s.SendMsg(echo.Message("", "")), codes.InvalidArgument, "INVALID_REQUEST") // it lacks its key
		chat, feed, watch := "bidi_stream echo.v1.EchoService/Chat", "client_stream echo.v1.EchoService/Feed", "server_stream echo.v1.EchoService/Watch"
		synctest.Wait() // a call that nobody looks at ends by itself, in its own time
		tt.want(
			"started_total "+watch+" 1", "msg_sent_total "+watch+" 1", "msg_received_total "+watch+" 2", "handling_seconds "+watch+" 1", "handled_total "+watch+" 1 Unavailable",
			"started_total "+chat+" 1", "msg_sent_total "+chat+" 1", "msg_received_total "+chat+" 1", "handling_seconds "+chat+" 1", "handled_total "+chat+" 1 Canceled",
			"started_total "+feed+" 1", "handling_seconds "+feed+" 1", "handled_total "+feed+" 1 InvalidArgument",
		)
	}))
}

// describe prints a span as one reads it.
func describe(s tracetest.SpanStub) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nkind %s\nstatus %v %q\n", s.Name, s.SpanKind, s.Status.Code, s.Status.Description)
	attrs := slices.Clone(s.Attributes)
	slices.SortFunc(attrs, func(a, b attribute.KeyValue) int { return strings.Compare(string(a.Key), string(b.Key)) })
	for _, a := range attrs {
		fmt.Fprintf(&b, "  %s = %s\n", a.Key, a.Value.String())
	}
	return b.String()
}

const (
	traceID   = "0af7651916cd43dd8448eb211c80319c"
	sampled   = "00-" + traceID + "-b7ad6b7169203331-01"
	unsampled = "00-" + traceID + "-b7ad6b7169203331-00"
)

func TestACallWithinATraceHasASpanBetweenItsTwoEnds(t *testing.T) {
	first, second := tell(t, 0), tell(t, 0)
	conn, callee, addr := first.serve(echo.Handlers{
		Unary: func(_ context.Context, m proto.Message) (proto.Message, error) {
			if echo.TextOf(m) == "fail" {
				return nil, fault.New(fault.NotFound, "GONE", "no such thing")
			}
			return m, nil
		},
		Watch: func(m proto.Message, s grpc.ServerStream) error { return s.SendMsg(m) },
	}, func(o *kittest.Options) { o.Telemetry = second.tele })
	caller := kittest.Start(t, echo.Handlers{Unary: func(ctx context.Context, m proto.Message) (proto.Message, error) {
		if err := conn.Invoke(ctx, echo.Hedged, echo.Message("hi", ""), echo.Message("", "")); err != nil {
			return nil, err
		}
		_ = conn.Invoke(ctx, echo.Public, echo.Message("fail", ""), echo.Message("", ""))
		s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, echo.Watch)
		if err := errors.Join(err, s.SendMsg(m), s.CloseSend()); err != nil {
			return nil, err
		}
		for err == nil {
			err = s.RecvMsg(echo.Message("", ""))
		}
		if err != io.EOF {
			return nil, err
		}
		return m, nil
	}}.Register, func(o *kittest.Options) { o.Telemetry = first.tele })
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", sampled, "tracestate", "vendor=1")
	if err := caller.Anonymous().Invoke(ctx, echo.Public, echo.Message("", ""), echo.Message("", "")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(caller.Stop(), callee.Stop()); err != nil {
		t.Fatal(err)
	}
	made, asked, served := first.spans(trace.SpanKindClient), first.exporter.GetSpans(), second.spans(trace.SpanKindServer)
	i := slices.IndexFunc(asked, func(s tracetest.SpanStub) bool { return s.SpanKind == trace.SpanKindServer })
	if len(made) != 3 || i < 0 {
		t.Fatalf("%d spans of calls made, %d of calls served", len(made), len(served))
	}
	host, port, _ := net.SplitHostPort(addr.String())
	at := fmt.Sprintf("  server.address = %s\n  server.port = %s\n", host, port)
	peer := fmt.Sprintf("  network.peer.address = %s\n  network.peer.port = %s\n", host, port)
	want := []string{
		"echo.v1.EchoService/Hedged\nkind client\nstatus Unset \"\"\n" + peer +
			"  rpc.grpc.status_code = 0\n  rpc.method = Hedged\n  rpc.service = echo.v1.EchoService\n  rpc.system = grpc\n" + at,
		"echo.v1.EchoService/Public\nkind client\nstatus Error \"\"\n  error.type = GONE\n" + peer +
			"  rpc.grpc.status_code = 5\n  rpc.method = Public\n  rpc.service = echo.v1.EchoService\n  rpc.system = grpc\n" + at,
		"echo.v1.EchoService/Watch\nkind client\nstatus Unset \"\"\n" + peer +
			"  rpc.grpc.status_code = 0\n  rpc.method = Watch\n  rpc.service = echo.v1.EchoService\n  rpc.system = grpc\n" + at,
	}
	for n, s := range made {
		if got := describe(s); got != want[n] {
			t.Errorf("span %d:\n%s\nwant:\n%s", n, got, want[n])
		}
		if s.Parent.SpanID() != asked[i].SpanContext.SpanID() || s.SpanContext.TraceID().String() != traceID {
			t.Errorf("%s is below %s in %s, not below the call that it was made for", s.Name, s.Parent.SpanID(), s.SpanContext.TraceID())
		}
		n := 0
		for _, o := range served { // a hedge may be served twice
			if o.Name != s.Name {
				continue
			}
			if n++; o.Parent.SpanID() != s.SpanContext.SpanID() || o.SpanContext.TraceState().String() != "vendor=1" {
				t.Errorf("what served %s is not below it: %s", s.Name, describe(o))
			}
		}
		if n == 0 {
			t.Errorf("nothing served %s", s.Name)
		}
	}
}

func TestWhoeverBeginsATraceDecidesForTheCallsToo(t *testing.T) {
	for name, tc := range map[string]struct {
		parent       string
		ratio        float64 // of the caller; that of the callee is 1
		sampler      string  // of the caller: OTEL_TRACES_SAMPLER
		made, served int
		suffix       string // of traceparent
	}{
		"within a call that is not recorded":             {unsampled, 1, "", 0, 0, "-00"},
		"for nobody, and all are recorded":               {"", 1, "", 1, 1, "-01"},
		"for nobody, and none are recorded":              {"", 0, "", 0, 0, "-00"},
		"within one that began and was passed":           {"begun", 0, "", 0, 0, "-00"},
		"within one that is recorded, but not from here": {sampled, 1, "always_off", 0, 0, "-00"},
	} {
		t.Run(name, func(t *testing.T) {
			first, second := tell(t, tc.ratio, func(c *telemetry.Config) {
				c.Getenv = func(name string) string { return map[string]string{"OTEL_TRACES_SAMPLER": tc.sampler}[name] }
			}), tell(t, 1)
			var seen atomic.Value
			conn, callee, _ := first.serve(echo.Handlers{Unary: func(ctx context.Context, m proto.Message) (proto.Message, error) {
				md, _ := metadata.FromIncomingContext(ctx)
				seen.Store(md.Get("traceparent"))
				return m, nil
			}}, func(o *kittest.Options) { o.Telemetry = second.tele })
			call := func(ctx context.Context) error {
				return conn.Invoke(ctx, echo.Public, echo.Message("", ""), echo.Message("", ""))
			}
			if tc.parent == "" {
				if err := call(t.Context()); err != nil {
					t.Fatal(err)
				}
				if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
					t.Fatal(err) // which begins none
				}
			} else {
				caller := kittest.Start(t, echo.Handlers{Unary: func(ctx context.Context, m proto.Message) (proto.Message, error) {
					return m, call(ctx)
				}}.Register, func(o *kittest.Options) { o.Telemetry = first.tele })
				ctx := t.Context()
				if tc.parent != "begun" {
					ctx = metadata.AppendToOutgoingContext(ctx, "traceparent", tc.parent)
				}
				if err := caller.Anonymous().Invoke(ctx, echo.Public, echo.Message("", ""), echo.Message("", "")); err != nil {
					t.Fatal(err)
				}
			}
			parents, _ := seen.Load().([]string)
			if len(parents) != 1 || !strings.HasSuffix(parents[0], tc.suffix) {
				t.Errorf("traceparent %v, want one that ends in %s", parents, tc.suffix)
			}
			if err := callee.Stop(); err != nil {
				t.Fatal(err)
			}
			made := first.spans(trace.SpanKindClient)
			served := slices.DeleteFunc(second.spans(trace.SpanKindServer), func(s tracetest.SpanStub) bool { return !strings.HasPrefix(s.Name, "echo.") })
			if len(made) != tc.made || len(served) != tc.served {
				t.Fatalf("%d spans of calls made and %d of calls served, want %d and %d", len(made), len(served), tc.made, tc.served)
			}
			if tc.made > 0 && (made[0].Parent.IsValid() || served[0].Parent.SpanID() != made[0].SpanContext.SpanID()) {
				t.Errorf("made %s, served below %s", describe(made[0]), served[0].Parent.SpanID())
			}
		})
	}
}

func TestASpanSaysWhereItsCallGoes(t *testing.T) {
	for target, want := range map[string]string{
		"dns:///users.default.svc:50052":          "server.address=users.default.svc server.port=50052",
		"dns://10.0.0.53/users.default.svc:50052": "server.address=users.default.svc server.port=50052",
		"127.0.0.1:1":                       "server.address=127.0.0.1 server.port=1",
		"static:///127.0.0.1:1":             "server.address=127.0.0.1 server.port=1",
		"static:///127.0.0.1:1,127.0.0.2:1": "server.address=echo",
		"dns:users:50052":                   "server.address=echo",
		"passthrough:///echo.test":          "server.address=echo.test",
	} {
		tt := tell(t, 1)
		_, h, _ := tt.serve(echo.Handlers{})
		conn := dial(t, h, target, func(c *client.Config) {
			c.Telemetry = tt.service("orders")
			c.Services = []protoreflect.ServiceDescriptor{echo.Contract()}
		})
		ctx, leave := context.WithCancel(t.Context())
		leave() // nothing is sent
		if err := conn.Invoke(ctx, echo.Public, echo.Message("", ""), echo.Message("", "")); err == nil {
			t.Fatal("it was answered")
		}
		var got []string
		for _, s := range tt.spans(trace.SpanKindClient) {
			for _, a := range s.Attributes {
				if strings.HasPrefix(string(a.Key), "server.") {
					got = append(got, string(a.Key)+"="+a.Value.String())
				}
			}
		}
		slices.Sort(got)
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", target, got, want)
		}
	}
}
