package storetest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/concordat-dev/concordat/services/users/internal/users"
)

func modelChecks() []check {
	return []check{{"whatever is done, the store is as a model of it in memory", likeModel}}
}

// model is what a store should have, kept in the plainest way.
type model struct {
	t *rapid.T
	s users.Store

	users   map[users.ID]users.User
	created map[[2]string]users.Claim
	owner   map[[2]string]users.ID // of created and of changed, by the claim; they are two, so the first has "create " before it
	changed map[[2]string]users.Claim
	wiped   map[[2]string]bool // the claims without digest, by the keys of owner
	clock   int
	listing *listing
}

// listing is a listing that is under way while the store changes.
type listing struct {
	q    users.Query
	seen map[users.ID]int
	// always are the users who were there, matched and did not move from the first page on.
	always map[users.ID]users.User
}

func likeModel(t *testing.T, b Backend) {
	rapid.Check(t, func(t *rapid.T) {
		if err := b.Clear(t.Context()); err != nil {
			t.Fatal(err)
		}
		m := &model{
			t: t, s: b.Store, users: make(map[users.ID]users.User), created: make(map[[2]string]users.Claim),
			changed: make(map[[2]string]users.Claim), owner: make(map[[2]string]users.ID), wiped: make(map[[2]string]bool),
		}
		t.Repeat(map[string]func(*rapid.T){
			"create": m.create,
			"change": m.change,
			"erase":  m.erase,
			"purge":  m.purge,
			"begin":  m.begin,
			"page":   m.page,
			"due":    m.due,
			"":       m.check,
		})
	})
}

func (m *model) all() []users.User { return slices.Collect(maps.Values(m.users)) }

func key(c users.Claim) [2]string { return [2]string{c.Caller, c.RequestID} }

// now moves the time of the model.
func (m *model) now() time.Time {
	m.clock++
	return epoch.Add(time.Duration(m.clock) * time.Second)
}

func (m *model) claim(t *rapid.T) users.Claim {
	n := rapid.IntRange(0, 8).Draw(t, "request")
	return users.Claim{
		Caller: rapid.SampledFrom([]string{"user:a", "service:b"}).Draw(t, "caller"), RequestID: requestID(n),
		Digest: sha256.Sum256([]byte{byte(n), byte(rapid.IntRange(0, 5).Draw(t, "digest") / 5)}), At: m.now(),
	}
}

// mail returns one of few emails.
func mail(t *rapid.T) users.Email {
	return email(fmt.Sprintf("P%d@example.com", rapid.IntRange(0, 9).Draw(t, "email")))
}

func (m *model) taken(k string, but users.ID) bool {
	for id, u := range m.users {
		if id != but && u.Email.Key == k {
			return true
		}
	}
	return false
}

func (m *model) create(t *rapid.T) {
	batch := make([]users.Draft, rapid.IntRange(1, 5).Draw(t, "drafts"))
	for i := range batch {
		d := drawUser(t, rapid.IntRange(0, 9).Draw(t, "id"))
		d.User.Email, d.Claim = mail(t), m.claim(t)
		batch[i] = d
	}
	mode := users.Mode(rapid.IntRange(0, 5).Draw(t, "check") == 5)
	got, err := m.s.Create(t.Context(), batch, mode)
	if err != nil || len(got) != len(batch) {
		t.Fatalf("create: %d outcomes, %v", len(got), err)
	}
	before := *m
	if mode == users.CheckOnly {
		m.users, m.created, m.owner = maps.Clone(m.users), maps.Clone(m.created), maps.Clone(m.owner)
	}
	for i, d := range batch {
		want := m.outcome(d)
		if !errors.Is(got[i].Err, want.Err) || !got[i].User.Equal(want.User) {
			t.Fatalf("draft %d: got %+v, want %+v", i, got[i], want)
		}
	}
	if mode == users.CheckOnly {
		m.users, m.created, m.owner = before.users, before.created, before.owner
	}
}

