// Package memstore keeps users in memory: a store for tests, and the plainest reading of what users.Store promises. Nothing of
// it survives the process.
package memstore

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/concordat-dev/concordat/services/users/internal/users"
)

const (
	// Examined is how many users List looks at for one page.
	Examined = 1000
	// MaxSnapshots is how many snapshots are held at once.
	MaxSnapshots = 4
)

// Store keeps users in memory. It is safe for concurrent use.
type Store struct {
	mu      sync.Mutex
	users   map[users.ID]users.User
	emails  map[string]users.ID // by Email.Key
	created map[claimKey]claim
	changed map[claimKey]claim
	log     []entry
	more    chan struct{} // closed when the log has grown

	snapshots int // how many are held
}

var _ users.Store = (*Store)(nil)

type claimKey struct{ caller, requestID string }

type claim struct {
	user   users.ID
	digest users.Digest
	any    bool // the digest was removed
	at     time.Time
}

// New returns an empty store.
func New() *Store {
	return &Store{
		users: map[users.ID]users.User{}, emails: map[string]users.ID{},
		created: map[claimKey]claim{}, changed: map[claimKey]claim{}, more: make(chan struct{}),
	}
}

// Create implements users.Store.
func (s *Store) Create(ctx context.Context, drafts []users.Draft, mode users.Mode) ([]users.Outcome, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if mode == users.CheckOnly {
		return s.clone().create(drafts), nil
	}
	return s.create(drafts), nil
}

// clone returns a store that can be changed without changing this one.
func (s *Store) clone() *Store {
	c := New()
	for id, u := range s.users {
		c.users[id] = u
	}
	for key, id := range s.emails {
		c.emails[key] = id
	}
	for key, held := range s.created {
		c.created[key] = held
	}
	for key, held := range s.changed {
		c.changed[key] = held
	}
	return c
}

func (s *Store) create(drafts []users.Draft) []users.Outcome {
	outcomes := make([]users.Outcome, len(drafts))
	for i, d := range drafts {
		outcomes[i] = s.createOne(d)
	}
	return outcomes
}

func (s *Store) createOne(d users.Draft) users.Outcome {
	key := claimKey{d.Claim.Caller, d.Claim.RequestID}
	if held, ok := s.created[key]; ok {
		if !held.any && held.digest != d.Claim.Digest {
			return users.Outcome{Err: users.ErrRequestIDReused}
		}
		return users.Outcome{User: s.users[held.user]}
	}
	if _, ok := s.users[d.User.ID]; ok {
		return users.Outcome{Err: users.ErrIDTaken.With("user_id", string(d.User.ID))}
	}
	if _, ok := s.emails[d.User.Email.Key]; ok {
		return users.Outcome{Err: users.ErrEmailTaken}
	}
	s.created[key] = claim{user: d.User.ID, digest: d.Claim.Digest, at: d.Claim.At}
	s.users[d.User.ID], s.emails[d.User.Email.Key] = d.User, d.User.ID
	s.append(entry{what: users.EventCreated, at: d.User.UpdatedAt, after: d.User})
	return users.Outcome{User: d.User}
}

// Get implements users.Store.
func (s *Store) Get(ctx context.Context, id users.ID) (users.User, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, ok := s.users[id]
	if !ok {
		return users.User{}, users.ErrNotFound.With("user_id", string(id))
	}
	return u, ctx.Err()
}

// BatchGet implements users.Store.
func (s *Store) BatchGet(ctx context.Context, ids []users.ID) ([]users.User, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []users.User
	for _, id := range ids {
		if u, ok := s.users[id]; ok {
			found = append(found, u)
		}
	}
	return found, ctx.Err()
}

// Change implements users.Store.
func (s *Store) Change(ctx context.Context, c users.Change) (users.User, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return users.User{}, err
	}
	key := claimKey{c.Claim.Caller, c.Claim.RequestID}
	if held, ok := s.changed[key]; ok && !c.Claim.Zero() {
		if !held.any && held.digest != c.Claim.Digest {
			return users.User{}, users.ErrRequestIDReused
		}
		return s.users[held.user], nil
	}
	before, ok := s.users[c.ID]
	if !ok {
		return users.User{}, users.ErrNotFound.With("user_id", string(c.ID))
	}
	after, what, err := c.Apply(before)
	if err != nil {
		return users.User{}, err
	}
	if holder, ok := s.emails[after.Email.Key]; ok && holder != c.ID {
		return users.User{}, users.ErrEmailTaken
	}
	if c.Mode == users.CheckOnly {
		return after, nil
	}
	if !c.Claim.Zero() {
		s.changed[key] = claim{user: c.ID, digest: c.Claim.Digest, at: c.Claim.At}
	}
	if after.Equal(before) {
		return before, nil
	}
	delete(s.emails, before.Email.Key)
	if after.Email.Key != "" {
		s.emails[after.Email.Key] = c.ID
	}
	s.users[c.ID] = after
	if after.Erased() && !before.Erased() {
		s.scrub(c.ID)
		before = users.User{}
	}
	s.append(entry{what: what, at: after.UpdatedAt, before: before, after: after})
	return after, nil
}

