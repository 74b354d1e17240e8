package sqldb

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/concordat-dev/concordat/kit/sqldb/postgrestest"
)

const (
	firstNotes  = `CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT;`
	secondNotes = `ALTER TABLE notes ADD COLUMN at INTEGER NOT NULL DEFAULT 7;`
	others      = `CREATE TABLE others (id INTEGER PRIMARY KEY) STRICT;`
)

// reopen opens the database and closes it again.
func reopen(t *testing.T, opts Options) error {
	t.Helper()
	db, err := Open(t.Context(), opts)
	if err != nil {
		return err
	}
	return db.Close()
}

func TestEachSchemaGoesForwardByItself(t *testing.T) {
	onBoth(t, func(t *testing.T, fresh func(...Set) Options) {
		opts := fresh(set("notes", firstNotes))
		for range 2 {
			if err := reopen(t, opts); err != nil {
				t.Fatal(err)
			}
		}
		opts.Migrations = []Set{set("others", others), set("notes", firstNotes, secondNotes)}
		db := openDB(t, opts)
		if err := add(t.Context(), db, "a"); err != nil {
			t.Fatal(err)
		}
		err := db.Read(t.Context(), func(q Querier) error {
			var at, n int
			if err := q.QueryRowContext(t.Context(), `SELECT at, (SELECT count(*) FROM others) FROM notes`).Scan(&at, &n); err != nil {
				return err
			}
			if at != 7 || n != 0 {
				t.Errorf("read %d and %d", at, n)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestANewerDatabaseIsRefusedAndNotTouched(t *testing.T) {
	onBoth(t, func(t *testing.T, fresh func(...Set) Options) {
		for name, sets := range map[string][]Set{
			"a newer version":                       {set("notes", firstNotes)},
			"a newer version behind an unknown one": {set("fresh", `CREATE TABLE fresh (id INTEGER) STRICT;`), set("others", others), set("notes", firstNotes)},
			"a schema that this program lacks":      {set("others", others)},
		} {
			t.Run(name, func(t *testing.T) {
				opts := fresh(set("notes", firstNotes, secondNotes), set("others", others))
				if err := reopen(t, opts); err != nil {
					t.Fatal(err)
				}
				before := digest(t, opts)
				opts.Migrations = sets
				err := reopen(t, opts)
				wantLine(t, err, `schema "notes" is at version 2`)
				if !errors.Is(err, ErrNewerSchema) {
					t.Errorf("Open returned %v", err)
				}
				if digest(t, opts) != before {
					t.Error("the database was changed")
				}
			})
		}
	})
}

func TestTheErrorOfANewerDatabaseNamesBothVersions(t *testing.T) {
	onBoth(t, func(t *testing.T, fresh func(...Set) Options) {
		opts := fresh(set("notes", firstNotes, secondNotes))
		if err := reopen(t, opts); err != nil {
			t.Fatal(err)
		}
		opts.Migrations = []Set{set("notes", firstNotes)}
		err := reopen(t, opts)
		wantLine(t, err, where(opts))
		for _, part := range []string{`"notes"`, "version 2", "version 1"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("the error lacks %s: %v", part, err)
			}
		}
	})
}

func TestAMigrationThatFailsLeavesTheVersionBeforeIt(t *testing.T) {
	onBoth(t, func(t *testing.T, fresh func(...Set) Options) {
		opts := fresh(set("notes", firstNotes, "CREATE TABLE half (id INTEGER) STRICT;\nSELECT nothing FROM nowhere;"))
		err := reopen(t, opts)
		wantLine(t, err, "00002_step.sql")
		opts.Migrations = []Set{set("notes", firstNotes, "CREATE TABLE half (id INTEGER) STRICT;")}
		if err := reopen(t, opts); err != nil {
			t.Errorf("after mending it: %v", err)
		}
	})
}

func TestMigrationsAreFoundInTheirDirectory(t *testing.T) {
	dir := t.TempDir()
	for _, kind := range []Engine{SQLite, PostgreSQL} {
		folder := filepath.Join(dir, "sql", string(kind))
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, "00001_notes.sql"), []byte("-- +goose Up\n"+translate(kind, firstNotes)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	onBoth(t, func(t *testing.T, fresh func(...Set) Options) {
		db := openDB(t, fresh(Set{Name: "notes", FS: os.DirFS(dir), Dir: "sql"}))
		if err := add(t.Context(), db, "a"); err != nil {
			t.Error(err)
		}
		opts := fresh(Set{Name: "notes", FS: os.DirFS(dir), Dir: "elsewhere"})
		wantLine(t, reopen(t, opts), `schema "notes": no migrations in the folder "elsewhere/`)
	})
}

// where returns what an error names the database by.
func where(opts Options) string {
	if opts.URL != "" {
		return "at 127.0.0.1:"
	}
	return opts.Dir
}

// digest returns what the database holds; it is closed.
func digest(t *testing.T, opts Options) [sha256.Size]byte {
	t.Helper()
	if opts.URL != "" {
		return sha256.Sum256([]byte(inventory(t, opts.URL)))
	}
	data, err := os.ReadFile(filepath.Join(opts.Dir, opts.File))
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(data)
}

// inventory returns the tables, columns and rows of a PostgreSQL database.
func inventory(t *testing.T, url URL) (text string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), string(url))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	err = conn.QueryRow(t.Context(), `SELECT schema_to_xml(current_schema(), true, false, '')::text || (SELECT string_agg(xmin::text, ',') FROM pg_class)`).Scan(&text)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestProcessesThatMigrateAtOnceTakeTurns(t *testing.T) {
	t.Parallel()
	var steps []string
	for i := range 10 {
		steps = append(steps, fmt.Sprintf("CREATE TABLE step_%d (id BIGINT); SELECT pg_sleep(0.005);", i))
	}
	opts := postgresOptions(URL(postgrestest.Database(t)), notes(), set("steps", steps...))
	var group sync.WaitGroup
	for range 6 {
		group.Go(func() {
			if err := reopen(t, opts); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	db := openDB(t, opts)
	var n int
	err := db.ReadOne(t.Context(), func(q Querier) error {
		return q.QueryRowContext(t.Context(), `SELECT count(*) FROM schema_version_steps WHERE version_id > 0`).Scan(&n)
	})
	if err != nil || n != len(steps) {
		t.Errorf("%d steps are noted, %v; want %d", n, err, len(steps))
	}
}

func TestAProcessThatDiesWhileItMigratesHoldsUpNobody(t *testing.T) {
	t.Parallel()
	url := URL(postgrestest.Database(t))
	p := newProxy(t, url)
	locked := make(chan struct{})
	p.watch(func(m message) verdict {
		if strings.Contains(m.text, "CREATE TABLE") && strings.Contains(m.text, "notes") {
			close(locked)
			return cut
		}
		return pass
	})
	if err := reopen(t, postgresOptions(p.url, notes())); err == nil {
		t.Error("it was migrated without a connection")
	}
	<-locked
	db := openPG(t, url)
	if err := add(t.Context(), db, "a"); err != nil {
		t.Error(err)
	}
}