func (m *model) outcome(d users.Draft) users.Outcome {
	k := key(d.Claim)
	owner := [2]string{"create " + k[0], k[1]}
	if c, ok := m.created[k]; ok {
		id := m.owner[owner]
		if c.Digest != d.Claim.Digest && !m.wiped[owner] {
			return users.Outcome{Err: users.ErrRequestIDReused}
		}
		return users.Outcome{User: m.users[id]}
	}
	if _, ok := m.users[d.User.ID]; ok {
		return users.Outcome{Err: users.ErrIDTaken}
	}
	if m.taken(d.User.Email.Key, "") {
		return users.Outcome{Err: users.ErrEmailTaken}
	}
	m.users[d.User.ID], m.created[k], m.owner[owner] = d.User, d.Claim, d.User.ID
	return users.Outcome{User: d.User}
}

func (m *model) change(t *rapid.T) {
	with := drawUser(t, 0).User
	address, same := mail(t), rapid.IntRange(0, 9).Draw(t, "same") == 0
	refuse := rapid.IntRange(0, 9).Draw(t, "refuse") == 0
	at := m.now()
	m.apply(t, func(u users.User) (users.User, users.EventType, error) {
		if refuse || u.Erased() {
			return users.User{}, "", users.ErrETagMismatch
		}
		if same {
			return u, users.EventUpdated, nil
		}
		with.ID, with.Email, with.CreatedAt, with.UpdatedAt, with.Revision = u.ID, address, u.CreatedAt, at, u.Revision+1
		return with, users.EventUpdated, nil
	})
}

func (m *model) erase(t *rapid.T) {
	at := m.now()
	m.apply(t, func(u users.User) (users.User, users.EventType, error) {
		if u.Erased() {
			return u, users.EventErased, nil
		}
		v := erased(u)
		v.Revision, v.UpdatedAt = u.Revision+1, at
		return v, users.EventErased, nil
	})
}

// apply does a change to the store and to the model.
func (m *model) apply(t *rapid.T, f func(users.User) (users.User, users.EventType, error)) {
	c := users.Change{
		ID: userID(rapid.IntRange(0, 9).Draw(t, "id")), Apply: f, Mode: users.Mode(rapid.IntRange(0, 5).Draw(t, "check") == 5),
	}
	if rapid.Bool().Draw(t, "claims") {
		c.Claim = m.claim(t)
	}
	got, err := m.s.Change(t.Context(), c)
	want, wantErr := m.expect(c)
	if !errors.Is(err, wantErr) || !got.Equal(want) {
		t.Fatalf("change: got %+v, %v; want %+v, %v", got, err, want, wantErr)
	}
}

func (m *model) expect(c users.Change) (users.User, error) {
	k := key(c.Claim)
	if there, ok := m.changed[k]; ok && !c.Claim.Zero() {
		if there.Digest != c.Claim.Digest && !m.wiped[k] {
			return users.User{}, users.ErrRequestIDReused
		}
		return m.users[m.owner[k]], nil
	}
	before, ok := m.users[c.ID]
	if !ok {
		return users.User{}, users.ErrNotFound
	}
	after, _, err := c.Apply(before)
	if err != nil {
		return users.User{}, err
	}
	if after.Email.Key != "" && m.taken(after.Email.Key, c.ID) {
		return users.User{}, users.ErrEmailTaken
	}
	if c.Mode == users.CheckOnly {
		return after, nil
	}
	m.users[c.ID] = after
	if !c.Claim.Zero() {
		m.changed[k], m.owner[k] = c.Claim, c.ID
	}
	if after.Erased() && !before.Erased() {
		for k, id := range m.owner {
			if id == c.ID {
				m.wiped[k] = true
			}
		}
	}
	m.moved(before, after)
	return after, nil
}

// moved notes that a listing that is under way need not have shown the user where it was.
func (m *model) moved(before, after users.User) {
	if l := m.listing; l != nil && (l.q.Order.Position(before) != l.q.Order.Position(after) || !l.q.Has(after) || after.Erased()) {
		delete(l.always, before.ID)
	}
}

