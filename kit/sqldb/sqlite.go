package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

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
	lock      *dirLock // nil with the writer
	writer    *sql.DB  // nil where it is open for reading alone
	readers   *sql.DB
	listeners *listeners

	turns *turns // of Writes, one at a time

	walPages   int
	background sync.WaitGroup // the checkpoint that is under way

	mu    sync.Mutex
	began time.Time // when the present Write got its turn; zero when there is none
	fault error     // the I/O error that ended writing
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
	handedOver := false
	defer func() {
		if !handedOver {
			s.endTurn()
		}
	}()
	if err := s.beginTurn(); err != nil {
		return err
	}
	if err := s.transact(ctx, fn); err != nil {
		return err
	}
	if s.logIsLong() {
		// The next writer waits for it, so that the log can begin anew; this one does not.
		handedOver = true
		s.background.Go(func() {
			defer s.endTurn()
			s.checkpoint()
		})
	}
	return nil
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

// logIsLong says whether the write-ahead log is to be copied into the database; the caller has the turn. The engine would do it
// by itself at a commit, and would tell nobody of an error.
func (s *embedded) logIsLong() bool {
	pages, copied, err := s.log("NOOP")
	if err != nil {
		s.checkpointFailed(err)
		return false
	}
	return pages >= s.walPages && copied < pages
}

// checkpoint copies the write-ahead log into the database, as far as no reader needs it; the caller has the turn. What could not be
// copied now is tried again after the next commit.
func (s *embedded) checkpoint() {
	if _, _, err := s.log("PASSIVE"); err != nil {
		s.checkpointFailed(err)
	}
}

// log runs a checkpoint and returns how many pages the write-ahead log has, and how many of them are in the database.
func (s *embedded) log(mode string) (pages, copied int, err error) {
	var busy int
	err = s.writer.QueryRowContext(context.Background(), "PRAGMA wal_checkpoint("+mode+")").Scan(&busy, &pages, &copied)
	return pages, copied, err
}

// checkpointFailed ends writing, unless there was only no room. What was committed is safe in the log; but after a write or a sync
// that failed the system may take the database for written, and a later checkpoint would begin the log anew.
func (s *embedded) checkpointFailed(err error) {
	if !hasCode(err, sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) {
		s.fail(fmt.Errorf("checkpoint: %w", err))
	}
}

func (s *embedded) close() error {
	s.background.Wait()
	if s.writer == nil {
		return s.readers.Close()
	}
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
	if s.writer == nil {
		return nil
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
