// Package sqldb keeps the data of one service: in an embedded SQLite database, in a directory that one process owns, or in
// a PostgreSQL database that several processes share.
//
// What is promised: a Write that returned nil is on the disk (SQLite: WAL, synchronous=FULL; PostgreSQL: at least a local
// flush) and survives a power cut; a Write that returned an error other than ErrOutcomeUnknown did not happen; a Read
// sees one state of the database from its first statement to its last, and never waits for a writer. What is lost when
// the machine dies: the transactions that were not acknowledged, and nothing else.
//
// A store is built on Read, ReadOne and Write, and on ReadRows and Gather where reads are many:
//
//	//go:embed migrations
//	var migrations embed.FS // migrations/sqlite/00001_users.sql, migrations/postgres/00001_users.sql
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
// What a store must know to run on both engines:
//   - Placeholders are $1, $2, … in order. The first error of a statement ends the transaction (see Write).
//   - Rows are closed before the next statement of the same transaction: PostgreSQL has one result at a time.
//   - Times are integers, such as UnixMicro: a time.Time is refused as an argument. Slices are arguments on PostgreSQL only.
//   - On SQLite a Write is alone. On PostgreSQL Writes run at the same time, each statement sees what was committed before
//     it began (READ COMMITTED), and rows that were read change unless the SELECT ended with Engine.ForUpdate: constraints
//     and the number of changed rows decide, never a check before a write. Options.OneWriter makes them take turns.
//   - The function of a Write may be called again after a failed attempt; see Write.
package sqldb

import (
	"context"
	"database/sql"
	"io"
	"io/fs"
	"sync"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
)

// Options say which database to open: URL, or Dir and File.
type Options struct {
	// URL is that of a PostgreSQL database; see URL. With it Dir and File are not used.
	URL URL
	// Dir is the data directory of SQLite. It is made with mode 0700 if it does not exist, and belongs to the one
	// process that has the database open.
	Dir string
	// File is the name of the SQLite database in Dir, without a path, such as "users.db". Its mode is 0600.
	File string
	// Migrations are the schemas of the database, brought up to date in this order by Open.
	Migrations []Set
	// ReadOnly opens a database that is there to read it, and neither makes nor changes anything: Write returns
	// ErrReadOnly, and Open ErrOlderSchema where the schema is not up to date. The data directory of SQLite is not
	// locked: the process that owns it may be running.
	ReadOnly bool
	// Clock tells Healthy how long a writer has been at work, and paces retries. Required.
	Clock clock.Clock
	// Random is where the jitter of retries comes from. Required with URL.
	Random io.Reader
	// Readers is how many Reads run at once on SQLite; more of them wait. Zero means 16. A stream that holds a
	// snapshot holds a reader.
	Readers int
	// Connections is how many connections to PostgreSQL are open at once, at least 2; who needs one more waits. Zero
	// means 16. Neither Reads nor Writes take more than three quarters of them, so that neither starve the others. Healthy
	// and each Listen have one connection more.
	Connections int
	// OneWriter makes Writes of all processes take turns on PostgreSQL, as they do on SQLite: for a store whose
	// transactions rely on being alone.
	OneWriter bool
	// OrderedReads has PostgreSQL read by an index and in its order wherever there is one in a Read, and read a whole table or
	// sort only where there is none, whatever it believes about how many rows there are: for a store that reads pages, which must
	// not take long before the first statistics either.
	OrderedReads bool
	// IndexedWrites has PostgreSQL find the rows of a Write by an index, one by one, and keep the plan of a statement whatever its
	// arguments are: for a store that writes lists of rows of which each is found by its key. Statistics know nothing of such lists,
	// and without them a young table is read as a whole, by a plan that stays when it has grown.
	IndexedWrites bool

	// wrap lets a test stand between this package and the driver of SQLite.
	wrap driverWrapper
	// walPages and mostOne are for tests. Zero means the constant.
	walPages int
	mostOne  time.Duration
}

// Set is the schema of one part of a database: forward-only migrations with a version of their own. A database
// can hold several, so that a library brings its own tables beside those of the service.
type Set struct {
	// Name is the name of the set: lower-case letters, digits and "_", at most 40 characters, beginning with a
	// letter. It never changes, because the version is kept under it.
	Name string
	// FS has the migrations: files <engine>/<version>_<what>.sql in the form of goose, each with one "-- +goose Up"
	// part. A file that was applied never changes: Open returns ErrChangedMigration. The versions of the engines are
	// counted each for itself.
	FS fs.FS
	// Dir is the directory in FS that holds the folders of the engines, "sqlite" and "postgres". Empty means the root.
	Dir string
}

// Querier runs statements. It must not be used after the function that was given it has returned.
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
	tx       *sql.Tx
	engine   Engine
	hooks    []func()
	channels []string
	copy     func(ctx context.Context, statement string, rows io.Reader) error // nil where there is no COPY
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

// Engine says which kind of database the transaction is on.
func (t *Tx) Engine() Engine { return t.engine }

// OnCommit adds a function that runs once the transaction is committed, and never when it is rolled back or its
// outcome is unknown. The functions of a transaction run in the order in which they were added, before Write returns and,
// on SQLite, before the next Write begins: they must be quick and must not use the database.
func (t *Tx) OnCommit(fn func()) { t.hooks = append(t.hooks, fn) }

