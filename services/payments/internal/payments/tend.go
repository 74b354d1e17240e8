package payments

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
)

const (
	// tendBatch is how many rows one step of tending is about.
	tendBatch = 256
	// intentPatience is how old an intent is before somebody else than who wrote it down asks the processor.
	intentPatience = 10 * time.Second
	// processorTimeout bounds one question to a processor that is asked again.
	processorTimeout = 10 * time.Second
)

// Release releases the pending transfers, of payments and of others, whose time is over, and says how many it has
// released. It goes on where one cannot be released, and returns why.
func (s *Service) Release(ctx context.Context) (released int, err error) {
	over, err := s.store.Expired(ctx, s.clock.Now(), tendBatch)
	if err != nil {
		return 0, err
	}
	var problems []error
	for _, t := range over {
		_, err := s.store.Do(ctx, s.expire(t))
		switch {
		case err == nil:
			released++
		case ctx.Err() != nil:
			return released, err
		case errors.Is(err, ErrInFlight), errors.Is(err, ledger.ErrStateConflict):
			// The processor is being asked, or somebody else was faster.
		default:
			problems = append(problems, fmt.Errorf("release pending transfer %d: %w", t.Number, err))
		}
	}
	return released, errors.Join(problems...)
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
// that has died, and says how many it has resolved. It goes on where one cannot be resolved, and returns why.
func (s *Service) Recover(ctx context.Context) (resolved int, err error) {
	open, err := s.store.Intents(ctx, s.clock.Now().Add(-intentPatience), tendBatch)
	if err != nil {
		return 0, err
	}
	var problems []error
	for _, intent := range open {
		if ctx.Err() != nil {
			return resolved, context.Cause(ctx)
		}
		if s.asked.has(intent.Operation.Key) {
			continue
		}
		if err := s.askAgain(ctx, intent); err != nil {
			problems = append(problems, fmt.Errorf("intent of payment %s: %w", intent.Operation.Payment, err))
			continue
		}
		resolved++
	}
	return resolved, errors.Join(problems...)
}

func (s *Service) askAgain(ctx context.Context, intent Intent) error {
	defer s.asked.add(intent.Operation.Key)()
	ctx, cancel := context.WithTimeout(ctx, processorTimeout)
	defer cancel()
	_, err := s.resolve(ctx, intent)
	return err
}

// Forget removes a part of the claims that are older than age, and says how many it has removed: zero means that there
// are no more.
func (s *Service) Forget(ctx context.Context, age time.Duration) (int, error) {
	return s.store.Forget(ctx, s.clock.Now().Add(-age), 1000)
}
