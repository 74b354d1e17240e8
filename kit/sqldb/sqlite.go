package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
)

// writerStall is how long one Write may last before the database counts as ill.
const writerStall = 30 * time.Second

// driverWrapper puts something between this package and a driver.
type driverWrapper func(driver.Connector) driver.Connector

// embedded is a SQLite database.
type embedded struct {
	title     string // the file's name without its ending
	clock     clock.Clock
	lock      *dirLock
	writer    *sql.DB
	readers   *sql.DB
	listeners *listeners

	turns *turns // of Writes, one at a time

	mu    sync.Mutex
	began time.Time // when the present Write got its turn; zero when there is none
	fault error     // the I/O error at a commit that ended writing
	ended chan struct{}
}

var _ engine = (*embedded)(nil)

func (s *embedded) kind() Engine                           { return SQLite }
func (s *embedded) name() string                           { return s.title }
func (s *embedded) failed() <-chan struct{}                { return s.ended }
func (s *embedded) listen(context.Context, string, func()) {} // nobody else has the database open
func (s *embedded) notify([]string)                        {}

// readOne waits for a reader as long as ctx allows; the statement has a context of its own, which need not end.
func (s *embedded) readOne(ctx context.Context, fn func(Querier) error) error {
	conn, err := s.readers.Conn(ctx)
	if err != nil {
		return classify(ctx, fmt.Errorf("begin read: %w", err))
	}
	defer conn.Close()
	return classify(ctx, (&one{inner: conn}).run(fn))
}

func (s *embedded) read(ctx context.Context, fn func(q Querier) error) error {
	tx, err := s.readers.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return classify(ctx, fmt.Errorf("begin read: %w", err))
	}
	defer tx.Rollback() // a snapshot has nothing to keep; also when fn panics
	return classify(ctx, fn(&Tx{tx: tx, engine: SQLite}))
}

func (s *embedded) write(ctx context.Context, fn func(tx *Tx) error) error {
	if err := s.turns.take(ctx, "the writer"); err != nil {
		return err
	}
	defer s.endTurn()
	if err := s.beginTurn(); err != nil {
		return err
	}
	return s.transact(ctx, fn)
}

// transact runs one transaction; the caller has the turn.
func (s *embedded) transact(ctx context.Context, fn func(tx *Tx) error) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	// database/sql rolls a transaction back when the context that began it ends, even during its commit: so it
	// gets one that does not end. The statements have ctx.
	sqlTx, err := s.writer.BeginTx(context.WithoutCancel(ctx), nil)
	if err != nil {
		return classify(ctx, fmt.Errorf("begin write: %w", err))
	}
	done := false
	defer func() {
		if done {
			return
		}
		if rerr := sqlTx.Rollback(); rerr != nil && err != nil {
			err = errors.Join(err, fmt.Errorf("roll back: %w", rerr))
		}
	}()

	tx := &Tx{tx: sqlTx, engine: SQLite}
	if err := fn(tx); err != nil {
		return classify(ctx, err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	done = true
	if err := sqlTx.Commit(); err != nil {
		return s.commitFailed(ctx, err)
	}
	for _, hook := range tx.hooks {
		hook()
	}
	s.listeners.tell(tx.channels)
	return nil
}

// commitFailed says what the error of a commit means.
func (s *embedded) commitFailed(ctx context.Context, err error) error {
	var stmt *statementError
	if errors.As(err, &stmt) {
		// fn swallowed the error of a statement, and the transaction was rolled back.
		return classify(ctx, fmt.Errorf("commit after a statement had failed: %w", stmt.err))
	}
	err = fmt.Errorf("commit: %w", err)
	if !outcomeUnknown(err) {
		return classify(ctx, err)
	}
	s.fail(err)
	return ErrOutcomeUnknown.Because(err)
}

func (s *embedded) close() error {
	return errors.Join(s.readers.Close(), s.writer.Close(), s.lock.release())
}

// beginTurn notes that a write begins, or refuses it if the storage has failed.
func (s *embedded) beginTurn() error {
	now := s.clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault != nil {
		return ErrStorageFailed.Because(s.fault)
	}
	s.began = now
	return nil
}

// endTurn lets the next writer in.
func (s *embedded) endTurn() {
	s.mu.Lock()
	s.began = time.Time{}
	s.mu.Unlock()
	s.turns.give()
}

// fail ends writing for good.
func (s *embedded) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault == nil {
		s.fault = err
		close(s.ended)
	}
}

func (s *embedded) healthy(ctx context.Context) error {
	err := s.read(ctx, func(q Querier) error {
		var n int64
		return q.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&n)
	})
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	return s.writable(ctx)
}

// writable checks that there is a writer, and that it can write or does.
func (s *embedded) writable(ctx context.Context) error {
	if s.turns.try() {
		defer s.endTurn()
		if err := s.beginTurn(); err != nil {
			return err
		}
		return s.tryLock(ctx)
	}
	s.mu.Lock()
	began, broken := s.began, s.fault
	s.mu.Unlock()
	if broken != nil {
		return ErrStorageFailed.Because(broken)
	}
	if busy := s.clock.Now().Sub(began); !began.IsZero() && busy > writerStall {
		return fmt.Errorf("a write has been going on for %s", busy.Round(time.Second))
	}
	return nil
}

// tryLock begins a write transaction that changes nothing; the caller has the turn.
func (s *embedded) tryLock(ctx context.Context) error {
	tx, err := s.writer.BeginTx(context.WithoutCancel(ctx), &sql.TxOptions{})
	if err != nil {
		return classify(ctx, fmt.Errorf("take the write lock: %w", err))
	}
	return tx.Rollback()
}
