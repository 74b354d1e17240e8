package auth

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// How the sweeper works.
const (
	// SweepInterval is the pause between two sweeps.
	SweepInterval = 30 * time.Second
	// SweepAge is how old an unfinished sign-up must be. Before, the call that began it, or its repetition, is expected
	// to finish it.
	SweepAge = time.Minute

	sweepPage  = 100
	purgeBatch = 1000
)

// Swept is what a sweep did.
type Swept struct {
	Finished int // sign-ups whose account is active now
	Undone   int // sign-ups whose account was removed
	Left     int // sign-ups that wait for the next sweep
	Purged   int // rows that nothing needed any more
}

// RunSweeper sweeps at once and then again and again, until ctx ends. It tells report about each sweep.
func (s *Service) RunSweeper(ctx context.Context, report func(Swept, error)) {
	for {
		swept, err := s.Sweep(ctx)
		if ctx.Err() != nil {
			return
		}
		report(swept, err)
		select {
		case <-ctx.Done():
			return
		case <-s.clock.After(SweepInterval):
		}
	}
}

// Sweep finishes or undoes the sign-ups that were left half done, and removes what nothing needs any more. One that
// cannot be ended now is left for the next sweep. When users.v1 does not answer it stops trying and says so in the
// error, beside what it did.
func (s *Service) Sweep(ctx context.Context) (Swept, error) {
	var swept Swept
	err := errors.Join(s.sweepSignUps(ctx, &swept), s.purge(ctx, &swept))
	if err != nil {
		return swept, fmt.Errorf("sweep: %w", err)
	}
	return swept, nil
}

func (s *Service) sweepSignUps(ctx context.Context, swept *Swept) error {
	before := s.now().Add(-SweepAge)
	var behind UserID
	var problems []error
	for {
		var page []SignUp
		err := s.store.Read(ctx, func(v View) (err error) {
			page, err = v.UnfinishedSignUps(ctx, before, behind, sweepPage)
			return err
		})
		if err != nil {
			return errors.Join(append(problems, fmt.Errorf("list unfinished sign-ups: %w", err))...)
		}
		for i, claim := range page {
			_, err := s.finishSignUp(ctx, claim, dropVoidCode)
			switch {
			case err == nil:
				swept.Finished++
			case errors.Is(err, ErrEmailTaken), errors.Is(err, errAgain):
				swept.Undone++
			case errors.Is(err, ErrProfileRefused):
				swept.Undone++
				problems = append(problems, err)
			case errors.Is(err, ErrUpstreamUnavailable), ctx.Err() != nil:
				swept.Left += len(page) - i
				return errors.Join(append(problems, err)...)
			default:
				swept.Left++
				problems = append(problems, err)
			}
		}
		if len(page) < sweepPage {
			return errors.Join(problems...)
		}
		behind = page[len(page)-1].UserID
	}
}

func (s *Service) purge(ctx context.Context, swept *Swept) error {
	now := s.now()
	for {
		var removed int
		err := s.store.Write(ctx, func(tx Tx) (err error) {
			removed, err = tx.Purge(ctx, now, now.Add(-ClaimLifetime), purgeBatch)
			return err
		})
		if err != nil {
			return fmt.Errorf("purge: %w", err)
		}
		swept.Purged += removed
		if removed < purgeBatch {
			return nil
		}
	}
}
