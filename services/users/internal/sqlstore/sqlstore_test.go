package sqlstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/users/internal/storetest"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Backend {
		dir := t.TempDir()
		s := open(t, Options{Dir: dir})
		return storetest.Backend{
			Store:  s,
			Events: func(ctx context.Context) ([]storetest.Event, error) { return s.events(ctx) },
			Reopen: func(t *testing.T) users.Store {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = open(t, Options{Dir: dir})
				return s
			},
		}
	})
}

func open(t *testing.T, opts Options) *Store {
	t.Helper()
	opts.Clock, opts.Random = clock.System(), rand.Reader
	s, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// events reads the whole log from its table: a subscription begins where the log is.
func (s *Store) events(ctx context.Context) ([]storetest.Event, error) {
	var all []storetest.Event
	err := s.db.Read(ctx, func(q sqldb.Querier) error {
		rows, err := q.QueryContext(ctx, `SELECT type, subject, payload FROM event_log ORDER BY seq`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var e storetest.Event
			if err := rows.Scan(&e.Type, &e.Subject, &e.Payload); err != nil {
				return err
			}
			all = append(all, e)
		}
		return rows.Err()
	})
	return all, err
}

func newDraft(n int) users.Draft {
	email := fmt.Sprintf("p%d@example.com", n)
	at := time.UnixMicro(int64(n)).UTC()
	return users.Draft{
		User: users.User{
			ID: users.ID(fmt.Sprintf("0195f000-0000-7000-8000-%012x", n)), Email: email, DisplayName: "P",
			State: users.Active, Revision: 1, CreatedAt: at, UpdatedAt: at,
		},
		EmailKey: email,
		Claim:    users.Claim{Caller: "user:admin", RequestID: fmt.Sprintf("7d9a0000-0000-4000-8000-%012x", n)},
	}
}

func TestTheKeyOfPageTokensSurvivesARestartAndIsOfOneStore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := open(t, Options{Dir: dir})
	key := string(first.PageKey())
	if len(key) != pageKeySize {
		t.Fatalf("the key has %d bytes, want %d", len(key), pageKeySize)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if again := string(open(t, Options{Dir: dir}).PageKey()); again != key {
		t.Error("after a restart the key is another one")
	}
	if other := string(open(t, Options{Dir: t.TempDir()}).PageKey()); other == key {
		t.Error("two stores have the same key")
	}
}

func TestASlowScanHoldsNoReader(t *testing.T) {
	t.Parallel()
	s := open(t, Options{Dir: t.TempDir(), Readers: 1})
	all := []users.Draft{newDraft(1), newDraft(2)}
	if _, err := s.Create(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	err := s.Scan(t.Context(), func(u users.User) error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // ends the test if it hangs
		defer cancel()
		_, err := s.Get(ctx, u.ID)
		return err
	})
	if err != nil {
		t.Errorf("with one reader, a read during a scan: %v", err)
	}
}

func TestADataDirectoryIsOpenOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open(t, Options{Dir: dir})
	_, err := Open(t.Context(), Options{Dir: dir, Clock: clock.System(), Random: rand.Reader})
	if !errors.Is(err, sqldb.ErrLocked) {
		t.Errorf("got %v, want that the directory is in use", err)
	}
}

func TestAStoreIsHealthyUntilItIsClosed(t *testing.T) {
	t.Parallel()
	s := open(t, Options{Dir: t.TempDir()})
	if err := s.Healthy(t.Context()); err != nil {
		t.Errorf("open: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Healthy(t.Context()); err == nil {
		t.Error("a closed store says that it is healthy")
	}
}

// A page is found by its index however many users there are: nothing is sorted, and no user outside of the page is read.
func TestPagesAreReadByTheirIndex(t *testing.T) {
	t.Parallel()
	s := open(t, Options{Dir: t.TempDir()})
	for _, row := range []struct {
		name, query string
		args        []any
	}{
		{"list", listQuery, []any{1, "a", 10}},
		{"scan", scanQuery, []any{1, "a", 2, "b", 9, 10}},
	} {
		t.Run(row.name, func(t *testing.T) {
			plan := s.plan(t, row.query, row.args...)
			if len(plan) != 1 || !strings.HasPrefix(plan[0], "SEARCH users USING INDEX users_position ") {
				t.Errorf("the plan is %q, want one search by users_position", plan)
			}
		})
	}
}

// plan returns the steps by which SQLite runs a query.
func (s *Store) plan(t *testing.T, query string, args ...any) []string {
	t.Helper()
	var steps []string
	err := s.db.Read(t.Context(), func(q sqldb.Querier) error {
		rows, err := q.QueryContext(t.Context(), `EXPLAIN QUERY PLAN `+query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id, parent, unused int
			var step string
			if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
				return err
			}
			steps = append(steps, step)
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	return steps
}

func BenchmarkCreate(b *testing.B) {
	for _, size := range []int{1, 500} {
		b.Run(fmt.Sprintf("batch of %d", size), func(b *testing.B) {
			s, err := Open(b.Context(), Options{Dir: b.TempDir(), Clock: clock.System(), Random: rand.Reader})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			for i := 0; i < b.N; i += size {
				batch := make([]users.Draft, size)
				for j := range batch {
					batch[j] = newDraft(i + j)
				}
				if _, err := s.Create(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
