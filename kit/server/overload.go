package server

import (
	"cmp"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/policy"
)

// What the admission of calls goes by.
const (
	// firstBound is how many calls of one method may be under way before anything is known of it. It is wide, because a
	// handler that waits for a shared commit does more work the more calls wait with it.
	firstBound = 1024
	// lastBound is the widest bound.
	lastBound = 1 << 14
	// queueing is the delay that is taken for good: a call may take this much longer than it does in quiet times, or
	// twice as long, whichever is more. Below it more calls in flight are more throughput; above it they only wait.
	queueing = 20 * time.Millisecond
	// lapping is the same for a processor alone. It is short, because a refusal has to wait for one too, twice: until it
	// is read and until it is sent.
	lapping = 5 * time.Millisecond
	// lookEvery is how often a bound is adapted at most, and lookAt how many calls, the latest, it goes by: few will do.
	lookEvery = 100 * time.Millisecond
	lookAt    = 64
	few       = 8
	// busyAt is a wait for a processor by which one knows that there are too few, for busyFor.
	busyAt  = time.Millisecond
	busyFor = time.Second
	// patience is the longest that a call waits for its turn; standing is the same once others have waited all of the
	// time for crowdFor: then this is no burst, and waiting helps nobody.
	patience = 10 * time.Millisecond
	standing = 4 * time.Millisecond
	crowdFor = 100 * time.Millisecond
	// maxWaiting is how many calls may wait; one more, and the oldest is refused.
	maxWaiting = 1024
	// comeBack is when a refused caller may try again: bounds have moved by then.
	comeBack = 500 * time.Millisecond
)

// admit, where the server is to shed load, lets in as many calls of the method as can be done in time: unary ones alone, because a
// stream costs what it carries and not that it is open, and never those of health and reflection, which have to answer when
// nothing else does.
func admit(s *Server) step {
	admissions := make(map[*policy.Method]*admission)
	shared := &processors{}
	for _, m := range s.policies {
		if s.cfg.ShedLoad && !m.Framework && !m.ClientStream && !m.ServerStream {
			admissions[m] = newAdmission(s.cfg.Clock, shared)
		}
	}
	return step{name: "admit", around: func(next handler) handler {
		return func(c *call) error {
			a := admissions[c.method]
			if a == nil {
				return next(c)
			}
			end, _ := c.Deadline() // every call has one by now
			entered, ok := a.enter(end)
			if !ok {
				return errOverloaded
			}
			defer a.leave(entered)
			return next(c)
		}
	}}
}

var errOverloaded = fault.New(fault.ResourceExhausted, "OVERLOADED", "the server has too much to do").
	WithDomain(fault.Domain).WithRetryAfter(comeBack)

// admission bounds how many calls of one method are under way, and finds the bound by itself from how long they take:
// multiplicative decrease while calls stand in a queue somewhere below (for a processor, a lock, a connection),
// increase while the bound is what holds them back. What is let in is then answered in time, and the rest is refused before
// anything is done for it.
//
// The delay of a queue is what the median call takes beyond what it took in the best of times. A method that has become
// slow for another reason (its data grew, an upstream hangs) shows: with half of the calls under way each takes as
// long as before. Then the new time is the measure and the bound may grow again.
//
// It is safe for concurrent use.
type admission struct {
	clock      clock.Clock
	processors *processors
	floor      int // the least bound: with so few calls under way no queue is ours
	room       int // how many may wait

	mu      sync.Mutex
	bound   int
	running int
	entered uint
	waiting []*turn   // the latest at the end, and served first: the oldest are nearest to giving up
	alone   time.Time // when nobody waited, for the last time

	// What was seen since the last look, of calls that began after it: the others tell of the bound before.
	looked  time.Time
	blocked bool          // whether the bound held a call back
	calls   [lookAt]ended // a ring of the latest
	n       int           // how many ended

	base    time.Duration // what the median call takes in quiet times; zero: not known yet
	lapBase time.Duration // how long it waits for a processor then
	cut     decline
}

// processors remembers for all methods of a server whether calls wait for a processor.
type processors struct {
	busyUntil atomic.Int64 // in nanoseconds since 1970; zero: they do not
}

// entry is a call that was let in: when, zero where that is not measured, and how many were under way then, itself
// included. lap is how long it then waited for a processor, where it stepped back.
type entry struct {
	began  time.Time
	beside int
	lap    time.Duration
}

// ended is what a call took that had so many beside it when it began, and how long of that it waited for a processor.
type ended struct {
	beside    int
	took, lap time.Duration
}

// decline is where a series of decreases began: with so many calls beside each other, at that pressure.
type decline struct {
	beside   int
	pressure float64
}

// turn is a call that waits. granted receives how many are under way with it, or zero where it may not begin.
type turn struct{ granted chan int }

func newAdmission(clk clock.Clock, p *processors) *admission {
	return &admission{clock: clk, processors: p, bound: firstBound, floor: 2 * runtime.GOMAXPROCS(0), room: maxWaiting, looked: clk.Now()}
}

// enter lets a call begin that has until end, at once or after a wait of at most patience. ok is false where it may not
// begin at all: the bound is reached and no turn came, or the call would have too little left to live once it had
// waited. Every call that entered leaves.
func (a *admission) enter(end time.Time) (e entry, ok bool) {
	a.mu.Lock()
	a.entered++
	nth := a.entered
	if a.running < a.bound {
		a.running++
		e.beside = a.running
		a.mu.Unlock()
	} else if e.beside = a.wait(end); e.beside == 0 {
		return entry{}, false
	}
	// Reading the clock is most of what this costs: where there is no crowd, a quarter of the calls tell of all.
	busy := a.processors.busyUntil.Load()
	if busy == 0 && e.beside <= a.floor && nth%4 != 0 {
		return e, true
	}
	e.began = a.clock.Now()
	if busy != 0 && e.began.UnixNano() >= busy {
		a.processors.busyUntil.CompareAndSwap(busy, 0)
		busy = 0
	}
	if busy != 0 || nth%16 == 0 {
		e.lap = a.stepBack(e)
	}
	return e, true
}

