package server_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/kittest/echo"
	"github.com/concordat-dev/concordat/kit/server"
	"github.com/concordat-dev/concordat/kit/telemetry"
)

// told is what a server tells of itself.
type told struct {
	*kittest.Harness
	t        *testing.T
	tele     *telemetry.Telemetry
	exporter *tracetest.InMemoryExporter
}

func tell(t *testing.T, handlers echo.Handlers, options ...func(*telemetry.Config)) *told {
	t.Helper()
	tt := collecting(t, options...)
	tt.Harness = kittest.Start(t, handlers.Register, func(o *kittest.Options) { o.Telemetry = tt.tele })
	return tt
}

// collecting returns what a server that is started later can tell to.
func collecting(t *testing.T, options ...func(*telemetry.Config)) *told {
	t.Helper()
	tt := &told{t: t, exporter: tracetest.NewInMemoryExporter()}
	cfg := telemetry.Config{
		Registry: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler), Now: time.Now, Random: rand.Uint64, Exporter: kept{tt.exporter},
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

// until waits for a series to have a value: what happens to a connection is counted when the server notices it.
func (tt *told) until(series string, want float64) {
	tt.t.Helper()
	var got float64
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); runtime.Gosched() {
		if got = tt.series()[series]; got == want {
			return
		}
	}
	tt.t.Errorf("%s is %v, want %v", series, got, want)
}

// refused returns the name of the series of connections that were refused.
func refused(reason string) string {
	return fmt.Sprintf("concordat_connections_refused_total{reason=%q,service=%q}", reason, "test")
}

// kept is an exporter that does not forget when it is shut down.
type kept struct{ *tracetest.InMemoryExporter }

func (kept) Shutdown(context.Context) error { return nil }

// end stops the server and returns the spans.
func (tt *told) end() tracetest.SpanStubs {
	tt.t.Helper()
	if err := errors.Join(tt.Stop(), tt.tele.Shutdown(tt.t.Context())); err != nil {
		tt.t.Fatal(err)
	}
	return tt.exporter.GetSpans()
}

const (
	traceID      = "0af7651916cd43dd8448eb211c80319c"
	spanID       = "b7ad6b7169203331"
	sampled      = "00-" + traceID + "-" + spanID + "-01"
	unsampled    = "00-" + traceID + "-" + spanID + "-00"
	unknownNames = "/nobody.v1.None/Nothing"
)

func with(ctx context.Context, pairs ...string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, pairs...)
}

// describe prints a span as one reads it.
func describe(s tracetest.SpanStub) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nkind %s\ntrace %s parent %s remote %v state %q\nstatus %v %q\nscope %s\n",
		s.Name, s.SpanKind, s.SpanContext.TraceID(), s.Parent.SpanID(), s.Parent.IsRemote(), s.SpanContext.TraceState().String(),
		s.Status.Code, s.Status.Description, s.InstrumentationScope.SchemaURL)
	attrs := slices.Clone(s.Attributes)
	slices.SortFunc(attrs, func(a, b attribute.KeyValue) int { return strings.Compare(string(a.Key), string(b.Key)) })
	for _, a := range attrs {
		fmt.Fprintf(&b, "  %s = %s\n", a.Key, a.Value.String())
	}
	for _, a := range s.Resource.Attributes() {
		if a.Key == "service.name" {
			fmt.Fprintf(&b, "resource %s = %s\n", a.Key, a.Value.String())
		}
	}
	return b.String()
}

