package sqldb

import (
	"errors"
	"io/fs"
	"testing"
)

func TestADatabaseThatIsOpenForReadingIsReadBesideItsOwnerAndNotChanged(t *testing.T) {
	onBoth(t, func(t *testing.T, fresh func(...Set) Options) {
		opts := fresh(set("notes", firstNotes))
		owner := openDB(t, opts)
		if err := add(t.Context(), owner, "a"); err != nil {
			t.Fatal(err)
		}
		opts.ReadOnly = true
		reader := openDB(t, opts)
		if !reader.ReadOnly() || owner.ReadOnly() {
			t.Error("which of them only reads is not told")
		}
		var n int
		err := reader.Read(t.Context(), func(q Querier) error {
			return q.QueryRowContext(t.Context(), `SELECT count(*) FROM notes`).Scan(&n)
		})
		if err != nil || n != 1 {
			t.Errorf("read %d, %v", n, err)
		}
		called := false
		err = reader.Write(t.Context(), func(*Tx) error { called = true; return nil })
		if !errors.Is(err, ErrReadOnly) || called {
			t.Errorf("Write returned %v, called %t", err, called)
		}
		err = reader.Read(t.Context(), func(q Querier) error {
			_, err := q.ExecContext(t.Context(), `DELETE FROM notes`)
			return err
		})
		if err == nil {
			t.Error("a read has deleted")
		}
		if err := reader.Healthy(t.Context()); err != nil {
			t.Errorf("Healthy returned %v", err)
		}
		reader.Stats()
		if err := reader.Close(); err != nil {
			t.Error(err)
		}
		if err := add(t.Context(), owner, "b"); err != nil {
			t.Errorf("the owner: %v", err)
		}
		if err := owner.Close(); err != nil {
			t.Fatal(err)
		}
		if err := reopen(t, opts); err != nil {
			t.Errorf("without its owner: %v", err)
		}
	})
}

func TestAnOlderDatabaseIsNotReadAndNotTouched(t *testing.T) {
	onBoth(t, func(t *testing.T, fresh func(...Set) Options) {
		opts := fresh(set("notes", firstNotes))
		if err := reopen(t, opts); err != nil {
			t.Fatal(err)
		}
		before := digest(t, opts)
		opts.ReadOnly = true
		for name, row := range map[string]struct {
			sets []Set
			says string
		}{
			"an older version":   {[]Set{set("notes", firstNotes, secondNotes)}, `schema "notes" is at version 1, this program needs version 2`},
			"without one schema": {[]Set{set("notes", firstNotes), set("others", others)}, `schema "others" is at version 0, this program needs version 1`},
		} {
			opts.Migrations = row.sets
			err := reopen(t, opts)
			wantLine(t, err, row.says)
			if !errors.Is(err, ErrOlderSchema) {
				t.Errorf("%s: Open returned %v", name, err)
			}
		}
		opts.Migrations = []Set{set("others", others)}
		if err := reopen(t, opts); !errors.Is(err, ErrNewerSchema) {
			t.Errorf("a newer one: Open returned %v", err)
		}
		if digest(t, opts) != before {
			t.Error("the database was changed")
		}
	})
}

func TestADatabaseThatIsNotThereIsNotMadeToBeRead(t *testing.T) {
	opts := options(t.TempDir(), notes())
	opts.ReadOnly = true
	if err := reopen(t, opts); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open returned %v", err)
	}
	opts.Dir += "/none"
	if err := reopen(t, opts); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open returned %v", err)
	}
	if err := reopen(t, options(opts.Dir, notes())); err != nil {
		t.Errorf("the directory is not free: %v", err)
	}
}
