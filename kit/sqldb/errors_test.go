package sqldb

import (
	"bufio"
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/concordat-dev/concordat/kit/fault"
)

func TestFaultsAreWellFormed(t *testing.T) {
	for _, f := range []*fault.Fault{ErrOutcomeUnknown, ErrStorageFull, ErrStorageFailed, ErrBusy, ErrUnavailable, ErrClosed} {
		if err := f.Valid(); err != nil {
			t.Errorf("%s: %v", f.Reason(), err)
		}
	}
}

func TestAUniqueViolationNamesItsConstraint(t *testing.T) {
	onBoth(t, func(t *testing.T, fresh func(...Set) Options) {
		schema := set("unique", `
CREATE TABLE users (id TEXT PRIMARY KEY, email TEXT UNIQUE, name TEXT, age INTEGER CHECK (age > 0), boss TEXT REFERENCES users (id)) STRICT;
CREATE UNIQUE INDEX users_lower ON users (lower(name));
CREATE TABLE payments (id INTEGER PRIMARY KEY, caller TEXT, key TEXT, UNIQUE (caller, key)) STRICT;
INSERT INTO users (id, email, name) VALUES ('1', 'a@example.com', 'a');
INSERT INTO payments (id, caller, key) VALUES (1, 'c', 'k');`)
		db := openDB(t, fresh(schema))
		all := []string{"users.id", "users.email", "users_lower", "payments.id", "payments.caller, payments.key"}
		for name, test := range map[string]struct{ query, want string }{
			"a column":              {`INSERT INTO users (id, email) VALUES ('2', 'a@example.com')`, "users.email"},
			"a primary key":         {`INSERT INTO users (id, email) VALUES ('1', 'b@example.com')`, "users.id"},
			"a row id":              {`INSERT INTO payments (id) VALUES (1)`, "payments.id"},
			"two columns":           {`INSERT INTO payments (id, caller, key) VALUES (2, 'c', 'k')`, "payments.caller, payments.key"},
			"an expression":         {`INSERT INTO users (id, name) VALUES ('2', 'A')`, "users_lower"},
			"a check is none":       {`INSERT INTO users (id, age) VALUES ('2', 0)`, ""},
			"a foreign key is none": {`INSERT INTO users (id, boss) VALUES ('2', '3')`, ""},
			"a wrong type is none":  {`INSERT INTO users (id, age) VALUES ('2', 'x')`, ""},
			"a syntax error is none, even with the words in it": {`INSERT INTO users UNIQUE constraint failed: users.email (2067)`, ""},
		} {
			t.Run(name, func(t *testing.T) {
				err := db.Write(t.Context(), func(tx *Tx) error {
					_, err := tx.ExecContext(t.Context(), test.query)
					return err
				})
				if err == nil {
					t.Fatal("no error")
				}
				err = fmt.Errorf("insert: %w", err)
				for _, constraint := range all {
					if got := IsUnique(err, constraint); got != (constraint == test.want) {
						t.Errorf("IsUnique(%q) = %v for %v", constraint, got, err)
					}
				}
				if got := IsUnique(err, ""); got != (test.want != "") {
					t.Errorf("IsUnique of any = %v for %v", got, err)
				}
				if fault.KindOf(err) != fault.Internal || IsBusy(err) {
					t.Errorf("kind %s", fault.KindOf(err))
				}
			})
		}
		if IsUnique(nil, "") || IsUnique(errors.New("UNIQUE constraint failed: users.email"), "users.email") {
			t.Error("what is no error of the engine passes for a violation")
		}
	})
}

