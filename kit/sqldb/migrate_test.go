package sqldb

import (
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
	opts := options(t.TempDir(), set("notes", firstNotes))
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
}

func TestANewerDatabaseIsRefusedAndNotTouched(t *testing.T) {
	for name, sets := range map[string][]Set{
		"a newer version":                       {set("notes", firstNotes)},
		"a newer version behind an unknown one": {set("fresh", `CREATE TABLE fresh (id INTEGER) STRICT;`), set("others", others), set("notes", firstNotes)},
		"a schema that this program lacks":      {set("others", others)},
	} {
		t.Run(name, func(t *testing.T) {
			opts := options(t.TempDir(), set("notes", firstNotes, secondNotes), set("others", others))
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
}

func TestTheErrorOfANewerDatabaseNamesBothVersions(t *testing.T) {
	opts := options(t.TempDir(), set("notes", firstNotes, secondNotes))
	if err := reopen(t, opts); err != nil {
		t.Fatal(err)
	}
	opts.Migrations = []Set{set("notes", firstNotes)}
	err := reopen(t, opts)
	wantLine(t, err, opts.Dir)
	for _, part := range []string{`"notes"`, "version 2", "version 1"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error lacks %s: %v", part, err)
		}
	}
}

func TestAMigrationThatFailsLeavesTheVersionBeforeIt(t *testing.T) {
	opts := options(t.TempDir(), set("notes", firstNotes, "CREATE TABLE half (id INTEGER) STRICT;\nSELECT nothing FROM nowhere;"))
	err := reopen(t, opts)
	wantLine(t, err, "00002_step.sql")
	opts.Migrations = []Set{set("notes", firstNotes, "CREATE TABLE half (id INTEGER) STRICT;")}
	if err := reopen(t, opts); err != nil {
		t.Errorf("after mending it: %v", err)
	}
}

func TestMigrationsAreFoundInTheirDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "sql"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sql", "00001_notes.sql"), []byte("-- +goose Up\n"+firstNotes), 0o600); err != nil {
		t.Fatal(err)
	}
	db := openDB(t, options(t.TempDir(), Set{Name: "notes", FS: os.DirFS(dir), Dir: "sql"}))
	if err := add(t.Context(), db, "a"); err != nil {
		t.Error(err)
	}
}

// digest returns what the file of the database holds; it is closed.
func digest(t *testing.T, opts Options) [sha256.Size]byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(opts.Dir, opts.File))
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(data)
}