func TestASpanFollowsTheConventions(t *testing.T) {
	tt := tell(t, echo.Handlers{})
	ctx := with(t.Context(), "traceparent", sampled, "tracestate", "a=1,b=2")
	ctx = with(ctx, server.ClientAddressHeader, "198.51.100.1")
	for _, method := range []string{echo.Public, echo.Own} { // OK, and a refusal
		_ = tt.Anonymous().Invoke(ctx, method, echo.Message("", ""), echo.Message("", ""))
	}
	_ = tt.Anonymous().Invoke(ctx, unknownNames, echo.Message("", ""), echo.Message("", ""))
	spans := tt.end()
	want := []string{`echo.v1.EchoService/Public
kind server
trace 0af7651916cd43dd8448eb211c80319c parent b7ad6b7169203331 remote true state "a=1,b=2"
status Unset ""
scope https://opentelemetry.io/schemas/1.37.0
  client.address = 198.51.100.1
  network.peer.address = bufconn
  rpc.grpc.status_code = 0
  rpc.method = Public
  rpc.service = echo.v1.EchoService
  rpc.system = grpc
  server.address = bufconn
resource service.name = test
`, `echo.v1.EchoService/Own
kind server
trace 0af7651916cd43dd8448eb211c80319c parent b7ad6b7169203331 remote true state "a=1,b=2"
status Unset ""
scope https://opentelemetry.io/schemas/1.37.0
  client.address = 198.51.100.1
  error.type = CREDENTIALS_MISSING
  network.peer.address = bufconn
  rpc.grpc.status_code = 16
  rpc.method = Own
  rpc.service = echo.v1.EchoService
  rpc.system = grpc
  server.address = bufconn
resource service.name = test
`, `_OTHER
kind server
trace 0af7651916cd43dd8448eb211c80319c parent b7ad6b7169203331 remote true state "a=1,b=2"
status Error ""
scope https://opentelemetry.io/schemas/1.37.0
  client.address = bufconn
  error.type = UNIMPLEMENTED
  network.peer.address = bufconn
  rpc.grpc.status_code = 12
  rpc.method = _OTHER
  rpc.system = grpc
  server.address = bufconn
resource service.name = test
`}
	if len(spans) != len(want) {
		t.Fatalf("%d spans, want %d", len(spans), len(want))
	}
	for i, s := range spans {
		if got := describe(s); got != want[i] {
			t.Errorf("span %d:\n%s\nwant:\n%s", i, got, want[i])
		}
	}
}

