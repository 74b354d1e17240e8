package sqldb

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/concordat-dev/concordat/kit/clock"
)

const (
	defaultConnections = 16
	// connectWait bounds the opening of a connection to one host, where the URL has no connect_timeout.
	connectWait = 5 * time.Second
	// connLife is how long a connection is used, so that those of a server that joined late spread to it.
	connLife = 30 * time.Minute
	// connIdle is how long a connection is kept that nobody needs.
	connIdle = 5 * time.Minute
	// oldestServer is the least version that has what stores use.
	oldestServer = 130000
)

// Guards that the server keeps by itself, for when this process is gone or hangs.
const (
	idleWrite = time.Minute
	idleRead  = 5 * time.Minute
	// mostLockWait bounds the wait for a row lock, below three quarters of what is left of the call.
	mostLockWait = busyTimeout
	// mostOne bounds a statement that is run by itself: as long as the longest call that is answered by one may take. Its
	// own deadline is not told to the server, which would cost another round trip.
	mostOne = time.Minute
)

// writerLock is the advisory lock of Options.OneWriter, and migrationLock that of Open; both are numbers that nobody else
// is likely to use.
const (
	writerLock    = 0x636f6e63_77726974
	migrationLock = 0x636f6e63_6d696772
)

// server is a PostgreSQL database.
type server struct {
	config    *pgx.ConnConfig
	clock     clock.Clock
	jitter    *jitter
	listeners *listeners
	self      string // tells the notifications of this process from those of others

	pool *sql.DB
	side *sql.DB // for Healthy and notifications, which must not wait for the pool

	mostOne time.Duration // see the constant

	readTurns, writeTurns *turns // so that neither take all connections

	readSettings  string // what each read begins with, beside its limits of time
	writeSettings string // the same of a write
	guarded       bool   // no write is right without its settings
	never         chan struct{}
	notices       notices
}

var _ engine = (*server)(nil)

func (s *server) kind() Engine            { return PostgreSQL }
func (s *server) name() string            { return s.config.Database }
func (s *server) failed() <-chan struct{} { return s.never }

func openPostgres(ctx context.Context, opts Options) (*DB, error) {
	config, err := opts.URL.config()
	if err != nil {
		return nil, fmt.Errorf("database URL: %w", err)
	}
	prepareConfig(config, opts.ReadOnly)
	var self [8]byte
	if _, err := io.ReadFull(opts.Random, self[:]); err != nil {
		return nil, fmt.Errorf("read randomness: %w", err)
	}
	n := opts.Connections
	if n == 0 {
		n = defaultConnections
	}
	share := n - max(1, n/4)
	s := &server{
		config:     config,
		clock:      opts.Clock,
		jitter:     &jitter{random: opts.Random},
		listeners:  &listeners{},
		self:       hex.EncodeToString(self[:]),
		readTurns:  newTurns(share, opts.Clock),
		writeTurns: newTurns(share, opts.Clock),
		never:      make(chan struct{}),
		mostOne:    cmp.Or(opts.mostOne, mostOne),
	}
	if opts.OneWriter {
		s.writeTurns = newTurns(1, opts.Clock)
	}
	if opts.OrderedReads {
		// What there is no other way for looks so dear then that it would be compiled first.
		s.readSettings = "; set local enable_seqscan = off; set local enable_sort = off; set local jit = off"
	}
	if opts.IndexedWrites {
		s.writeSettings += "; set local enable_seqscan = off; set local enable_hashjoin = off; set local enable_mergejoin = off; set local jit = off" +
			"; set local plan_cache_mode = force_generic_plan"
	}
	s.pool, s.side = s.openPool(n), s.openPool(1)
	if err := s.prepare(ctx, opts); err != nil {
		return nil, errors.Join(fmt.Errorf("database %s: %w", s.place(), err), s.close())
	}
	return newDB(s, "", s.listeners, opts.ReadOnly), nil
}

// prepareConfig sets what the URL leaves open.
func prepareConfig(c *pgx.ConnConfig, readOnly bool) {
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = connectWait
	}
	dialer := &net.Dialer{
		Timeout: c.ConnectTimeout,
		// A peer that vanished without a word is noticed within half a minute also where nothing is being sent.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3},
	}
	c.DialFunc = dialer.DialContext
	if c.ValidateConnect == nil && !readOnly {
		// A service writes: a server that takes no writes is not the one that is meant.
		c.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
}

