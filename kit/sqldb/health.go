package sqldb

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// writerStall is how long one Write may last before the database counts as ill.
const writerStall = 30 * time.Second

// Healthy reads from the database and takes the write lock, and gives it back at once. If a writer is at work
// it does not wait for it, but returns an error when that writer has been at it for 30 s. It also returns an
// error when the storage has failed, the database is closed, or no reader became free before ctx ended.
func (db *DB) Healthy(ctx context.Context) error {
	err := db.Read(ctx, func(q Querier) error {
		var n int64
		return q.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&n)
	})
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	return db.writable(ctx)
}

// writable checks that there is a writer, and that it can write or does.
func (db *DB) writable(ctx context.Context) error {
	if err := db.enter(); err != nil {
		return err
	}
	defer db.users.Done()
	select {
	case db.turn <- struct{}{}:
		defer db.endTurn()
		if err := db.beginTurn(); err != nil {
			return err
		}
		return db.tryLock(ctx)
	default:
	}
	db.mu.Lock()
	began, broken := db.began, db.fault
	db.mu.Unlock()
	if broken != nil {
		return ErrStorageFailed.Because(broken)
	}
	if busy := db.clock.Now().Sub(began); !began.IsZero() && busy > writerStall {
		return fmt.Errorf("a write has been going on for %s", busy.Round(time.Second))
	}
	return nil
}

// tryLock begins a write transaction that changes nothing; the caller has the turn.
func (db *DB) tryLock(ctx context.Context) error {
	tx, err := db.writer.BeginTx(context.WithoutCancel(ctx), &sql.TxOptions{})
	if err != nil {
		return classify(ctx, fmt.Errorf("take the write lock: %w", err))
	}
	return tx.Rollback()
}