func TestWhoeverBeganATraceDecidesWhetherItIsRecorded(t *testing.T) {
	for name, tc := range map[string]struct {
		parent string
		ratio  float64
		env    map[string]string
		method string
		want   string // the parent of the span; "" means that there is none
		root   bool   // a trace of its own
	}{
		"the caller records":                                {parent: sampled, want: spanID},
		"the caller does not":                               {parent: unsampled, ratio: 1},
		"there is no trace, and all are wanted":             {ratio: 1, root: true},
		"there is no trace, and none is wanted":             {ratio: 0},
		"a trace that is none, and all are wanted":          {parent: "00-" + traceID + "-0000000000000000-01", ratio: 1, root: true},
		"a trace that is none":                              {parent: "zz-" + traceID + "-" + spanID + "-01"},
		"a later version of the header":                     {parent: "cc-" + traceID + "-" + spanID + "-01-what-comes", want: spanID},
		"the variable beats the ratio":                      {env: map[string]string{"OTEL_TRACES_SAMPLER": "always_on"}, parent: unsampled, want: spanID},
		"the variable says never":                           {env: map[string]string{"OTEL_TRACES_SAMPLER": "always_off"}, parent: sampled, ratio: 1},
		"the variable gives a ratio":                        {env: map[string]string{"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}, ratio: 1},
		"a health check begins no trace":                    {ratio: 1, method: "/grpc.health.v1.Health/Check"},
		"a health check within a trace is recorded like it": {parent: sampled, method: "/grpc.health.v1.Health/Check", want: spanID},
	} {
		t.Run(name, func(t *testing.T) {
			tt := tell(t, echo.Handlers{}, func(c *telemetry.Config) {
				c.TraceRatio = tc.ratio
				c.Getenv = func(name string) string { return tc.env[name] }
			})
			ctx := t.Context()
			if tc.parent != "" {
				ctx = with(ctx, "traceparent", tc.parent)
			}
			if tc.method == "" {
				tc.method = echo.Public
			}
			if err := tt.AsService("orders").Invoke(ctx, tc.method, echo.Message("", ""), echo.Message("", "")); err != nil {
				t.Fatal(err)
			}
			spans := tt.end()
			switch {
			case tc.want == "" && !tc.root:
				if len(spans) != 0 {
					t.Errorf("recorded: %s", describe(spans[0]))
				}
			case len(spans) != 1:
				t.Errorf("%d spans, want one", len(spans))
			case tc.root && (spans[0].Parent.IsValid() || spans[0].SpanContext.TraceID().String() == traceID):
				t.Errorf("no trace of its own: %s", describe(spans[0]))
			case !tc.root && spans[0].Parent.SpanID().String() != tc.want:
				t.Errorf("parent %s, want %s", spans[0].Parent.SpanID(), tc.want)
			}
		})
	}
}

func TestATraceAndWhatIsDeclaredGoOnThroughTwoHops(t *testing.T) {
	for name, tc := range map[string]struct {
		parent string
		ratio  float64
		spans  int // of each hop
	}{
		"recorded":                {sampled, 0, 1},
		"not recorded":            {unsampled, 1, 0},
		"begun and not recorded":  {"", 0, 0},
		"begun here and recorded": {"", 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			declare := func(c *telemetry.Config) {
				c.TraceRatio = tc.ratio
				c.Propagate = []string{"x-feature-flags"}
			}
			var seen atomic.Value
			last := tell(t, echo.Handlers{Unary: func(ctx context.Context, req proto.Message) (proto.Message, error) {
				md, _ := metadata.FromIncomingContext(ctx)
				seen.Store(md)
				return req, nil
			}}, declare)
			first := tell(t, echo.Handlers{Unary: func(ctx context.Context, req proto.Message) (proto.Message, error) {
				answer := echo.Message("", "")
				return answer, last.Anonymous().Invoke(telemetry.Outgoing(ctx), echo.Public, req, answer)
			}}, declare)
			ctx := with(t.Context(), "x-feature-flags", "new-ui", "x-feature-flags", "dark", "x-other", "stays")
			if tc.parent != "" {
				ctx = with(ctx, "traceparent", tc.parent, "tracestate", "vendor=1")
			}
			if err := first.Anonymous().Invoke(ctx, echo.Public, echo.Message("", ""), echo.Message("", "")); err != nil {
				t.Fatal(err)
			}
			md := seen.Load().(metadata.MD)
			if got := md.Get("x-feature-flags"); !slices.Equal(got, []string{"new-ui", "dark"}) {
				t.Errorf("x-feature-flags = %v", got)
			}
			if got := md.Get("x-other"); len(got) != 0 {
				t.Errorf("what nobody declared goes on: %v", got)
			}
			parents := md.Get("traceparent")
			if len(parents) != 1 {
				t.Fatalf("traceparent = %v", parents)
			}
			a, b := first.end(), last.end()
			if len(a) != tc.spans || len(b) != tc.spans {
				t.Fatalf("%d and %d spans, want %d of each", len(a), len(b), tc.spans)
			}
			if tc.parent != "" && (!strings.Contains(parents[0], traceID) || !slices.Equal(md.Get("tracestate"), []string{"vendor=1"})) {
				t.Errorf("traceparent %v, tracestate %v", parents, md.Get("tracestate"))
			}
			if tc.spans == 1 {
				if b[0].SpanContext.TraceID() != a[0].SpanContext.TraceID() || b[0].Parent.SpanID() != a[0].SpanContext.SpanID() {
					t.Errorf("the second hop is not below the first:\n%s\n%s", describe(a[0]), describe(b[0]))
				}
			} else if !strings.HasSuffix(parents[0], "-00") {
				t.Errorf("traceparent %s says that it is recorded", parents[0])
			}
			id := parents[0][3:35]
			for hop, tt := range map[string]*told{"first": first, "last": last} {
				if !strings.Contains(tt.Log.String(), `"trace_id":"`+id+`"`) {
					t.Errorf("the log of the %s hop does not name the trace %s:\n%s", hop, id, tt.Log)
				}
			}
		})
	}
}

func TestMetricsHaveTheNamesAndLabelsOfTheEcosystem(t *testing.T) {
	tt := tell(t, echo.Handlers{Watch: func(m proto.Message, s grpc.ServerStream) error {
		return errors.Join(s.SendMsg(m), s.SendMsg(m))
	}})
	if _, err := echo.Call(t, tt.Anonymous(), echo.Public, "", ""); err != nil {
		t.Fatal(err)
	}
	_, err := echo.Call(t, tt.Anonymous(), echo.Public, "far too long a text", "")
	kittest.WantFault(t, err, codes.InvalidArgument, "INVALID_REQUEST")
	if err := watchOnce(t, tt.Anonymous()); err == nil {
		t.Fatal("the stream did not end")
	}
	tt.end()
	const want = `
# HELP grpc_server_faults_total Calls that ended with a fault, by its reason. _OTHER stands for reasons that no contract has.
# TYPE grpc_server_faults_total counter
grpc_server_faults_total{grpc_method="Public",grpc_service="echo.v1.EchoService",reason="INVALID_REQUEST",service="test"} 1
`
	if err := testutil.GatherAndCompare(tt.tele.Registry(), strings.NewReader(want), "grpc_server_faults_total"); err != nil {
		t.Error(err)
	}
	for series, want := range map[string]float64{
		`grpc_server_started_total{grpc_method="Public",grpc_service="echo.v1.EchoService",grpc_type="unary",service="test"}`:                             2,
		`grpc_server_handled_total{grpc_code="OK",grpc_method="Public",grpc_service="echo.v1.EchoService",grpc_type="unary",service="test"}`:              1,
		`grpc_server_handled_total{grpc_code="InvalidArgument",grpc_method="Public",grpc_service="echo.v1.EchoService",grpc_type="unary",service="test"}`: 1,
		`grpc_server_handled_total{grpc_code="Unavailable",grpc_method="Public",grpc_service="echo.v1.EchoService",grpc_type="unary",service="test"}`:     0,
		`grpc_server_handling_seconds{grpc_method="Public",grpc_service="echo.v1.EchoService",grpc_type="unary",service="test"}`:                          2,
		`grpc_server_msg_received_total{grpc_method="Public",grpc_service="echo.v1.EchoService",grpc_type="unary",service="test"}`:                        2,
		`grpc_server_msg_sent_total{grpc_method="Public",grpc_service="echo.v1.EchoService",grpc_type="unary",service="test"}`:                            1,
		`grpc_server_in_flight{grpc_method="Public",grpc_service="echo.v1.EchoService",grpc_type="unary",service="test"}`:                                 0,
		`grpc_server_msg_received_total{grpc_method="Watch",grpc_service="echo.v1.EchoService",grpc_type="server_stream",service="test"}`:                 1,
		`grpc_server_msg_sent_total{grpc_method="Watch",grpc_service="echo.v1.EchoService",grpc_type="server_stream",service="test"}`:                     2,
		`grpc_server_handled_total{grpc_code="OK",grpc_method="Watch",grpc_service="echo.v1.EchoService",grpc_type="server_stream",service="test"}`:       1,
		`grpc_server_started_total{grpc_method="Collect",grpc_service="echo.v1.EchoService",grpc_type="client_stream",service="test"}`:                    0,
		`grpc_server_started_total{grpc_method="Chat",grpc_service="echo.v1.EchoService",grpc_type="bidi_stream",service="test"}`:                         0,
	} {
		if got, ok := tt.series()[series]; !ok || got != want {
			t.Errorf("%s = %v (there: %v), want %v", series, got, ok, want)
		}
	}
	for _, name := range []string{"go_goroutines", "process_start_time_seconds", "concordat_build_info", "concordat_certificate_not_after_seconds", "concordat_ready", "concordat_contract_info"} {
		if n, err := testutil.GatherAndCount(tt.tele.Registry(), name); err != nil || n != 1 {
			t.Errorf("%s: %d series, %v", name, n, err)
		}
	}
}

// series returns all metrics by name and labels; a histogram counts as what it has observed.
func (tt *told) series() map[string]float64 {
	tt.t.Helper()
	families, err := tt.tele.Registry().Gather()
	if err != nil {
		tt.t.Fatal(err)
	}
	all := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			value := m.GetCounter().GetValue() + m.GetGauge().GetValue()
			if h := m.GetHistogram(); h != nil {
				value = float64(h.GetSampleCount())
			}
			all[f.GetName()+"{"+strings.Join(labels, ",")+"}"] = value
		}
	}
	return all
}