// scrub removes what the log and the claims say of a user.
func (s *Store) scrub(id users.ID) {
	for i, e := range s.log {
		if e.after.ID == id {
			s.log[i].before, s.log[i].after = users.User{}, e.after.Scrubbed()
		}
	}
	for _, claims := range []map[claimKey]claim{s.created, s.changed} {
		for key, held := range claims {
			if held.user == id {
				held.digest, held.any = users.Digest{}, true
				claims[key] = held
			}
		}
	}
}

// selected returns those of a selection, in an order.
func (s *Store) selected(sel users.Selection, order users.Order) []users.User {
	var all []users.User
	for _, u := range s.users {
		if sel.Has(u) {
			all = append(all, u)
		}
	}
	slices.SortFunc(all, func(a, b users.User) int { return compare(order, order.Position(a), order.Position(b)) })
	return all
}

func compare(order users.Order, a, b users.Position) int {
	side := a.Time.Compare(b.Time)
	if side == 0 {
		side = strings.Compare(a.Text, b.Text)
	}
	if side == 0 {
		side = strings.Compare(string(a.ID), string(b.ID))
	}
	if order.Desc {
		return -side
	}
	return side
}

// List implements users.Store.
func (s *Store) List(ctx context.Context, q users.Query) (users.Page, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var page users.Page
	examined := 0
	for _, u := range s.selected(users.Selection{ShowDeleted: true}, q.Order) {
		at := q.Order.Position(u)
		if !q.After.Zero() && compare(q.Order, at, q.After) <= 0 {
			continue
		}
		if len(page.Users) == q.Limit || examined == Examined {
			return page, ctx.Err()
		}
		examined++
		if q.Has(u) {
			page.Users = append(page.Users, u)
		}
		page.Next = at
	}
	page.Next = users.Position{}
	return page, ctx.Err()
}

// Count implements users.Store.
func (s *Store) Count(ctx context.Context, sel users.Selection) (users.Count, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.selected(sel, users.Order{}))
	return users.Count{N: n, Estimated: n > users.CountExactly}, ctx.Err()
}

// Snapshot implements users.Store.
func (s *Store) Snapshot(ctx context.Context, sel users.Selection, yield func(users.User) error) error {
	s.mu.Lock()
	all := s.selected(sel, users.Order{})
	full := s.snapshots == MaxSnapshots
	if !full {
		s.snapshots++
	}
	s.mu.Unlock()
	if full {
		return users.ErrTooManySnapshots.WithRetryAfter(time.Second)
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.snapshots--
	}()
	for _, u := range all {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := yield(u); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Due implements users.Store.
func (s *Store) Due(ctx context.Context, at time.Time, limit int) ([]users.ID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var due []users.User
	for _, u := range s.users {
		if !u.PurgeAt.IsZero() && !u.PurgeAt.After(at) {
			due = append(due, u)
		}
	}
	slices.SortFunc(due, func(a, b users.User) int {
		if side := a.PurgeAt.Compare(b.PurgeAt); side != 0 {
			return side
		}
		return strings.Compare(string(a.ID), string(b.ID))
	})
	var ids []users.ID
	for _, u := range due[:min(limit, len(due))] {
		ids = append(ids, u.ID)
	}
	return ids, ctx.Err()
}

// PurgeClaims implements users.Store.
func (s *Store) PurgeClaims(ctx context.Context, before time.Time, limit int) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var old []claimKey
	for key, held := range s.changed {
		if held.at.Before(before) {
			old = append(old, key)
		}
	}
	slices.SortFunc(old, func(a, b claimKey) int { return s.changed[a].at.Compare(s.changed[b].at) })
	old = old[:min(limit, len(old))]
	for _, key := range old {
		delete(s.changed, key)
	}
	return len(old), ctx.Err()
}
