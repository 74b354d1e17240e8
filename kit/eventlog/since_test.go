package eventlog

import (
	"testing"
	"time"
)

func TestWithoutATokenAWatchBeginsWhereItIsAskedTo(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		f := openLog(t, fresh(t), options())
		for n, subject := range []string{"a", "b", "c"} {
			if err := f.write(Event{Subject: subject, Type: "T", At: at.Add(time.Duration(n) * time.Minute)}); err != nil {
				t.Fatal(err)
			}
		}
		since := func(when time.Time, token string) *Subscription {
			t.Helper()
			s, err := f.log.Subscribe(t.Context(), Watch{Scope: "test", Since: when, Token: token})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(s.Close)
			return s
		}
		f.run()
		before, between, on, after := since(at.Add(-time.Hour), ""), since(at.Add(time.Second), ""), since(at.Add(time.Minute), ""), since(at.Add(time.Hour), "")
		resumed := since(at.Add(-time.Hour), between.Position())
		if _, err := f.log.Trim(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		trimmed := since(at.Add(-time.Hour), "")
		f.append("d")
		wantNext(t, between, "b", "c", "d")
		wantNext(t, on, "b", "c", "d")
		wantNext(t, after, "d")
		wantNext(t, resumed, "b", "c", "d")
		wantNext(t, trimmed, "b", "c", "d")
		wantEnd(t, before, ErrTooOld) // what it has not read yet is gone
	})
}
