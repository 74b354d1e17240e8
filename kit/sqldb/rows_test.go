package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
)

func TestRowsAreReadOneByOne(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, fresh func(...Set) Options) {
		opts := fresh(notes())
		opts.Readers, opts.Connections = 1, 2 // what is not given back is missed
		db := openDB(t, opts)
		ctx := within(t, patience)
		for _, text := range []string{"a", "b", "c"} {
			if err := add(ctx, db, text); err != nil {
				t.Fatal(err)
			}
		}
		boom := errors.New("boom")
		for name, test := range map[string]struct {
			query string
			args  []any
			each  func(text string) error
			want  string
			err   error
			fails bool
		}{
			"all":                  {query: `SELECT text FROM notes ORDER BY id`, want: "[a b c]"},
			"some":                 {query: `SELECT text FROM notes WHERE id > $1 AND text < $2`, args: []any{1, "c"}, want: "[b]"},
			"none":                 {query: `SELECT text FROM notes WHERE id > 9`, want: "[]"},
			"until it is enough":   {query: `SELECT text FROM notes ORDER BY id`, each: func(string) error { return boom }, want: "[a]", err: boom, fails: true},
			"what is not there":    {query: `SELECT word FROM notes`, want: "[]", fails: true},
			"what cannot be read":  {query: `SELECT NULL FROM notes`, want: "[]", fails: true},
			"what cannot be bound": {query: `SELECT text FROM notes WHERE text = $1`, args: []any{struct{}{}}, want: "[]", fails: true},
		} {
			t.Run(name, func(t *testing.T) {
				all := []string{}
				err := db.ReadRows(ctx, func(row Row) error {
					var text string
					if err := row.Scan(&text); err != nil {
						return err
					}
					all = append(all, text)
					if test.each != nil {
						return test.each(text)
					}
					return nil
				}, test.query, test.args...)
				if fmt.Sprint(all) != test.want || (err != nil) != test.fails || test.err != nil && !errors.Is(err, test.err) {
					t.Errorf("read %v, %v", all, err)
				}
			})
		}
		t.Run("columns of each kind", func(t *testing.T) {
			var n int64
			var text string
			var yes bool
			var null sql.NullString
			var data []byte
			err := db.ReadRows(ctx, func(row Row) error { return row.Scan(&n, &text, &yes, &null, &data) },
				`SELECT id, text, id = 1, NULL, CAST('xyz' AS `+db.Engine().Pick("BLOB", "BYTEA")+`) FROM notes WHERE id = 1`)
			if got := fmt.Sprintf("%d %s %v %v %s", n, text, yes, null.Valid, data); err != nil || got != "1 a true false xyz" {
				t.Errorf("read %s, %v", got, err)
			}
		})
		t.Run("a panic", func(t *testing.T) {
			func() {
				defer func() {
					if recover() != boom {
						t.Error("the panic went astray")
					}
				}()
				_ = db.ReadRows(ctx, func(Row) error { panic(boom) }, `SELECT text FROM notes`)
			}()
			wantTexts(t, db, "a", "b", "c")
		})
		t.Run("a call that is over", func(t *testing.T) {
			over, cancel := context.WithCancel(ctx)
			cancel()
			err := db.ReadRows(over, func(Row) error { return nil }, `SELECT text FROM notes`)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			wantTexts(t, db, "a", "b", "c")
		})
	})
}
