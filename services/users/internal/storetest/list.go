package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/services/users/internal/users"
)

func listChecks() []check {
	return []check{
		{"pages of every size, order and direction show each user once, in order", pagesOfEverySize},
		{"users who were there from the first page to the last are listed once while others come, change and go", stableUnderChurn},
		{"a user whose clock was behind does not disturb a listing", lateClock},
		{"an empty store has an empty page", emptyPage},
		{"deleted users are listed only where they are asked for", deletedListed},
		{"a range of what the order is by is listed once, from its beginning to its end", rangeOfOrder},
		{"a filter that matches one of very many ends, by pages that may be empty", rareMatch},
		{"counts are exact up to ten thousand and estimates above", counts},
		{"a snapshot shows those who were there when it began, as they were, in order", snapshotShowsBeginning},
		{"a snapshot of nobody yields nothing", snapshotOfNobody},
		{"a snapshot ends with the error of its reader", snapshotEndsWithReader},
		{"a snapshot ends with its context", snapshotEndsWithContext},
		{"more snapshots than the store holds are refused, and the others go on", tooManySnapshots},
	}
}

// orders are all that there are.
func orders() []users.Order {
	var all []users.Order
	for _, by := range []users.OrderBy{users.ByCreatedAt, users.ByUpdatedAt, users.ByDisplayName, users.ByEmail} {
		all = append(all, users.Order{By: by}, users.Order{By: by, Desc: true})
	}
	return all
}

// compare says on which side of b a is in an order.
func compare(o users.Order, a, b users.Position) int {
	side := a.Time.Compare(b.Time)
	if side == 0 {
		side = strings.Compare(a.Text, b.Text)
	}
	if side == 0 {
		side = strings.Compare(string(a.ID), string(b.ID))
	}
	if o.Desc {
		return -side
	}
	return side
}

// ordered returns the users of a query without its limit.
func ordered(all []users.User, q users.Query) []users.User {
	var found []users.User
	for _, u := range all {
		if !u.Erased() && q.Has(u) && (q.After.Zero() || compare(q.Order, q.Order.Position(u), q.After) > 0) {
			found = append(found, u)
		}
	}
	slices.SortFunc(found, func(a, b users.User) int { return compare(q.Order, q.Order.Position(a), q.Order.Position(b)) })
	return found
}

func pagesOfEverySize(t *testing.T, b Backend) {
	const n = 23
	all := drafts(0, n)
	names := []string{"", "Ä", "a", "Z", "z", "É", "Za", "%", "_", "👩"}
	// Some were made in the same microsecond, or have the same name: their ids decide.
	for i := range all {
		u := &all[i].User
		u.CreatedAt, u.UpdatedAt = epoch.Add(time.Duration(i/4)*time.Microsecond), epoch.Add(time.Duration(-i/3)*time.Microsecond)
		u.DisplayName = names[i%len(names)]
		u.Email.Key = fmt.Sprintf("%s%d@example.com", names[i%len(names)], i)
	}
	random := rand.New(rand.NewPCG(1, 2))
	random.Shuffle(n, func(i, j int) { all[i], all[j] = all[j], all[i] })
	made := create(t, b.Store, all...)
	for _, o := range orders() {
		want := ordered(made, users.Query{Order: o})
		for size := 1; size <= n+1; size++ {
			if got := list(t, b.Store, users.Query{Order: o}, size); !equal(got, want) {
				t.Errorf("%+v by pages of %d: got %s, want %s", o, size, show(got), show(want))
			}
		}
		last := listPage(t, b.Store, users.Query{Order: o, After: o.Position(want[n-2]), Limit: 1})
		if !last.Next.Zero() || len(last.Users) != 1 {
			t.Errorf("%+v: the last page has %d users and goes on at %+v", o, len(last.Users), last.Next)
		}
		if end := listPage(t, b.Store, users.Query{Order: o, After: o.Position(want[n-1]), Limit: 1}); !end.Next.Zero() || len(end.Users) != 0 {
			t.Errorf("%+v: after the last user there are %d users, going on at %+v", o, len(end.Users), end.Next)
		}
	}
}

