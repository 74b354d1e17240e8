package sqlstore

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics tell how commands are gathered.
type metrics struct {
	commands prometheus.Histogram
	waited   prometheus.Histogram
	waiting  prometheus.Gauge
}

func newMetrics() *metrics {
	return &metrics{
		commands: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "concordat_payments_batch_commands", Help: "How many commands one transaction has written.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 10),
		}),
		waited: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "concordat_payments_queue_seconds", Help: "How long commands waited until their batch began.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 8),
		}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "concordat_payments_queue_commands", Help: "How many commands were left waiting when the last batch began.",
		}),
	}
}

// batch notes a batch that begins.
func (m *metrics) batch(batch []*item, now time.Time, waiting int) {
	m.commands.Observe(float64(len(batch)))
	m.waiting.Set(float64(waiting))
	for _, it := range batch {
		m.waited.Observe(now.Sub(it.since).Seconds())
	}
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.commands, m.waited, m.waiting}
}
