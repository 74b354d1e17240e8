package sqldb

import (
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