// openPool returns a pool of at most n connections.
func (s *server) openPool(n int) *sql.DB {
	db := sql.OpenDB(pgConnector{config: s.config, clock: s.clock, generation: new(atomic.Int64)})
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	db.SetConnMaxLifetime(connLife)
	db.SetConnMaxIdleTime(connIdle)
	return db
}

// place names the database without a secret.
func (s *server) place() string {
	hosts := []string{fmt.Sprintf("%s:%d", s.config.Host, s.config.Port)}
	for _, f := range s.config.Fallbacks {
		if h := fmt.Sprintf("%s:%d", f.Host, f.Port); h != hosts[len(hosts)-1] { // sslmode=prefer has each host twice
			hosts = append(hosts, h)
		}
	}
	return fmt.Sprintf("%s at %s", s.config.Database, strings.Join(hosts, ","))
}

// prepare checks that the server is what it must be and brings the schema up to date.
func (s *server) prepare(ctx context.Context, opts Options) error {
	var version int
	var encoding, durability string
	err := s.readOne(ctx, func(q Querier) error {
		return q.QueryRowContext(ctx, `SELECT current_setting('server_version_num')::int, current_setting('server_encoding'),
current_setting('synchronous_commit')`).Scan(&version, &encoding, &durability)
	})
	switch {
	case err != nil:
		return err
	case version < oldestServer:
		return fmt.Errorf("the server has version %d, and %d is the least", version, oldestServer)
	case encoding != "UTF8":
		return fmt.Errorf("the encoding is %s, not UTF8", encoding)
	case durability == "off":
		// What is acknowledged is on the disk, whatever the server does for others.
		s.writeSettings += "; set local synchronous_commit = on"
		s.guarded = true
	}
	if opts.ReadOnly {
		db := s.openPool(1)
		return errors.Join(upToDate(ctx, PostgreSQL, db, opts.Migrations), db.Close())
	}
	if err := s.migrate(ctx, opts.Migrations); err != nil {
		return err
	}
	if opts.OneWriter {
		s.writeSettings += fmt.Sprintf("; select pg_advisory_xact_lock(%d)", int64(writerLock))
		s.guarded = true
	}
	return nil
}

func (s *server) close() error {
	s.notices.wait()
	return errors.Join(s.pool.Close(), s.side.Close())
}

// session is a connection that was taken from a pool.
type session struct {
	*sql.Conn
	own *pgConn
}

// take takes a connection from a pool; its Close gives it back.
func take(ctx context.Context, pool *sql.DB, p plan) (session, error) {
	conn, err := pool.Conn(ctx)
	if err != nil {
		return session{}, fmt.Errorf("get a connection: %w", err)
	}
	var own *pgConn
	err = conn.Raw(func(inner any) error {
		own = inner.(*pgConn)
		own.take(p)
		return nil
	})
	if err != nil {
		return session{}, errors.Join(err, conn.Close())
	}
	return session{conn, own}, nil
}

// takeOne takes a connection for one statement that is run by itself.
func (s *server) takeOne(ctx context.Context, pool *sql.DB) (session, error) {
	conn, err := take(ctx, pool, plan{})
	if err != nil {
		return session{}, err
	}
	if err := conn.Raw(func(any) error { return conn.own.bound(ctx, s.mostOne) }); err != nil {
		return session{}, errors.Join(fmt.Errorf("bound statements: %w", err), conn.Close())
	}
	return conn, nil
}

func (s *server) readOne(ctx context.Context, fn func(q Querier) error) error {
	if err := s.readTurns.take(ctx, "a connection"); err != nil {
		return err
	}
	defer s.readTurns.give()
	return s.retry(ctx, func() (err, again error) { return s.tryOne(ctx, s.pool, fn) })
}

// tryOne runs one statement on a connection of the pool.
func (s *server) tryOne(ctx context.Context, pool *sql.DB, fn func(q Querier) error) (err, again error) {
	conn, err := s.takeOne(ctx, pool)
	if err != nil {
		return err, mayRetry(err)
	}
	defer conn.Close()
	err = (&one{inner: conn.Conn}).run(fn)
	return err, conn.unread()
}

// unread returns the error with which a read may begin anew: it has shown nothing yet.
func (c session) unread() error {
	if c.own.used {
		return nil
	}
	return mayRetry(c.own.broken)
}

