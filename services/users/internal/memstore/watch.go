package memstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// entry is an event of the log; its place is its sequence number.
type entry struct {
	what          users.EventType
	at            time.Time
	before, after users.User // before is zero where there was no user, or an erased one is
}

// matches says whether a watch is given the event.
func (e entry) matches(f users.Filter) bool {
	return e.what == users.EventErased || users.Matches(f, e.after) || e.before.ID != "" && users.Matches(f, e.before)
}

// append adds an event; the caller has mu.
func (s *Store) append(e entry) {
	s.log = append(s.log, e)
	close(s.more)
	s.more = make(chan struct{})
}

// EventsOf implements users.Store.
func (s *Store) EventsOf(ctx context.Context, id users.ID, yield func(users.Event) error) error {
	s.mu.Lock()
	log := append([]entry(nil), s.log...)
	s.mu.Unlock()
	for _, e := range log {
		if e.after.ID != id {
			continue
		}
		if err := yield(users.Event{Type: e.what, At: e.at, User: e.after}); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Watch implements users.Store.
func (s *Store) Watch(ctx context.Context, w users.Watch) (users.Subscription, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := len(s.log)
	if w.Token != "" {
		seq, _, _ := strings.Cut(w.Token, ":")
		n, err := strconv.Atoi(seq)
		if err != nil || w.Token != tokenOf(w, n) || n < 0 || n > len(s.log) {
			return nil, eventlog.ErrBadToken
		}
		next = n
	}
	return &subscription{store: s, watch: w, next: next}, ctx.Err()
}

type subscription struct {
	store *Store
	watch users.Watch

	mu     sync.Mutex
	next   int // the place of the next event
	closed bool
}

// Next implements users.Subscription.
func (s *subscription) Next(ctx context.Context) (users.Event, string, error) {
	for {
		s.mu.Lock()
		pending, more := s.store.after(s.next)
		for len(pending) > 0 && !s.closed {
			e := pending[0]
			pending = pending[1:]
			s.next++
			if e.matches(s.watch.Filter) {
				token := s.token()
				s.mu.Unlock()
				return users.Event{Type: e.what, At: e.at, User: e.after, Matches: users.Matches(s.watch.Filter, e.after)}, token, nil
			}
		}
		closed := s.closed
		s.mu.Unlock()
		if closed {
			return users.Event{}, "", eventlog.ErrSubscriptionClosed
		}
		select {
		case <-more:
		case <-ctx.Done():
			return users.Event{}, "", ctx.Err()
		}
	}
}

// after returns the events from a place on, and what is closed when there are more.
func (s *Store) after(next int) ([]entry, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log[next:]), s.more
}

// token returns the token of the present place; the caller has mu.
func (s *subscription) token() string { return tokenOf(s.watch, s.next) }

// tokenOf returns the token of a place in the scope of a watch. Anybody can make one.
func tokenOf(w users.Watch, place int) string {
	sum := sha256.Sum256([]byte(strconv.Itoa(place) + "\n" + w.Scope))
	return strconv.Itoa(place) + ":" + hex.EncodeToString(sum[:])
}

// Position implements users.Subscription.
func (s *subscription) Position() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token()
}

// OnCut implements users.Subscription: it buffers nothing, and so cuts nobody.
func (s *subscription) OnCut(func(error)) {}

// Close implements users.Subscription.
func (s *subscription) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}
