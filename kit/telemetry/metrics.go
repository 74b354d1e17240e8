package telemetry

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"google.golang.org/grpc/codes"
)

// Buckets are the upper bounds of grpc_server_handling_seconds, in seconds: dense where a good call ends, and up to the
// longest timeout that a contract of ours gives a unary call.
var buckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

// other stands for what has no label of its own: names that nobody declared, reasons that no contract has.
const other = "_OTHER"

// lastCode is the highest code that gRPC has.
const lastCode = codes.Unauthenticated

// callMetrics are the metrics of calls, by the names that go-grpc-middleware made those of the ecosystem. The label service is
// the part of the process that a call reached: with all services in one process, a call through the gateway is seen twice.
type callMetrics struct {
	started, handled, received, sent, faults *prometheus.CounterVec
	seconds                                  *prometheus.HistogramVec
	inFlight                                 *prometheus.GaugeVec
}

func newCallMetrics(registry *prometheus.Registry) (*callMetrics, error) {
	method := []string{"service", "grpc_type", "grpc_service", "grpc_method"}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &callMetrics{
		started:  counter("grpc_server_started_total", "Calls that began.", method...),
		handled:  counter("grpc_server_handled_total", "Calls that ended, by code.", append(slices.Clip(method), "grpc_code")...),
		received: counter("grpc_server_msg_received_total", "Messages received.", method...),
		sent:     counter("grpc_server_msg_sent_total", "Messages sent.", method...),
		faults: counter("grpc_server_faults_total",
			"Calls that ended with a fault, by its reason. "+other+" stands for reasons that no contract has.", "service", "grpc_service", "grpc_method", "reason"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "grpc_server_handling_seconds", Help: "How long calls took, in seconds.", Buckets: buckets,
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
		}, method),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "grpc_server_in_flight", Help: "Calls that have begun and not ended.",
		}, method),
	}
	for _, c := range []prometheus.Collector{m.started, m.handled, m.received, m.sent, m.faults, m.seconds, m.inFlight} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// MethodConfig says what a method is.
type MethodConfig struct {
	// FullName is the name on the wire, "/users.v1.UserService/GetUser"; "" stands for every name that nobody declared.
	FullName string
	// ClientStream and ServerStream say how many messages there are each way.
	ClientStream, ServerStream bool
	// Framework says that it is a method of gRPC itself, such as a health check, at which no trace begins.
	Framework bool
	// Reasons has the reasons that its faults may have; nil means none.
	Reasons map[string]struct{}
	// Callers says what becomes of the trace that a call of it comes with.
	Callers CallerTraces
}

// Method is one method's share of the metrics, looked up once and for all: what a call does is add. It is safe for concurrent
// use.
type Method struct {
	framework  bool
	callers    CallerTraces
	spanName   string
	attributes []attribute.KeyValue

	started, received, sent prometheus.Counter
	handled                 [lastCode + 1]prometheus.Counter
	seconds                 prometheus.Observer
	inFlight                prometheus.Gauge

	reasons map[string]struct{}
	byName  sync.Map // reason to prometheus.Counter, of those that occurred
	fault   func(reason string) prometheus.Counter
}

// Method returns the metrics and the span of a method. All series of it exist from now on, so that a rate over them has a
// beginning; those of reasons exist once the reason occurs.
func (s *Service) Method(c MethodConfig) *Method {
	calls, part := s.t.calls, s.name
	service, name, _ := strings.Cut(strings.TrimPrefix(c.FullName, "/"), "/")
	if c.FullName == "" {
		service, name = other, other
	}
	kind := "unary"
	switch {
	case c.ClientStream && c.ServerStream:
		kind = "bidi_stream"
	case c.ClientStream:
		kind = "client_stream"
	case c.ServerStream:
		kind = "server_stream"
	}
	m := &Method{
		framework:  c.Framework,
		callers:    c.Callers,
		spanName:   service + "/" + name,
		attributes: []attribute.KeyValue{semconv.RPCSystemGRPC, semconv.RPCService(service), semconv.RPCMethod(name)},
		started:    calls.started.WithLabelValues(part, kind, service, name),
		received:   calls.received.WithLabelValues(part, kind, service, name),
		sent:       calls.sent.WithLabelValues(part, kind, service, name),
		seconds:    calls.seconds.WithLabelValues(part, kind, service, name),
		inFlight:   calls.inFlight.WithLabelValues(part, kind, service, name),
		reasons:    c.Reasons,
		fault: func(reason string) prometheus.Counter {
			return calls.faults.WithLabelValues(part, service, name, reason)
		},
	}
	for code := range m.handled {
		m.handled[code] = calls.handled.WithLabelValues(part, kind, service, name, codes.Code(code).String())
	}
	if c.FullName == "" {
		m.spanName = other
		m.attributes = []attribute.KeyValue{semconv.RPCSystemGRPC, semconv.RPCMethod(other)}
	}
	return m
}

// Started counts a call that begins.
func (m *Method) Started() {
	m.started.Inc()
	m.inFlight.Inc()
}

// Received counts a message that came.
func (m *Method) Received() { m.received.Inc() }

// Sent counts a message that was sent.
func (m *Method) Sent() { m.sent.Inc() }

// Handled counts a call that ended, with the reason of its fault ("" for none) and how long it took. One that is recorded
// leaves the id of its trace beside its bucket.
func (m *Method) Handled(code codes.Code, reason string, took time.Duration, t *Trace) {
	m.inFlight.Dec()
	if code > lastCode {
		code = codes.Unknown
	}
	m.handled[code].Inc()
	if reason != "" {
		m.faultOf(reason).Inc()
	}
	if e, ok := m.seconds.(prometheus.ExemplarObserver); ok && t.Recorded() {
		e.ObserveWithExemplar(took.Seconds(), prometheus.Labels{"trace_id": t.ID()})
		return
	}
	m.seconds.Observe(took.Seconds())
}

func (m *Method) faultOf(reason string) prometheus.Counter {
	if _, ok := m.reasons[reason]; !ok {
		reason = other
	}
	if c, ok := m.byName.Load(reason); ok {
		return c.(prometheus.Counter)
	}
	c := m.fault(reason)
	m.byName.Store(reason, c)
	return c
}

// Certificate adds the gauge of when the certificate of the service ends.
func (s *Service) Certificate(notAfter func() time.Time) error {
	return s.Gauge("concordat_certificate_not_after_seconds", "When the certificate in use ends, in seconds since 1970.", nil,
		func() float64 { return float64(notAfter().Unix()) })
}

// Ready adds the gauge of whether every check of the service passes.
func (s *Service) Ready(ready func() bool) error {
	return s.Gauge("concordat_ready", "1 where every check of the service passes, 0 where one fails.", nil, func() float64 {
		if ready() {
			return 1
		}
		return 0
	})
}

// Gauge adds a number that is asked for whenever somebody reads the metrics. The labels, beside that of the service, are few
// and do not vary. It fails on a name with labels that is there already.
func (s *Service) Gauge(name, help string, labels map[string]string, value func() float64) error {
	all := prometheus.Labels{"service": s.name}
	maps.Copy(all, labels)
	return s.t.register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: all}, value))
}

func (t *Telemetry) register(c prometheus.Collector) error {
	if err := t.cfg.Registry.Register(c); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	return nil
}
