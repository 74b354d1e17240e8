package telemetry_test

import (
	"bytes"
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/concordat-dev/concordat/kit/telemetry"
)

// collector is an OTLP collector.
type collector struct {
	collectorpb.UnimplementedTraceServiceServer
	mu      sync.Mutex
	spans   []*tracepb.ResourceSpans
	headers metadata.MD
}

func (c *collector) Export(ctx context.Context, req *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spans = append(c.spans, req.GetResourceSpans()...)
	c.headers, _ = metadata.FromIncomingContext(ctx)
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

func startCollector(t *testing.T) (c *collector, endpoint string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	c = &collector{}
	collectorpb.RegisterTraceServiceServer(s, c)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return c, "http://" + l.Addr().String()
}

func fromEnvironment(t *testing.T, log *bytes.Buffer) *telemetry.Telemetry {
	t.Helper()
	tele, err := telemetry.New(t.Context(), config(log))
	if err != nil {
		t.Fatal(err)
	}
	return tele
}

func config(log *bytes.Buffer) telemetry.Config {
	return telemetry.Config{
		Registry: prometheus.NewRegistry(), Log: slog.New(slog.NewTextHandler(log, nil)), Now: time.Now, Random: rand.Uint64,
		TraceRatio: 1, Getenv: os.Getenv,
	}
}

// record plays one call.
func record(t *testing.T, tele *telemetry.Telemetry, service string) *telemetry.Trace {
	t.Helper()
	s, err := tele.Service(service)
	if err != nil {
		t.Fatal(err)
	}
	trace := &telemetry.Trace{}
	m := s.Method(telemetry.MethodConfig{FullName: "/" + service + ".v1.Service/Do"})
	s.Begin(t.Context(), trace, m, nil, time.Now())
	trace.End(time.Now(), codes.OK, "", "")
	return trace
}

func TestSpansReachTheCollectorThatTheVariablesName(t *testing.T) {
	c, endpoint := startCollector(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=acme")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
	var log bytes.Buffer
	tele := fromEnvironment(t, &log)
	for _, service := range []string{"users", "payments"} { // of one process
		if !record(t, tele, service).Recorded() {
			t.Fatal("not recorded")
		}
	}
	if err := tele.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string) // service to span
	for _, rs := range c.spans {
		attrs := make(map[string]string)
		for _, a := range rs.GetResource().GetAttributes() {
			attrs[a.GetKey()] = a.GetValue().GetStringValue()
		}
		if attrs["deployment.environment"] != "test" || attrs["service.instance.id"] == "" {
			t.Errorf("resource %v", attrs)
		}
		got[attrs["service.name"]] = rs.GetScopeSpans()[0].GetSpans()[0].GetName()
	}
	if len(got) != 2 || got["users"] != "users.v1.Service/Do" || got["payments"] != "payments.v1.Service/Do" {
		t.Errorf("spans %v", got)
	}
	if tenant := c.headers.Get("x-tenant"); len(tenant) != 1 || tenant[0] != "acme" {
		t.Errorf("x-tenant = %v", tenant)
	}
	const want = `
# HELP concordat_spans_total Spans that were handed to the exporter, by what became of them: sent or failed.
# TYPE concordat_spans_total counter
concordat_spans_total{result="failed"} 0
concordat_spans_total{result="sent"} 2
`
	if err := testutil.GatherAndCompare(tele.Registry(), strings.NewReader(want), "concordat_spans_total"); err != nil {
		t.Error(err)
	}
	if log.Len() > 0 {
		t.Errorf("log: %s", &log)
	}
}

func TestNothingIsRecordedWithoutSomebodyWhoAskedForIt(t *testing.T) {
	for name, env := range map[string]map[string]string{
		"no endpoint":     {},
		"switched off":    {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
		"another no":      {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
		"only a protocol": {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range env {
				t.Setenv(k, v)
			}
			var log bytes.Buffer
			tele := fromEnvironment(t, &log)
			if record(t, tele, "users").Recorded() {
				t.Error("recorded")
			}
			if err := tele.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestACollectorThatIsAwayIsToldOfOnceAndHoldsNobodyUp(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "200")
	var log bytes.Buffer
	tele := fromEnvironment(t, &log)
	record(t, tele, "users")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := tele.Shutdown(ctx); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if got := strings.Count(log.String(), "spans are lost"); got != 1 {
		t.Errorf("told %d times: %s", got, &log)
	}
	const want = `
# HELP concordat_spans_total Spans that were handed to the exporter, by what became of them: sent or failed.
# TYPE concordat_spans_total counter
concordat_spans_total{result="failed"} 1
concordat_spans_total{result="sent"} 0
`
	if err := testutil.GatherAndCompare(tele.Registry(), strings.NewReader(want), "concordat_spans_total"); err != nil {
		t.Error(err)
	}
}

func TestVariablesAndSettingsThatCannotBeMeantAreRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		env    [2]string
		change func(*telemetry.Config)
		want   string
	}{
		"a sampler that nobody knows":   {[2]string{"OTEL_TRACES_SAMPLER", "jaeger_remote"}, nil, "OTEL_TRACES_SAMPLER"},
		"an exporter that nobody knows": {[2]string{"OTEL_TRACES_EXPORTER", "zipkin"}, nil, "OTEL_TRACES_EXPORTER"},
		"a ratio above one":             {[2]string{}, func(c *telemetry.Config) { c.TraceRatio = 1.1 }, "1.1"},
		"a token that goes on":          {[2]string{}, func(c *telemetry.Config) { c.Propagate = []string{"authorization"} }, "authorization"},
		"gRPC's own":                    {[2]string{}, func(c *telemetry.Config) { c.Propagate = []string{"grpc-timeout"} }, "grpc-timeout"},
		"capital letters":               {[2]string{}, func(c *telemetry.Config) { c.Propagate = []string{"X-Flags"} }, "X-Flags"},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.env[0] != "" {
				t.Setenv(tc.env[0], tc.env[1])
			}
			var log bytes.Buffer
			cfg := config(&log)
			if tc.change != nil {
				tc.change(&cfg)
			}
			if _, err := telemetry.New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error that names %s", err, tc.want)
			}
		})
	}
	t.Run("spans over HTTP", func(t *testing.T) {
		t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
		t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
		var log bytes.Buffer
		if _, err := telemetry.New(t.Context(), config(&log)); err == nil || !strings.Contains(err.Error(), "OTEL_EXPORTER_OTLP_PROTOCOL") {
			t.Errorf("got %v", err)
		}
	})
}