func TestAFullStorageIsSaidAndWritesGoOnOnceThereIsRoom(t *testing.T) {
	db := openDB(t, options(t.TempDir(), notes()))
	limit := func(pages int) {
		t.Helper()
		err := db.Write(t.Context(), func(tx *Tx) error {
			var n int
			return tx.QueryRowContext(t.Context(), fmt.Sprintf("PRAGMA max_page_count = %d", pages)).Scan(&n)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := add(t.Context(), db, "before"); err != nil {
		t.Fatal(err)
	}
	limit(1) // the engine takes it for the present size
	long := strings.Repeat("x", 1<<20)
	err := add(t.Context(), db, long)
	if !errors.Is(err, ErrStorageFull) || fault.KindOf(err) != fault.ResourceExhausted || errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("Write returned %v", err)
	}
	// Also when the function swallows the error: the engine has rolled back what came before.
	err = db.Write(t.Context(), func(tx *Tx) error {
		if err := insert(t.Context(), tx, "lost"); err != nil {
			return err
		}
		if insert(t.Context(), tx, long) == nil || insert(t.Context(), tx, "stray") == nil {
			t.Error("a statement was accepted")
		}
		return nil
	})
	if !errors.Is(err, ErrStorageFull) {
		t.Errorf("Write returned %v", err)
	}
	wantTexts(t, db, "before")
	if err := db.Healthy(t.Context()); err != nil {
		t.Errorf("Healthy returned %v", err)
	}
	limit(1 << 30)
	if err := add(t.Context(), db, "after"); err != nil {
		t.Fatal(err)
	}
	wantTexts(t, db, "before", "after")
}

// commitHook stands between us and the driver, and is told of each commit, or of each time that another statement is run.
type commitHook struct {
	driver.Connector
	commit func(run func() error) error
	query  string // empty means COMMIT
}

func (h commitHook) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := h.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return hookedConn{c.(engineConn), h}, nil
}

type hookedConn struct {
	engineConn
	hook commitHook
}

func (c hookedConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	s, err := c.engineConn.PrepareContext(ctx, query)
	if err != nil || query != cmp.Or(c.hook.query, "COMMIT") {
		return s, err
	}
	return hookedStmt{s.(engineStmt), c.hook}, nil
}

type hookedStmt struct {
	engineStmt
	hook commitHook
}

func (s hookedStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (res driver.Result, err error) {
	err = s.hook.commit(func() error {
		res, err = s.engineStmt.ExecContext(ctx, args)
		return err
	})
	return res, err
}

func (s hookedStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (rows driver.Rows, err error) {
	err = s.hook.commit(func() error {
		rows, err = s.engineStmt.QueryContext(ctx, args)
		return err
	})
	return rows, err
}

// openHooked opens a database whose commits go through the hook.
func openHooked(t *testing.T, commit func(run func() error) error) *DB {
	t.Helper()
	opts := options(t.TempDir(), notes())
	opts.wrap = func(c driver.Connector) driver.Connector { return commitHook{Connector: c, commit: commit} }
	return openDB(t, opts)
}

func TestAContextThatEndsDuringTheCommitDoesNotUndoIt(t *testing.T) {
	var cancel func()
	db := openHooked(t, func(run func() error) error {
		if cancel != nil {
			cancel()
		}
		return run()
	})
	ctx, stop := context.WithCancel(t.Context())
	cancel = stop
	committed := false
	err := db.Write(ctx, func(tx *Tx) error {
		tx.OnCommit(func() { committed = true })
		return insert(ctx, tx, "a")
	})
	if err != nil || !committed || ctx.Err() == nil {
		t.Errorf("Write returned %v, committed %v, context %v", err, committed, ctx.Err())
	}
	wantTexts(t, db, "a")
}

// lateContext ends right after Write has looked at it for the last time.
type lateContext struct {
	context.Context
	armed bool
	end   func()
}

func (c *lateContext) Err() error {
	err := c.Context.Err()
	if c.armed {
		c.armed = false
		c.end()
		synctest.Wait() // whoever waits for the end has acted on it
	}
	return err
}

func TestAContextThatEndsBetweenTheLastLookAndTheCommitDoesNotUndoIt(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		db := openDB(t, options(dir, notes()))
		inner, cancel := context.WithCancel(t.Context())
		ctx := &lateContext{Context: inner, end: cancel}
		err := db.Write(ctx, func(tx *Tx) error {
			err := insert(t.Context(), tx, "a")
			ctx.armed = true
			return err
		})
		if err != nil || inner.Err() == nil {
			t.Errorf("Write returned %v, context %v", err, inner.Err())
		}
		wantTexts(t, db, "a")
	})
}

func TestACommitThatFailsHasAnUnknownOutcomeAndEndsWriting(t *testing.T) {
	broken := errors.New("input/output error")
	for name, test := range map[string]struct {
		commit func(run func() error) error
		want   []string
	}{
		"it was done": {func(run func() error) error { return errors.Join(run(), broken) }, []string{"a", "b"}},
		"it was not":  {func(func() error) error { return broken }, []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			commit := func(run func() error) error { return run() }
			db := openHooked(t, func(run func() error) error { return commit(run) })
			if err := add(t.Context(), db, "a"); err != nil {
				t.Fatal(err)
			}
			commit = test.commit
			err := db.Write(t.Context(), func(tx *Tx) error {
				tx.OnCommit(func() { t.Error("the commit hook ran") })
				return insert(t.Context(), tx, "b")
			})
			if !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, broken) || fault.KindOf(err) != fault.Unavailable {
				t.Errorf("Write returned %v", err)
			}
			wantFailed(t, db)
			wantTexts(t, db, test.want...)
		})
	}
}

