// Package clocktest has a clock that moves only when a test says so.
package clocktest

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
)

var _ clock.Clock = (*Manual)(nil)

// Manual is a clock that stands still between calls of Advance. It is safe for concurrent use. Make it with New.
type Manual struct {
	mu      sync.Mutex
	now     time.Time
	made    uint64
	timers  timers
	changed chan struct{} // closed and replaced whenever a timer is added
}

// New returns a clock that shows start.
func New(start time.Time) *Manual {
	return &Manual{now: start, changed: make(chan struct{})}
}

// Now returns the time that the clock shows.
func (m *Manual) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// After returns a channel that receives the time at which the timer was due, once Advance has reached it. A d
// of zero or less is due at once. A timer whose reader gave up stays pending until its time.
func (m *Manual) After(d time.Duration) <-chan time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := make(chan time.Time, 1)
	if d <= 0 {
		c <- m.now
		return c
	}
	m.made++
	heap.Push(&m.timers, &timer{due: m.now.Add(d), seq: m.made, c: c})
	close(m.changed)
	m.changed = make(chan struct{})
	return c
}

// Advance moves the clock forward by d and fires every timer that is due by then: the earliest first, and those
// due at the same time in the order in which they were made. Each receives its own due time. A timer that is
// made because another one fired counts from the new time of the clock: to walk through a chain of timers,
// advance in steps and WaitPending between them. A negative d does nothing.
func (m *Manual) Advance(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d < 0 {
		return
	}
	m.now = m.now.Add(d)
	for len(m.timers) > 0 && !m.timers[0].due.After(m.now) {
		t := heap.Pop(&m.timers).(*timer)
		t.c <- t.due
	}
}

// Pending returns how many timers have not fired yet.
func (m *Manual) Pending() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.timers)
}

// WaitPending blocks until at least n timers are pending, which says that the code under test has come to its
// wait and Advance will find it there. It returns the error of ctx if that ends first.
func (m *Manual) WaitPending(ctx context.Context, n int) error {
	for {
		m.mu.Lock()
		enough, changed := len(m.timers) >= n, m.changed
		m.mu.Unlock()
		if enough {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

type timer struct {
	due time.Time
	seq uint64
	c   chan time.Time
}

// timers is a heap by due time, then by age.
type timers []*timer

func (t timers) Len() int { return len(t) }
func (t timers) Less(i, j int) bool {
	if t[i].due.Equal(t[j].due) {
		return t[i].seq < t[j].seq
	}
	return t[i].due.Before(t[j].due)
}
func (t timers) Swap(i, j int) { t[i], t[j] = t[j], t[i] }
func (t *timers) Push(x any)   { *t = append(*t, x.(*timer)) }
func (t *timers) Pop() any {
	old := *t
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*t = old[:len(old)-1]
	return last
}
