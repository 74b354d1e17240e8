package sqldb

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"
)

// edited returns a set with one text in its migrations replaced.
func edited(s Set, from, to string) Set {
	files := fstest.MapFS{}
	for name, f := range s.FS.(fstest.MapFS) {
		files[name] = &fstest.MapFile{Data: []byte(strings.ReplaceAll(string(f.Data), from, to))}
	}
	return Set{Name: s.Name, FS: files}
}

func TestAMigrationThatWasChangedAfterItWasAppliedIsRefusedAndNothingIsTouched(t *testing.T) {
	onBoth(t, func(t *testing.T, fresh func(...Set) Options) {
		was := set("notes", firstNotes, secondNotes)
		for name, row := range map[string]struct {
			is   Set
			says string
		}{
			"another statement":            {edited(was, "DEFAULT 7", "DEFAULT 8"), `00002_step.sql of schema "notes"`},
			"a comment":                    {edited(was, "-- +goose Up", "-- +goose Up\n-- why"), `00001_step.sql of schema "notes"`},
			"with another that is new":     {edited(set("notes", firstNotes, secondNotes, others), "DEFAULT 7", "DEFAULT 8"), `00002_step.sql of schema "notes"`},
			"behind a schema that is fine": {edited(was, "DEFAULT 7", "DEFAULT 8"), `00002_step.sql of schema "notes"`},
		} {
			t.Run(name, func(t *testing.T) {
				opts := fresh(was)
				for range 2 {
					if err := reopen(t, opts); err != nil {
						t.Fatal(err)
					}
				}
				before := digest(t, opts)
				opts.Migrations = []Set{set("others", others), row.is}
				for _, readOnly := range []bool{false, true} {
					opts.ReadOnly = readOnly
					err := reopen(t, opts)
					wantLine(t, err, row.says)
					if !errors.Is(err, ErrChangedMigration) {
						t.Errorf("Open returned %v", err)
					}
				}
				if digest(t, opts) != before {
					t.Error("the database was changed")
				}
				opts.Migrations, opts.ReadOnly = []Set{was}, false
				if err := reopen(t, opts); err != nil {
					t.Errorf("with what was applied: %v", err)
				}
			})
		}
	})
}

func TestOtherEndsOfLinesAreNoOtherMigration(t *testing.T) {
	onBoth(t, func(t *testing.T, fresh func(...Set) Options) {
		opts := fresh(set("notes", firstNotes))
		if err := reopen(t, opts); err != nil {
			t.Fatal(err)
		}
		opts.Migrations = []Set{edited(set("notes", firstNotes), "\n", "\r\n")}
		if err := reopen(t, opts); err != nil {
			t.Error(err)
		}
	})
}

func TestAMigrationThatIsGoneIsRefused(t *testing.T) {
	onBoth(t, func(t *testing.T, fresh func(...Set) Options) {
		opts := fresh(set("notes", firstNotes, secondNotes))
		if err := reopen(t, opts); err != nil {
			t.Fatal(err)
		}
		without := edited(set("notes", firstNotes, secondNotes), "", "")
		for _, kind := range []Engine{SQLite, PostgreSQL} {
			delete(without.FS.(fstest.MapFS), string(kind)+"/00001_step.sql")
		}
		opts.Migrations = []Set{without}
		if err := reopen(t, opts); !errors.Is(err, ErrChangedMigration) {
			t.Errorf("Open returned %v", err)
		}
	})
}

func TestADatabaseOfBeforeTheDigestsGetsThoseOfItsFirstStart(t *testing.T) {
	onBoth(t, func(t *testing.T, fresh func(...Set) Options) {
		opts := fresh(set("notes", firstNotes))
		drop(t, opts)
		opts.ReadOnly = true
		if err := reopen(t, opts); err != nil {
			t.Errorf("to read: %v", err)
		}
		opts.ReadOnly = false
		opts.Migrations = []Set{set("notes", firstNotes, secondNotes)} // one that was applied and one that was not
		if err := reopen(t, opts); err != nil {
			t.Fatal(err)
		}
		for _, change := range []string{"text TEXT", "DEFAULT 7"} {
			opts.Migrations = []Set{edited(set("notes", firstNotes, secondNotes), change, " "+change)}
			if err := reopen(t, opts); !errors.Is(err, ErrChangedMigration) {
				t.Errorf("Open returned %v", err)
			}
		}
	})
}

// drop makes a database and takes the digests from it, as a program had it that knew of none.
func drop(t *testing.T, opts Options) {
	t.Helper()
	db := openDB(t, opts)
	err := db.Write(t.Context(), func(tx *Tx) error {
		_, err := tx.ExecContext(t.Context(), `DROP TABLE `+digestTable)
		return err
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}