func (s *server) read(ctx context.Context, fn func(q Querier) error) error {
	if err := s.readTurns.take(ctx, "a connection"); err != nil {
		return err
	}
	defer s.readTurns.give()
	return s.retry(ctx, func() (err, again error) { return s.tryRead(ctx, fn) })
}

func (s *server) tryRead(ctx context.Context, fn func(q Querier) error) (err, again error) {
	conn, err := take(ctx, s.pool, plan{
		ctx: ctx, reads: true,
		begin: "begin isolation level repeatable read read only" + limits(ctx, idleRead, false) + s.readSettings,
	})
	if err != nil {
		return err, mayRetry(err)
	}
	defer conn.Close()
	// As in a write, database/sql must not end the transaction by itself: the statements have ctx.
	tx, err := conn.BeginTx(context.WithoutCancel(ctx), nil)
	if err != nil {
		return fmt.Errorf("begin read: %w", err), mayRetry(err)
	}
	defer tx.Rollback() // a snapshot has nothing to keep; also when fn panics
	err = fn(&Tx{tx: tx, engine: PostgreSQL})
	return err, conn.unread()
}

// limits returns the settings that bound a transaction on the server, below the deadline of the call: so the server ends a
// statement by itself, and the connection lives on. They are for this transaction alone and go with its begin. Without a
// deadline what holds is what was configured for the server, and not what bounds a statement that is run by itself.
func limits(ctx context.Context, idle time.Duration, locks bool) string {
	text := fmt.Sprintf("; set local idle_in_transaction_session_timeout = %d", idle.Milliseconds())
	lock := mostLockWait
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		left = max(left-min(left/10, 50*time.Millisecond), time.Millisecond)
		text += fmt.Sprintf("; set local statement_timeout = %d", max(left.Milliseconds(), 1))
		lock = min(lock, left*3/4)
	} else {
		text += "; set local statement_timeout to default"
	}
	if locks {
		text += fmt.Sprintf("; set local lock_timeout = %d", max(lock.Milliseconds(), 1))
	}
	return text
}

// write lets at most as many in as may write.
func (s *server) write(ctx context.Context, fn func(tx *Tx) error) error {
	if err := s.writeTurns.take(ctx, "a connection"); err != nil {
		return err
	}
	defer s.writeTurns.give()
	return s.retry(ctx, func() (err, again error) { return s.tryWrite(ctx, fn) })
}

// tryWrite runs one transaction.
func (s *server) tryWrite(ctx context.Context, fn func(tx *Tx) error) (err, again error) {
	if err := ctx.Err(); err != nil {
		return err, nil
	}
	conn, err := take(ctx, s.pool, plan{
		ctx:   ctx,
		begin: "begin isolation level read committed read write" + limits(ctx, idleWrite, true) + s.writeSettings,
	})
	if err != nil {
		return err, mayRetry(err)
	}
	defer conn.Close()
	// database/sql rolls a transaction back when the context that began it ends, even during its commit: so it
	// gets one that does not end. The statements have ctx.
	sqlTx, err := conn.BeginTx(context.WithoutCancel(ctx), nil)
	if err != nil {
		return fmt.Errorf("begin write: %w", err), mayRetry(err)
	}
	done := false
	defer func() {
		if !done {
			_ = sqlTx.Rollback() // if it fails the connection ends, and the transaction with it
		}
	}()
	tx := &Tx{tx: sqlTx, engine: PostgreSQL, copy: conn.own.copyFrom}
	if err := fn(tx); err != nil {
		return err, mayRetry(conn.own.broken)
	}
	if err := ctx.Err(); err != nil {
		return err, nil
	}
	done = true
	if err := sqlTx.Commit(); err != nil {
		return s.commitFailed(tx, err)
	}
	for _, hook := range tx.hooks {
		hook()
	}
	s.announce(tx.channels)
	return nil, nil
}

// commitFailed says what the error of a commit means.
func (s *server) commitFailed(tx *Tx, err error) (_, again error) {
	var unknown *unknownError
	if errors.As(err, &unknown) {
		s.announce(tx.channels) // there may be something to see
		return ErrOutcomeUnknown.Because(fmt.Errorf("commit: %w", err)), nil
	}
	var stmt *statementError
	if errors.As(err, &stmt) {
		return fmt.Errorf("commit after a statement had failed: %w", stmt.err), mayRetry(stmt.err)
	}
	return fmt.Errorf("commit: %w", err), mayRetry(err)
}
