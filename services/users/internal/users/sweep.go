package users

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// How the sweeper works.
const (
	// SweepInterval is the pause between two sweeps.
	SweepInterval = time.Minute
	// ClaimLifetime is for how long a repeated change is known to be one.
	ClaimLifetime = 7 * 24 * time.Hour

	sweepPage  = 100
	purgeBatch = 1000
)

// Swept is what a sweep did.
type Swept struct {
	Erased int // deleted users whose time had come
	Left   int // those that could not be erased, and wait for the next sweep
	Claims int // memories of requests that are too old to be sent again
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
		case <-s.Clock.After(SweepInterval):
		}
	}
}

// Sweep erases the deleted users whose time has come, each in a transaction of its own, and removes the claims that nothing needs any
// more. Sweeps of several processes at once do the work once. A user who cannot be erased now keeps no other from it.
func (s *Service) Sweep(ctx context.Context) (Swept, error) {
	var swept Swept
	if err := errors.Join(s.eraseDue(ctx, &swept), s.purgeClaims(ctx, &swept)); err != nil {
		return swept, fmt.Errorf("sweep: %w", err)
	}
	return swept, nil
}

// errNotDue says that a user was brought back, or erased, since it was found to be due.
var errNotDue = errors.New("not due any more")

func (s *Service) eraseDue(ctx context.Context, swept *Swept) error {
	now := s.now()
	for {
		due, err := s.Store.Due(ctx, now, sweepPage)
		if err != nil {
			return fmt.Errorf("find who is due: %w", err)
		}
		var problems []error
		for _, id := range due {
			_, err := s.Store.Change(ctx, Change{ID: id, Apply: func(u User) (User, EventType, error) {
				if u.Erased() || u.State != Deleted || u.PurgeAt.After(now) {
					return User{}, "", errNotDue
				}
				return u.became(u.erased(now), now), EventErased, nil
			}})
			switch {
			case err == nil:
				swept.Erased++
			case ctx.Err() != nil:
				return ctx.Err()
			case !errors.Is(err, errNotDue):
				swept.Left++
				problems = append(problems, fmt.Errorf("erase user %s: %w", id, err))
			}
		}
		// Those that are left would be found again.
		if len(due) < sweepPage || len(problems) > 0 {
			return errors.Join(problems...)
		}
	}
}

func (s *Service) purgeClaims(ctx context.Context, swept *Swept) error {
	before := s.now().Add(-ClaimLifetime)
	for {
		n, err := s.Store.PurgeClaims(ctx, before, purgeBatch)
		if err != nil {
			return fmt.Errorf("purge claims: %w", err)
		}
		swept.Claims += n
		if n < purgeBatch {
			return nil
		}
	}
}
