package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
)

// clientMetrics are the metrics of calls that are made, by the names that go-grpc-middleware made those of the ecosystem. The
// label service is who makes the call; who is called is in grpc_service.
type clientMetrics struct {
	started, handled, received, sent *prometheus.CounterVec
	seconds                          *prometheus.HistogramVec
}

// newClientMetrics returns the metrics of the registry, which has them from the first service on that calls another one.
func newClientMetrics(registry *prometheus.Registry) (*clientMetrics, error) {
	method := []string{"service", "grpc_type", "grpc_service", "grpc_method"}
	var errs []error
	counter := func(name, help string, more ...string) *prometheus.CounterVec {
		c, err := registered(registry, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append(method[:len(method):len(method)], more...)))
		errs = append(errs, err)
		return c
	}
	m := &clientMetrics{
		started:  counter("grpc_client_started_total", "Calls that were begun, each counted once however often it was sent."),
		handled:  counter("grpc_client_handled_total", "Calls that ended, by code.", "grpc_code"),
		received: counter("grpc_client_msg_received_total", "Messages received."),
		sent:     counter("grpc_client_msg_sent_total", "Messages sent."),
	}
	var err error
	m.seconds, err = registered(registry, prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "grpc_client_handling_seconds", Help: "How long calls took until they were answered, repetitions included, in seconds.", Buckets: buckets,
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
	}, method))
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
}

// registered adds a metric, or returns the one that is there already.
func registered[C prometheus.Collector](registry *prometheus.Registry, c C) (C, error) {
	err := registry.Register(c)
	var there prometheus.AlreadyRegisteredError
	if errors.As(err, &there) {
		if existing, ok := there.ExistingCollector.(C); ok {
			return existing, nil
		}
	}
	return c, err
}

// Client is what a service tells of the calls that it makes to another one. It is safe for concurrent use.
type Client struct {
	service *Service
	metrics *clientMetrics
	server  []attribute.KeyValue
}

// Client returns the telemetry of the calls to a server at the address, which is host:port, or a name where the server is
// several.
func (s *Service) Client(address string) (*Client, error) {
	m, err := newClientMetrics(s.t.cfg.Registry)
	if err != nil {
		return nil, err
	}
	c := &Client{service: s, metrics: m, server: []attribute.KeyValue{semconv.ServerAddress(address)}}
	if host, number, err := net.SplitHostPort(address); err == nil {
		c.server[0] = semconv.ServerAddress(host)
		if port, err := strconv.Atoi(number); err == nil {
			c.server = append(c.server, semconv.ServerPort(port))
		}
	}
	return c, nil
}

// ClientMethod is one method's share, looked up once and for all. It is safe for concurrent use.
type ClientMethod struct {
	service    *Service
	framework  bool
	spanName   string
	attributes []attribute.KeyValue

	started, received, sent prometheus.Counter
	handled                 [lastCode + 1]prometheus.Counter
	seconds                 prometheus.Observer
}

// Method returns the metrics and the span of a method that is called. All series of it exist from now on. Reasons of the
// configuration mean nothing here.
func (c *Client) Method(cfg MethodConfig) *ClientMethod {
	service, name, kind, span := names(cfg)
	labels := []string{c.service.name, kind, service, name}
	m := &ClientMethod{
		service: c.service, framework: cfg.Framework, spanName: span,
		attributes: append([]attribute.KeyValue{semconv.RPCSystemGRPC, semconv.RPCMethod(name)}, c.server...),
		started:    c.metrics.started.WithLabelValues(labels...),
		received:   c.metrics.received.WithLabelValues(labels...),
		sent:       c.metrics.sent.WithLabelValues(labels...),
		seconds:    c.metrics.seconds.WithLabelValues(labels...),
	}
	if cfg.FullName != "" {
		m.attributes = append(m.attributes, semconv.RPCService(service))
	}
	for code := range m.handled {
		m.handled[code] = c.metrics.handled.WithLabelValues(append(labels[:len(labels):len(labels)], codes.Code(code).String())...)
	}
	return m
}

