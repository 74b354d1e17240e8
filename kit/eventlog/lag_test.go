package eventlog

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestTheGaugesTellHowTheLogIsDoing(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		opts := options()
		manual := still()
		opts.Clock, opts.BufferSize, opts.PollInterval = manual, 2, time.Second
		f := openLog(t, fresh(t), opts)
		want := func(when string, newest, served, behind int64, seconds float64, subscribers int, cut int64) {
			t.Helper()
			b, s := f.log.Lag()
			if f.log.Newest() != newest || f.log.Served() != served || b != behind || s != seconds || f.log.Subscribers() != subscribers || f.log.Cut() != cut {
				t.Errorf("%s: newest %d, served %d, %d events and %v s behind, %d subscribers, %d cut", when,
					f.log.Newest(), f.log.Served(), b, s, f.log.Subscribers(), f.log.Cut())
			}
		}
		registry := prometheus.NewRegistry()
		if err := registry.Register(f.log.Metrics()); err != nil {
			t.Fatal(err)
		}
		want("at first", 0, 0, 0, 0, 0, 0)
		f.append("a", "b")
		f.settle()
		want("without subscribers", 2, 2, 0, 0, 0, 0)
		quick, slow := f.subscribe("", only("none")), f.subscribe("", nil)
		f.append("c")
		f.settle()
		want("with two", 3, 3, 0, 0, 2, 0)
		f.append("d", "e", "f")
		f.settle()
		want("after one did not keep up", 6, 6, 0, 0, 2, 1)
		slow.Close()
		slow.Close()
		want("after it was closed", 6, 6, 0, 0, 1, 1)

		f.append("g", "h")
		p, err := f.log.readPage(t.Context(), 6)
		if err != nil {
			t.Fatal(err)
		}
		p.events, p.through, p.atHead = p.events[:1], 7, false // as a page that was full
		f.log.handOut(p)
		want("in the middle", 8, 7, 1, 0, 1, 1)
		manual.Advance(time.Minute)
		want("a minute later", 8, 7, 1, 60, 1, 1)
		if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
			t.Errorf("%v, %v", problems, err)
		}
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var told []string
		for _, f := range families {
			m := f.GetMetric()[0]
			told = append(told, fmt.Sprint(strings.TrimPrefix(f.GetName(), "concordat_eventlog_"), " ", m.GetGauge().GetValue()+m.GetCounter().GetValue()))
		}
		if got, want := strings.Join(told, ", "), "lag_events 1, lag_seconds 60, newest_sequence 8, subscribers 1, subscribers_cut_total 1"; got != want {
			t.Errorf("the metrics tell %s, want %s", got, want)
		}
		f.settle()
		want("at the end", 8, 8, 0, 0, 1, 1)
		quick.Close()
		want("after all have left", 8, 8, 0, 0, 0, 1)
	})
}

func TestTheGaugesFollowALogThatNobodyWatches(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		opts := options()
		manual := still()
		opts.Clock, opts.PollInterval = manual, time.Second
		f := openLog(t, fresh(t), opts)
		f.append("a")
		f.settle()
		f.append("b", "c")
		f.settle()
		if n := f.log.Newest(); n != 1 {
			t.Errorf("the log was looked at again at once: newest is %d", n)
		}
		manual.Advance(time.Second)
		f.settle()
		if n := f.log.Newest(); n != 3 {
			t.Errorf("after a poll interval newest is %d, want 3", n)
		}
	})
}