func stableUnderChurn(t *testing.T, b Backend) {
	// The even ones are there from the first page on and stay as they are; between two pages odd ones come, change and are
	// erased, before and after the place of the listing.
	const n = 60
	var even, odd []users.Draft
	for i, d := range drafts(0, n) {
		d.User.Labels = map[string]string{"plan": "pro"}
		if i%2 == 0 {
			even = append(even, d)
		} else {
			odd = append(odd, d)
		}
	}
	create(t, b.Store, even...)
	random := rand.New(rand.NewPCG(3, 4))
	random.Shuffle(len(odd), func(i, j int) { odd[i], odd[j] = odd[j], odd[i] })
	filters := []users.Filter{nil, users.Compare{Field: users.FieldLabel, Label: "plan", Text: "pro"}}
	for i, o := range orders() {
		q := users.Query{Selection: users.Selection{Filter: filters[i%2]}, Order: o}
		seen := make(map[users.ID]int)
		var come []int
		for size := 1; ; size = size%4 + 1 {
			q.Limit = size
			page := listPage(t, b.Store, q)
			for _, u := range page.Users {
				seen[u.ID]++
			}
			if page.Next.Zero() {
				break
			}
			q.After = page.Next
			switch {
			case len(odd) > 0 && random.IntN(2) == 0:
				var number int
				if _, err := fmt.Sscanf(odd[0].User.DisplayName, "Person %d", &number); err != nil {
					t.Fatal(err)
				}
				create(t, b.Store, odd[0])
				odd, come = odd[1:], append(come, number)
			case len(come) > 0:
				erase(t, b.Store, come[0], users.Claim{})
				come = come[1:]
			}
		}
		for _, d := range even {
			if seen[d.User.ID] != 1 {
				t.Errorf("%+v: user %s was listed %d times", o, d.User.ID, seen[d.User.ID])
			}
		}
		for id, times := range seen {
			if times > 1 {
				t.Errorf("%+v: user %s was listed %d times", o, id, times)
			}
		}
	}
}

func lateClock(t *testing.T, b Backend) {
	made := create(t, b.Store, drafts(1, 5)...)
	page := listPage(t, b.Store, users.Query{Limit: 2})
	late := draft(9)
	late.User.CreatedAt = epoch.Add(-time.Hour)
	late.User.UpdatedAt = late.User.CreatedAt
	create(t, b.Store, late)
	rest := listPage(t, b.Store, users.Query{After: page.Next, Limit: 10})
	if got := append(page.Users, rest.Users...); !equal(got, made) {
		t.Errorf("listed %s, want %s", show(got), show(made))
	}
}

func emptyPage(t *testing.T, b Backend) {
	for _, o := range orders() {
		page := listPage(t, b.Store, users.Query{Order: o, Limit: 1})
		if len(page.Users) != 0 || !page.Next.Zero() {
			t.Errorf("%+v: got %+v, want an empty page", o, page)
		}
	}
	if n := count(t, b.Store, users.Selection{}); n != (users.Count{}) {
		t.Errorf("counted %+v, want nobody", n)
	}
}

func deletedListed(t *testing.T, b Backend) {
	all := drafts(0, 12)
	for i := range all {
		all[i].User.Labels = map[string]string{"plan": "pro"}
	}
	made := create(t, b.Store, all...)
	for n := 0; n < 12; n += 3 {
		made[n] = change(t, b.Store, n, deleted(time.Hour))
	}
	for _, f := range []users.Filter{
		nil, users.Compare{Field: users.FieldLabel, Label: "plan", Text: "pro"}, users.Compare{Field: users.FieldState, Text: string(users.Deleted)},
		users.Compare{Field: users.FieldDisplayName, Op: users.Prefix, Text: "Per"}, users.Present{Field: users.FieldDeletedAt},
	} {
		for _, show := range []bool{false, true} {
			wantSelected(t, b.Store, made, users.Selection{Filter: f, ShowDeleted: show}, orders()...)
		}
	}
}

// wantSelected checks all that finds the users of a selection, in some orders, against the users that there are.
func wantSelected(t interface {
	Helper()
	Errorf(string, ...any)
	Fatalf(string, ...any)
	Context() context.Context
}, s users.Store, all []users.User, sel users.Selection, by ...users.Order,
) {
	t.Helper()
	for _, o := range by {
		want := ordered(all, users.Query{Selection: sel, Order: o})
		var got []users.User
		q := users.Query{Selection: sel, Order: o, Limit: 4}
		for {
			page, err := s.List(t.Context(), q)
			if err != nil {
				t.Fatalf("list %#v: %v", sel, err)
			}
			got = append(got, page.Users...)
			if len(got) > len(all) || page.Next == q.After && !q.After.Zero() {
				t.Fatalf("%#v ordered by %+v: the listing does not end", sel, o)
			}
			if q.After = page.Next; q.After.Zero() {
				break
			}
		}
		if !equal(got, want) {
			t.Errorf("%#v ordered by %+v: listed %s, want %s", sel, o, show(got), show(want))
		}
	}
	want := ordered(all, users.Query{Selection: sel})
	n, err := s.Count(t.Context(), sel)
	if err != nil || n != (users.Count{N: len(want)}) {
		t.Errorf("%#v: counted %+v, %v; want %d", sel, n, err, len(want))
	}
	var got []users.User
	err = s.Snapshot(t.Context(), sel, func(u users.User) error { got = append(got, u); return nil })
	if err != nil || !equal(got, want) {
		t.Errorf("%#v: the snapshot has %s, %v; want %s", sel, show(got), err, show(want))
	}
}

