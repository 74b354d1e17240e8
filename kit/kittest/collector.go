package kittest

import (
	"context"
	"encoding/hex"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// Collector is an OTLP collector that speaks gRPC on a port of 127.0.0.1 and keeps what it gets.
type Collector struct {
	// Endpoint is what OTEL_EXPORTER_OTLP_ENDPOINT is set to.
	Endpoint string

	collectorpb.UnimplementedTraceServiceServer
	mu      sync.Mutex
	spans   []Span
	exports []string
}

// Span is one that a Collector got.
type Span struct {
	// Service is the service.name, Name the name of the span, Kind "SERVER", "CLIENT" or "INTERNAL".
	Service, Name, Kind string
	// Trace, ID and Parent are in hexadecimal digits; Parent is "" at the head of a trace.
	Trace, ID, Parent string
	// Links are the traces that it has links to, in hexadecimal digits.
	Links []string
	// Attributes are texts and numbers as one reads them.
	Attributes map[string]string
}

// NewCollector serves a Collector until the test ends.
func NewCollector(t testing.TB) *Collector {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &Collector{Endpoint: "http://" + l.Addr().String()}
	s := grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(s, c)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil {
			t.Errorf("collector: %v", err)
		}
	})
	return c
}

// Export implements the service of the collector.
func (c *Collector) Export(_ context.Context, req *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	raw, err := proto.Marshal(req)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.exports = append(c.exports, string(raw))
	for _, rs := range req.GetResourceSpans() {
		service := attributes(rs.GetResource().GetAttributes())["service.name"]
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				var links []string
				for _, l := range s.GetLinks() {
					links = append(links, hex.EncodeToString(l.GetTraceId()))
				}
				c.spans = append(c.spans, Span{
					Links:   links,
					Service: service, Name: s.GetName(), Kind: kinds[s.GetKind()],
					Trace: hex.EncodeToString(s.GetTraceId()), ID: hex.EncodeToString(s.GetSpanId()), Parent: hex.EncodeToString(s.GetParentSpanId()),
					Attributes: attributes(s.GetAttributes()),
				})
			}
		}
	}
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

var kinds = map[tracepb.Span_SpanKind]string{
	tracepb.Span_SPAN_KIND_SERVER: "SERVER", tracepb.Span_SPAN_KIND_CLIENT: "CLIENT", tracepb.Span_SPAN_KIND_INTERNAL: "INTERNAL",
}

func attributes(list []*commonpb.KeyValue) map[string]string {
	m := make(map[string]string, len(list))
	for _, a := range list {
		switch v := a.GetValue().GetValue().(type) {
		case *commonpb.AnyValue_StringValue:
			m[a.GetKey()] = v.StringValue
		case *commonpb.AnyValue_IntValue:
			m[a.GetKey()] = strconv.FormatInt(v.IntValue, 10)
		default:
			m[a.GetKey()] = a.GetValue().String()
		}
	}
	return m
}

// All returns everything that has come, as it came. A process has sent all that it has once it has stopped.
func (c *Collector) All() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// Exports returns every request that has come, encoded: all that a span has, such as events and texts of statuses, is in one
// of them as it is, whether Span has a field for it or not.
func (c *Collector) Exports() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.exports)
}

// Spans returns what has come of a trace, as it came. A process has sent all that it has once it has stopped.
func (c *Collector) Spans(trace string) []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(c.spans), func(s Span) bool { return s.Trace != trace })
}
