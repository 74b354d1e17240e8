package storetest

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/services/users/internal/users"
)

func eraseChecks() []check {
	return []check{
		{"nothing personal is left of who was erased", nothingLeft},
		{"the email of who was erased is free", erasedEmailFree},
		{"requests on who was erased are answered with the tombstone", erasedRequests},
		{"who was erased is never listed", erasedNotListed},
	}
}

// erased makes a tombstone.
func erased(u users.User) users.User {
	at := epoch.Add(48 * time.Hour)
	deleted := u.DeletedAt
	if deleted.IsZero() {
		deleted = at
	}
	return users.User{ID: u.ID, State: users.Deleted, Revision: u.Revision, CreatedAt: u.CreatedAt, UpdatedAt: u.UpdatedAt, DeletedAt: deleted, ErasedAt: at}
}

// erase erases the n-th user.
func erase(t *testing.T, s users.Store, n int, claim users.Claim) users.User {
	t.Helper()
	c := applying(n, erased)
	inner := c.Apply
	c.Claim, c.Apply = claim, func(u users.User) (users.User, users.EventType, error) {
		v, _, err := inner(u)
		return v, users.EventErased, err
	}
	u, err := s.Change(t.Context(), c)
	if err != nil {
		t.Fatalf("erase: %v", err)
	}
	return u
}

// secrets are what the user of nothingLeft is known by.
func secret(n int) (users.Draft, []string) {
	d := draft(n)
	d.User.Email = users.Email{Text: "Zygmunt@Secret.Example", Key: "zygmunt@secret.example"}
	d.User.DisplayName, d.User.FirstName, d.User.LastName = "Zygmunt Tajny", "Zygfirst", "Zyglast"
	d.User.Labels = map[string]string{"zygkey": "zygvalue"}
	d.User.Address = &users.Address{CountryCode: "ZZ", Lines: []string{"Zygstreet 7"}, Locality: "Zygtown", PostalCode: "zyg-00"}
	d.User.Verified = true
	return d, []string{"zyg", "tajny", "secret.example", "digest"}
}

func nothingLeft(t *testing.T, b Backend) {
	d, traces := secret(1)
	others := create(t, b.Store, draft(0), d, draft(2))
	sub := watch(t, b, nil)
	c := applying(1, func(u users.User) users.User { u.DisplayName = "Zygmunt II"; return u })
	c.Claim = changeClaim(1)
	if _, err := b.Store.Change(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	change(t, b.Store, 1, deleted(time.Hour))
	before, err := b.Dump(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(strings.ToLower(before), traces[0]) {
		t.Fatal("the dump does not show what is kept")
	}
	tomb := erase(t, b.Store, 1, changeClaim(2))
	if !tomb.Erased() {
		t.Fatalf("got %+v", tomb)
	}
	next(t, sub) // what was in flight may still say what it said
	next(t, sub)
	if e := next(t, sub); e.Type != users.EventErased || !e.User.Equal(tomb) || e.Matches {
		t.Errorf("got %+v, want that the user was erased", e)
	}
	after, err := b.Dump(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, trace := range traces {
		if strings.Contains(strings.ToLower(after), trace) {
			t.Errorf("the store still has %q", trace)
		}
	}
	for _, d := range []users.Digest{d.Claim.Digest, changeClaim(1).Digest, changeClaim(2).Digest} {
		if strings.Contains(after, hexadecimal(d)) {
			t.Errorf("the store still has a digest of a request on the user")
		}
	}
	types := []users.EventType{users.EventCreated, users.EventUpdated, users.EventUpdated, users.EventErased}
	for i, e := range eventsOf(t, b, 1) {
		u := e.User
		want := users.User{
			ID: userID(1), State: u.State, Revision: int64(i + 1), CreatedAt: tomb.CreatedAt, UpdatedAt: e.At, DeletedAt: u.DeletedAt, ErasedAt: u.ErasedAt,
		}
		if i >= len(types) || e.Type != types[i] || !u.Equal(want) {
			t.Errorf("event %d: %+v", i, e)
		}
	}
	if got, err := b.Store.Get(t.Context(), userID(1)); err != nil || !got.Equal(tomb) {
		t.Errorf("got %+v, %v; want %+v", got, err, tomb)
	}
	for n, u := range map[int]users.User{0: others[0], 2: others[2]} {
		if events := eventsOf(t, b, n); len(events) != 1 || !events[0].User.Equal(u) {
			t.Errorf("the events of user %d are %+v", n, events)
		}
	}
}

func erasedEmailFree(t *testing.T, b Backend) {
	create(t, b.Store, draft(1), draft(2))
	erase(t, b.Store, 1, users.Claim{})
	erase(t, b.Store, 2, users.Claim{}) // two without an email
	heir := draft(3)
	heir.User.Email = draft(1).User.Email
	wantStored(t, b, create(t, b.Store, heir)...)
}

func erasedRequests(t *testing.T, b Backend) {
	create(t, b.Store, draft(1))
	c := applying(1, rename("Changed"))
	c.Claim = changeClaim(1)
	if _, err := b.Store.Change(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	tomb := erase(t, b.Store, 1, changeClaim(2))
	for _, n := range []int{1, 2} {
		c := applying(1, rename("Once more"))
		c.Claim = changeClaim(n)
		c.Claim.Digest[0] ^= 1 // whatever was asked for
		if got, err := b.Store.Change(t.Context(), c); err != nil || !got.Equal(tomb) {
			t.Errorf("change %d: %+v, %v", n, got, err)
		}
	}
	again := draft(1)
	again.Claim.Digest[0] ^= 1
	if got := try(t, b.Store, again); got.Err != nil || !got.User.Equal(tomb) {
		t.Errorf("made again: %+v", got)
	}
	fresh := draft(1)
	fresh.Claim.RequestID, fresh.User.Email = requestID(5), email("fresh@example.com")
	if got := try(t, b.Store, fresh); !errors.Is(got.Err, users.ErrIDTaken) {
		t.Errorf("the id of a tombstone: %+v", got)
	}
}

func erasedNotListed(t *testing.T, b Backend) {
	all := drafts(0, 10)
	for i := range all {
		all[i].User.Labels = map[string]string{"plan": "pro"}
	}
	made := create(t, b.Store, all...)
	for n := 0; n < 10; n += 2 {
		erase(t, b.Store, n, users.Claim{})
	}
	var want []users.User
	for n := 1; n < 10; n += 2 {
		want = append(want, made[n])
	}
	wantStored(t, b, want...)
	for _, f := range []users.Filter{
		users.Compare{Field: users.FieldLabel, Label: "plan", Text: "pro"}, users.Not{Filter: users.Verified{}},
		users.Not{Filter: users.Compare{Field: users.FieldState, Text: string(users.Deleted)}}, users.And{},
	} {
		for _, by := range []users.OrderBy{users.ByCreatedAt, users.ByUpdatedAt, users.ByDisplayName, users.ByEmail} {
			q := users.Query{Selection: users.Selection{Filter: f, ShowDeleted: true}, Order: users.Order{By: by}}
			if got := list(t, b.Store, q, 3); !equal(got, want) {
				t.Errorf("%#v ordered by %d: %s, want %s", f, by, show(got), show(want))
			}
		}
	}
}
