package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/fault"
)

func TestReadOneRunsOneStatement(t *testing.T) {
	onBoth(t, func(t *testing.T, fresh func(...Set) Options) {
		opts := fresh(notes())
		opts.Readers, opts.Connections = 1, 2
		db := openDB(t, opts)
		ctx := t.Context()
		for _, text := range []string{"a", "b"} {
			if err := add(ctx, db, text); err != nil {
				t.Fatal(err)
			}
		}
		count := func(ctx context.Context, q Querier) (n int, err error) {
			return n, q.QueryRowContext(ctx, `SELECT count(*) FROM notes`).Scan(&n)
		}
		boom := errors.New("boom")
		for name, test := range map[string]struct {
			fn   func(q Querier) error
			want error
		}{
			"a row": {func(q Querier) error {
				n, err := count(ctx, q)
				if n != 2 {
					t.Errorf("%d notes", n)
				}
				return err
			}, nil},
			"rows": {func(q Querier) error {
				all, err := readTexts(ctx, q)
				if len(all) != 2 {
					t.Errorf("notes are %v", all)
				}
				return err
			}, nil},
			"no row": {func(q Querier) error {
				var text string
				return q.QueryRowContext(ctx, `SELECT text FROM notes WHERE id = 9`).Scan(&text)
			}, sql.ErrNoRows},
			"a row that nobody reads": {func(q Querier) error { q.QueryRowContext(ctx, `SELECT text FROM notes`); return nil }, nil},
			"rows that nobody closes": {func(q Querier) error { _, err := q.QueryContext(ctx, `SELECT text FROM notes`); return err }, nil},
			"its own error":           {func(Querier) error { return boom }, boom},
			"a second row": {func(q Querier) error {
				_, err := count(ctx, q)
				_, again := count(ctx, q)
				return errors.Join(err, again)
			}, errOnlyOne},
			"second rows, swallowed":   {func(q Querier) error { _, err := readTexts(ctx, q); _, _ = readTexts(ctx, q); return err }, errOnlyOne},
			"a statement without rows": {func(q Querier) error { _, err := q.ExecContext(ctx, `DELETE FROM notes`); return err }, errOnlyOne},
		} {
			t.Run(name, func(t *testing.T) {
				if err := db.ReadOne(ctx, test.fn); !errors.Is(err, test.want) {
					t.Errorf("got %v, want %v", err, test.want)
				}
				if err := db.ReadOne(within(t, patience), func(q Querier) error { _, err := count(ctx, q); return err }); err != nil {
					t.Errorf("the next one: %v", err)
				}
			})
		}
		t.Run("a context that ends", func(t *testing.T) {
			ctx := within(t, 20*time.Millisecond)
			err := db.ReadOne(ctx, func(q Querier) error {
				var n int64
				return q.QueryRowContext(ctx, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n`).Scan(&n)
			})
			if fault.KindOf(err) != fault.DeadlineExceeded {
				t.Errorf("got %v", err)
			}
		})
	})
}

func TestWriteOneIsATransaction(t *testing.T) {
	onBoth(t, func(t *testing.T, fresh func(sets ...Set) Options) {
		db := openDB(t, fresh(notes()))
		told := make(chan struct{}, 16)
		ctx, cancel := context.WithCancel(t.Context())
		listened := make(chan error, 1)
		go func() { listened <- db.Listen(ctx, "notes", func() { told <- struct{}{} }) }()
		<-told // it listens
		n, err := db.WriteOne(t.Context(), `INSERT INTO notes (text) VALUES ($1), ($2)`, []any{"a", "b"}, "notes")
		if err != nil || n != 2 {
			t.Fatalf("%d rows, %v", n, err)
		}
		<-told
		if _, err = db.WriteOne(t.Context(), `INSERT INTO notes (text) VALUES ($1), ($2)`, []any{"c", "a"}); !IsUnique(err, "notes.text") {
			t.Errorf("a text twice: %v", err)
		}
		n, err = db.WriteOne(t.Context(), `UPDATE notes SET text = $1 WHERE text = $2`, []any{"d", "c"})
		if err != nil || n != 0 {
			t.Errorf("%d rows of the one that failed are there, %v", n, err)
		}
		done, stop := context.WithCancel(t.Context())
		stop()
		if _, err := db.WriteOne(done, `DELETE FROM notes`, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("a call that has ended: %v", err)
		}
		n, err = db.WriteOne(t.Context(), `DELETE FROM notes`, nil)
		if err != nil || n != 2 {
			t.Errorf("%d rows were there, %v", n, err)
		}
		cancel()
		if err := <-listened; err != nil {
			t.Error(err)
		}
	})
}
