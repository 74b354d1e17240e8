// Package telemetry is what a process tells of itself: metrics by the names of the ecosystem, traces by the W3C's headers and
// OpenTelemetry's conventions, and a log that writes one line a call. kit/server fills it, kit/admin and an OTLP
// collector read it.
//
// It promises that a call which is not sampled costs a few counters and no span, that its trace goes on to other services all
// the same, and that no label, attribute or line comes from what a caller may choose freely; what a client says it is
// (ClientOf) has bounds, and is no label. What is lost when the process dies without a stop: the log lines of the last tenth of
// a second that are no errors, and the spans that wait to be sent.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Config is what a Telemetry needs. Every field is required, unless it says otherwise.
type Config struct {
	// Registry is where the metrics of the process are.
	Registry *prometheus.Registry
	// Log hears when spans cannot be sent, once a minute at most.
	Log *slog.Logger
	// Now is the time.
	Now func() time.Time
	// Random makes the ids of traces and spans. It is called by many goroutines at once; it need not be cryptographic.
	Random func() uint64
	// TraceRatio is the share of traces that begin here and are recorded, 0 to 1. A trace that began elsewhere is
	// recorded where it was there. OTEL_TRACES_SAMPLER, where it is set, decides instead.
	TraceRatio float64
	// Propagate names the metadata of a call that goes on with the calls made for it; see CheckPropagate. May be nil.
	Propagate []string
	// Getenv reads the OTEL_* variables; nil means that none is set, and so that nothing is exported.
	Getenv func(string) string
	// Exporter gets the spans. Nil means the OTLP exporter that the OTEL_* variables ask for, or none.
	Exporter sdktrace.SpanExporter
}

// Telemetry is that of one process. It is safe for concurrent use.
type Telemetry struct {
	cfg       Config
	sampler   sampler
	calls     *callMetrics
	processor sdktrace.SpanProcessor // nil: nothing is exported, and so nothing is recorded
}

// New returns the telemetry of a process. It fails on OTEL_* variables that it does not understand, and dials nothing
// before there is something to send.
func New(ctx context.Context, cfg Config) (*Telemetry, error) {
	if cfg.Getenv == nil {
		cfg.Getenv = func(string) string { return "" }
	}
	if err := errors.Join(CheckRatio(cfg.TraceRatio), CheckPropagate(cfg.Propagate)); err != nil {
		return nil, err
	}
	t := &Telemetry{cfg: cfg}
	var err error
	if t.sampler, err = newSampler(cfg.TraceRatio, cfg.Getenv); err != nil {
		return nil, err
	}
	if t.calls, err = newCallMetrics(cfg.Registry); err != nil {
		return nil, err
	}
	for _, c := range []prometheus.Collector{
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), newBuildCollector(),
	} {
		if err := cfg.Registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	exporter := cfg.Exporter
	if exporter == nil {
		if exporter, err = newExporter(ctx, cfg.Getenv); err != nil {
			return nil, err
		}
	}
	if exporter != nil {
		counted, err := newCountedExporter(exporter, cfg)
		if err != nil {
			return nil, err
		}
		t.processor = sdktrace.NewBatchSpanProcessor(counted)
	}
	return t, nil
}

// Registry returns where the metrics are.
func (t *Telemetry) Registry() *prometheus.Registry { return t.cfg.Registry }

// Shutdown sends the spans that wait, as long as ctx allows, and ends the exporter. It is called once the last call has
// ended; spans that end later are lost.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	if t.processor == nil {
		return nil
	}
	if err := t.processor.Shutdown(ctx); err != nil {
		return fmt.Errorf("send the last spans: %w", err)
	}
	return nil
}

// Service is the telemetry of one service of the process.
type Service struct {
	name   string
	t      *Telemetry
	tracer trace.Tracer // nil: nothing is recorded
}

// Service returns the telemetry of the service of that name: the label service of its metrics, and the service.name of its
// spans, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES says otherwise.
func (t *Telemetry) Service(name string) (*Service, error) {
	s := &Service{name: name, t: t}
	if t.processor == nil {
		return s, nil
	}
	res, err := newResource(name, t.cfg.Getenv)
	if err != nil {
		return nil, err
	}
	s.tracer = sdktrace.NewTracerProvider(
		sdktrace.WithResource(res),
		sdktrace.WithSpanProcessor(t.processor),
		sdktrace.WithSampler(sdktrace.AlwaysSample()), // whether to record is decided before a span is made
		sdktrace.WithIDGenerator(ids{t.cfg.Random}),
	).Tracer(scopeName, trace.WithSchemaURL(schemaURL))
	return s, nil
}

// Tracer returns what makes spans below those of the calls of the service, for its own code; none where nothing is
// recorded.
func (s *Service) Tracer() trace.Tracer {
	if s.tracer == nil {
		return noop.Tracer{}
	}
	return s.tracer
}
