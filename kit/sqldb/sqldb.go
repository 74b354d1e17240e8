// Package sqldb keeps the data of one service: an embedded SQLite database in a directory that one process owns.
//
// What is promised: a Write that returned nil is on the disk (WAL, synchronous=FULL) and survives a power cut;
// a Write that returned an error other than ErrOutcomeUnknown did not happen; a Read sees one state of the
// database from its first statement to its last, and never waits for a writer. What is lost when the machine
// dies: the transactions that were not acknowledged, and nothing else.
//
// A store is built on Read and Write:
//
//	//go:embed migrations/*.sql
//	var migrations embed.FS
//
//	func Migrations() sqldb.Set { return sqldb.Set{Name: "users", FS: migrations, Dir: "migrations"} }
//
//	func (s *Store) Create(ctx context.Context, u users.User) error {
//		err := s.db.Write(ctx, func(tx *sqldb.Tx) error {
//			_, err := tx.ExecContext(ctx, `INSERT INTO users (id, email) VALUES ($1, $2)`, u.ID, u.Email)
//			return err
//		})
//		if sqldb.IsUnique(err, "users.email") {
//			return users.ErrEmailTaken
//		}
//		return err
//	}
//
// Statements that are to run on other engines too use the placeholders $1, $2, … in order, and treat the first
// error of a statement as the end of the transaction (see Write).
package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
)

// Options say which database to open.
type Options struct {
	// Dir is the data directory. It is made with mode 0700 if it does not exist, and belongs to the one process
	// that has the database open.
	Dir string
	// File is the name of the database in Dir, without a path, such as "users.db". Its mode is 0600.
	File string
	// Migrations are the schemas of the database, brought up to date in this order by Open.
	Migrations []Set
	// Clock tells Healthy how long a writer has been at work. Required.
	Clock clock.Clock
	// Readers is how many Reads run at once; more of them wait. Zero means 16. A stream that holds a snapshot
	// holds a reader.
	Readers int

	// wrap lets a test stand between this package and the driver.
	wrap func(driver.Connector) driver.Connector
}

// Set is the schema of one part of a database: forward-only migrations with a version of their own. A database
// can hold several, so that a library brings its own tables beside those of the service.
type Set struct {
	// Name is the name of the set: lower-case letters, digits and "_", at most 40 characters, beginning with a
	// letter. It never changes, because the version is kept under it.
	Name string
	// FS has the migrations: files <version>_<what>.sql in the form of goose, each with one "-- +goose Up"
	// part. A file that has been released never changes.
	FS fs.FS
	// Dir is the directory in FS that holds the files. Empty means the root.
	Dir string
}

// Querier runs statements in a transaction. It must not be used after the function that was given it has
// returned.
type Querier interface {
	// ExecContext runs a statement that returns no rows.
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	// QueryContext runs a statement that returns rows. The caller closes them and asks for their Err.
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	// QueryRowContext runs a statement that returns at most one row; none is sql.ErrNoRows on Scan.
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Tx is a write transaction. It is for one goroutine, inside the function that Write calls.
type Tx struct {
	tx    *sql.Tx
	hooks []func()
}

var _ Querier = (*Tx)(nil)

// ExecContext runs a statement that returns no rows.
func (t *Tx) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return t.tx.ExecContext(ctx, query, args...)
}

// QueryContext runs a statement that returns rows.
func (t *Tx) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return t.tx.QueryContext(ctx, query, args...)
}

// QueryRowContext runs a statement that returns at most one row.
func (t *Tx) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return t.tx.QueryRowContext(ctx, query, args...)
}

// OnCommit adds a function that runs once the transaction is committed, and never when it is rolled back or its
// outcome is unknown. The functions of a transaction run in the order in which they were added, before the next
// Write begins: they must be quick and must not use the database.
func (t *Tx) OnCommit(fn func()) { t.hooks = append(t.hooks, fn) }

// DB is an open database. It is safe for concurrent use.
type DB struct {
	path    string
	clock   clock.Clock
	lock    *dirLock
	writer  *sql.DB
	readers *sql.DB

	// turn holds one token, which a Write takes. Goroutines that wait on a channel are served in the order in
	// which they came.
	turn  chan struct{}
	turns turns // the waits for it

	mu     sync.Mutex
	users  sync.WaitGroup // Reads, Writes and Healthys under way; Add only under mu while not closed
	closed bool
	began  time.Time // when the present Write got its turn; zero when there is none
	fault  error     // the I/O error at a commit that ended writing
	failed chan struct{}
}

