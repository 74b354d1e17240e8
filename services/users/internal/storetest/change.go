package storetest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/services/users/internal/users"
)

func changeChecks() []check {
	return []check{
		{"a change is stored and told", changeStored},
		{"every field changes, and is cleared", everyField},
		{"a user that stays as it is has no event", unchanged},
		{"an unknown user is not changed", changeUnknown},
		{"a refusal leaves the user and the request id as they are", changeRefused},
		{"an email that another has is not taken", changeEmailTaken},
		{"an email that was given up is free", emailGivenUp},
		{"an equal request changes once and is answered with the user as it is now", equalChange},
		{"the request id of a change is not used for another", otherChange},
		{"requests of making and of changing have nothing to do with each other", namespaces},
		{"a change that is only checked is not stored", changeChecked},
		{"changes of one user at once come one after the other", changesAtOnce},
		{"equal changes at once are one", equalChangesAtOnce},
		{"who is due is found, the one that waits longest first", due},
		{"old claims are purged, a few at a time", purgeClaims},
	}
}

// applying returns a change without a claim that makes f of the user, an hour later.
func applying(n int, f func(users.User) users.User) users.Change {
	return users.Change{ID: userID(n), Apply: func(u users.User) (users.User, users.EventType, error) {
		v := f(u)
		if !v.Equal(u) {
			v.Revision, v.UpdatedAt = u.Revision+1, u.UpdatedAt.Add(time.Hour)
		}
		return v, users.EventUpdated, nil
	}}
}

func change(t *testing.T, s users.Store, n int, f func(users.User) users.User) users.User {
	t.Helper()
	u, err := s.Change(t.Context(), applying(n, f))
	if err != nil {
		t.Fatalf("change: %v", err)
	}
	return u
}

func rename(name string) func(users.User) users.User {
	return func(u users.User) users.User { u.DisplayName = name; return u }
}

// changeClaim returns the n-th claim of a change.
func changeClaim(n int) users.Claim {
	return users.Claim{
		Caller: "user:admin", RequestID: requestID(n), Digest: sha256.Sum256(fmt.Appendf(nil, "change %d", n)),
		At: epoch.Add(time.Duration(n) * time.Minute),
	}
}

