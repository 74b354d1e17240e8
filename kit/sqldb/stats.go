package sqldb

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Stats is how busy a database is.
type Stats struct {
	// Readers are the connections of Read.
	Readers sql.DBStats
	// Writer is the one connection of Write. What its waits tell of is the turns of Writes, for which they wait before
	// they have anything to do with the connection.
	Writer sql.DBStats
	// WritersWaiting is how many Writes wait for their turn now.
	WritersWaiting int64
}

// Stats returns how busy the database is now, and what has been waited for since it was opened.
func (db *DB) Stats() Stats {
	s := Stats{Readers: db.readers.Stats(), Writer: db.writer.Stats(), WritersWaiting: db.turns.waiting.Load()}
	s.Writer.WaitCount += db.turns.waits.Load()
	s.Writer.WaitDuration += time.Duration(db.turns.waited.Load())
	return s
}

// turns counts the waits for the turn to write.
type turns struct {
	waiting atomic.Int64
	waits   atomic.Int64
	waited  atomic.Int64 // nanoseconds
}

// takeTurn waits for the turn to write, as long as ctx allows.
func (db *DB) takeTurn(ctx context.Context) error {
	select {
	case db.turn <- struct{}{}:
		return nil
	default:
	}
	began := db.clock.Now()
	db.turns.waiting.Add(1)
	defer func() {
		db.turns.waiting.Add(-1)
		db.turns.waits.Add(1)
		db.turns.waited.Add(int64(max(db.clock.Now().Sub(began), 0)))
	}()
	select {
	case db.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the writer: %w", ctx.Err())
	}
}

// Metrics tells Prometheus of the connections of a database, by the names that client_golang made those of the ecosystem
// (go_sql_*). The label db_name is the name of the file without its ending, and pool is "readers" or "writer".
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
	file := filepath.Base(db.path)
	name := prometheus.Labels{"db_name": strings.TrimSuffix(file, filepath.Ext(file))}
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
	add("wait_count_total", "The total number of connections waited for; of the writer, the turns.", prometheus.CounterValue,
		func(s sql.DBStats) float64 { return float64(s.WaitCount) })
	add("wait_duration_seconds_total", "The total time blocked waiting for a connection; of the writer, for the turn.", prometheus.CounterValue,
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
	for _, p := range m.pool {
		to <- prometheus.MustNewConstMetric(p.desc, p.kind, p.value(s.Readers), "readers")
		to <- prometheus.MustNewConstMetric(p.desc, p.kind, p.value(s.Writer), "writer")
	}
}
