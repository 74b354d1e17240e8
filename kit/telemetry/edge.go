package telemetry

import (
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
)

// Counter counts things of a service that are no calls, or calls by something that not every service has.
type Counter struct{ vec *prometheus.CounterVec }

// Counter adds a counter with these labels beside that of the service. It fails where the service has one of that name.
func (s *Service) Counter(name, help string, labels ...string) (Counter, error) {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	return Counter{vec}, s.Collect(vec)
}

// Add counts one more with these values of the labels, in their order, of which there are few and none that a caller may
// choose freely. The zero Counter counts nothing.
func (c Counter) Add(values ...string) {
	if c.vec != nil {
		c.vec.WithLabelValues(values...).Inc()
	}
}

// Set adds an attribute to the span of the call, if there is one.
func (t *Trace) Set(key, value string) {
	if t.span != nil {
		t.span.SetAttributes(attribute.String(key, value))
	}
}