func changeStored(t *testing.T, b Backend) {
	made := create(t, b.Store, drafts(1, 4)...)
	sub := watch(t, b, nil)
	got := change(t, b.Store, 2, rename("Petra"))
	want := made[1]
	want.DisplayName, want.Revision, want.UpdatedAt = "Petra", 2, want.UpdatedAt.Add(time.Hour)
	if !got.Equal(want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	wantEvents(t, sub, users.Event{Type: users.EventUpdated, At: want.UpdatedAt, User: want, Matches: true})
	wantStored(t, b, made[0], want, made[2])
}

func everyField(t *testing.T, b Backend) {
	made := create(t, b.Store, draft(1))[0]
	full := func(u users.User) users.User {
		return users.User{
			ID: u.ID, Email: email("Other@example.com"), DisplayName: "A", FirstName: "B", LastName: "C",
			Address:  &users.Address{CountryCode: "CH", Lines: []string{"1"}, Locality: "2", AdministrativeArea: "3", PostalCode: "4"},
			Verified: true, Labels: map[string]string{"a": "1", "b": "2"}, State: users.Deleted, Restores: users.Disabled,
			CreatedAt: u.CreatedAt, UpdatedAt: u.UpdatedAt, DeletedAt: epoch.Add(time.Second), PurgeAt: epoch.Add(time.Minute),
		}
	}
	sub := watch(t, b, nil)
	first := change(t, b.Store, 1, full)
	wantStored(t, b, first)
	second := change(t, b.Store, 1, func(u users.User) users.User {
		u = full(u)
		u.Labels = map[string]string{"b": "3", "c": "4"}
		u.Address = nil
		return u
	})
	wantStored(t, b, second)
	third := change(t, b.Store, 1, func(u users.User) users.User {
		bare := made
		bare.UpdatedAt, bare.FirstName, bare.LastName = u.UpdatedAt, "", ""
		return bare
	})
	wantStored(t, b, third)
	for _, u := range []users.User{first, second, third} {
		wantEvents(t, sub, users.Event{Type: users.EventUpdated, At: u.UpdatedAt, User: u, Matches: true})
	}
	if third.Revision != 4 {
		t.Errorf("the revision is %d, want 4", third.Revision)
	}
	for key, value := range map[string]string{"a": "1", "b": "2", "c": "4"} {
		f := users.Compare{Field: users.FieldLabel, Label: key, Text: value}
		if got := list(t, b.Store, users.Query{Selection: users.Selection{Filter: f, ShowDeleted: true}}, 5); len(got) != 0 {
			t.Errorf("by the label %s, which is gone, %s are listed", key, show(got))
		}
	}
}

func unchanged(t *testing.T, b Backend) {
	made := create(t, b.Store, draft(1))
	sub := watch(t, b, nil)
	c := applying(1, func(u users.User) users.User { return u })
	c.Claim = changeClaim(1)
	if got, err := b.Store.Change(t.Context(), c); err != nil || !got.Equal(made[0]) {
		t.Errorf("got %+v, %v", got, err)
	}
	other := applying(1, rename("Other"))
	other.Claim = changeClaim(1)
	other.Claim.Digest[0] ^= 1
	if _, err := b.Store.Change(t.Context(), other); !errors.Is(err, users.ErrRequestIDReused) {
		t.Errorf("got %v, want that the claim is there", err)
	}
	later := change(t, b.Store, 1, rename("Later"))
	wantEvents(t, sub, users.Event{Type: users.EventUpdated, At: later.UpdatedAt, User: later, Matches: true})
	wantStored(t, b, later)
}

func changeUnknown(t *testing.T, b Backend) {
	c := applying(9, rename("Nobody"))
	c.Claim = changeClaim(1)
	if _, err := b.Store.Change(t.Context(), c); !errors.Is(err, users.ErrNotFound) {
		t.Errorf("got %v, want USER_NOT_FOUND", err)
	}
	made := create(t, b.Store, draft(9))[0]
	got, err := b.Store.Change(t.Context(), c)
	if err != nil || got.DisplayName != "Nobody" || got.Revision != made.Revision+1 {
		t.Errorf("the refused request left something: %+v, %v", got, err)
	}
}

func changeRefused(t *testing.T, b Backend) {
	made := create(t, b.Store, draft(1))
	refuse := true
	c := users.Change{ID: userID(1), Claim: changeClaim(1), Apply: func(u users.User) (users.User, users.EventType, error) {
		if refuse {
			return users.User{}, "", users.ErrETagMismatch
		}
		return applying(1, rename("Now")).Apply(u)
	}}
	if _, err := b.Store.Change(t.Context(), c); !errors.Is(err, users.ErrETagMismatch) {
		t.Errorf("got %v, want ETAG_MISMATCH", err)
	}
	wantStored(t, b, made...)
	refuse = false
	if got, err := b.Store.Change(t.Context(), c); err != nil || got.DisplayName != "Now" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func changeEmailTaken(t *testing.T, b Backend) {
	made := create(t, b.Store, draft(1), draft(2))
	c := applying(2, func(u users.User) users.User {
		u.Email = users.Email{Text: "PERSON.1@example.com", Key: made[0].Email.Key}
		u.Labels = map[string]string{"a": "b"}
		return u
	})
	c.Claim = changeClaim(1)
	if _, err := b.Store.Change(t.Context(), c); !errors.Is(err, users.ErrEmailTaken) {
		t.Errorf("got %v, want EMAIL_TAKEN", err)
	}
	wantStored(t, b, made...)
	c.Mode = users.CheckOnly
	if _, err := b.Store.Change(t.Context(), c); !errors.Is(err, users.ErrEmailTaken) {
		t.Errorf("only checked: got %v, want EMAIL_TAKEN", err)
	}
	change(t, b.Store, 1, func(u users.User) users.User { u.Email = email("new@example.com"); return u })
	c.Mode = users.Commit
	if got, err := b.Store.Change(t.Context(), c); err != nil || got.Email.Text != "PERSON.1@example.com" {
		t.Errorf("once it is free: %+v, %v", got, err)
	}
}

func emailGivenUp(t *testing.T, b Backend) {
	create(t, b.Store, draft(1))
	first := change(t, b.Store, 1, func(u users.User) users.User { u.Email = email("new@example.com"); return u })
	second := draft(2)
	second.User.Email = draft(1).User.Email
	wantStored(t, b, first, create(t, b.Store, second)[0])
}

func equalChange(t *testing.T, b Backend) {
	create(t, b.Store, draft(1))
	c := applying(1, rename("First"))
	c.Claim = changeClaim(1)
	if _, err := b.Store.Change(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	now := change(t, b.Store, 1, rename("Second"))
	b.Store = b.Reopen(t)
	c.Apply = func(users.User) (users.User, users.EventType, error) {
		t.Error("the change was applied again")
		return users.User{}, "", users.ErrErased
	}
	if got, err := b.Store.Change(t.Context(), c); err != nil || !got.Equal(now) {
		t.Errorf("got %+v, %v; want the user as it is now %+v", got, err, now)
	}
	wantStored(t, b, now)
}

func otherChange(t *testing.T, b Backend) {
	create(t, b.Store, draft(1), draft(2))
	c := applying(1, rename("First"))
	c.Claim = changeClaim(1)
	if _, err := b.Store.Change(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	for name, other := range map[string]users.Change{
		"another digest": applying(1, rename("Second")), "an unknown user": applying(9, rename("Nobody")),
	} {
		other.Claim = c.Claim
		other.Claim.Digest[0] ^= 1
		if _, err := b.Store.Change(t.Context(), other); !errors.Is(err, users.ErrRequestIDReused) {
			t.Errorf("%s: got %v, want REQUEST_ID_REUSED", name, err)
		}
	}
	caller := applying(2, rename("Third"))
	caller.Claim = c.Claim
	caller.Claim.Caller, caller.Claim.Digest = "user:other", sha256.Sum256([]byte("third"))
	if got, err := b.Store.Change(t.Context(), caller); err != nil || got.DisplayName != "Third" {
		t.Errorf("another caller: %+v, %v", got, err)
	}
}

func namespaces(t *testing.T, b Backend) {
	create(t, b.Store, draft(1))
	c := applying(1, rename("Changed"))
	c.Claim = changeClaim(1) // the request id of draft(1)
	if got, err := b.Store.Change(t.Context(), c); err != nil || got.DisplayName != "Changed" {
		t.Errorf("got %+v, %v", got, err)
	}
	c = applying(1, rename("Again"))
	c.Claim = changeClaim(2)
	if _, err := b.Store.Change(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	create(t, b.Store, draft(2)) // the request id of that change
}

func changeChecked(t *testing.T, b Backend) {
	made := create(t, b.Store, draft(1))
	sub := watch(t, b, nil)
	c := applying(1, rename("Checked"))
	c.Claim, c.Mode = changeClaim(1), users.CheckOnly
	got, err := b.Store.Change(t.Context(), c)
	if err != nil || got.DisplayName != "Checked" || got.Revision != 2 {
		t.Errorf("got %+v, %v", got, err)
	}
	wantStored(t, b, made...)
	c.Mode = users.Commit
	done, err := b.Store.Change(t.Context(), c)
	if err != nil || !done.Equal(got) {
		t.Errorf("then done: %+v, %v", done, err)
	}
	wantEvents(t, sub, users.Event{Type: users.EventUpdated, At: done.UpdatedAt, User: done, Matches: true})
}

func changesAtOnce(t *testing.T, b Backend) {
	create(t, b.Store, draft(1))
	const n = 40
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			c := applying(1, func(u users.User) users.User {
				labels := map[string]string{fmt.Sprintf("l%d", i): "x"}
				for key, value := range u.Labels {
					labels[key] = value
				}
				u.Labels = labels
				return u
			})
			c.Claim = changeClaim(i)
			if _, err := b.Store.Change(t.Context(), c); err != nil {
				t.Errorf("change %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	got, err := b.Store.Get(t.Context(), userID(1))
	if err != nil || len(got.Labels) != n || got.Revision != n+1 {
		t.Errorf("%d labels and revision %d, %v; want %d and %d", len(got.Labels), got.Revision, err, n, n+1)
	}
}

func equalChangesAtOnce(t *testing.T, b Backend) {
	create(t, b.Store, draft(1))
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			c := applying(1, rename("Once"))
			c.Claim = changeClaim(1)
			if got, err := b.Store.Change(t.Context(), c); err != nil || got.Revision != 2 {
				t.Errorf("call %d: %+v, %v", i, got, err)
			}
		})
	}
	wg.Wait()
}

// deleted returns what deletes a user who is to be erased after a time.
func deleted(purge time.Duration) func(users.User) users.User {
	return func(u users.User) users.User {
		u.Restores, u.State, u.DeletedAt, u.PurgeAt = u.State, users.Deleted, epoch, epoch.Add(purge)
		return u
	}
}

func due(t *testing.T, b Backend) {
	create(t, b.Store, drafts(0, 6)...)
	for n, hours := range map[int]time.Duration{0: 5, 1: 3, 2: 4, 4: 1, 5: 9} {
		change(t, b.Store, n, deleted(hours*time.Hour))
	}
	change(t, b.Store, 4, erased)
	for _, row := range []struct {
		hours time.Duration
		limit int
		want  []users.ID
	}{
		{2, 10, nil}, {3, 10, []users.ID{userID(1)}}, {5, 10, []users.ID{userID(1), userID(2), userID(0)}}, {5, 2, []users.ID{userID(1), userID(2)}},
	} {
		got, err := b.Store.Due(t.Context(), epoch.Add(row.hours*time.Hour), row.limit)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(row.want) {
			t.Errorf("after %d h, %d at most: %v, %v; want %v", row.hours, row.limit, got, err, row.want)
		}
	}
}

func purgeClaims(t *testing.T, b Backend) {
	create(t, b.Store, draft(0))
	for n := range 10 {
		c := applying(0, rename(fmt.Sprint(n)))
		c.Claim = changeClaim(n)
		if _, err := b.Store.Change(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	before := changeClaim(7).At
	for _, want := range []int{4, 3, 0} {
		if n, err := b.Store.PurgeClaims(t.Context(), before, 4); err != nil || n != want {
			t.Errorf("purged %d, %v; want %d", n, err, want)
		}
	}
	for n, want := range map[int]string{6: "again", 7: "again"} {
		c := applying(0, rename(want))
		c.Claim = changeClaim(n)
		got, err := b.Store.Change(t.Context(), c)
		if again := n < 7; err != nil || again && got.DisplayName != want {
			t.Errorf("claim %d: %+v, %v", n, got, err)
		}
	}
	if got := try(t, b.Store, draft(0)); got.Err != nil || got.User.ID != userID(0) {
		t.Errorf("the claim of making is gone: %+v", got)
	}
}
