// Package storetest is the one suite that every store of users passes: what it checks is what users.Store promises.
package storetest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// Backend is a store under test, whose event log runs.
type Backend struct {
	Store users.Store
	// Reopen closes the store and opens it anew on the same data, as a restart does.
	Reopen func(t *testing.T) users.Store
	// Snapshots is how many snapshots the store holds at once.
	Snapshots int
	// Dump returns all that the store has, as one text in which whatever is kept is found.
	Dump func(ctx context.Context) (string, error)
	// Clear removes all users and claims.
	Clear func(ctx context.Context) error
}

// check is one promise of a store.
type check struct {
	name string
	run  func(*testing.T, Backend)
}

// Run runs the suite. open returns a new, empty store, which the test closes at its end.
func Run(t *testing.T, open func(t *testing.T) Backend) {
	t.Helper()
	for _, c := range slices.Concat(createChecks(), changeChecks(), eraseChecks(), listChecks(), filterChecks(), watchChecks(), modelChecks()) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, open(t))
		})
	}
}

// epoch is when the first user of a check is made.
var epoch = time.Date(2026, 3, 1, 9, 30, 0, 123456000, time.UTC)

// userID returns the n-th id of the checks.
func userID(n int) users.ID { return users.ID(fmt.Sprintf("0195f000-0000-7000-8000-%012x", n)) }

// requestID returns the n-th request id of the checks.
func requestID(n int) string { return fmt.Sprintf("7d9a0000-0000-4000-8000-%012x", n) }

// email returns an email whose key is its lower case.
func email(text string) users.Email { return users.Email{Text: text, Key: strings.ToLower(text)} }

// draft returns the n-th user of the checks, whose id, email, request and time of making are its own.
func draft(n int) users.Draft {
	at := epoch.Add(time.Duration(n) * time.Millisecond)
	address := email(fmt.Sprintf("Person.%d@example.com", n))
	return users.Draft{
		User: users.User{
			ID:          userID(n),
			Email:       address,
			DisplayName: fmt.Sprintf("Person %d", n),
			FirstName:   "Per",
			LastName:    "Son",
			State:       users.Active,
			Revision:    1,
			CreatedAt:   at,
			UpdatedAt:   at,
		},
		Claim: users.Claim{Caller: "user:admin", RequestID: requestID(n), Digest: sha256.Sum256([]byte(address.Text)), At: at},
	}
}

// Draft returns the n-th user of the checks, for the tests of a store's own.
func Draft(n int) users.Draft { return draft(n) }

func drafts(from, to int) []users.Draft {
	all := make([]users.Draft, 0, to-from)
	for n := from; n < to; n++ {
		all = append(all, draft(n))
	}
	return all
}

// create stores drafts that must be made, and returns their users.
func create(t *testing.T, s users.Store, all ...users.Draft) []users.User {
	t.Helper()
	outcomes, err := s.Create(t.Context(), all, users.Commit)
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	if len(outcomes) != len(all) {
		t.Fatalf("%d outcomes of %d drafts", len(outcomes), len(all))
	}
	made := make([]users.User, len(all))
	for i, o := range outcomes {
		if o.Err != nil {
			t.Fatalf("draft %d: %v", i, o.Err)
		}
		made[i] = o.User
	}
	return made
}

// try stores one draft and returns its outcome.
func try(t *testing.T, s users.Store, d users.Draft) users.Outcome {
	t.Helper()
	outcomes, err := s.Create(t.Context(), []users.Draft{d}, users.Commit)
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	if len(outcomes) != 1 {
		t.Fatalf("%d outcomes of one draft", len(outcomes))
	}
	return outcomes[0]
}

// list returns all users of a query by pages of a size.
func list(t *testing.T, s users.Store, q users.Query, size int) []users.User {
	t.Helper()
	var all []users.User
	q.Limit = size
	for {
		page := listPage(t, s, q)
		all = append(all, page.Users...)
		if page.Next.Zero() {
			return all
		}
		if page.Next == q.After {
			t.Fatalf("the page after %v ends where it began", q.After)
		}
		q.After = page.Next
	}
}

func listPage(t *testing.T, s users.Store, q users.Query) users.Page {
	t.Helper()
	page, err := s.List(t.Context(), q)
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	if len(page.Users) > q.Limit {
		t.Fatalf("a page of %d has %d users", q.Limit, len(page.Users))
	}
	return page
}

// everyone is the query for all users in the order in which they were made.
func everyone() users.Query { return users.Query{Selection: users.Selection{ShowDeleted: true}} }

// snapshot returns all users of a snapshot.
func snapshot(t *testing.T, s users.Store, sel users.Selection) []users.User {
	t.Helper()
	var all []users.User
	err := s.Snapshot(t.Context(), sel, func(u users.User) error {
		all = append(all, u)
		return nil
	})
	if err != nil {
		t.Fatalf("snapshot: %v", err)
	}
	return all
}

func count(t *testing.T, s users.Store, sel users.Selection) users.Count {
	t.Helper()
	n, err := s.Count(t.Context(), sel)
	if err != nil {
		t.Fatalf("count: %v", err)
	}
	return n
}

// wantStored checks that the store has exactly these users, by their time of making: by listing, by snapshot, by id and by count.
func wantStored(t *testing.T, b Backend, want ...users.User) {
	t.Helper()
	if got := list(t, b.Store, everyone(), 7); !equal(got, want) {
		t.Errorf("listed %s, want %s", show(got), show(want))
	}
	if got := snapshot(t, b.Store, everyone().Selection); !equal(got, want) {
		t.Errorf("the snapshot has %s, want %s", show(got), show(want))
	}
	if got := count(t, b.Store, everyone().Selection); got != (users.Count{N: len(want)}) {
		t.Errorf("the count is %+v, want %d", got, len(want))
	}
	for _, u := range want {
		if got, err := b.Store.Get(t.Context(), u.ID); err != nil || !got.Equal(u) {
			t.Errorf("got %+v, %v; want %+v", got, err, u)
		}
	}
}

func equal(a, b []users.User) bool { return slices.EqualFunc(a, b, users.User.Equal) }

// show returns the ends of the ids, and how many there are where there are many.
func show(all []users.User) string {
	if len(all) > 20 {
		return fmt.Sprintf("%d users", len(all))
	}
	ends := make([]string, len(all))
	for i, u := range all {
		ends[i] = strings.TrimLeft(string(u.ID[24:]), "0")
	}
	return fmt.Sprintf("%q", ends)
}
