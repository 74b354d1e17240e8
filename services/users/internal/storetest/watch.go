package storetest

import (
	"context"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/services/users/internal/users"
)

func watchChecks() []check {
	return []check{
		{"each user has one event with what was stored, in the order of the store", eventsTellAll},
		{"a watch tells of who matches before or after", watchMatches},
		{"a watch resumes where it ended, and only in its scope", watchResumes},
		{"the events of a user are told oldest first, and end with their reader", eventsInOrder},
	}
}

// patience ends a check that waits in vain.
const patience = 30 * time.Second

// watch subscribes to what comes.
func watch(t *testing.T, b Backend, f users.Filter) users.Subscription {
	t.Helper()
	return watchFrom(t, b, f, "")
}

func watchFrom(t *testing.T, b Backend, f users.Filter, token string) users.Subscription {
	t.Helper()
	sub, err := b.Store.Watch(t.Context(), users.Watch{Filter: f, Scope: "test", Token: token})
	if err != nil {
		t.Fatalf("watch: %v", err)
	}
	t.Cleanup(sub.Close)
	return sub
}

// next waits for an event.
func next(t *testing.T, sub users.Subscription) users.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	e, _, err := sub.Next(ctx)
	if err != nil {
		t.Fatalf("next event: %v", err)
	}
	return e
}

// wantEvents checks that these come next.
func wantEvents(t *testing.T, sub users.Subscription, want ...users.Event) {
	t.Helper()
	for i, w := range want {
		e := next(t, sub)
		if e.Type != w.Type || !e.At.Equal(w.At) || !e.User.Equal(w.User) || e.Matches != w.Matches {
			t.Errorf("event %d: got %+v, want %+v", i, e, w)
		}
	}
}

// eventsOf returns the events of the n-th user. On an engine that orders its log after the commit, wait for the last of them
// before.
func eventsOf(t *testing.T, b Backend, n int) []users.Event {
	t.Helper()
	var all []users.Event
	err := b.Store.EventsOf(t.Context(), userID(n), func(e users.Event) error {
		all = append(all, e)
		return nil
	})
	if err != nil {
		t.Fatalf("events of user %d: %v", n, err)
	}
	return all
}

func hexadecimal(d users.Digest) string { return hex.EncodeToString(d[:]) }

func eventsTellAll(t *testing.T, b Backend) {
	sub := watch(t, b, nil)
	// Made in an order that is neither that of ids nor that of times.
	full := draft(3)
	full.User.Labels = map[string]string{"plan": "pro"}
	full.User.Address = &users.Address{CountryCode: "CH", Lines: []string{"a", "b"}}
	full.User.Verified = true
	made := create(t, b.Store, full, draft(1))
	made = append(made, create(t, b.Store, draft(2))...)
	for _, u := range made {
		wantEvents(t, sub, users.Event{Type: users.EventCreated, At: u.CreatedAt, User: u, Matches: true})
	}
	again := change(t, b.Store, 1, rename("Again"))
	wantEvents(t, sub, users.Event{Type: users.EventUpdated, At: again.UpdatedAt, User: again, Matches: true})
}

func watchMatches(t *testing.T, b Backend) {
	pro := users.Compare{Field: users.FieldLabel, Label: "plan", Text: "pro"}
	sub, second := watch(t, b, pro), watch(t, b, users.Not{Filter: pro})
	create(t, b.Store, draft(1))
	plan := func(value string) func(users.User) users.User {
		return func(u users.User) users.User { u.Labels = map[string]string{"plan": value}; return u }
	}
	in := change(t, b.Store, 1, plan("pro"))
	still := change(t, b.Store, 1, rename("Still"))
	out := change(t, b.Store, 1, plan("free"))
	outside := change(t, b.Store, 1, rename("Outside"))
	gone := change(t, b.Store, 1, func(u users.User) users.User { return plan("pro")(deleted(time.Hour)(u)) })

	event := func(u users.User, matches bool) users.Event {
		return users.Event{Type: users.EventUpdated, At: u.UpdatedAt, User: u, Matches: matches}
	}
	made := draft(1).User
	wantEvents(t, sub, event(in, true), event(still, true), event(out, false), event(gone, true))
	wantEvents(t, second, users.Event{Type: users.EventCreated, At: made.CreatedAt, User: made, Matches: true},
		event(in, false), event(out, true), event(outside, true), event(gone, false))
	tomb := erase(t, b.Store, 1, users.Claim{})
	for _, s := range []users.Subscription{sub, second} {
		wantEvents(t, s, users.Event{Type: users.EventErased, At: tomb.UpdatedAt, User: tomb})
	}
}

func watchResumes(t *testing.T, b Backend) {
	sub := watch(t, b, nil)
	made := create(t, b.Store, drafts(0, 6)...)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var token string
	for range 3 {
		var err error
		if _, token, err = sub.Next(ctx); err != nil {
			t.Fatal(err)
		}
	}
	sub.Close()
	b.Store = b.Reopen(t)
	_, err := b.Store.Watch(t.Context(), users.Watch{Scope: "other", Token: token})
	if err == nil {
		t.Error("the token was taken in another scope")
	}
	resumed := watchFrom(t, b, nil, token)
	for _, u := range made[3:] {
		wantEvents(t, resumed, users.Event{Type: users.EventCreated, At: u.CreatedAt, User: u, Matches: true})
	}
}

func eventsInOrder(t *testing.T, b Backend) {
	sub := watch(t, b, nil)
	create(t, b.Store, draft(1), draft(2))
	const n = 250 // more than are read at once
	for i := range n {
		change(t, b.Store, 1, rename(time.Duration(i).String()))
	}
	for range n + 2 {
		next(t, sub)
	}
	all := eventsOf(t, b, 1)
	if len(all) != n+1 {
		t.Fatalf("%d events, want %d", len(all), n+1)
	}
	for i, e := range all {
		if e.User.Revision != int64(i+1) || e.User.ID != userID(1) {
			t.Errorf("event %d: %+v", i, e)
		}
	}
	if none := eventsOf(t, b, 9); len(none) != 0 {
		t.Errorf("of an unknown user: %+v", none)
	}
	enough, read := errors.New("enough"), 0
	err := b.Store.EventsOf(t.Context(), userID(1), func(users.Event) error {
		if read++; read == 3 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || read != 3 {
		t.Errorf("got %v after %d events, want the reader's error after 3", err, read)
	}
}
