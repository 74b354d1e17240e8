package telemetry

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Collect adds metrics that somebody else counts, with the label service. It fails where one of them, with its labels, is
// there already.
func (s *Service) Collect(list ...prometheus.Collector) error {
	registry := prometheus.WrapRegistererWith(prometheus.Labels{"service": s.name}, s.t.cfg.Registry)
	for _, c := range list {
		if err := registry.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}
