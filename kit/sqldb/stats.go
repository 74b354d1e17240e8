package sqldb

import (
	"context"
	"database/sql"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/concordat-dev/concordat/kit/clock"
)

// Stats is how busy a database is.
type Stats struct {
	// Pools are the pools of connections: on SQLite "readers" and "writer", on PostgreSQL one for all. A call first waits for its
	// turn and then for a connection; the waits of a pool are both.
	Pools []Pool
	// WritersWaiting is how many Writes wait for their turn now.
	WritersWaiting int64
}

// Pool is how busy connections of one kind are.
type Pool struct {
	Name string
	sql.DBStats
}

// Stats returns how busy the database is now, and what has been waited for since it was opened.
func (db *DB) Stats() Stats { return db.engine.stats() }

func (s *embedded) stats() Stats {
	if s.writer == nil {
		return Stats{Pools: []Pool{{"readers", s.readers.Stats()}}}
	}
	return Stats{
		Pools:          []Pool{{"readers", s.readers.Stats()}, {"writer", s.turns.addTo(s.writer.Stats())}},
		WritersWaiting: s.turns.waiting.Load(),
	}
}

func (s *server) stats() Stats {
	return Stats{
		Pools:          []Pool{{"all", s.writeTurns.addTo(s.readTurns.addTo(s.pool.Stats()))}},
		WritersWaiting: s.writeTurns.waiting.Load(),
	}
}

// turns are what calls wait for before they begin, and counts the waits.
type turns struct {
	free    chan struct{} // holds a token for each call that has its turn; who waits is served in the order of arrival
	clock   clock.Clock
	waiting atomic.Int64
	waits   atomic.Int64
	waited  atomic.Int64 // nanoseconds
}

func newTurns(n int, clk clock.Clock) *turns { return &turns{free: make(chan struct{}, n), clock: clk} }

// take waits for a turn, as long as ctx allows. give ends it.
func (t *turns) take(ctx context.Context, what string) error {
	if t.try() {
		return nil
	}
	began := t.clock.Now()
	t.waiting.Add(1)
	defer func() {
		t.waiting.Add(-1)
		t.waits.Add(1)
		t.waited.Add(int64(max(t.clock.Now().Sub(began), 0)))
	}()
	select {
	case t.free <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for %s: %w", what, ctx.Err())
	}
}

// try takes a turn if there is one.
func (t *turns) try() bool {
	select {
	case t.free <- struct{}{}:
		return true
	default:
		return false
	}
}

func (t *turns) give() { <-t.free }

// addTo adds the waits for a turn to those for a connection.
func (t *turns) addTo(s sql.DBStats) sql.DBStats {
	s.WaitCount += t.waits.Load()
	s.WaitDuration += time.Duration(t.waited.Load())
	return s
}

// Metrics tells Prometheus of the connections of a database, by the names that client_golang made those of the ecosystem
// (go_sql_*). The label db_name is the name of the SQLite file without its ending, or of the PostgreSQL database, and pool is
// that of Stats.
type Metrics struct {
	db      *DB
	waiting *prometheus.Desc
	pool    []poolMetric
}

var _ prometheus.Collector = (*Metrics)(nil)

// poolMetric is one number of a pool.
type poolMetric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(sql.DBStats) float64
}

// Metrics returns what tells Prometheus of the connections of the database. After Close it tells of none.
func (db *DB) Metrics() *Metrics {
	name := prometheus.Labels{"db_name": db.engine.name()}
	m := &Metrics{db: db, waiting: prometheus.NewDesc("concordat_sql_writers_waiting", "Writes that wait for their turn.", nil, name)}
	add := func(metric, help string, kind prometheus.ValueType, value func(sql.DBStats) float64) {
		m.pool = append(m.pool, poolMetric{prometheus.NewDesc("go_sql_"+metric, help, []string{"pool"}, name), kind, value})
	}
	add("max_open_connections", "Maximum number of open connections to the database.", prometheus.GaugeValue,
		func(s sql.DBStats) float64 { return float64(s.MaxOpenConnections) })
	add("open_connections", "The number of established connections both in use and idle.", prometheus.GaugeValue,
		func(s sql.DBStats) float64 { return float64(s.OpenConnections) })
	add("in_use_connections", "The number of connections currently in use.", prometheus.GaugeValue,
		func(s sql.DBStats) float64 { return float64(s.InUse) })
	add("idle_connections", "The number of idle connections.", prometheus.GaugeValue,
		func(s sql.DBStats) float64 { return float64(s.Idle) })
	add("wait_count_total", "The total number of connections and turns waited for.", prometheus.CounterValue,
		func(s sql.DBStats) float64 { return float64(s.WaitCount) })
	add("wait_duration_seconds_total", "The total time blocked waiting for a connection or a turn.", prometheus.CounterValue,
		func(s sql.DBStats) float64 { return s.WaitDuration.Seconds() })
	return m
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(to chan<- *prometheus.Desc) {
	to <- m.waiting
	for _, p := range m.pool {
		to <- p.desc
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	s := m.db.Stats()
	to <- prometheus.MustNewConstMetric(m.waiting, prometheus.GaugeValue, float64(s.WritersWaiting))
	for _, metric := range m.pool {
		for _, p := range s.Pools {
			to <- prometheus.MustNewConstMetric(metric.desc, metric.kind, metric.value(p.DBStats), p.Name)
		}
	}
}
