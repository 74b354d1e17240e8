// Package storetest is the one suite that every store of users passes: what it checks is what users.Store promises.
package storetest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// Event is an event of the log, as far as the suite looks at it.
type Event struct {
	Type    string
	Subject string
	Payload []byte
}

// Backend is a store under test.
type Backend struct {
	Store users.Store
	// Events returns all events of the log, oldest first.
	Events func(ctx context.Context) ([]Event, error)
	// Reopen closes the store and opens it anew on the same data, as a restart does.
	Reopen func(t *testing.T) users.Store
}

// Run runs the suite. open returns a new, empty store, which the test closes at its end.
func Run(t *testing.T, open func(t *testing.T) Backend) {
	t.Helper()
	for _, check := range []struct {
		name string
		run  func(*testing.T, Backend)
	}{
		{"a user is found as it was made", foundAsMade},
		{"an unknown user is not found", unknownNotFound},
		{"an email is given once whatever its case", emailOnce},
		{"an id is given once", idOnce},
		{"an id and an email that are both taken are an id that is taken", idBeforeEmail},
		{"an equal request is answered with the first user", equalRequest},
		{"a request id is not used for another request", otherRequest},
		{"request ids of different callers have nothing to do with each other", callersApart},
		{"a refused draft leaves its request id, its id and its email free", refusedLeavesNothing},
		{"a bad draft in the middle of a batch fails alone", badDraftAlone},
		{"drafts of one batch clash with each other in their order", clashInBatch},
		{"a thousand equal requests at once make one user", thousandEqual},
		{"a thousand requests for one email at once make one user", thousandForOneEmail},
		{"batches that overlap make each user once", overlappingBatches},
		{"each user has one event with what was stored, in the order of the store", eventsTellAll},
		{"a canceled call makes nothing", canceledMakesNothing},
		{"pages of every size show each user once, in order", pagesOfEverySize},
		{"users who were there from the first page to the last are listed once while others come", stableUnderChurn},
		{"a user whose clock was behind does not disturb a listing", lateClock},
		{"an empty store has an empty page", emptyPage},
		{"a scan shows those who were there when it began, in order", scanShowsBeginning},
		{"a scan of nobody yields nothing", scanOfNobody},
		{"a scan ends with the error of its reader", scanEndsWithReader},
		{"a scan ends with its context", scanEndsWithContext},
		{"a restart keeps users, claims, total and events", restartKeeps},
	} {
		t.Run(check.name, func(t *testing.T) {
			t.Parallel()
			check.run(t, open(t))
		})
	}
}

// epoch is when the first user of a check is made.
var epoch = time.Date(2026, 3, 1, 9, 30, 0, 123456000, time.UTC)

// userID returns the n-th id of the checks.
func userID(n int) users.ID { return users.ID(fmt.Sprintf("0195f000-0000-7000-8000-%012x", n)) }

// requestID returns the n-th request id of the checks.
func requestID(n int) string { return fmt.Sprintf("7d9a0000-0000-4000-8000-%012x", n) }

// draft returns the n-th user of the checks, whose id, email, request and time of making are its own.
func draft(n int) users.Draft {
	at := epoch.Add(time.Duration(n) * time.Millisecond)
	email := fmt.Sprintf("Person.%d@example.com", n)
	return users.Draft{
		User: users.User{
			ID:          userID(n),
			Email:       email,
			DisplayName: fmt.Sprintf("Person %d", n),
			FirstName:   "Per",
			LastName:    "Son",
			State:       users.Active,
			Revision:    1,
			CreatedAt:   at,
			UpdatedAt:   at,
		},
		EmailKey: users.EmailKey(email),
		Claim:    users.Claim{Caller: "user:admin", RequestID: requestID(n), Digest: sha256.Sum256([]byte(email))},
	}
}

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
	outcomes, err := s.Create(t.Context(), all)
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
	outcomes, err := s.Create(t.Context(), []users.Draft{d})
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	if len(outcomes) != 1 {
		t.Fatalf("%d outcomes of one draft", len(outcomes))
	}
	return outcomes[0]
}

// list returns all users by pages of a size.
func list(t *testing.T, s users.Store, size int) []users.User {
	t.Helper()
	var all []users.User
	var after users.Position
	for {
		page := listPage(t, s, after, size)
		all = append(all, page.Users...)
		if !page.More {
			return all
		}
		last := page.Users[len(page.Users)-1].Position()
		if last.CreatedAt.Before(after.CreatedAt) || last == after {
			t.Fatalf("the page after %v ends with %v", after, last)
		}
		after = last
	}
}

func listPage(t *testing.T, s users.Store, after users.Position, size int) users.Page {
	t.Helper()
	page, err := s.List(t.Context(), after, size)
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	if len(page.Users) > size {
		t.Fatalf("a page of %d has %d users", size, len(page.Users))
	}
	if page.More && len(page.Users) < size {
		t.Fatalf("a page of %d has %d users and says that there are more", size, len(page.Users))
	}
	return page
}

// scan returns all users of a scan.
func scan(t *testing.T, s users.Store) []users.User {
	t.Helper()
	var all []users.User
	err := s.Scan(t.Context(), func(u users.User) error {
		all = append(all, u)
		return nil
	})
	if err != nil {
		t.Fatalf("scan: %v", err)
	}
	return all
}

// events returns the subjects of all events, and checks that each tells of a new user.
func events(t *testing.T, b Backend) []Event {
	t.Helper()
	all, err := b.Events(t.Context())
	if err != nil {
		t.Fatalf("events: %v", err)
	}
	for i, e := range all {
		if e.Type != "USER_CREATED" {
			t.Errorf("event %d is %s, not USER_CREATED", i, e.Type)
		}
	}
	return all
}

// wantStored checks that the store has exactly these users: by listing, by scan, by its total and by its events.
func wantStored(t *testing.T, b Backend, want ...users.User) {
	t.Helper()
	if got := list(t, b.Store, 7); !equal(got, want) {
		t.Errorf("listed %s, want %s", show(got), show(want))
	}
	if got := scan(t, b.Store); !equal(got, want) {
		t.Errorf("scanned %s, want %s", show(got), show(want))
	}
	if got := listPage(t, b.Store, users.Position{}, 1).Total; got != len(want) {
		t.Errorf("the total is %d, want %d", got, len(want))
	}
	if got := events(t, b); len(got) != len(want) {
		t.Errorf("%d events, want %d", len(got), len(want))
	}
}

func equal(a, b []users.User) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

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