func TestNamesThatNobodyDeclaredNeverBecomeLabels(t *testing.T) {
	tt := tell(t, echo.Handlers{Unary: func(context.Context, proto.Message) (proto.Message, error) {
		return nil, fault.New(fault.NotFound, "INVENTED_ON_THE_SPOT", "x")
	}})
	before := len(tt.series())
	for i := range 50 {
		_ = tt.Anonymous().Invoke(t.Context(), fmt.Sprintf("/nobody.v%d.None/Nothing%d", i, i), echo.Message("", ""), echo.Message("", ""))
	}
	if _, err := echo.Call(t, tt.Anonymous(), echo.Public, "", ""); err == nil {
		t.Fatal("no error")
	}
	tt.end()
	after := tt.series()
	if got := after[`grpc_server_handled_total{grpc_code="Unimplemented",grpc_method="_OTHER",grpc_service="_OTHER",grpc_type="unary",service="test"}`]; got != 50 {
		t.Errorf("counted %v of 50 calls of unknown methods", got)
	}
	if got := after[`grpc_server_faults_total{grpc_method="Public",grpc_service="echo.v1.EchoService",reason="_OTHER",service="test"}`]; got != 1 {
		t.Errorf("counted %v calls with an unknown reason", got)
	}
	for s := range after {
		if strings.Contains(s, "nobody") || strings.Contains(s, "INVENTED") {
			t.Errorf("a label that comes from outside: %s", s)
		}
	}
	if len(after) > before+10 {
		t.Errorf("%d series, %d before", len(after), before)
	}
}

