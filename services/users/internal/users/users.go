// Package users knows what a user is and what is true of all of them: an id and an email belong to one user, and a
// request to make one is done once, however often it is sent.
//
// What is promised: a user who was answered with is stored, together with the event that says so and the claim on the
// request id. What is lost: nothing that was answered; a call that broke off may have been done and is sent again with
// the same request id.
package users

import (
	"context"
	"fmt"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
)

// The sizes of a page of users.
const (
	// DefaultPageSize is how many users a page has when nobody says how many.
	DefaultPageSize = 50
	// MaxPageSize is the most users that a page has.
	MaxPageSize = 1000
)

// Store keeps users. It is safe for concurrent use. Implementations pass storetest.Run.
type Store interface {
	// Create stores the drafts in one transaction and says what became of each, in their order. A draft that cannot be
	// stored fails alone. Drafts count from first to last, so that a later one can clash with an earlier one.
	//
	// Of each draft that is made, the claim, the user, the total and the event USER_CREATED commit together. A draft whose
	// claim is there already with the same digest is not made again: its outcome is the user that the first one made. The
	// outcome is ErrRequestIDReused when the digest is another, else ErrIDTaken, else ErrEmailTaken.
	//
	// An error means that no outcome is known to be stored.
	Create(ctx context.Context, drafts []Draft) ([]Outcome, error)

	// Get returns a user, or ErrNotFound.
	Get(ctx context.Context, id ID) (User, error)

	// List returns up to limit users after a position, in the order of positions, and the total; both are of one moment.
	// Limit is at least 1.
	List(ctx context.Context, after Position, limit int) (Page, error)

	// Scan calls yield with each user who was there when Scan began and with no other, in the order of positions. It
	// needs constant memory, and holds nothing of the store while yield runs: yield may take its time. An error of yield
	// ends the scan and is returned.
	Scan(ctx context.Context, yield func(User) error) error
}

// Position is a place in the order in which users are listed: by the time they were made, those of the same microsecond by
// their id. The order does not rest on the ids alone, because a caller may bring an id that was made at another time.
// The zero Position is before every user.
type Position struct {
	CreatedAt time.Time
	ID        ID
}

// Page is a part of the users.
type Page struct {
	Users []User
	More  bool // whether there are users after the last one
	Total int  // how many users there are in all
}

// Service makes users and finds them. It is safe for concurrent use.
type Service struct {
	store Store
	clock clock.Clock
	newID func() string
}

// NewService returns a service on a store. newID makes a new UUIDv7 with each call and is safe for concurrent use.
func NewService(store Store, clock clock.Clock, newID func() string) *Service {
	return &Service{store: store, clock: clock, newID: newID}
}

// Create makes a user, or returns the one that the same request of the same caller has made before.
//
// Errors: ErrEmailTaken, ErrIDTaken, ErrRequestIDReused.
func (s *Service) Create(ctx context.Context, n NewUser) (User, error) {
	outcomes, err := s.CreateAll(ctx, []NewUser{n})
	if err != nil {
		return User{}, err
	}
	return outcomes[0].User, outcomes[0].Err
}

// CreateAll makes users in one transaction and says what became of each, in their order. One that cannot be made fails
// alone, as it would with Create. An error means that nothing is known to be made; the same call may be repeated.
func (s *Service) CreateAll(ctx context.Context, all []NewUser) ([]Outcome, error) {
	drafts := make([]Draft, len(all))
	for i, n := range all {
		drafts[i] = n.draft(s.clock.Now(), s.newID)
	}
	outcomes, err := s.store.Create(ctx, drafts)
	if err != nil {
		return nil, fmt.Errorf("create %d users: %w", len(all), err)
	}
	return outcomes, nil
}

// Get returns a user, or ErrNotFound.
func (s *Service) Get(ctx context.Context, id ID) (User, error) {
	u, err := s.store.Get(ctx, id)
	if err != nil {
		return User{}, fmt.Errorf("get user %s: %w", id, err)
	}
	return u, nil
}

// List returns a page of up to size users after a position, oldest first. A size of 0 means DefaultPageSize, and one
// above MaxPageSize means that. Whoever is there from the first page to the last is on exactly one of them.
func (s *Service) List(ctx context.Context, after Position, size int) (Page, error) {
	if size <= 0 {
		size = DefaultPageSize
	}
	page, err := s.store.List(ctx, after, min(size, MaxPageSize))
	if err != nil {
		return Page{}, fmt.Errorf("list users: %w", err)
	}
	return page, nil
}

// Scan calls yield with each user who is there when it begins, oldest first. An error of yield ends it and is returned.
func (s *Service) Scan(ctx context.Context, yield func(User) error) error {
	return s.store.Scan(ctx, yield)
}