// names returns what a method is called in labels and spans.
func names(c MethodConfig) (service, method, kind, span string) {
	service, method, _ = strings.Cut(strings.TrimPrefix(c.FullName, "/"), "/")
	span = service + "/" + method
	if c.FullName == "" {
		service, method, span = other, other, other
	}
	switch {
	case c.ClientStream && c.ServerStream:
		return service, method, "bidi_stream", span
	case c.ClientStream:
		return service, method, "client_stream", span
	case c.ServerStream:
		return service, method, "server_stream", span
	default:
		return service, method, "unary", span
	}
}

// ClientCall is one call that is made. It ends once, with End.
type ClientCall struct {
	method *ClientMethod
	began  time.Time
	span   trace.Span // nil where the call is not recorded
}

// Begin counts a call that is made, and puts it below the call that it is made for, if there is one; else a trace of its own
// begins. What it returns as the context carries the call on (Outgoing); it is the given one, unless there is something new
// to carry.
func (m *ClientMethod) Begin(ctx context.Context) (context.Context, ClientCall) {
	m.started.Inc()
	c := ClientCall{method: m, began: m.service.t.cfg.Now()}
	if m.service.tracer == nil {
		return ctx, c // nothing is recorded
	}
	switch t, _ := ctx.Value(traceKey{}).(*Trace); {
	case t == nil && m.framework: // a health check
		return ctx, c
	case t == nil:
		return m.root(ctx, c)
	case t.span == nil: // whoever began the trace has decided
		return ctx, c
	default:
		ctx, c.span = m.record(ctx, c.began)
		return ctx, c
	}
}

// root begins a trace with a call that is made for no other one.
func (m *ClientMethod) root(ctx context.Context, c ClientCall) (context.Context, ClientCall) {
	random := m.service.t.cfg.Random
	t := &Trace{service: m.service, id: newTraceID(random), parent: newSpanID(random)}
	if m.service.t.sampler.root(t.id) {
		ctx, t.span = m.record(context.WithValue(ctx, rootKey{}, t.id), c.began)
		t.flags = t.span.SpanContext().TraceFlags()
		c.span = t.span
	}
	return NewContext(ctx, t), c
}

func (m *ClientMethod) record(ctx context.Context, at time.Time) (context.Context, trace.Span) {
	return m.service.tracer.Start(ctx, m.spanName,
		trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(at), trace.WithAttributes(m.attributes...))
}

// Recorded reports whether there is a span.
func (c *ClientCall) Recorded() bool { return c.span != nil }

// Sent counts a message that was sent.
func (c *ClientCall) Sent() { c.method.sent.Inc() }

// Received counts a message that came.
func (c *ClientCall) Received() { c.method.received.Inc() }

// End counts a call that ended, and ends its span: reason is that of its fault, "" for none, and answered who answered, nil
// where that is not known.
func (c *ClientCall) End(code codes.Code, reason string, answered net.Addr) {
	m := c.method
	now := m.service.t.cfg.Now()
	if code > lastCode {
		code = codes.Unknown
	}
	m.handled[code].Inc()
	took := now.Sub(c.began).Seconds()
	if c.span == nil {
		m.seconds.Observe(took)
		return
	}
	if e, ok := m.seconds.(prometheus.ExemplarObserver); ok {
		e.ObserveWithExemplar(took, prometheus.Labels{"trace_id": c.span.SpanContext().TraceID().String()})
	}
	attributes := []attribute.KeyValue{semconv.RPCGRPCStatusCodeKey.Int(int(code))}
	if answered != nil {
		if host, number, err := net.SplitHostPort(answered.String()); err == nil {
			attributes = append(attributes, semconv.NetworkPeerAddress(host))
			if port, err := strconv.Atoi(number); err == nil {
				attributes = append(attributes, semconv.NetworkPeerPort(port))
			}
		}
	}
	if code != codes.OK {
		if reason == "" {
			reason = code.String()
		}
		attributes = append(attributes, semconv.ErrorTypeKey.String(reason))
		c.span.SetStatus(otelcodes.Error, "") // to a caller every code but OK is one
	}
	c.span.SetAttributes(attributes...)
	c.span.End(trace.WithTimestamp(now))
}
