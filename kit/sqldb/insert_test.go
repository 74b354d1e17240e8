package sqldb

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
)

// kinds is a table with a column of each type.
func kinds() Set {
	return Set{Name: "kinds", FS: fstest.MapFS{
		"sqlite/00001_kinds.sql":   {Data: []byte("-- +goose Up\nCREATE TABLE kinds (n INTEGER PRIMARY KEY, t TEXT, b BLOB) STRICT;\n")},
		"postgres/00001_kinds.sql": {Data: []byte("-- +goose Up\nCREATE TABLE kinds (n BIGINT PRIMARY KEY, t TEXT, b BYTEA);\n")},
	}}
}

func TestInsertAddsEveryRowAsItIs(t *testing.T) {
	onBoth(t, func(t *testing.T, fresh func(sets ...Set) Options) {
		db := openDB(t, fresh(kinds()))
		long := strings.Repeat("é", copyChunk) // longer than what is sent at a time
		total := 0
		for _, n := range []int{0, 1, CopyLeast - 1, CopyLeast, insertValues/3 + 1, 1000} {
			from := total
			err := db.Write(t.Context(), func(tx *Tx) error {
				next := 0
				return tx.Insert(t.Context(), "kinds", []string{"n", "t", "b"}, n, func(i int, row []any) {
					if i != next || len(row) != 3 || row[0] != nil || row[1] != nil || row[2] != nil {
						t.Errorf("row %d of %v is asked for, not %d", i, row, next)
					}
					next++
					row[0] = int64(from + i)
					switch i % 4 {
					case 1:
						row[1], row[2] = "", []byte{}
					case 2:
						row[1], row[2] = "a\tb\\.\n", []byte{0, 255, 10}
					case 3:
						if i == 3 {
							row[1] = long
						}
					}
				})
			})
			if err != nil {
				t.Fatalf("%d rows: %v", n, err)
			}
			total += n
			var count, tabs, empty, null, longest int
			err = db.ReadOne(t.Context(), func(q Querier) error {
				return q.QueryRowContext(t.Context(), `SELECT count(*), count(CASE WHEN t = $1 AND b = $2 THEN 1 END),
					count(CASE WHEN t = '' AND b = $3 THEN 1 END), count(CASE WHEN t IS NULL AND b IS NULL THEN 1 END), coalesce(max(length(t)), 0) FROM kinds WHERE n >= $4`,
					"a\tb\\.\n", []byte{0, 255, 10}, []byte{}, from).Scan(&count, &tabs, &empty, &null, &longest)
			})
			if want := (n + 1) / 4; err != nil || count != n || tabs != want || empty != (n+2)/4 {
				t.Errorf("%d rows, %d of %d with signs, %d of %d empty: %v", count, tabs, want, empty, (n+2)/4, err)
			}
			if n > 3 && longest != len(long)/2 {
				t.Errorf("the longest has %d characters", longest)
			}
			if n > 3 && null != (n+3)/4+n/4-1 {
				t.Errorf("%d rows of %d are NULL", null, n)
			}
		}
	})
}

func TestOneRowThatCannotBeAddedIsAnErrorOfAll(t *testing.T) {
	onBoth(t, func(t *testing.T, fresh func(sets ...Set) Options) {
		db := openDB(t, fresh(kinds()))
		for name, value := range map[string]any{"a number twice": int64(1), "a value of another type": 1.5} {
			for _, n := range []int{2, 100} {
				t.Run(fmt.Sprint(name, " of ", n), func(t *testing.T) {
					err := db.Write(t.Context(), func(tx *Tx) error {
						return tx.Insert(t.Context(), "kinds", []string{"n"}, n, func(i int, row []any) {
							row[0] = int64(i)
							if i == n-1 {
								row[0] = value
							}
							if n == 2 && i == 0 {
								row[0] = int64(1)
							}
						})
					})
					if err == nil {
						t.Fatal("added")
					}
					if err := wantRows(t, db, 0); err != nil {
						t.Error(err)
					}
				})
			}
		}
		// What broke is over with its transaction.
		err := db.Write(t.Context(), func(tx *Tx) error {
			return tx.Insert(t.Context(), "kinds", []string{"n"}, 100, func(i int, row []any) { row[0] = int64(i) })
		})
		if err := errors.Join(err, wantRows(t, db, 100)); err != nil {
			t.Error(err)
		}
	})
}

func wantRows(t *testing.T, db *DB, want int) error {
	var n int
	err := db.ReadOne(t.Context(), func(q Querier) error {
		return q.QueryRowContext(t.Context(), `SELECT count(*) FROM kinds`).Scan(&n)
	})
	if err == nil && n != want {
		return fmt.Errorf("there are %d rows, want %d", n, want)
	}
	return err
}