// wantFailed checks that nothing is written any more.
func wantFailed(t *testing.T, db *DB) {
	t.Helper()
	select {
	case <-db.Failed():
	default:
		t.Error("Failed is not closed")
	}
	if err := add(context.Background(), db, "c"); !errors.Is(err, ErrStorageFailed) {
		t.Errorf("the next write returned %v", err)
	}
	if err := db.Healthy(context.Background()); !errors.Is(err, ErrStorageFailed) {
		t.Errorf("Healthy returned %v", err)
	}
}

func TestACommitThatAConstraintRefusesDidNotHappen(t *testing.T) {
	onBoth(t, func(t *testing.T, fresh func(...Set) Options) {
		db := openDB(t, fresh(set("pairs", `
CREATE TABLE pairs (id INTEGER PRIMARY KEY, other INTEGER NOT NULL REFERENCES pairs (id) DEFERRABLE INITIALLY DEFERRED) STRICT;`)))
		pair := func(id, other int) error {
			return db.Write(t.Context(), func(tx *Tx) error {
				_, err := tx.ExecContext(t.Context(), `INSERT INTO pairs (id, other) VALUES ($1, $2)`, id, other)
				return err
			})
		}
		if err := pair(1, 2); err == nil || errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("Write returned %v", err)
		}
		if err := pair(1, 1); err != nil {
			t.Errorf("the next write returned %v", err)
		}
	})
}

func TestAnIOErrorOfTheSystemIsNeverAcknowledged(t *testing.T) {
	dir := t.TempDir()
	cmd, out := child(t, "io-error", dir)
	lines := bufio.NewScanner(out)
	var said []string
	for lines.Scan() {
		said = append(said, lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("the child: %v; it said %q", err, said)
	}
	db := openDB(t, options(dir, notes()))
	got := texts(t, db)
	if len(got) != len(said) || len(got) == 0 {
		t.Errorf("%d notes are there, %d were acknowledged", len(got), len(said))
	}
}

// failAtCommit writes until the system refuses to let the log grow, and prints each note that was acknowledged.
func failAtCommit(dir string) error {
	ctx := context.Background()
	db, err := Open(ctx, options(dir, notes()))
	if err != nil {
		return err
	}
	if err := add(ctx, db, "first"); err != nil {
		return err
	}
	fmt.Println("first")
	signal.Ignore(syscall.SIGXFSZ)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 200_000, Max: 200_000}); err != nil {
		return err
	}
	for i := range 1000 {
		text := fmt.Sprint(i, strings.Repeat("x", 1000))
		err := add(ctx, db, text)
		if err == nil {
			fmt.Println(text)
			continue
		}
		if !errors.Is(err, ErrOutcomeUnknown) {
			return fmt.Errorf("write returned %w", err)
		}
		if err := add(ctx, db, "more"); !errors.Is(err, ErrStorageFailed) {
			return fmt.Errorf("the next write returned %w", err)
		}
		return nil
	}
	return errors.New("the limit did not show")
}

// holdDatabase commits a note, says that it holds the database, and holds it until it is killed.
func holdDatabase(dir string) error {
	ctx := context.Background()
	db, err := Open(ctx, options(dir, notes()))
	if err != nil {
		return err
	}
	if err := add(ctx, db, "acknowledged"); err != nil {
		return err
	}
	return db.Write(ctx, func(tx *Tx) error {
		if err := insert(ctx, tx, "not acknowledged"); err != nil {
			return err
		}
		fmt.Fprintln(os.Stdout, "holding")
		select {}
	})
}
