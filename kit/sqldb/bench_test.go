package sqldb

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"testing"
)

func BenchmarkReadOneRow(b *testing.B) {
	db := benchDB(b)
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		var text string
		err := db.Read(ctx, func(q Querier) error {
			return q.QueryRowContext(ctx, `SELECT text FROM notes WHERE id = $1`, 500).Scan(&text)
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadOneRowParallel(b *testing.B) {
	db := benchDB(b)
	ctx := b.Context()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			var text string
			err := db.Read(ctx, func(q Querier) error {
				return q.QueryRowContext(ctx, `SELECT text FROM notes WHERE id = $1`, 500).Scan(&text)
			})
			if err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkWriteOneRow(b *testing.B) {
	db := benchDB(b)
	ctx := b.Context()
	i := 1000
	for b.Loop() {
		i++
		if err := add(ctx, db, fmt.Sprint(i)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWriteThousandRows(b *testing.B) {
	db := benchDB(b)
	ctx := b.Context()
	i := 1000
	for b.Loop() {
		err := db.Write(ctx, func(tx *Tx) error {
			for range 1000 {
				i++
				if err := insert(ctx, tx, fmt.Sprint(i)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

func benchDB(b *testing.B) *DB {
	db, err := Open(b.Context(), options(b.TempDir(), notes()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	err = db.Write(b.Context(), func(tx *Tx) error {
		for i := range 1000 {
			if err := insert(b.Context(), tx, fmt.Sprint(i)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return db
}

// BenchmarkInsert adds a thousand rows to SQLite by Tx.Insert, and by the same statements given to the driver past database/sql:
// what that would save.
func BenchmarkInsert(b *testing.B) {
	db, err := Open(b.Context(), options(b.TempDir(), set("rows",
		`CREATE TABLE wide (a INTEGER PRIMARY KEY, b INTEGER, c INTEGER, d TEXT, e TEXT, f BLOB) STRICT;`)))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	const rows = 1000
	columns := []string{"a", "b", "c", "d", "e", "f"}
	number, payload := int64(0), make([]byte, 32)
	fill := func(row []any) {
		number++
		row[0], row[1], row[2], row[3], row[4], row[5] = number, number, number, "AUTHORIZED", "EUR", payload
	}
	b.Run("through=sql", func(b *testing.B) {
		for b.Loop() {
			err := db.Write(b.Context(), func(tx *Tx) error {
				return tx.Insert(b.Context(), "wide", columns, rows, func(_ int, row []any) { fill(row) })
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("through=driver", func(b *testing.B) {
		held, err := db.engine.(*embedded).writer.Conn(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		defer held.Close()
		for b.Loop() {
			if err := held.Raw(func(inner any) error { return insertRaw(b.Context(), inner.(*conn), columns, rows, fill) }); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// insertRaw does what Tx.Insert does in a transaction, on the driver's connection.
func insertRaw(ctx context.Context, c *conn, columns []string, n int, fill func(row []any)) error {
	tx, err := c.BeginTx(ctx, driver.TxOptions{})
	if err != nil {
		return err
	}
	row := make([]any, len(columns))
	for most := max(1, insertValues/len(columns)); n > 0; {
		if n < most {
			most = 1
		}
		args := make([]driver.NamedValue, 0, most*len(columns))
		for range most {
			clear(row)
			fill(row)
			for _, v := range row {
				args = append(args, driver.NamedValue{Ordinal: len(args) + 1, Value: v})
			}
		}
		if _, err := c.ExecContext(ctx, insertStatement(SQLite, "wide", columns, most), args); err != nil {
			return errors.Join(err, tx.Rollback())
		}
		n -= most
	}
	return tx.Commit()
}