// wait waits for a turn and returns how many calls were under way when it came, zero where it did not. The caller holds
// mu, which wait gives back.
func (a *admission) wait(end time.Time) int {
	a.blocked = true
	now, most := a.clock.Now(), patience
	if len(a.waiting) == 0 {
		a.alone = now
	} else if now.Sub(a.alone) > crowdFor {
		most = standing
	}
	if time.Until(end) <= most+a.base {
		a.mu.Unlock()
		return 0
	}
	t := &turn{granted: make(chan int, 1)}
	if len(a.waiting) >= a.room {
		a.waiting[0].granted <- 0
		a.waiting = slices.Delete(a.waiting, 0, 1)
	}
	a.waiting = append(a.waiting, t)
	a.mu.Unlock()
	select {
	case beside := <-t.granted:
		return beside
	case <-a.clock.After(most):
		if a.forget(t) {
			return 0
		}
		return <-t.granted
	}
}

// stepBack lets the calls go first that have arrived and not been looked at yet. Goroutines take their turns in the order
// in which they became ready, and a handler that never blocks keeps its processor: without the step back the queue for
// a processor stood where nobody counts it, in front of enter, and a call to be refused waited as long as the others.
// One call in sixteen finds out whether there is such a queue; while there is, all of them step back.
func (a *admission) stepBack(e entry) time.Duration {
	runtime.Gosched()
	now := a.clock.Now()
	waited := now.Sub(e.began)
	if waited > busyAt {
		a.processors.busyUntil.Store(now.Add(busyFor).UnixNano())
	}
	if waited > lookEvery {
		a.mu.Lock()
		a.note(ended{e.beside, a.base + waited, waited}, e.began) // what the call will say when it ends, which may be long from now
		a.mu.Unlock()
	}
	return waited
}

// forget takes a call that waits out of the queue. It returns false where its turn was decided already.
func (a *admission) forget(t *turn) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.Index(a.waiting, t)
	if i < 0 {
		return false
	}
	a.waiting = slices.Delete(a.waiting, i, i+1)
	return true
}

// leave ends a call that entered.
func (a *admission) leave(e entry) {
	var now time.Time
	if !e.began.IsZero() {
		now = a.clock.Now()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !e.began.IsZero() {
		a.note(ended{e.beside, now.Sub(e.began), e.lap}, e.began)
		if a.n >= few && now.Sub(a.looked) >= lookEvery {
			a.adapt()
			a.looked, a.blocked, a.n = now, false, 0
		}
	}
	a.running--
	for a.running < a.bound && len(a.waiting) > 0 {
		last := len(a.waiting) - 1
		a.running++
		a.waiting[last].granted <- a.running
		a.waiting = slices.Delete(a.waiting, last, last+1)
	}
}

// note remembers what a call took. The caller holds mu.
func (a *admission) note(e ended, began time.Time) {
	if began.Before(a.looked) {
		return
	}
	a.calls[a.n%lookAt] = e
	a.n++
}

// adapt moves the bound. The caller holds mu.
func (a *admission) adapt() {
	now, best := median(a.calls[:min(a.n, lookAt)])
	switch {
	case a.base == 0:
		a.base = max(best, 1) // a server that starts into a crowd has seen no quiet time: its best call comes nearest
	case now.took < a.base:
		a.base = now.took
	}
	a.lapBase = min(a.lapBase, now.lap)
	pressure := max(
		float64(now.took)/float64(a.base+max(queueing, a.base)),
		float64(now.lap)/float64(a.lapBase+max(lapping, a.lapBase)))
	if pressure <= 1 {
		a.cut = decline{}
		if a.blocked {
			// Fast where there is room, by ones near the edge.
			a.bound = min(lastBound, a.bound+max(1, int(float64(a.bound)/2*(1-pressure))))
		}
		return
	}
	if a.cut.beside == 0 || pressure > a.cut.pressure*1.25 {
		// The decline begins, or it became worse still: the first look met a queue that was growing.
		a.cut = decline{now.beside, pressure}
	}
	halved := now.beside <= a.cut.beside/2 && pressure > a.cut.pressure*0.8
	if halved || now.beside <= a.floor {
		a.base, a.lapBase = now.took, now.lap
		if halved {
			a.bound = max(a.bound, 2*a.cut.beside)
		}
		a.cut = decline{}
		return
	}
	a.bound = max(a.floor, int(float64(min(a.bound, now.beside))*max(0.5, min(0.95, 1/pressure))))
}

// median returns what the median call took, how many it had beside it and how long it waited for a processor, each by
// itself, and what the best took. It reorders the calls.
func median(calls []ended) (middle ended, best time.Duration) {
	by := func(of func(ended) time.Duration) ended {
		slices.SortFunc(calls, func(a, b ended) int { return cmp.Compare(of(a), of(b)) })
		return calls[len(calls)/2]
	}
	middle.beside = by(func(e ended) time.Duration { return time.Duration(e.beside) }).beside
	middle.lap = by(func(e ended) time.Duration { return e.lap }).lap
	middle.took = by(func(e ended) time.Duration { return e.took }).took
	return middle, calls[0].took
}
