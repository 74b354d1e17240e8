package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/fault"
)

// notes is a schema with one table.
func notes() Set {
	return set("notes", `CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE) STRICT;`)
}

// set makes a schema whose migrations are these statements, with versions from 1.
func set(name string, migrations ...string) Set {
	files := fstest.MapFS{}
	for i, m := range migrations {
		files[fmt.Sprintf("%05d_step.sql", i+1)] = &fstest.MapFile{Data: []byte("-- +goose Up\n" + m + "\n")}
	}
	return Set{Name: name, FS: files}
}

func options(dir string, sets ...Set) Options {
	return Options{Dir: dir, File: "test.db", Migrations: sets, Clock: clock.System()}
}

func openDB(t *testing.T, opts Options) *DB {
	t.Helper()
	db, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func insert(ctx context.Context, tx *Tx, text string) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO notes (text) VALUES ($1)`, text)
	return err
}

// add writes one note in a transaction of its own.
func add(ctx context.Context, db *DB, text string) error {
	return db.Write(ctx, func(tx *Tx) error { return insert(ctx, tx, text) })
}

// texts returns all notes in the order in which they were written.
func texts(t *testing.T, db *DB) []string {
	t.Helper()
	var all []string
	err := db.Read(context.Background(), func(q Querier) (err error) {
		all, err = readTexts(context.Background(), q)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func readTexts(ctx context.Context, q Querier) ([]string, error) {
	rows, err := q.QueryContext(ctx, `SELECT text FROM notes ORDER BY id`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		all = append(all, text)
	}
	return all, rows.Err()
}

func wantTexts(t *testing.T, db *DB, want ...string) {
	t.Helper()
	if got := texts(t, db); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("notes are %v, want %v", got, want)
	}
}

func TestWhatWasWrittenIsThereAfterOpeningAgain(t *testing.T) {
	opts := options(t.TempDir(), notes())
	db, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := add(t.Context(), db, "kept"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	wantTexts(t, openDB(t, opts), "kept")
}

func TestAWriteThatFailsLeavesNothing(t *testing.T) {
	boom := errors.New("boom")
	for name, fn := range map[string]func(ctx context.Context, tx *Tx) error{
		"an error of the function": func(ctx context.Context, tx *Tx) error {
			return errors.Join(insert(ctx, tx, "a"), boom)
		},
		"an error of a statement that the function passes on": func(ctx context.Context, tx *Tx) error {
			return errors.Join(insert(ctx, tx, "a"), insert(ctx, tx, "a"))
		},
		"an error of a statement that the function swallows": func(ctx context.Context, tx *Tx) error {
			if err := insert(ctx, tx, "a"); err != nil {
				return err
			}
			if insert(ctx, tx, "a") == nil {
				t.Error("the second insert was accepted")
			}
			return nil
		},
		"an error of a query that the function swallows": func(ctx context.Context, tx *Tx) error {
			if err := insert(ctx, tx, "a"); err != nil {
				return err
			}
			if rows, err := tx.QueryContext(ctx, `SELECT nothing FROM nowhere`); err == nil {
				rows.Close()
				t.Error("the query was accepted")
			}
			return nil
		},
		"an error while reading rows that the function swallows": func(ctx context.Context, tx *Tx) error {
			if err := errors.Join(insert(ctx, tx, "1"), insert(ctx, tx, "no json")); err != nil {
				return err
			}
			rows, err := tx.QueryContext(ctx, `SELECT json(text) FROM notes ORDER BY id`)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
			}
			if rows.Err() == nil {
				t.Error("all rows were read")
			}
			return nil
		},
		"a statement after one that failed": func(ctx context.Context, tx *Tx) error {
			if _, err := tx.ExecContext(ctx, `INSERT INTO notes (id, text) VALUES (1, NULL)`); err == nil {
				t.Error("a missing text was accepted")
			}
			if err := insert(ctx, tx, "after"); err == nil {
				t.Error("a statement ran after one that had failed")
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			db := openDB(t, options(t.TempDir(), notes()))
			committed := false
			err := db.Write(t.Context(), func(tx *Tx) error {
				tx.OnCommit(func() { committed = true })
				return fn(t.Context(), tx)
			})
			if err == nil || errors.Is(err, ErrOutcomeUnknown) {
				t.Errorf("Write returned %v", err)
			}
			if committed {
				t.Error("the commit hook ran")
			}
			wantTexts(t, db)
			if err := add(t.Context(), db, "next"); err != nil {
				t.Errorf("the next write: %v", err)
			}
		})
	}
}

func TestAPanicRollsBackAndGoesOn(t *testing.T) {
	db := openDB(t, options(t.TempDir(), notes()))
	func() {
		defer func() {
			if r := recover(); r != "boom" {
				t.Errorf("recovered %v, want boom", r)
			}
		}()
		db.Write(t.Context(), func(tx *Tx) error {
			if err := insert(t.Context(), tx, "a"); err != nil {
				t.Error(err)
			}
			panic("boom")
		})
	}()
	if err := add(t.Context(), db, "b"); err != nil {
		t.Fatal(err)
	}
	wantTexts(t, db, "b")
}

func TestCommitHooksRunInOrderAfterTheCommitAndBeforeTheNextWrite(t *testing.T) {
	db := openDB(t, options(t.TempDir(), notes()))
	var mu sync.Mutex
	var log []string
	say := func(s string) {
		mu.Lock()
		defer mu.Unlock()
		log = append(log, s)
	}
	next := make(chan error)
	err := db.Write(t.Context(), func(tx *Tx) error {
		go func() {
			next <- db.Write(t.Context(), func(*Tx) error { say("next write"); return nil })
		}()
		tx.OnCommit(func() { say(fmt.Sprint("first ", texts(t, db))) })
		tx.OnCommit(func() { say("second") })
		return insert(t.Context(), tx, "a")
	})
	if err := errors.Join(err, <-next); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(log), "[first [a] second next write]"; got != want {
		t.Errorf("order %s, want %s", got, want)
	}
}

func TestAReadSeesOneMoment(t *testing.T) {
	db := openDB(t, options(t.TempDir(), notes()))
	if err := add(t.Context(), db, "before"); err != nil {
		t.Fatal(err)
	}
	err := db.Read(t.Context(), func(q Querier) error {
		first, err := readTexts(t.Context(), q)
		if err != nil {
			return err
		}
		if err := add(t.Context(), db, "meanwhile"); err != nil {
			return err
		}
		second, err := readTexts(t.Context(), q)
		if fmt.Sprint(first) != "[before]" || fmt.Sprint(second) != "[before]" {
			t.Errorf("one snapshot showed %v, then %v", first, second)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	wantTexts(t, db, "before", "meanwhile")
}

func TestAReadCannotWrite(t *testing.T) {
	db := openDB(t, options(t.TempDir(), notes()))
	err := db.Read(t.Context(), func(q Querier) error {
		_, err := q.ExecContext(t.Context(), `INSERT INTO notes (text) VALUES ('a')`)
		return err
	})
	if err == nil {
		t.Error("a read wrote")
	}
	wantTexts(t, db)
}

func TestWritersTakeTurnsInTheOrderInWhichTheyCame(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		db := openDB(t, options(dir, notes()))
		const n = 20
		var group sync.WaitGroup
		var order []int
		err := db.Write(t.Context(), func(*Tx) error {
			for i := range n {
				group.Go(func() {
					err := db.Write(t.Context(), func(*Tx) error { order = append(order, i); return nil })
					if err != nil {
						t.Error(err)
					}
				})
				synctest.Wait() // it stands in the queue
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		group.Wait()
		for i, got := range order {
			if got != i {
				t.Fatalf("the turns were %v", order)
			}
		}
		if len(order) != n {
			t.Errorf("%d writes, want %d", len(order), n)
		}
	})
}

func TestAWriterLeavesTheQueueWhenItsContextEnds(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		db := openDB(t, options(dir, notes()))
		err := db.Write(t.Context(), func(tx *Tx) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := add(ctx, db, "late"); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrOutcomeUnknown) {
				t.Errorf("the waiting write returned %v", err)
			}
			return insert(t.Context(), tx, "a")
		})
		if err != nil {
			t.Fatal(err)
		}
		wantTexts(t, db, "a")
	})
}

func TestAContextThatEndsBeforeTheCommitRollsBack(t *testing.T) {
	endless := `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) INSERT INTO notes (text) SELECT i FROM n`
	for name, fn := range map[string]func(ctx context.Context, cancel func(), tx *Tx) error{
		"between the last statement and the commit": func(ctx context.Context, cancel func(), tx *Tx) error {
			err := insert(ctx, tx, "a")
			cancel()
			return err
		},
		"in the middle of a statement": func(ctx context.Context, cancel func(), tx *Tx) error {
			if err := insert(ctx, tx, "a"); err != nil {
				return err
			}
			time.AfterFunc(10*time.Millisecond, cancel)
			_, err := tx.ExecContext(ctx, endless)
			return err
		},
		"in the middle of a statement, and the function goes on": func(ctx context.Context, cancel func(), tx *Tx) error {
			time.AfterFunc(10*time.Millisecond, cancel)
			if _, err := tx.ExecContext(ctx, endless); err == nil {
				t.Error("the endless statement ended")
			}
			if insert(context.WithoutCancel(ctx), tx, "stray") == nil {
				t.Error("a statement ran after the transaction was lost")
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			db := openDB(t, options(t.TempDir(), notes()))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			err := db.Write(ctx, func(tx *Tx) error { return fn(ctx, cancel, tx) })
			if !errors.Is(err, context.Canceled) || fault.KindOf(err) != fault.Canceled {
				t.Errorf("Write returned %v of kind %s", err, fault.KindOf(err))
			}
			wantTexts(t, db)
			if err := add(t.Context(), db, "next"); err != nil {
				t.Errorf("the next write: %v", err)
			}
			wantTexts(t, db, "next")
		})
	}
}

func TestAReadEndsWithItsContext(t *testing.T) {
	opts := options(t.TempDir(), notes())
	opts.Readers = 1
	db := openDB(t, opts)

	t.Run("in the middle of a statement", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		err := db.Read(ctx, func(q Querier) error {
			var n int64
			return q.QueryRowContext(ctx, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n`).Scan(&n)
		})
		if fault.KindOf(err) != fault.DeadlineExceeded {
			t.Errorf("Read returned %v", err)
		}
	})
	t.Run("between two statements", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		err := db.Read(ctx, func(q Querier) error {
			if _, err := readTexts(ctx, q); err != nil {
				return err
			}
			cancel()
			_, err := readTexts(ctx, q)
			return err
		})
		if fault.KindOf(err) != fault.Canceled {
			t.Errorf("Read returned %v", err)
		}
	})
	t.Run("while it waits for a reader", func(t *testing.T) {
		err := db.Read(t.Context(), func(Querier) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			return db.Read(ctx, func(Querier) error { return nil })
		})
		if fault.KindOf(err) != fault.DeadlineExceeded {
			t.Errorf("Read returned %v", err)
		}
	})
	wantTexts(t, db)
}

