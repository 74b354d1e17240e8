package sqldb

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/concordat-dev/concordat/kit/sqldb/postgrestest"
)

func benchPostgres(b *testing.B) *DB {
	b.Helper()
	db, err := Open(b.Context(), postgresOptions(URL(postgrestest.Database(b)), notes()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	for i := range 1000 {
		if err := add(b.Context(), db, fmt.Sprint("note ", i)); err != nil {
			b.Fatal(err)
		}
	}
	return db
}

func BenchmarkPostgresReadOneRow(b *testing.B) {
	db := benchPostgres(b)
	for name, read := range map[string]func(context.Context, func(Querier) error) error{"ReadOne": db.ReadOne, "Read": db.Read} {
		b.Run(name, func(b *testing.B) {
			ctx := b.Context()
			b.ReportAllocs()
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					var text string
					err := read(ctx, func(q Querier) error {
						return q.QueryRowContext(ctx, `SELECT text FROM notes WHERE id = $1`, 500).Scan(&text)
					})
					if err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

func BenchmarkPostgresWriteOneRow(b *testing.B) {
	db := benchPostgres(b)
	ctx := b.Context()
	var n atomic.Int64
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := add(ctx, db, fmt.Sprint(n.Add(1))); err != nil {
				b.Error(err)
			}
		}
	})
}