func rangeOfOrder(t *testing.T, b Backend) {
	all := drafts(0, 30)
	names := []string{"a", "ab", "b"}
	for i := range all {
		u := &all[i].User
		u.DisplayName = names[i/10]
		u.CreatedAt = epoch.Add(time.Duration(i/10) * time.Microsecond)
		u.UpdatedAt = u.CreatedAt
	}
	made := create(t, b.Store, all...)
	middle := epoch.Add(time.Microsecond)
	for _, op := range []users.Op{users.Equal, users.Less, users.LessOrEqual, users.Greater, users.GreaterOrEqual} {
		wantSelected(t, b.Store, made, users.Selection{Filter: users.Compare{Field: users.FieldCreatedAt, Op: op, Time: middle}}, orders()...)
		wantSelected(t, b.Store, made, users.Selection{Filter: users.Compare{Field: users.FieldUpdatedAt, Op: op, Time: middle}}, orders()...)
		wantSelected(t, b.Store, made, users.Selection{Filter: users.Compare{Field: users.FieldDisplayName, Op: op, Text: "ab"}}, orders()...)
		wantSelected(t, b.Store, made, users.Selection{Filter: users.Compare{Field: users.FieldEmail, Op: op, Text: made[15].Email.Key}}, orders()...)
	}
	for _, prefix := range []string{"a", "ab", "", "c"} {
		wantSelected(t, b.Store, made, users.Selection{Filter: users.Compare{Field: users.FieldDisplayName, Op: users.Prefix, Text: prefix}}, orders()...)
	}
	both := users.And{
		users.Compare{Field: users.FieldDisplayName, Op: users.GreaterOrEqual, Text: "ab"}, users.Compare{Field: users.FieldDisplayName, Op: users.Greater, Text: "ab"},
		users.Compare{Field: users.FieldDisplayName, Op: users.Less, Text: "c"}, users.Compare{Field: users.FieldDisplayName, Op: users.LessOrEqual, Text: "c"},
	}
	wantSelected(t, b.Store, made, users.Selection{Filter: both}, orders()...)
}

// many makes n users, of whom every tenth is a "pro".
func many(t *testing.T, s users.Store, n int) {
	t.Helper()
	for from := 0; from < n; from += 1000 {
		batch := drafts(from, min(from+1000, n))
		for i := range batch {
			if (from+i)%10 == 0 {
				batch[i].User.Labels = map[string]string{"plan": "pro"}
			}
		}
		create(t, s, batch...)
	}
}

func rareMatch(t *testing.T, b Backend) {
	const n = 22_000
	many(t, b.Store, n)
	rare := change(t, b.Store, n-5, func(u users.User) users.User { u.FirstName = "Rare"; return u })
	q := users.Query{Selection: users.Selection{Filter: users.Compare{Field: users.FieldFirstName, Text: "Rare"}}}
	if got := list(t, b.Store, q, 50); len(got) != 1 || !got[0].Equal(rare) {
		t.Errorf("listed %s", show(got))
	}
	if got := snapshot(t, b.Store, q.Selection); len(got) != 1 || !got[0].Equal(rare) {
		t.Errorf("the snapshot has %s", show(got))
	}
	if got := count(t, b.Store, q.Selection); got != (users.Count{N: 1}) {
		t.Errorf("counted %+v, want 1", got)
	}
}