// Read calls fn with one snapshot of the database: all that fn reads is of the same moment, the moment of its
// first statement. It waits for a free reader as long as ctx allows. fn cannot change anything. A snapshot that
// is held long keeps the write-ahead log from being recycled: read pages rather than hold one for the pace of a
// network peer.
//
// It returns the error of fn, ErrClosed, the error of ctx, ErrBusy or ErrStorageFull.
func (db *DB) Read(ctx context.Context, fn func(q Querier) error) error {
	if err := db.enter(); err != nil {
		return err
	}
	defer db.users.Done()

	tx, err := db.readers.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return classify(ctx, fmt.Errorf("begin read: %w", err))
	}
	defer tx.Rollback() // a snapshot has nothing to keep; also when fn panics
	return classify(ctx, fn(&Tx{tx: tx}))
}

// Write calls fn with the one write transaction and commits it if fn returns nil. Writes take turns in the
// order in which they came, and leave the queue when ctx ends. A panic of fn rolls back and goes on.
//
// The first error that a statement of fn returns ends the transaction: later statements return that error too,
// and nothing is committed even if fn returns nil. To go on after a conflict use ON CONFLICT. Calling Write
// inside fn waits for itself until ctx ends.
//
// When ctx ends before the commit has begun, Write rolls back and returns its error. Once begun, the commit is
// waited for: cancelling cannot make its outcome unknown.
//
// It returns the error of fn, the error of ctx, ErrClosed, ErrBusy, ErrStorageFull or ErrStorageFailed, none of
// which committed anything; and ErrOutcomeUnknown when the storage failed during the commit.
func (db *DB) Write(ctx context.Context, fn func(tx *Tx) error) error {
	if err := db.enter(); err != nil {
		return err
	}
	defer db.users.Done()

	if err := db.takeTurn(ctx); err != nil {
		return err
	}
	defer db.endTurn()
	if err := db.beginTurn(); err != nil {
		return err
	}
	return db.write(ctx, fn)
}

// write runs one transaction; the caller has the turn.
func (db *DB) write(ctx context.Context, fn func(tx *Tx) error) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	// database/sql rolls a transaction back when the context that began it ends, even during its commit: so it
	// gets one that does not end. The statements have ctx.
	sqlTx, err := db.writer.BeginTx(context.WithoutCancel(ctx), nil)
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

	tx := &Tx{tx: sqlTx}
	if err := fn(tx); err != nil {
		return classify(ctx, err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	done = true
	if err := sqlTx.Commit(); err != nil {
		return db.commitFailed(ctx, err)
	}
	for _, hook := range tx.hooks {
		hook()
	}
	return nil
}

// commitFailed says what the error of a commit means.
func (db *DB) commitFailed(ctx context.Context, err error) error {
	var stmt *statementError
	if errors.As(err, &stmt) {
		// fn swallowed the error of a statement, and the transaction was rolled back.
		return classify(ctx, fmt.Errorf("commit after a statement had failed: %w", stmt.err))
	}
	err = fmt.Errorf("commit: %w", err)
	if !outcomeUnknown(err) {
		return classify(ctx, err)
	}
	db.fail(err)
	return ErrOutcomeUnknown.Because(err)
}

// Failed returns a channel that is closed when the storage failed during a commit. From then on Write returns
// ErrStorageFailed; what is on the disk is known again when the database is opened anew, so the process should
// end.
func (db *DB) Failed() <-chan struct{} { return db.failed }

// Path returns the file of the database.
func (db *DB) Path() string { return db.path }

// Close waits for the Reads and Writes under way, closes the database and gives the data directory free. Cancel
// their contexts first. Closing twice is allowed.
func (db *DB) Close() error {
	db.mu.Lock()
	if db.closed {
		db.mu.Unlock()
		return nil
	}
	db.closed = true
	db.mu.Unlock()
	db.users.Wait()
	return errors.Join(db.readers.Close(), db.writer.Close(), db.lock.release())
}

// enter registers a use of the database, which ends with users.Done.
func (db *DB) enter() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closed {
		return ErrClosed
	}
	db.users.Add(1)
	return nil
}

// beginTurn notes that a write begins, or refuses it if the storage has failed.
func (db *DB) beginTurn() error {
	now := db.clock.Now()
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.fault != nil {
		return ErrStorageFailed.Because(db.fault)
	}
	db.began = now
	return nil
}

// endTurn lets the next writer in.
func (db *DB) endTurn() {
	db.mu.Lock()
	db.began = time.Time{}
	db.mu.Unlock()
	<-db.turn
}

// fail ends writing for good.
func (db *DB) fail(err error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.fault == nil {
		db.fault = err
		close(db.failed)
	}
}
