package sqlstore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/kit/sqldb/postgrestest"
	"github.com/concordat-dev/concordat/services/users/internal/storetest"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

// engines are where the tests run: each returns the options of a new, empty database.
var engines = map[string]func(testing.TB) Options{
	"sqlite": func(t testing.TB) Options { return Options{Dir: t.TempDir()} },
	"postgres": func(t testing.TB) Options {
		return Options{URL: sqldb.URL(postgrestest.Database(t)), Connections: 8, Snapshots: 2}
	},
}

// onEach runs a test on each engine.
func onEach(t *testing.T, test func(t *testing.T, opts Options)) {
	t.Helper()
	t.Parallel()
	for name, options := range engines {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, options(t))
		})
	}
}

func TestStore(t *testing.T) {
	for name, options := range engines {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) storetest.Backend {
				opts := options(t)
				s, stop := running(t, opts)
				return storetest.Backend{
					Store: s,
					Reopen: func(t *testing.T) users.Store {
						stop()
						s, stop = running(t, opts)
						return s
					},
					Snapshots: cap(s.snapshots),
					Dump:      func(ctx context.Context) (string, error) { return s.dump(ctx) },
					Clear: func(ctx context.Context) error {
						return s.db.Write(ctx, func(tx *sqldb.Tx) error {
							for _, table := range []string{"users", "user_labels", "requests"} {
								if _, err := tx.ExecContext(ctx, "DELETE FROM "+table); err != nil {
									return err
								}
							}
							return nil
						})
					},
				}
			})
		})
	}
}

func open(t testing.TB, opts Options) *Store {
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

// running opens a store and runs it until stop is called or the test ends.
func running(t testing.TB, opts Options) (s *Store, stop func()) {
	t.Helper()
	s = open(t, opts)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	t.Cleanup(stop)
	return s, stop
}

// dump returns all rows of all tables of the store as one text; bytes are there as text and in hexadecimal.
func (s *Store) dump(ctx context.Context) (string, error) {
	var out strings.Builder
	tables := []string{"users", "user_labels", "requests", "event_log"}
	if s.db.Engine() == sqldb.PostgreSQL {
		tables = append(tables, "event_log_inbox")
	}
	err := s.db.Read(ctx, func(q sqldb.Querier) error {
		for _, table := range tables {
			if err := dumpTable(ctx, q, table, &out); err != nil {
				return fmt.Errorf("dump %s: %w", table, err)
			}
		}
		return nil
	})
	return out.String(), err
}

func dumpTable(ctx context.Context, q sqldb.Querier, table string, out *strings.Builder) error {
	rows, err := q.QueryContext(ctx, "SELECT * FROM "+table)
	if err != nil {
		return err
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		return err
	}
	for rows.Next() {
		values := make([]any, len(names))
		for i := range values {
			values[i] = new(any)
		}
		if err := rows.Scan(values...); err != nil {
			return err
		}
		for _, v := range values {
			switch v := (*v.(*any)).(type) {
			case []byte:
				fmt.Fprintf(out, "%s %s|", v, hex.EncodeToString(v))
			default:
				fmt.Fprintf(out, "%v|", v)
			}
		}
		out.WriteString("\n")
	}
	return rows.Err()
}

func newDraft(n int) users.Draft { return storetest.Draft(n) }

func TestTheKeyOfPageTokensSurvivesARestartAndIsOfOneStore(t *testing.T) {
	onEach(t, func(t *testing.T, opts Options) {
		first := open(t, opts)
		key := string(first.PageKey())
		if len(key) != pageKeySize {
			t.Fatalf("the key has %d bytes, want %d", len(key), pageKeySize)
		}
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		if again := string(open(t, opts).PageKey()); again != key {
			t.Error("after a restart the key is another one")
		}
		if other := string(open(t, Options{Dir: t.TempDir()}).PageKey()); other == key {
			t.Error("two stores have the same key")
		}
	})
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
	onEach(t, func(t *testing.T, opts Options) {
		s := open(t, opts)
		if err := s.Healthy(t.Context()); err != nil {
			t.Errorf("open: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := s.Healthy(t.Context()); err == nil {
			t.Error("a closed store says that it is healthy")
		}
	})
}

// However PostgreSQL joins what is to be deleted: as a subquery it was run again for each row, and found the next ones.
func TestNoMoreClaimsArePurgedThanAskedForWhateverThePlan(t *testing.T) {
	onEach(t, func(t *testing.T, opts Options) {
		if opts.URL != "" {
			plan(t, opts, "enable_hashjoin", "enable_mergejoin", "enable_hashagg", "enable_sort", "enable_material", "enable_memoize")
		}
		s, _ := running(t, opts)
		if _, err := s.Create(t.Context(), []users.Draft{newDraft(1)}, users.Commit); err != nil {
			t.Fatal(err)
		}
		claim := newDraft(1).Claim
		for n := range 20 {
			claim.RequestID = newDraft(100 + n).Claim.RequestID
			same := func(u users.User) (users.User, users.EventType, error) { return u, users.EventUpdated, nil }
			if _, err := s.Change(t.Context(), users.Change{Claim: claim, ID: newDraft(1).User.ID, Apply: same}); err != nil {
				t.Fatal(err)
			}
		}
		for _, want := range []int{3, 3, 14, 0} {
			n, err := s.PurgeClaims(t.Context(), claim.At.Add(time.Second), max(3, want))
			if err != nil || n != want {
				t.Errorf("purged %d claims, %v; want %d", n, err, want)
			}
		}
	})
}

// plan forbids ways of reading to the planner of PostgreSQL.
func plan(t *testing.T, opts Options, ways ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), string(opts.URL))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, way := range ways {
		if _, err := conn.Exec(t.Context(), "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET "+way+" = off', current_database()); END $$"); err != nil {
			t.Fatal(err)
		}
	}
}
