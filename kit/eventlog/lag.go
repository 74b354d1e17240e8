package eventlog

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/concordat-dev/concordat/kit/sqldb"
)

// gauges is what is known of the log without asking the database; Log.mu guards it.
type gauges struct {
	newest int64     // the last event that was seen in the log
	atHead time.Time // when the log was last read to its end
	open   int       // subscriptions that are not closed
	cut    int64     // subscriptions that were ended because they did not keep up
}

// read takes note of a page.
func (g *gauges) read(p page, now time.Time) {
	g.newest = max(g.newest, p.head)
	if p.atHead {
		g.atHead = now
	}
}

// look takes note of where the log ends while nobody wants its events.
func (l *Log) look(ctx context.Context) error {
	l.mu.Lock()
	fresh := l.clock.Now().Sub(l.gauges.atHead) < l.poll
	l.mu.Unlock()
	if fresh {
		return nil
	}
	var head int64
	err := l.db.ReadOne(ctx, func(q sqldb.Querier) (err error) {
		_, head, err = l.bounds(ctx, q)
		return err
	})
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gauges.read(page{head: head, atHead: true}, l.clock.Now())
	return nil
}

// Newest returns the number of the newest event that Run has seen: of what was committed up to a poll interval ago, and at
// once while there are subscribers.
func (l *Log) Newest() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gauges.newest
}

// Served returns the number up to which the subscribers that keep up have been served. Without one it is Newest.
func (l *Log) Served() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.served()
}

func (l *Log) served() int64 {
	if len(l.live) == 0 {
		return l.gauges.newest
	}
	return min(l.last, l.gauges.newest)
}

// Lag returns how far Run is behind: the events between Served and Newest, and the seconds since it was last at the end of the
// log. The seconds are 0 while it comes there at least every other poll interval, and grow when it cannot keep up or the
// database cannot be read. Both are 0 before Run.
func (l *Log) Lag() (events int64, seconds float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gauges.atHead.IsZero() {
		return 0, 0
	}
	if behind := l.clock.Now().Sub(l.gauges.atHead); behind > 2*l.poll {
		seconds = behind.Seconds()
	}
	return l.gauges.newest - l.served(), seconds
}

// Subscribers returns how many subscriptions are open.
func (l *Log) Subscribers() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gauges.open
}

// Cut returns how many subscriptions have been ended with ErrSlowConsumer.
func (l *Log) Cut() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gauges.cut
}

// Metrics tells Prometheus of a log.
type Metrics struct {
	log                            *Log
	newest, lag, behind, open, cut *prometheus.Desc
}

var _ prometheus.Collector = (*Metrics)(nil)

// Metrics returns what tells Prometheus of the log: concordat_eventlog_*. It asks the database nothing.
func (l *Log) Metrics() *Metrics {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("concordat_eventlog_"+name, help, nil, nil)
	}
	return &Metrics{
		log:    l,
		newest: desc("newest_sequence", "The sequence number of the newest event that was seen."),
		lag:    desc("lag_events", "Events that are committed and that those who are subscribed have not been given."),
		behind: desc("lag_seconds", "Since when the log has not been read to its end, in seconds; 0 while it is."),
		open:   desc("subscribers", "Subscriptions that are open."),
		cut:    desc("subscribers_cut_total", "Subscriptions that were cut because they did not keep up."),
	}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.newest, m.lag, m.behind, m.open, m.cut} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	tell := func(d *prometheus.Desc, kind prometheus.ValueType, v float64) {
		to <- prometheus.MustNewConstMetric(d, kind, v)
	}
	events, seconds := m.log.Lag()
	tell(m.newest, prometheus.GaugeValue, float64(m.log.Newest()))
	tell(m.lag, prometheus.GaugeValue, float64(events))
	tell(m.behind, prometheus.GaugeValue, seconds)
	tell(m.open, prometheus.GaugeValue, float64(m.log.Subscribers()))
	tell(m.cut, prometheus.CounterValue, float64(m.log.Cut()))
}
