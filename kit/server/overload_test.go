package server

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
)

// machine does work on a few processors, first come, first served, in the time of a synctest bubble.
type machine struct {
	processors chan struct{}
	takes      time.Duration
}

func newMachine(processors int, takes time.Duration) *machine {
	return &machine{make(chan struct{}, processors), takes}
}

// work waits for a processor until end at most, as a handler does that looks at its context.
func (m *machine) work(end time.Time) {
	select {
	case m.processors <- struct{}{}:
		time.Sleep(m.takes)
		<-m.processors
	case <-time.After(time.Until(end)):
	}
}

// offered is what became of the calls of a run.
type offered struct {
	done, refused  int
	longestRefusal time.Duration
	longest        time.Duration
}

// offer sends a call every interval for the time of the run, whatever becomes of the calls before.
func offer(a *admission, work func(end time.Time), every, run time.Duration, timeout time.Duration) offered {
	var (
		mu  sync.Mutex
		wg  sync.WaitGroup
		got offered
	)
	for range int(run / every) {
		wg.Go(func() {
			arrived := time.Now()
			e, ok := a.enter(arrived.Add(timeout))
			if ok {
				work(arrived.Add(timeout))
				a.leave(e)
			}
			took := time.Since(arrived)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case !ok:
				got.refused++
				got.longestRefusal = max(got.longestRefusal, took)
			case took < timeout:
				got.done++
				got.longest = max(got.longest, took)
			}
		})
		time.Sleep(every)
	}
	wg.Wait()
	return got
}

func TestUnderFiveTimesItsLoadAServerKeepsItsGoodputAndRefusesAtOnce(t *testing.T) {
	for name, tc := range map[string]struct {
		processors int
		takes      time.Duration
	}{
		"calls of a millisecond": {4, time.Millisecond},
		"short calls":            {2, 200 * time.Microsecond},
		"long calls":             {2, 26 * time.Millisecond},
		"very long calls":        {8, 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAdmission(clock.System(), &processors{})
				a.floor = 2 * tc.processors
				m := newMachine(tc.processors, tc.takes)
				peak := tc.takes / time.Duration(tc.processors)
				offer(a, m.work, peak*2, 2*time.Second, time.Second)             // quiet times
				offer(a, m.work, peak/5, 3*time.Second+30*tc.takes, time.Second) // the bound finds its place
				const run = 10 * time.Second
				got := offer(a, m.work, peak/5, run, time.Second)
				capacity := int(run / peak)
				t.Logf("%d done of %d that can be, %d refused, the slowest refusal took %s, the slowest answer %s; bound %d",
					got.done, capacity, got.refused, got.longestRefusal, got.longest, a.bound)
				if got.done < capacity*8/10 {
					t.Errorf("goodput %d, want 80 %% of %d", got.done, capacity)
				}
				if got.longestRefusal > 20*time.Millisecond {
					t.Errorf("a refusal took %s, want 20 ms at most", got.longestRefusal)
				}
				if most := tc.takes + 3*max(queueing, tc.takes) + patience; got.longest > most {
					t.Errorf("an answer took %s, want %s at most", got.longest, most)
				}
				after := offer(a, m.work, peak*2, time.Second, time.Second)
				if after.refused > 0 {
					t.Errorf("%d calls refused at half the load, once the crowd is gone", after.refused)
				}
			})
		})
	}
}

func TestWithoutABoundTheSameLoadLeavesNoGoodput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdmission(clock.System(), &processors{})
		a.bound, a.floor = 1<<30, 1<<30
		m := newMachine(4, time.Millisecond)
		got := offer(a, m.work, 50*time.Microsecond, 10*time.Second, time.Second)
		if got.done > 40_000/2 {
			t.Errorf("goodput %d of 40000: the load is no overload, and the test above shows nothing", got.done)
		}
	})
}

func TestWorkThatGoesTogetherIsNotHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdmission(clock.System(), &processors{})
		// A commit of 6 ms for all that came while the last was under way: more calls, more throughput.
		batch := make(chan chan struct{}, 4096)
		defer close(batch)
		go func() {
			for first := range batch {
				waiting := []chan struct{}{first}
				for len(batch) > 0 {
					waiting = append(waiting, <-batch)
				}
				time.Sleep(6 * time.Millisecond)
				for _, w := range waiting {
					close(w)
				}
			}
		}()
		commit := func() {
			w := make(chan struct{})
			batch <- w
			<-w
		}
		var refused atomic.Int64
		var wg sync.WaitGroup
		end := time.Now().Add(10 * time.Second)
		for range 256 {
			wg.Go(func() {
				for time.Now().Before(end) {
					e, ok := a.enter(time.Now().Add(time.Second))
					if !ok {
						refused.Add(1)
						continue
					}
					commit()
					a.leave(e)
				}
			})
		}
		wg.Wait()
		if refused.Load() > 0 {
			t.Errorf("%d calls refused; bound %d", refused.Load(), a.bound)
		}
	})
}

func TestAMethodThatHasBecomeSlowIsNotTakenForAnOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdmission(clock.System(), &processors{})
		var takes atomic.Int64
		takes.Store(int64(2 * time.Millisecond))
		upstream := func(time.Time) { time.Sleep(time.Duration(takes.Load())) } // as many at once as one likes
		if got := offer(a, upstream, time.Millisecond, 5*time.Second, time.Second); got.refused > 0 {
			t.Errorf("%d refused while nothing is wrong", got.refused)
		}
		takes.Store(int64(300 * time.Millisecond))
		offer(a, upstream, time.Millisecond, 10*time.Second, time.Second) // it is found out
		got := offer(a, upstream, time.Millisecond, 10*time.Second, time.Second)
		if got.refused > got.done/100 {
			t.Errorf("%d refused, %d done; bound %d: what waits for an upstream is in nobody's way", got.refused, got.done, a.bound)
		}
		takes.Store(int64(2 * time.Millisecond))
		if got := offer(a, upstream, time.Millisecond, 5*time.Second, time.Second); got.refused > 0 {
			t.Errorf("%d refused when it is quick again", got.refused)
		}
	})
}

func TestACallWithoutTimeToWaitIsRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdmission(clock.System(), &processors{})
		a.bound = 1
		e, ok := a.enter(time.Now().Add(time.Second))
		if !ok {
			t.Fatal("the first call is refused")
		}
		before := time.Now()
		if _, ok := a.enter(before.Add(patience)); ok || time.Since(before) != 0 {
			t.Errorf("let in: %t, after %s; want a refusal at once", ok, time.Since(before))
		}
		if _, ok := a.enter(before.Add(time.Second)); ok || time.Since(before) != patience {
			t.Errorf("let in: %t, after %s; want a refusal after %s", ok, time.Since(before), patience)
		}
		a.leave(e)
		if _, ok := a.enter(time.Now().Add(time.Second)); !ok {
			t.Error("refused although there is room")
		}
	})
}

func TestTheLatestThatWaitsIsServedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdmission(clock.System(), &processors{})
		a.bound, a.room = 1, 2
		e, _ := a.enter(time.Now().Add(time.Second))
		var mu sync.Mutex
		outcome := map[int]bool{}
		of := func(i int) (ok, decided bool) {
			mu.Lock()
			defer mu.Unlock()
			ok, decided = outcome[i]
			return ok, decided
		}
		for i := range 3 { // the queue holds two
			go func() {
				e, ok := a.enter(time.Now().Add(time.Second))
				mu.Lock()
				outcome[i] = ok
				mu.Unlock()
				if ok {
					time.Sleep(time.Hour)
					a.leave(e)
				}
			}()
			synctest.Wait()
		}
		if ok, decided := of(0); !decided || ok {
			t.Errorf("the oldest of three: decided %t, let in %t; want a refusal", decided, ok)
		}
		a.leave(e)
		synctest.Wait()
		if ok, _ := of(2); !ok {
			t.Error("the latest did not get the turn")
		}
		time.Sleep(2 * time.Hour)
		if ok, decided := of(1); !decided || ok {
			t.Errorf("the one between: decided %t, let in %t; want a refusal", decided, ok)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.running != 0 || len(a.waiting) != 0 {
			t.Errorf("%d running, %d waiting; want none", a.running, len(a.waiting))
		}
	})
}

func BenchmarkAdmission(b *testing.B) {
	a := newAdmission(clock.System(), &processors{})
	end := time.Now().Add(time.Hour)
	b.ReportAllocs()
	for b.Loop() {
		e, _ := a.enter(end)
		a.leave(e)
	}
}
