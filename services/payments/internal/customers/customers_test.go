package customers_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/services/payments/internal/customers"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

const ann payments.CustomerID = "ann"

// source is auth.
type source struct {
	mu     sync.Mutex
	asked  int
	locked bool
	fail   error
	wait   chan struct{} // what a question waits for, nil for nothing
}

func (s *source) Get(ctx context.Context, id payments.CustomerID) (payments.Customer, error) {
	s.mu.Lock()
	s.asked++
	wait, locked, fail := s.wait, s.locked, s.fail
	s.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-ctx.Done():
			return payments.Customer{}, ctx.Err()
		}
	}
	if fail != nil {
		return payments.Customer{}, fail
	}
	return payments.Customer{ID: id, Active: !locked, Role: payments.RoleMember}, nil
}

func (s *source) set(change func(*source)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

func (s *source) times() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func newDirectory() (*customers.Directory, *source, *clocktest.Manual) {
	from, c := &source{}, clocktest.New(time.Unix(1e9, 0))
	return customers.New(customers.Options{Source: from, Clock: c, Staleness: time.Minute, Most: 3}), from, c
}

func wantActive(t *testing.T, d *customers.Directory, id payments.CustomerID, active bool) {
	t.Helper()
	if c, err := d.Get(t.Context(), id); err != nil || c.Active != active || c.ID != id {
		t.Errorf("got %+v, %v; want active %v", c, err, active)
	}
}

func TestACustomerIsAskedAboutOnce(t *testing.T) {
	d, from, _ := newDirectory()
	d.Heard()
	for range 3 {
		wantActive(t, d, ann, true)
	}
	if from.times() != 1 {
		t.Errorf("asked %d times", from.times())
	}
}

func TestAnEventCountsForEveryChargeAfterIt(t *testing.T) {
	for name, event := range map[string]func(*customers.Directory){
		"of the customer": func(d *customers.Directory) { d.Forget(ann) },
		"of somebody":     (*customers.Directory).ForgetAll,
	} {
		d, from, _ := newDirectory()
		d.Heard()
		wantActive(t, d, ann, true)
		from.set(func(s *source) { s.locked = true })
		wantActive(t, d, ann, true) // the event has not come yet
		event(d)
		wantActive(t, d, ann, false)
		if from.times() != 2 {
			t.Errorf("%s: asked %d times", name, from.times())
		}
	}
}

func TestWhileAuthIsNotHeardWhatIsKnownIsGoodForABoundedTime(t *testing.T) {
	d, from, c := newDirectory()
	wantActive(t, d, ann, true) // before anything was heard nothing is known well
	wantActive(t, d, ann, true)
	if from.times() != 2 {
		t.Errorf("before anything was heard: asked %d times", from.times())
	}
	d.Heard()
	from.set(func(s *source) { s.fail = payments.ErrUpstreamUnavailable })
	c.Advance(time.Minute)
	wantActive(t, d, ann, true)
	c.Advance(1)
	if _, err := d.Get(t.Context(), ann); !errors.Is(err, payments.ErrUpstreamUnavailable) {
		t.Errorf("after it: %v", err)
	}
	d.Heard() // it is back, and nothing was missed
	wantActive(t, d, ann, true)
}

// The first response of a stream that goes on comes before the events that were missed.
func TestWhoWasLockedWhileAuthWasNotHeardIsNotChargedBeforeTheEventComes(t *testing.T) {
	for name, test := range map[string]struct {
		away  time.Duration
		asked int
	}{
		"for as long as what is known is good": {time.Minute, 1},
		"for longer":                           {time.Minute + 1, 2},
	} {
		d, from, c := newDirectory()
		d.Heard()
		wantActive(t, d, ann, true)
		from.set(func(s *source) { s.locked = true })
		c.Advance(test.away)
		d.Resumed()
		d.Heard()
		wantActive(t, d, ann, test.asked == 1) // what is known is good, or is asked for
		if from.times() != test.asked {
			t.Errorf("%s: asked %d times, want %d", name, from.times(), test.asked)
		}
		d.Forget(ann)
		wantActive(t, d, ann, false)
	}
}

func TestNoErrorIsRemembered(t *testing.T) {
	d, from, _ := newDirectory()
	d.Heard()
	from.set(func(s *source) { s.fail = payments.ErrCustomerNotFound })
	if _, err := d.Get(t.Context(), ann); !errors.Is(err, payments.ErrCustomerNotFound) {
		t.Errorf("got %v", err)
	}
	from.set(func(s *source) { s.fail = nil })
	wantActive(t, d, ann, true)
}

// An answer that was under way when something happened may be of before: it is good for the charge that asked, which
// was there before, but neither for those that share the question nor for later ones.
func TestAnAnswerThatIsOlderThanAnEventIsNotRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, from, _ := newDirectory()
		d.Heard()
		wait := make(chan struct{})
		from.set(func(s *source) { s.wait = wait })
		answers := make(chan bool, 2)
		get := func() {
			c, err := d.Get(context.Background(), ann)
			if err != nil {
				t.Error(err)
			}
			answers <- c.Active
		}
		go get() // asks
		synctest.Wait()
		go get() // shares
		synctest.Wait()
		from.set(func(s *source) { s.locked, s.wait = true, nil })
		d.Forget(ann)
		close(wait)
		first, second := <-answers, <-answers
		if first == second {
			t.Errorf("both got %v: the one that shares has asked before the event was known", first)
		}
		wantActive(t, d, ann, false)
		if from.times() != 2 {
			t.Errorf("asked %d times", from.times())
		}
	})
}

func TestWhoAsksAtTheSameTimeSharesTheQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, from, _ := newDirectory()
		wait := make(chan struct{})
		from.set(func(s *source) { s.wait = wait })
		patient, cancel := context.WithCancel(context.Background())
		gone := make(chan error, 1)
		go func() {
			_, err := d.Get(patient, ann)
			gone <- err
		}()
		synctest.Wait()
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() { wantActive(t, d, ann, true) })
		}
		synctest.Wait()
		if from.times() != 1 {
			t.Errorf("asked %d times", from.times())
		}
		short, stop := context.WithTimeout(context.Background(), time.Second)
		defer stop()
		if _, err := d.Get(short, ann); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one who cannot wait: %v", err)
		}
		cancel() // who asked goes away: another one asks for the rest
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("who went away: %v", err)
		}
		synctest.Wait()
		if from.times() != 2 {
			t.Errorf("asked %d times", from.times())
		}
		close(wait)
		all.Wait()
	})
}

func TestNotMoreThanSoManyAreRemembered(t *testing.T) {
	d, from, _ := newDirectory()
	d.Heard()
	for i := range 3 {
		wantActive(t, d, payments.CustomerID(fmt.Sprint(i)), true)
	}
	wantActive(t, d, "0", true) // now 1 is who was not charged for longest
	wantActive(t, d, "3", true)
	before := from.times()
	wantActive(t, d, "0", true)
	wantActive(t, d, "3", true)
	if from.times() != before {
		t.Error("one was forgotten who should not be")
	}
	wantActive(t, d, "1", true)
	if from.times() != before+1 {
		t.Error("more are remembered than should be")
	}
}