func (m *model) purge(t *rapid.T) {
	before, limit := epoch.Add(time.Duration(rapid.IntRange(0, m.clock+1).Draw(t, "before"))*time.Second), rapid.IntRange(1, 5).Draw(t, "limit")
	var old [][2]string
	for k, c := range m.changed {
		if c.At.Before(before) {
			old = append(old, k)
		}
	}
	slices.SortFunc(old, func(a, b [2]string) int { return m.changed[a].At.Compare(m.changed[b].At) })
	old = old[:min(limit, len(old))]
	if n, err := m.s.PurgeClaims(t.Context(), before, limit); err != nil || n != len(old) {
		t.Fatalf("purged %d claims, %v; want %d", n, err, len(old))
	}
	for _, k := range old {
		delete(m.changed, k)
		delete(m.owner, k)
		delete(m.wiped, k)
	}
}

func (m *model) due(t *rapid.T) {
	got, err := m.s.Due(t.Context(), epoch.Add(time.Hour), 3)
	if err != nil || len(got) > 3 {
		t.Fatalf("due: %v, %v", got, err)
	}
	n := 0
	for _, u := range m.users {
		if !u.PurgeAt.IsZero() && !u.Erased() {
			n++
		}
	}
	if len(got) != min(n, 3) {
		t.Fatalf("%d are due, want %d of 3", len(got), n)
	}
}

// begin begins a listing, in whatever order and by whatever filter.
func (m *model) begin(t *rapid.T) {
	q := users.Query{
		Selection: users.Selection{Filter: drawFilter(t, 2), ShowDeleted: rapid.Bool().Draw(t, "show_deleted")},
		Order:     drawOrder(t),
	}
	m.listing = &listing{q: q, seen: make(map[users.ID]int), always: make(map[users.ID]users.User)}
	for _, u := range ordered(m.all(), q) {
		m.listing.always[u.ID] = u
	}
}

// page reads one page of the listing under way: it has who is there now, behind the page before.
func (m *model) page(t *rapid.T) {
	l := m.listing
	if l == nil {
		t.Skip("no listing")
	}
	l.q.Limit = rapid.IntRange(1, 5).Draw(t, "limit")
	page, err := m.s.List(t.Context(), l.q)
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	want := ordered(m.all(), l.q)
	if len(page.Users) > l.q.Limit || !equal(page.Users, want[:min(len(page.Users), len(want))]) {
		t.Fatalf("%#v: the page has %s, want %s", l.q, show(page.Users), show(want))
	}
	if page.Next.Zero() && len(page.Users) != len(want) {
		t.Fatalf("%#v: the last page has %s, want %s", l.q, show(page.Users), show(want))
	}
	for _, u := range page.Users {
		l.seen[u.ID]++
	}
	l.q.After = page.Next
	if !page.Next.Zero() {
		return
	}
	for id := range l.always {
		if l.seen[id] != 1 {
			t.Fatalf("user %s was there all the time and was listed %d times", id, l.seen[id])
		}
	}
	m.listing = nil
}

// check compares everything.
func (m *model) check(t *rapid.T) {
	wantSelected(t, m.s, m.all(), users.Selection{Filter: drawFilter(t, 2), ShowDeleted: rapid.Bool().Draw(t, "show_deleted")}, drawOrder(t))
	ids := make([]users.ID, 10)
	for i := range ids {
		ids[i] = userID(i)
		got, err := m.s.Get(t.Context(), ids[i])
		want, ok := m.users[ids[i]]
		if ok && (err != nil || !got.Equal(want)) || !ok && !errors.Is(err, users.ErrNotFound) {
			t.Fatalf("got %+v, %v; want %+v", got, err, want)
		}
	}
	got, err := m.s.BatchGet(t.Context(), ids)
	if err != nil || len(got) != len(m.users) {
		t.Fatalf("found %d users by their ids, %v; want %d", len(got), err, len(m.users))
	}
}
