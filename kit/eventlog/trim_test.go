package eventlog

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/clock/clocktest"
)

func (f *fixture) trim(before int64) int64 {
	f.t.Helper()
	n, err := f.log.Trim(f.t.Context(), before)
	if err != nil {
		f.t.Fatal(err)
	}
	return n
}

func TestATokenFromBeforeTheOldestEventIsTooOld(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		f := openLog(t, fresh(t), options())
		start := f.subscribe("", nil).Position()
		f.append("1", "2", "3", "4")
		after2 := wantNext(t, f.subscribe(start, nil), "1", "2")
		if n := f.trim(3); n != 2 {
			t.Errorf("%d events removed, want 2", n)
		}
		_, err := f.log.Subscribe(t.Context(), Watch{Scope: scope, Token: start})
		wantTooOld(t, f, err, "3", "4")
		wantNext(t, f.subscribe(after2, nil), "3", "4") // the oldest that is good
		for _, before := range []int64{-5, 0, 1, 3} {
			if n := f.trim(before); n != 0 {
				t.Errorf("a trim before %d removed %d events", before, n)
			}
		}
		wantNext(t, f.subscribe(after2, nil), "3", "4")
	})
}

func TestNumbersAreNotUsedAgainAfterATrim(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		f := openLog(t, fresh(t), options())
		const n = 2*trimBatch + 3
		f.fill(n)
		if got := f.trim(1 << 60); got != n {
			t.Errorf("%d events removed, want %d", got, n)
		}
		end := f.subscribe("", nil).Position()
		if err := f.db.Close(); err != nil {
			t.Fatal(err)
		}
		again := openLog(t, f.at, options())
		again.run()
		s := again.subscribe(end, nil) // nothing after it was trimmed
		again.append("next")
		e, _, err := s.Next(t.Context())
		if err != nil || e.Seq != n+1 || e.Subject != "next" {
			t.Errorf("event %d of %q, %v; want %d", e.Seq, e.Subject, err, n+1)
		}
	})
}

func TestATrimByAgeKeepsWhatIsYoungEnough(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		manual := clocktest.New(start)
		opts := options()
		opts.Clock = manual
		f := openLog(t, fresh(t), opts)
		begin := f.subscribe("", nil).Position()
		for i := range 5 {
			f.append(fmt.Sprint(i))
			manual.Advance(time.Hour)
		}
		for _, test := range []struct {
			before   time.Time
			removed  int64
			retained []string
		}{
			{start, 0, []string{"0", "1", "2", "3", "4"}},
			{start.Add(2 * time.Hour), 2, []string{"2", "3", "4"}},
			{start.Add(3*time.Hour + time.Microsecond), 2, []string{"4"}},
			{start.Add(time.Hour * 1000), 1, nil},
		} {
			n, err := f.log.TrimBefore(t.Context(), test.before)
			if err != nil || n != test.removed {
				t.Errorf("%d events removed, %v; want %d", n, err, test.removed)
			}
			if test.removed > 0 {
				_, err := f.log.Subscribe(t.Context(), Watch{Scope: scope, Token: begin})
				wantTooOld(t, f, err, test.retained...)
			}
		}
	})
}

func TestATrimEndsWhoeverHadNotComeSoFar(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		t.Run("while catching up", func(t *testing.T) {
			f := openLog(t, fresh(t), options())
			start := f.subscribe("", nil).Position()
			f.fill(2 * pageEvents)
			s := f.subscribe(start, nil)
			wantNext(t, s, "1")
			f.trim(pageEvents + 10)
			for i := range pageEvents - 1 {
				wantNext(t, s, fmt.Sprint(i+2)) // read before the trim
			}
			wantTooOld(t, f, wantEnd(t, s, ErrTooOld), fmt.Sprint(pageEvents+10))
		})
		t.Run("while live", func(t *testing.T) {
			at := fresh(t)
			f := openLog(t, at, options())
			late := f.subscribe("", nil)
			f.append("1", "2")
			f.trim(2)
			f.run() // only now are the events read for those who are live
			f.settle()
			wantTooOld(t, f, wantEnd(t, late, ErrTooOld), "2")
			s := f.subscribe("", nil)
			f.append("3")
			wantNext(t, s, "3")
		})
		t.Run("but not who has", func(t *testing.T) {
			at := fresh(t)
			f := openLog(t, at, options())
			f.run()
			s := f.subscribe("", only("3"))
			f.append("1", "2")
			f.settle()
			f.trim(3)
			f.append("3")
			wantNext(t, s, "3")
		})
	})
}

func TestWhatIsNoLongerRetainedIsRemoved(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		for name, test := range map[string]struct {
			keep  Retention
			first int64 // the oldest event after each of three hours
			later [2]int64
		}{
			"all of it":     {Retention{}, 1, [2]int64{1, 1}},
			"by age":        {Retention{MaxAge: 90 * time.Minute}, 1, [2]int64{1, 11}},
			"by number":     {Retention{MaxEvents: 15}, 1, [2]int64{6, 16}},
			"by age first":  {Retention{MaxAge: time.Minute, MaxEvents: 15}, 1, [2]int64{11, 21}},
			"by number all": {Retention{MaxAge: 24 * time.Hour, MaxEvents: 1}, 10, [2]int64{20, 30}},
		} {
			t.Run(name, func(t *testing.T) {
				manual := clocktest.New(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
				opts := options()
				opts.Clock, opts.Retention = manual, test.keep
				f := openLog(t, fresh(t), opts)
				for i, want := range []int64{test.first, test.later[0], test.later[1]} {
					manual.Advance(time.Duration(min(i, 1)) * time.Hour)
					f.append(slices.Repeat([]string{"s"}, 10)...)
					if err := f.log.trimToRetention(t.Context()); err != nil {
						t.Fatal(err)
					}
					all, err := f.log.readAll(t.Context())
					if err != nil || len(all) == 0 || all[0].Seq != want || all[len(all)-1].Seq != int64(10*(i+1)) {
						t.Errorf("after %d hours the log has %d events from %v, %v, want from %d", i, len(all), all[:min(1, len(all))], err, want)
					}
				}
			})
		}
	})
}

func TestALogThatRunsKeepsToItsRetention(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		manual := clocktest.New(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
		opts := options()
		opts.Clock, opts.Retention, opts.PollInterval = manual, Retention{MaxEvents: 5}, time.Hour
		f := openLog(t, fresh(t), opts)
		begin := f.subscribe("", nil).Position()
		f.fill(8)
		f.run()
		if err := manual.WaitPending(t.Context(), 2); err != nil { // the first trim is over
			t.Fatal(err)
		}
		_, err := f.log.Subscribe(t.Context(), Watch{Scope: scope, Token: begin})
		wantTooOld(t, f, err, "4", "5", "6", "7", "8")
		f.append("9")
		manual.Advance(retainInterval)
		if err := manual.WaitPending(t.Context(), 2); err != nil { // and the second
			t.Fatal(err)
		}
		_, err = f.log.Subscribe(t.Context(), Watch{Scope: scope, Token: begin})
		wantTooOld(t, f, err, "5", "6", "7", "8", "9")
	})
}
