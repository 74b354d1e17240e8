package payments

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
)

const (
	// tendBatch is how many rows are read at once.
	tendBatch = 256
	// tendAtOnce is how many of them are at work at once.
	tendAtOnce = 64
	// tendTimeout bounds the work on one.
	tendTimeout = 10 * time.Second
	// tendProblems is how many of those that could not be done are named.
	tendProblems = 5
	// intentPatience is how old an intent is before somebody else than who wrote it down asks the processor.
	intentPatience = 10 * time.Second
	// intentPause is how long an intent rests that could not be resolved, twice as long each time, up to intentPauseMost.
	intentPause     = 2 * time.Second
	intentPauseMost = time.Minute
)

// tend does all rows of the pages that next returns, each time those after a row, some at once and each within its
// time, so that none holds up the others for longer. It goes on where one cannot be done, and returns how many were done
// and why others were not. do says whether there was anything to do.
func tend[T any](
	ctx context.Context, next func(after *T) ([]T, error), do func(context.Context, *T) (bool, error),
) (done int, err error) {
	var (
		workers  sync.WaitGroup
		places   = make(chan struct{}, tendAtOnce)
		mu       sync.Mutex // guards done, failed and problems
		failed   int
		problems []error
	)
	one := func(row *T) {
		defer func() { <-places }()
		ctx, cancel := context.WithTimeout(ctx, tendTimeout)
		defer cancel()
		did, err := do(ctx, row)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err != nil:
			if failed++; failed <= tendProblems {
				problems = append(problems, err)
			}
		case did:
			done++
		}
	}
	var after *T
	for more := true; more && ctx.Err() == nil; {
		page, err := next(after)
		if err != nil {
			workers.Wait()
			return done, errors.Join(append(problems, err)...)
		}
		for i := range page {
			select {
			case places <- struct{}{}:
				workers.Go(func() { one(&page[i]) })
			case <-ctx.Done():
			}
			after = &page[i]
		}
		more = len(page) == tendBatch
	}
	workers.Wait()
	if ctx.Err() != nil {
		return done, context.Cause(ctx)
	}
	if failed > tendProblems {
		problems = append(problems, fmt.Errorf("and %d others", failed-tendProblems))
	}
	return done, errors.Join(problems...)
}

// Release releases the pending transfers, of payments and of others, whose time is over, and says how many it has
// released. It goes on where one cannot be released, and returns why.
func (s *Service) Release(ctx context.Context) (released int, err error) {
	now := s.clock.Now()
	return tend(ctx, func(after *ledger.Outstanding) ([]ledger.Outstanding, error) {
		return s.store.Expired(ctx, now, after, tendBatch)
	}, func(ctx context.Context, t *ledger.Outstanding) (bool, error) {
		_, err := s.store.Do(ctx, s.expire(*t))
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, ErrInFlight), errors.Is(err, ledger.ErrStateConflict):
			return false, nil // the processor is being asked, or somebody else was faster
		}
		return false, fmt.Errorf("release pending transfer %d: %w", t.Number, err)
	})
}

// expire returns the command that releases what t holds.
func (s *Service) expire(t ledger.Outstanding) Command {
	if t.Reference == "" {
		return Command{Needs: Needs{Transfers: []int64{t.Number}}, Run: func(w *Work) (Outcome, error) {
			_, err := w.Book.Void(t.Number, ledger.Note{At: w.Now()})
			return Outcome{}, err
		}}
	}
	id := ID(t.Reference)
	return Command{Needs: Needs{Payments: []ID{id}}, Run: func(w *Work) (Outcome, error) {
		p, err := w.Payment(id)
		switch {
		case err != nil:
			return Outcome{}, err
		case p.Busy:
			return Outcome{}, ErrInFlight
		}
		p, err = release(w, p, TransactionExpired)
		return Outcome{Payment: p}, err
	}}
}

// Recover asks the processor again about intents whose outcome nobody has written down, such as those of a process
// that has died, and says how many it has resolved. It goes on where one cannot be resolved, and returns why. That one
// rests for a while before it is asked about anew, so that those which keep failing leave the time to others.
func (s *Service) Recover(ctx context.Context) (resolved int, err error) {
	now := s.clock.Now()
	s.resting.begin(now)
	resolved, err = tend(ctx, func(after *Intent) ([]Intent, error) {
		return s.store.Intents(ctx, now.Add(-intentPatience), after, tendBatch)
	}, func(ctx context.Context, intent *Intent) (bool, error) {
		key := intent.Operation.Key
		if s.asked.has(key) || s.resting.has(key, now) {
			return false, nil
		}
		defer s.asked.add(key)()
		if _, err := s.resolve(ctx, *intent); err != nil {
			s.resting.add(key, s.clock.Now())
			return false, fmt.Errorf("intent of payment %s: %w", intent.Operation.Payment, err)
		}
		s.resting.remove(key)
		return true, nil
	})
	return resolved, err
}

// resting are the operations that could not be resolved, by their keys, and when they are asked about again.
type resting struct {
	mu   sync.Mutex
	keys map[string]rest
}

type rest struct {
	until time.Time
	last  time.Duration // how long it rested last
}

// begin forgets those whose rest was over long ago: they were resolved elsewhere.
func (r *resting) begin(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.keys, func(_ string, is rest) bool { return now.Sub(is.until) > time.Hour })
}

func (r *resting) has(key string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return now.Before(r.keys[key].until)
}

func (r *resting) add(key string, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keys == nil {
		r.keys = make(map[string]rest)
	}
	pause := min(max(2*r.keys[key].last, intentPause), intentPauseMost)
	r.keys[key] = rest{now.Add(pause), pause}
}

func (r *resting) remove(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.keys, key)
}

// Forget removes a part of the claims that are older than age, and says how many it has removed: zero means that there
// are no more.
func (s *Service) Forget(ctx context.Context, age time.Duration) (int, error) {
	return s.store.Forget(ctx, s.clock.Now().Add(-age), 1000)
}