func counts(t *testing.T, b Backend) {
	pro := users.Selection{Filter: users.Compare{Field: users.FieldLabel, Label: "plan", Text: "pro"}}
	prefix := users.Selection{Filter: users.Compare{Field: users.FieldDisplayName, Op: users.Prefix, Text: "Person 1"}}
	first := users.Selection{Filter: users.And{users.Compare{Field: users.FieldFirstName, Text: "Per"}, pro.Filter}}
	unverified := users.Selection{Filter: users.Not{Filter: users.Verified{}}}
	unverifiedPeople := users.Selection{Filter: users.And{users.Compare{Field: users.FieldDisplayName, Op: users.Prefix, Text: "Person"}, unverified.Filter}}
	many(t, b.Store, users.CountExactly)
	for name, row := range map[string]struct {
		sel  users.Selection
		want int
	}{"all": {users.Selection{}, 10_000}, "a label": {pro, 1000}, "a prefix": {prefix, 1111}, "a label and more": {first, 1000},
		"what no index serves": {unverified, 10_000}, "a prefix and more": {unverifiedPeople, 10_000}} {
		if got := count(t, b.Store, row.sel); got != (users.Count{N: row.want}) {
			t.Errorf("%s: counted %+v, want %d", name, got, row.want)
		}
	}
	emails := users.Selection{Filter: users.Compare{Field: users.FieldEmail, Op: users.Prefix, Text: "person.1"}}
	change(t, b.Store, 1, deleted(time.Hour))
	change(t, b.Store, 2, deleted(time.Hour))
	for show, want := range map[bool]int{true: 1111, false: 1110} {
		if got := count(t, b.Store, users.Selection{Filter: emails.Filter, ShowDeleted: show}); got != (users.Count{N: want}) {
			t.Errorf("emails with deleted ones %t: counted %+v, want %d", show, got, want)
		}
	}
	for _, n := range []int{1, 2} {
		change(t, b.Store, n, func(u users.User) users.User {
			u.State, u.Restores, u.DeletedAt, u.PurgeAt = u.Restores, "", time.Time{}, time.Time{}
			return u
		})
	}
	one := draft(users.CountExactly)
	create(t, b.Store, one)
	for name, sel := range map[string]users.Selection{"all": {}, "what no index serves": unverified, "a prefix and more": unverifiedPeople} {
		if got := count(t, b.Store, sel); !got.Estimated || got.N <= users.CountExactly || got.N > 20_000 {
			t.Errorf("%s, of %d users: %+v, want an estimate", name, users.CountExactly+1, got)
		}
	}
	if got := count(t, b.Store, pro); got != (users.Count{N: 1000}) {
		t.Errorf("of those with a label: %+v, want 1000", got)
	}
}

func snapshotShowsBeginning(t *testing.T, b Backend) {
	// More than a store would read at once, so that it comes back for more while others are made, changed and erased.
	const n, batch = 2500, 500
	var want []users.User
	for from := 0; from < n; from += batch {
		want = append(want, create(t, b.Store, drafts(from, from+batch)...)...)
	}
	random := rand.New(rand.NewPCG(5, 6))
	var got []users.User
	err := b.Store.Snapshot(t.Context(), users.Selection{}, func(u users.User) error {
		got = append(got, u)
		if len(got)%250 == 1 {
			later := draft(n + len(got))
			at := epoch.Add(time.Duration(random.IntN(2*n)) * time.Millisecond) // before and after where the snapshot is
			later.User.CreatedAt, later.User.UpdatedAt = at, at
			create(t, b.Store, later)
			change(t, b.Store, random.IntN(n/2), rename("Later"))
			erase(t, b.Store, n/2+len(got)/2, users.Claim{})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !equal(got, want) {
		t.Errorf("the snapshot has %s, want %s", show(got), show(want))
	}
	if now := count(t, b.Store, users.Selection{}); now.N != n {
		t.Errorf("there are %+v now, want %d: nobody came and went meanwhile", now, n)
	}
}

func snapshotOfNobody(t *testing.T, b Backend) {
	if got := snapshot(t, b.Store, users.Selection{}); len(got) != 0 {
		t.Errorf("the snapshot has %s, want nobody", show(got))
	}
}

func snapshotEndsWithReader(t *testing.T, b Backend) {
	create(t, b.Store, drafts(0, 5)...)
	enough := errors.New("enough")
	count := 0
	err := b.Store.Snapshot(t.Context(), users.Selection{}, func(users.User) error {
		if count++; count == 3 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || count != 3 {
		t.Errorf("got %v after %d users, want the reader's error after 3", err, count)
	}
}

func snapshotEndsWithContext(t *testing.T, b Backend) {
	many(t, b.Store, 2000)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	count := 0
	err := b.Store.Snapshot(ctx, users.Selection{}, func(users.User) error {
		if count++; count == 10 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || count != 10 {
		t.Errorf("got %v after %d users, want that the snapshot was canceled after 10", err, count)
	}
}

func tooManySnapshots(t *testing.T, b Backend) {
	create(t, b.Store, draft(1))
	done := errors.New("done")
	var hold func(depth int) error
	hold = func(depth int) error {
		return b.Store.Snapshot(t.Context(), users.Selection{}, func(users.User) error {
			if depth < b.Snapshots {
				return hold(depth + 1)
			}
			if err := hold(depth + 1); !errors.Is(err, users.ErrTooManySnapshots) {
				t.Errorf("one more than %d: got %v, want TOO_MANY_SNAPSHOTS", b.Snapshots, err)
			}
			// Others read and write meanwhile.
			change(t, b.Store, 1, rename("Meanwhile"))
			if u, err := b.Store.Get(t.Context(), userID(1)); err != nil || u.DisplayName != "Meanwhile" {
				t.Errorf("got %+v, %v", u, err)
			}
			return done
		})
	}
	if err := hold(1); !errors.Is(err, done) {
		t.Errorf("got %v, want that all were held", err)
	}
	if got := snapshot(t, b.Store, users.Selection{}); len(got) != 1 {
		t.Errorf("once they have ended: %s", show(got))
	}
}
