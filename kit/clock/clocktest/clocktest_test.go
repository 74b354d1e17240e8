package clocktest_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/clock/clocktest"
)

func start() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// due returns the time that a channel holds, or the zero time.
func due(c <-chan time.Time) time.Time {
	select {
	case at := <-c:
		return at
	default:
		return time.Time{}
	}
}

func TestTimeStandsStillUntilItIsAdvanced(t *testing.T) {
	m := clocktest.New(start())
	if !m.Now().Equal(start()) {
		t.Fatalf("Now() = %v, want %v", m.Now(), start())
	}
	m.Advance(time.Hour)
	m.Advance(-2 * time.Hour)
	if want := start().Add(time.Hour); !m.Now().Equal(want) {
		t.Fatalf("Now() = %v, want %v", m.Now(), want)
	}
}

func TestATimerFiresWhenItIsDueAndNotBefore(t *testing.T) {
	m := clocktest.New(start())
	c := m.After(time.Minute)
	m.Advance(time.Minute - 1)
	if at := due(c); !at.IsZero() {
		t.Fatalf("the timer fired at %v, a nanosecond early", at)
	}
	m.Advance(1)
	if at, want := due(c), start().Add(time.Minute); !at.Equal(want) {
		t.Fatalf("the timer fired with %v, want %v", at, want)
	}
	m.Advance(time.Hour)
	if at := due(c); !at.IsZero() {
		t.Fatalf("the timer fired again at %v", at)
	}
}

func TestATimerOfZeroOrLessIsDueAtOnce(t *testing.T) {
	m := clocktest.New(start())
	for _, d := range []time.Duration{0, -time.Second} {
		if at := due(m.After(d)); !at.Equal(start()) {
			t.Errorf("After(%v) gave %v, want %v", d, at, start())
		}
	}
	if n := m.Pending(); n != 0 {
		t.Errorf("%d timers are pending, want none", n)
	}
}

func TestTimersFireInTheOrderInWhichTheyAreDue(t *testing.T) {
	m := clocktest.New(start())
	var got []time.Duration
	seconds := []time.Duration{5, 1, 3, 1, 4}
	channels := make([]<-chan time.Time, len(seconds))
	for i, s := range seconds {
		channels[i] = m.After(s * time.Second)
	}
	for range 5 { // one step at a time, only those that are due by then
		m.Advance(time.Second)
		for _, c := range channels {
			if at := due(c); !at.IsZero() {
				got = append(got, at.Sub(start())/time.Second)
			}
		}
	}
	if want := []time.Duration{1, 1, 3, 4, 5}; !slices.Equal(got, want) {
		t.Errorf("fired at seconds %v, want %v", got, want)
	}

	late := m.After(time.Second)
	early := m.After(time.Millisecond)
	m.Advance(time.Hour) // one step past both: each has its own time
	if d := due(late).Sub(due(early)); d != time.Second-time.Millisecond {
		t.Errorf("the two timers fired %v apart, want %v", d, time.Second-time.Millisecond)
	}
}

func TestWaitPendingReturnsWhenTheTimersAreThere(t *testing.T) {
	m := clocktest.New(start())
	woke := make(chan time.Time, 2)
	for range 2 {
		go func() { woke <- <-m.After(time.Minute) }()
	}
	if err := m.WaitPending(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	m.Advance(time.Minute)
	for range 2 {
		<-woke
	}
	if n := m.Pending(); n != 0 {
		t.Errorf("%d timers are pending, want none", n)
	}
}

func TestWaitPendingEndsWithItsContext(t *testing.T) {
	m := clocktest.New(start())
	m.After(time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.WaitPending(ctx, 2); !errors.Is(err, context.Canceled) {
		t.Errorf("WaitPending = %v, want %v", err, context.Canceled)
	}
}

func TestManyGoroutinesShareOneClock(t *testing.T) {
	const sleepers, rounds = 16, 50
	m := clocktest.New(start())
	var done sync.WaitGroup
	for range sleepers {
		done.Go(func() {
			for range rounds {
				<-m.After(time.Second)
			}
		})
	}
	for range rounds {
		if err := m.WaitPending(t.Context(), sleepers); err != nil {
			t.Fatal(err)
		}
		m.Advance(time.Second)
	}
	done.Wait()
	if want := start().Add(rounds * time.Second); !m.Now().Equal(want) {
		t.Errorf("Now() = %v, want %v", m.Now(), want)
	}
}