func TestCloseWaitsForWhatIsUnderWayAndRefusesTheRest(t *testing.T) {
	opts := options(t.TempDir(), notes())
	synctest.Test(t, func(t *testing.T) {
		db, err := Open(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			err := db.Write(t.Context(), func(tx *Tx) error {
				time.Sleep(time.Second)
				return insert(t.Context(), tx, "a")
			})
			if err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		closed := make(chan error)
		go func() { closed <- db.Close() }()
		synctest.Wait()
		select {
		case <-closed:
			t.Fatal("Close did not wait")
		default:
		}
		if err := add(t.Context(), db, "b"); !errors.Is(err, ErrClosed) {
			t.Errorf("Write returned %v", err)
		}
		if err := db.Read(t.Context(), func(Querier) error { return nil }); !errors.Is(err, ErrClosed) {
			t.Errorf("Read returned %v", err)
		}
		if err := errors.Join(<-closed, db.Close()); err != nil {
			t.Error(err)
		}
	})
	wantTexts(t, openDB(t, opts), "a")
}

func TestConcurrentReadersAndWritersAgree(t *testing.T) {
	db := openDB(t, options(t.TempDir(), notes()))
	const writers, each = 4, 50
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for i := range each {
				// Two rows that belong together.
				err := db.Write(t.Context(), func(tx *Tx) error {
					return errors.Join(insert(t.Context(), tx, fmt.Sprint(w, i, "left")), insert(t.Context(), tx, fmt.Sprint(w, i, "right")))
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
		group.Go(func() {
			for range each {
				var n int
				err := db.Read(t.Context(), func(q Querier) error {
					return q.QueryRowContext(t.Context(), `SELECT count(*) FROM notes`).Scan(&n)
				})
				if err != nil || n%2 != 0 {
					t.Errorf("a reader saw %d notes, error %v", n, err)
				}
			}
		})
	}
	group.Wait()
	if n := len(texts(t, db)); n != writers*each*2 {
		t.Errorf("%d notes, want %d", n, writers*each*2)
	}
}

func TestATimeIsRefusedAsAnArgument(t *testing.T) {
	db := openDB(t, options(t.TempDir(), notes()))
	err := db.Write(t.Context(), func(tx *Tx) error {
		_, err := tx.ExecContext(t.Context(), `INSERT INTO notes (text) VALUES ($1)`, time.Now())
		return err
	})
	if err == nil {
		t.Error("a time was accepted")
	}
}

func TestNoRowIsTheErrorOfTheStandardLibrary(t *testing.T) {
	db := openDB(t, options(t.TempDir(), notes()))
	err := db.Write(t.Context(), func(tx *Tx) error {
		var text string
		if err := tx.QueryRowContext(t.Context(), `SELECT text FROM notes WHERE id = $1`, 7).Scan(&text); !errors.Is(err, sql.ErrNoRows) {
			t.Errorf("Scan returned %v", err)
		}
		return insert(t.Context(), tx, "a") // no row is no failed statement
	})
	if err != nil {
		t.Error(err)
	}
}
