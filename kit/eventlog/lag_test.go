package eventlog

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/concordat-dev/concordat/kit/clock/clocktest"
)

// told returns the metrics of a log, a line each: what is behind "concordat_eventlog_".
func told(t *testing.T, log *Log) map[string]string {
	t.Helper()
	registry := prometheus.NewRegistry()
	if err := registry.Register(log.Metrics()); err != nil {
		t.Fatal(err)
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Fatalf("%v, %v", problems, err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, f := range families {
		m := f.GetMetric()[0]
		got[strings.TrimPrefix(f.GetName(), "concordat_eventlog_")] = fmt.Sprint(m.GetGauge().GetValue() + m.GetCounter().GetValue())
	}
	return got
}

func wantTold(t *testing.T, log *Log, when string, want map[string]string) {
	t.Helper()
	got := told(t, log)
	for name, v := range want {
		if got[name] != v {
			t.Errorf("%s: %s is %q, want %s", when, name, got[name], v)
		}
	}
}

func TestTheLagIsWhatIsCommittedAndNotReadYet(t *testing.T) {
	clk := clocktest.New(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	opts := options()
	opts.Clock = clk
	f := openLog(t, t.TempDir(), opts)
	wantTold(t, f.log, "empty", map[string]string{"newest_sequence": "0", "lag_events": "0", "lag_seconds": "0", "subscribers": "0", "readable": "1"})
	f.append("before")
	clk.Advance(time.Minute)
	wantTold(t, f.log, "with nobody who wants it", map[string]string{"newest_sequence": "1", "lag_events": "0", "lag_seconds": "0"})
	s := f.subscribe("", nil)
	f.append("a", "b")
	clk.Advance(20 * time.Second)
	f.append("c")
	clk.Advance(10 * time.Second)
	wantTold(t, f.log, "while nobody reads", map[string]string{
		"newest_sequence": "4", "lag_events": "3", "lag_seconds": "30", "subscribers": "1", "subscribers_cut_total": "0",
	})
	f.run()
	wantNext(t, s, "a", "b", "c") // what a subscriber has, has been read
	wantTold(t, f.log, "when all is read", map[string]string{"newest_sequence": "4", "lag_events": "0", "lag_seconds": "0", "subscribers": "1"})
	s.Close()
	if err := f.db.Close(); err != nil {
		t.Fatal(err)
	}
	got := told(t, f.log)
	if _, there := got["lag_events"]; there || got["readable"] != "0" || got["subscribers"] != "0" {
		t.Errorf("of a database that is closed: %v", got)
	}
}

func TestSubscribersThatAreCutAreCounted(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		opts := options()
		opts.BufferSize = 2
		f := openLog(t, dir, opts)
		f.run()
		f.subscribe("", nil)
		f.subscribe("", nil)
		f.subscribe("", only("nothing"))
		f.append("1", "2", "3")
		synctest.Wait()
		if live, cut := f.log.Subscribers(); live != 1 || cut != 2 {
			t.Errorf("%d are live and %d were cut, want 1 and 2", live, cut)
		}
	})
}
