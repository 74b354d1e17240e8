package telemetry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
)

// newExporter returns the exporter that the standard variables ask for, nil for none. It does not connect yet. The exporter
// reads most variables (headers, certificates, timeout, compression) itself, from the process.
func newExporter(ctx context.Context, getenv func(string) string) (sdktrace.SpanExporter, error) {
	first := func(names ...string) (name, value string) {
		for _, n := range names {
			if v := getenv(n); v != "" {
				return n, v
			}
		}
		return "", ""
	}
	if strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") {
		return nil, nil
	}
	switch exporter := getenv("OTEL_TRACES_EXPORTER"); exporter {
	case "", "otlp":
	case "none":
		return nil, nil
	default:
		return nil, fmt.Errorf("OTEL_TRACES_EXPORTER=%q is neither otlp nor none", exporter)
	}
	if _, endpoint := first("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"); endpoint == "" {
		return nil, nil
	}
	if name, protocol := first("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"); protocol != "" && protocol != "grpc" {
		return nil, fmt.Errorf("%s=%q is not grpc, which is what spans are sent by", name, protocol)
	}
	exporter, err := otlptracegrpc.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("OTLP exporter (OTEL_EXPORTER_OTLP_*): %w", err)
	}
	return exporter, nil
}

// newResource says whose spans they are.
func newResource(service string, getenv func(string) string) (*resource.Resource, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	build := Build()
	ours := resource.NewWithAttributes(schemaURL,
		semconv.ServiceName(service), semconv.ServiceVersion(build.Version),
		semconv.ServiceInstanceID(fmt.Sprintf("%s:%d", host, os.Getpid())),
	)
	if getenv("OTEL_SERVICE_NAME") == "" && getenv("OTEL_RESOURCE_ATTRIBUTES") == "" {
		return ours, nil
	}
	// What the person who runs it says beats what we know.
	given, err := resource.New(context.Background(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	return resource.Merge(ours, given)
}

// failureEvery is how often a collector that cannot be reached is told of in the log.
const failureEvery = time.Minute

// countedExporter counts what is sent and what is lost, and reports the loss itself: the SDK would tell a global of its own.
type countedExporter struct {
	sdktrace.SpanExporter
	cfg          Config
	sent, failed prometheus.Counter

	mu   sync.Mutex
	told time.Time
}

func newCountedExporter(e sdktrace.SpanExporter, cfg Config) (*countedExporter, error) {
	spans := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "concordat_spans_total", Help: "Spans that were handed to the exporter, by what became of them: sent or failed.",
	}, []string{"result"})
	if err := cfg.Registry.Register(spans); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return &countedExporter{SpanExporter: e, cfg: cfg, sent: spans.WithLabelValues("sent"), failed: spans.WithLabelValues("failed")}, nil
}

// ExportSpans implements sdktrace.SpanExporter. It returns no error: it has told of it.
func (e *countedExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		e.sent.Add(float64(len(spans)))
		return nil
	}
	e.failed.Add(float64(len(spans)))
	now := e.cfg.Now()
	e.mu.Lock()
	tell := e.told.IsZero() || now.Sub(e.told) >= failureEvery
	if tell {
		e.told = now
	}
	e.mu.Unlock()
	if tell && !errors.Is(err, context.Canceled) {
		e.cfg.Log.Warn("spans are lost: the collector does not take them", "spans", len(spans), "cause", err.Error())
	}
	return nil
}
