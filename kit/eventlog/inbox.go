package eventlog

import (
	"context"
	"sync"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/sqldb"
)

// How events get their numbers on PostgreSQL, where transactions run at the same time and commit in any order.
//
// Append adds rows to an inbox, each with the id of its transaction, and takes no lock. Once they are committed one
// transaction moves them to the log and numbers them, without gaps; one lock makes these take turns. Whatever has a number is
// committed, and so is all before it: a reader of the log cannot pass a transaction that is still in flight, which simply gets
// its numbers later.
//
// Every process that runs a log moves rows: right after its own commits, and at each poll for those of processes that died
// before they did it. The lock is of the transaction, and the whole move is one call on the server, so the death of a process
// in the middle leaves nothing behind but a rollback.
//
// What is in the inbox has not been moved: that is all the state there is. Vacuum cannot remove the rows that were moved while
// somebody holds an old snapshot, such as a backup does for hours; not to walk over them each time, a move writes down the
// snapshot that it had, and the next one looks at the rows of transactions that were in flight in it or began later. It is
// written in the transaction that moves, so a crash or a failover takes back both or neither. Nothing depends on the oldest
// transaction of the server: a forgotten one, in this database or another, holds up nobody else's events. A sweep, which looks
// at all rows, is made now and then all the same: databases are restored in more ways than one can think of.
//
// The alternatives that were weighed: numbers given by Append under a lock are a transaction cheaper, but let one transaction
// commit at a time, from Append to the flush of the disk, and one that hangs stops all. Reading up to the oldest transaction
// in flight (pg_snapshot_xmin) needs no move, but a long transaction anywhere in the cluster stops the log, and places in it
// would be pairs that mean nothing in a restored database.

const (
	// moveMost is how many events one transaction moves, so that a great backlog does not meet a limit of time.
	moveMost = 20000
	// sweepInterval is how often a log that runs looks at the whole inbox.
	sweepInterval = time.Minute
)

// inbox is the inbox of PostgreSQL. It is safe for concurrent use.
type inbox struct {
	db    *sqldb.DB
	clock clock.Clock

	mu    sync.Mutex
	swept time.Time // the last sweep; zero means none
}

// order numbers what is committed.
func (b *inbox) order(ctx context.Context) error {
	sweep := b.due()
	for {
		more, err := b.move(ctx, sweep)
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	if sweep {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.swept = b.clock.Now()
	}
	return nil
}

// due says whether it is time for a sweep.
func (b *inbox) due() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.swept.IsZero() || b.clock.Now().Sub(b.swept) >= sweepInterval
}

func (b *inbox) move(ctx context.Context, sweep bool) (more bool, err error) {
	err = b.db.Write(ctx, func(tx *sqldb.Tx) error {
		var moved int64
		if err := tx.QueryRowContext(ctx, `SELECT moved, more FROM event_log_order($1, $2)`, moveMost, sweep).Scan(&moved, &more); err != nil {
			return err
		}
		if moved > 0 {
			tx.Notify(channel)
		}
		return nil
	})
	return more, err
}

// lock keeps the inbox as it is until the transaction ends.
func (b *inbox) lock(ctx context.Context, tx *sqldb.Tx) error {
	_, err := tx.ExecContext(ctx, `SELECT event_log_lock()`)
	return err
}