// DB is an open database. It is safe for concurrent use.
type DB struct {
	engine    engine
	path      string
	readOnly  bool
	listeners *listeners
	closing   chan struct{} // closed when Close begins

	mu     sync.Mutex
	users  sync.WaitGroup // calls under way; Add only under mu while not closed
	closed bool
}

func newDB(e engine, path string, l *listeners, readOnly bool) *DB {
	return &DB{engine: e, path: path, readOnly: readOnly, listeners: l, closing: make(chan struct{})}
}

// Engine says which kind of database it is.
func (db *DB) Engine() Engine { return db.engine.kind() }

// ReadOnly says whether the database was opened with Options.ReadOnly.
func (db *DB) ReadOnly() bool { return db.readOnly }

// Read calls fn with one snapshot of the database: all that fn reads is of the same moment, the moment of its
// first statement. It waits for a free reader as long as ctx allows. fn cannot change anything. A snapshot that
// is held long keeps the write-ahead log from being recycled, and PostgreSQL from cleaning up: read pages rather than hold
// one for the pace of a network peer.
//
// A connection that is lost before fn has read anything is replaced by another and fn called again, as long as ctx
// allows or, without a deadline, for 10 s.
//
// It returns the error of fn, ErrClosed, the error of ctx, ErrBusy, ErrUnavailable or ErrStorageFull.
func (db *DB) Read(ctx context.Context, fn func(q Querier) error) error {
	if err := db.enter(); err != nil {
		return err
	}
	defer db.users.Done()
	return db.engine.read(ctx, fn)
}

// ReadOne is Read for a function that runs one statement, which sees one state of the database by itself: it spares
// beginning and ending a transaction, two of three round trips on PostgreSQL. A second statement is refused, and so is one
// that returns no rows. PostgreSQL ends it by itself after a minute, whatever has become of this process and the network,
// unless the URL, the role or the database says otherwise.
func (db *DB) ReadOne(ctx context.Context, fn func(q Querier) error) error {
	if err := db.enter(); err != nil {
		return err
	}
	defer db.users.Done()
	return db.engine.readOne(ctx, fn)
}

// Write calls fn with a write transaction and commits it if fn returns nil. On SQLite, and with Options.OneWriter, Writes
// take turns in the order in which they came, and leave the queue when ctx ends. A panic of fn rolls back and goes on.
//
// The first error that a statement of fn returns ends the transaction: later statements return that error too,
// and nothing is committed even if fn returns nil. To go on after a conflict use ON CONFLICT. On SQLite calling Write
// inside fn waits for itself until ctx ends.
//
// On PostgreSQL fn is called again when the attempt did not happen and another may succeed: after a deadlock or a
// serialization failure, when the connection was lost before the commit was sent, when the server has no connection to
// spare, starts or stops, or is no longer the one that takes writes. This goes on, with pauses, as long as ctx allows or,
// without a deadline, for 10 s. So fn sets its results anew each time; what OnCommit and Notify were given is forgotten with
// the attempt.
//
// When ctx ends before the commit has begun, Write rolls back and returns its error. Once begun, the commit is
// waited for: cancelling cannot make its outcome unknown. On PostgreSQL the wait ends with the deadline of ctx, but not
// before 1 s.
//
// It returns the error of fn, the error of ctx, ErrReadOnly, ErrClosed, ErrBusy, ErrUnavailable, ErrStorageFull or
// ErrStorageFailed, none of which committed anything; and ErrOutcomeUnknown when the storage failed during the commit,
// or the connection did, or the server did not wait for the standby that it is to wait for.
func (db *DB) Write(ctx context.Context, fn func(tx *Tx) error) error {
	if db.readOnly {
		return ErrReadOnly
	}
	if err := db.enter(); err != nil {
		return err
	}
	defer db.users.Done()
	return db.engine.write(ctx, fn)
}

// Healthy asks the database whether it can be read and written.
//
// On SQLite it reads and takes the write lock, and gives it back at once. If a writer is at work it does not wait for it,
// but returns an error when that writer has been at it for 30 s. It also returns an error when the storage has failed,
// the database is closed, or no reader became free before ctx ended. On PostgreSQL it asks the server, within 2 s and by a
// connection of its own, so that a busy pool does not look like a broken one.
//
// Of a database that is open for reading alone it asks on SQLite only whether it can be read.
func (db *DB) Healthy(ctx context.Context) error {
	if err := db.enter(); err != nil {
		return err
	}
	defer db.users.Done()
	return db.engine.healthy(ctx)
}

// Failed returns a channel that is closed when the storage of SQLite failed during a commit, or while the write-ahead log was
// copied into the database. From then on Write returns
// ErrStorageFailed; what is on the disk is known again when the database is opened anew, so the process should
// end. On PostgreSQL the server sees to that, and the channel stays open.
func (db *DB) Failed() <-chan struct{} { return db.engine.failed() }

// Path returns the file of a SQLite database, and nothing for PostgreSQL.
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
	close(db.closing)
	db.mu.Unlock()
	db.users.Wait()
	return db.engine.close()
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
