package eventlog

import (
	"fmt"
	"testing"
	"testing/synctest"
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
	f := openLog(t, t.TempDir(), options())
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
}

func TestNumbersAreNotUsedAgainAfterATrim(t *testing.T) {
	f := openLog(t, t.TempDir(), options())
	const n = 2*trimBatch + 3
	f.fill(n)
	if got := f.trim(1 << 60); got != n {
		t.Errorf("%d events removed, want %d", got, n)
	}
	end := f.subscribe("", nil).Position()
	if err := f.db.Close(); err != nil {
		t.Fatal(err)
	}
	again := openLog(t, f.dir, options())
	again.run()
	s := again.subscribe(end, nil) // nothing after it was trimmed
	again.append("next")
	e, _, err := s.Next(t.Context())
	if err != nil || e.Seq != n+1 || e.Subject != "next" {
		t.Errorf("event %d of %q, %v; want %d", e.Seq, e.Subject, err, n+1)
	}
}

func TestATrimByAgeKeepsWhatIsYoungEnough(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	manual := clocktest.New(start)
	opts := options()
	opts.Clock = manual
	f := openLog(t, t.TempDir(), opts)
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
}

func TestATrimEndsWhoeverHadNotComeSoFar(t *testing.T) {
	t.Run("while catching up", func(t *testing.T) {
		f := openLog(t, t.TempDir(), options())
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
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			f := openLog(t, dir, options())
			late := f.subscribe("", nil)
			f.append("1", "2")
			f.trim(2)
			f.run() // only now are the events read for those who are live
			synctest.Wait()
			wantTooOld(t, f, wantEnd(t, late, ErrTooOld), "2")
			s := f.subscribe("", nil)
			f.append("3")
			wantNext(t, s, "3")
		})
	})
	t.Run("but not who has", func(t *testing.T) {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			f := openLog(t, dir, options())
			f.run()
			s := f.subscribe("", only("3"))
			f.append("1", "2")
			synctest.Wait()
			f.trim(3)
			f.append("3")
			wantNext(t, s, "3")
		})
	})
}
