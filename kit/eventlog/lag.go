package eventlog

import (
	"context"
	"database/sql"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/concordat-dev/concordat/kit/sqldb"
)

// maxLag is up to how many events a lag is counted: whoever asks must not have to read a log that nobody has read for long.
const maxLag = 10_000

// Lag is how far Run is behind what has been committed.
type Lag struct {
	// Newest is the last Seq that the log has had, 0 before the first event.
	Newest int64
	// Events is how many committed events Run has not read yet, counted up to 10,000. Where nobody is live there is nothing
	// to read, and it is 0.
	Events int64
	// Behind is how long ago the oldest of them happened.
	Behind time.Duration
}

// Lag asks the database how far Run is behind.
func (l *Log) Lag(ctx context.Context) (Lag, error) {
	l.mu.Lock()
	after, wanted := l.last, len(l.live) > 0
	l.mu.Unlock()
	var lag Lag
	var oldest sql.NullInt64 // microseconds since 1970
	err := l.db.Read(ctx, func(q sqldb.Querier) (err error) {
		if _, lag.Newest, err = bounds(ctx, q); err != nil || !wanted || lag.Newest <= after {
			return err
		}
		return q.QueryRowContext(ctx, `
SELECT count(*), min(at) FROM (SELECT at FROM event_log WHERE seq > $1 ORDER BY seq LIMIT $2) AS unread`, after, maxLag).Scan(&lag.Events, &oldest)
	})
	if err != nil {
		return Lag{}, err
	}
	if oldest.Valid {
		lag.Behind = max(l.clock.Now().Sub(time.UnixMicro(oldest.Int64)), 0)
	}
	return lag, nil
}

// Subscribers returns how many subscriptions are live now, and how many have been cut since Open because they did not keep
// up.
func (l *Log) Subscribers() (live int, cut int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.live), l.cut.Load()
}

// lagTimeout bounds what whoever reads the metrics waits for the database.
const lagTimeout = time.Second

// Metrics tells Prometheus of a log.
type Metrics struct {
	log                                *Log
	newest, lag, behind, live, cut, ok *prometheus.Desc
}

var _ prometheus.Collector = (*Metrics)(nil)

// Metrics returns what tells Prometheus of the log: concordat_eventlog_*. What needs the database, the newest event and the
// lag, is left out where that does not answer within a second, and concordat_eventlog_readable is then 0.
func (l *Log) Metrics() *Metrics {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("concordat_eventlog_"+name, help, nil, nil)
	}
	return &Metrics{
		log:    l,
		newest: desc("newest_sequence", "The sequence number of the newest event."),
		lag:    desc("lag_events", "Events that are committed and not yet read for those who are subscribed, counted up to 10000."),
		behind: desc("lag_seconds", "How long ago the oldest of the events of the lag happened, in seconds; 0 without a lag."),
		live:   desc("subscribers", "Subscriptions that get events as they are committed."),
		cut:    desc("subscribers_cut_total", "Subscriptions that were cut because they did not keep up."),
		ok:     desc("readable", "1 where the database could be asked for the lag, 0 where it could not."),
	}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.newest, m.lag, m.behind, m.live, m.cut, m.ok} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	live, cut := m.log.Subscribers()
	gauge(m.live, float64(live))
	to <- prometheus.MustNewConstMetric(m.cut, prometheus.CounterValue, float64(cut))
	ctx, cancel := context.WithTimeout(context.Background(), lagTimeout)
	defer cancel()
	lag, err := m.log.Lag(ctx)
	if err != nil {
		gauge(m.ok, 0)
		return
	}
	gauge(m.ok, 1)
	gauge(m.newest, float64(lag.Newest))
	gauge(m.lag, float64(lag.Events))
	gauge(m.behind, lag.Behind.Seconds())
}
