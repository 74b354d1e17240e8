// Package users knows what a user is and what is true of all of them: an id and an email belong to one user, and a
// request that changes something is done once, however often it is sent.
//
// What is promised: a user who was answered with is stored, together with the event that says so and the claim on the
// request id. Who was erased leaves a tombstone that says nothing of them. What is lost: nothing that was answered; a call that broke
// off may have been done and is sent again with the same request id.
package users

import (
	"context"
	"fmt"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
)

// The sizes of a page of users, and of a batch.
const (
	// DefaultPageSize is how many users a page has when nobody says how many.
	DefaultPageSize = 50
	// MaxPageSize is the most users that a page has.
	MaxPageSize = 1000
	// MaxBatchGet is the most users that are asked for by their ids at once.
	MaxBatchGet = 1000
)

// Deps is what a Service is made of; every field is required.
type Deps struct {
	Store Store
	Clock clock.Clock
	// NewID makes a new UUIDv7 with each call and is safe for concurrent use.
	NewID func() string
	// PurgeAfter is how long a deleted user can be brought back before it is erased.
	PurgeAfter time.Duration
}

// Service makes users, finds them and changes them. It is safe for concurrent use.
type Service struct{ Deps }

// NewService returns a service.
func NewService(deps Deps) *Service { return &Service{deps} }

// Create makes a user, or returns the one that the same request of the same caller has made before, as it is now.
//
// Errors: ErrEmailInvalid, ErrEmailTaken, ErrIDTaken, ErrRequestIDReused.
func (s *Service) Create(ctx context.Context, n NewUser) (User, error) {
	outcomes, err := s.create(ctx, []NewUser{n}, Mode(n.CheckOnly))
	if err != nil {
		return User{}, err
	}
	return outcomes[0].User, outcomes[0].Err
}

// CreateAll makes users in one transaction and says what became of each, in their order. One that cannot be made fails
// alone, as it would with Create. CheckOnly of the requests has no meaning here. An error means that nothing is known to be made; the
// same call may be repeated.
func (s *Service) CreateAll(ctx context.Context, all []NewUser) ([]Outcome, error) {
	return s.create(ctx, all, Commit)
}

func (s *Service) create(ctx context.Context, all []NewUser, mode Mode) ([]Outcome, error) {
	outcomes := make([]Outcome, len(all))
	drafts := make([]Draft, 0, len(all))
	place := make([]int, 0, len(all)) // of each draft among all
	for i, n := range all {
		d, err := n.draft(s.Clock.Now(), s.NewID)
		if err != nil {
			outcomes[i].Err = err
			continue
		}
		drafts, place = append(drafts, d), append(place, i)
	}
	if len(drafts) == 0 {
		return outcomes, nil
	}
	stored, err := s.Store.Create(ctx, drafts, mode)
	if err != nil {
		return nil, fmt.Errorf("create %d users: %w", len(drafts), err)
	}
	for i, o := range stored {
		outcomes[place[i]] = o
	}
	return outcomes, nil
}

// Get returns a user, or ErrNotFound.
func (s *Service) Get(ctx context.Context, id ID) (User, error) {
	u, err := s.Store.Get(ctx, id)
	if err != nil {
		return User{}, fmt.Errorf("get user %s: %w", id, err)
	}
	return u, nil
}

// BatchGet returns users in the order of their ids, and the ids that no user has, in that order too. An id that comes again
// counts once.
func (s *Service) BatchGet(ctx context.Context, ids []ID) (found []User, missing []ID, err error) {
	asked := make(map[ID]bool, len(ids))
	distinct := make([]ID, 0, len(ids))
	for _, id := range ids {
		if !asked[id] {
			asked[id] = true
			distinct = append(distinct, id)
		}
	}
	there, err := s.Store.BatchGet(ctx, distinct)
	if err != nil {
		return nil, nil, fmt.Errorf("get %d users: %w", len(distinct), err)
	}
	byID := make(map[ID]User, len(there))
	for _, u := range there {
		byID[u.ID] = u
	}
	for _, id := range distinct {
		if u, ok := byID[id]; ok {
			found = append(found, u)
		} else {
			missing = append(missing, id)
		}
	}
	return found, missing, nil
}

// List returns a page of users. A Limit of 0 means DefaultPageSize, and one above MaxPageSize means that. Whoever is there and matches
// from the first page to the last is on exactly one of them, unless what they are ordered by changes.
func (s *Service) List(ctx context.Context, q Query) (Page, error) {
	if q.Limit <= 0 {
		q.Limit = DefaultPageSize
	}
	q.Limit = min(q.Limit, MaxPageSize)
	page, err := s.Store.List(ctx, q)
	if err != nil {
		return Page{}, fmt.Errorf("list users: %w", err)
	}
	return page, nil
}

// Count returns how many users a selection has.
func (s *Service) Count(ctx context.Context, sel Selection) (Count, error) {
	n, err := s.Store.Count(ctx, sel)
	if err != nil {
		return Count{}, fmt.Errorf("count users: %w", err)
	}
	return n, nil
}

// Snapshot calls yield with each user of a selection, as they all are at one moment after the call, oldest first. An error of yield ends
// it and is returned. It returns ErrTooManySnapshots.
func (s *Service) Snapshot(ctx context.Context, sel Selection, yield func(User) error) error {
	return s.Store.Snapshot(ctx, sel, yield)
}

// Watch subscribes to the events of users; see Store.Watch.
func (s *Service) Watch(ctx context.Context, w Watch) (Subscription, error) {
	sub, err := s.Store.Watch(ctx, w)
	if err != nil {
		return nil, fmt.Errorf("watch users: %w", err)
	}
	return sub, nil
}

// Export gives all that is kept of a user: first the profile, to profile, and then each event that is retained, to event, oldest first. An
// error of either ends it and is returned. It returns ErrNotFound.
func (s *Service) Export(ctx context.Context, id ID, profile func(User) error, event func(Event) error) error {
	u, err := s.Get(ctx, id)
	if err != nil {
		return err
	}
	if err := profile(u); err != nil {
		return err
	}
	return s.Store.EventsOf(ctx, id, event)
}