func TestAnAccessTokenIsNotTold(t *testing.T) {
	tt := tell(t, echo.Handlers{Unary: func(ctx context.Context, _ proto.Message) (proto.Message, error) {
		return nil, fmt.Errorf("refused: %v", metadata.ValueFromIncomingContext(ctx, "authorization"))
	}})
	token := tt.Token("u1", "echo")
	if _, err := echo.Call(t, tt.WithToken(token), echo.Own, "", "u1"); err == nil {
		t.Fatal("no error")
	}
	tt.end()
	if log := tt.Log.String(); strings.Contains(log, token) || !strings.Contains(log, "refused") {
		t.Errorf("log:\n%s", log)
	}
}

func TestALineSaysWhatTheFaultSays(t *testing.T) {
	tt := tell(t, echo.Handlers{Unary: func(context.Context, proto.Message) (proto.Message, error) {
		return nil, fault.New(fault.NotFound, "NOT_FOUND", "x").With("order", "7").With("resume_token", "abc").
			WithViolation("a.b", "r1", "text").WithViolation("c", "r2", "text")
	}})
	if _, err := echo.Call(t, tt.Anonymous(), echo.Public, "", ""); err == nil {
		t.Fatal("no error")
	}
	tt.end()
	for _, want := range []string{`"reason":"NOT_FOUND"`, `"fields":"a.b r1, c r2"`, `"details":"order=7"`, `"code":"NotFound"`, `"sent":0`, `"received":1`} {
		if !strings.Contains(tt.Log.String(), want) {
			t.Errorf("the log misses %s:\n%s", want, tt.Log)
		}
	}
}
