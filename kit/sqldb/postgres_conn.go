package sqldb

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/concordat-dev/concordat/kit/clock"
)

const (
	// idleTrust is how long a connection may have been idle to be used without asking whether it still works.
	idleTrust = time.Second
	// pingWait bounds that question, and the rollback.
	pingWait = time.Second
)

// pgConnector opens connections that know what became of their transaction.
type pgConnector struct {
	config *pgx.ConnConfig
	clock  clock.Clock
	// generation is counted up when all connections that are open are of no use any more.
	generation *atomic.Int64
}

var _ driver.Connector = pgConnector{}

func (c pgConnector) Connect(ctx context.Context) (driver.Conn, error) {
	own := &pgConn{clock: c.clock, generation: c.generation, born: c.generation.Load(), asked: c.clock.Now()}
	cfg := c.config.Copy()
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { own.notice(n) }
	inner, err := stdlib.GetConnector(*cfg).Connect(ctx)
	if err != nil {
		return nil, &lostError{dialError(ctx, err)}
	}
	full, ok := inner.(*stdlib.Conn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("the driver's connection %T is not the one that is needed", inner), inner.Close())
	}
	own.Conn = full
	return own, nil
}

// dialError returns the error of a dial, on one line, as one of the time if it was the call's deadline that ended it, and only then:
// the network may notice that before ctx does. A host that did not answer within its own time says nothing about that of the call.
func dialError(ctx context.Context, err error) error {
	err = oneLine(err)
	deadline, ok := ctx.Deadline()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	case ok && !time.Now().Before(deadline):
		return fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New(err.Error())
	}
	return err
}

func (c pgConnector) Driver() driver.Driver { return stdlib.GetDefaultDriver() }

// plan is how a transaction begins and ends, which database/sql has no words for.
type plan struct {
	ctx   context.Context // of the call
	begin string
	reads bool // it is not to write
}

// pgConn adds to the driver's connection that it remembers the first error since it was taken from the pool, whether
// anything succeeded, and what the server remarked on a commit.
type pgConn struct {
	*stdlib.Conn
	clock      clock.Clock
	generation *atomic.Int64
	born       int64
	asked      time.Time // when it last left the pool

	bounded bool // statements that are run by themselves have a limit of time
	plan    plan
	broken  error // the first error since it was taken
	used    bool  // a statement has succeeded since it was taken
	unsaved bool  // the server did not wait for its standby
}

var (
	_ driver.ExecerContext     = (*pgConn)(nil)
	_ driver.QueryerContext    = (*pgConn)(nil)
	_ driver.ConnBeginTx       = (*pgConn)(nil)
	_ driver.SessionResetter   = (*pgConn)(nil)
	_ driver.Validator         = (*pgConn)(nil)
	_ driver.NamedValueChecker = (*pgConn)(nil)
)

// lostError is an error with which a connection ended, or did not begin. What was sent last may have been done.
type lostError struct{ err error }

func (e *lostError) Error() string { return e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

// unknownError is the error of a commit that may have happened.
type unknownError struct{ err error }

func (e *unknownError) Error() string { return e.err.Error() }
func (e *unknownError) Unwrap() error { return e.err }

// errNotReplicated is a commit of which the server says that it did not wait for its standby.
var errNotReplicated = errors.New("committed here, but the wait for the standby was cancelled")

func (c *pgConn) pg() *pgconn.PgConn { return c.Conn.Conn().PgConn() }

// notice is told what the server remarks. The wait for a synchronous standby that is cancelled ends with a commit that is
// called a success, and a warning; its text depends on the language of the server, its place in the source does not.
func (c *pgConn) notice(n *pgconn.Notice) {
	if n.Routine == "SyncRepWaitForLSN" || n.File == "syncrep.c" {
		c.unsaved = true
	}
}

// take makes the connection ready for who has taken it from the pool.
func (c *pgConn) take(p plan) { c.plan, c.broken, c.used, c.unsaved = p, nil, false, false }

// bound has the server end each statement after most, once for the connection, where nothing is configured for it. What
// is to take longer, or less, says so in its transaction.
func (c *pgConn) bound(ctx context.Context, most time.Duration) error {
	if c.bounded {
		return nil
	}
	_, err := c.pg().Exec(ctx, fmt.Sprintf("select set_config('statement_timeout', '%d', false) where current_setting('statement_timeout') = '0'",
		most.Milliseconds())).ReadAll()
	if err != nil {
		return c.note(err)
	}
	c.bounded = true
	return nil
}

// note remembers the first error, and marks the one with which the connection ended.
func (c *pgConn) note(err error) error {
	switch {
	case c.pg().IsClosed() || errors.Is(err, driver.ErrBadConn):
		err = &lostError{oneLine(err)}
	case c.plan.reads && pgCode(err) == pgReadOnly:
		err = fmt.Errorf("a Read does not write: %v", err) // and not wrapped: it says nothing about the server
	}
	if c.broken == nil {
		c.broken = err
	}
	if stale(err) {
		// The connections beside this one lead to the same server.
		c.generation.CompareAndSwap(c.born, c.born+1)
	}
	return err
}

// CheckNamedValue refuses times, as on SQLite: columns hold integers.
func (c *pgConn) CheckNamedValue(v *driver.NamedValue) error {
	if err := checkArgument(v.Value); err != nil {
		return err
	}
	return c.Conn.CheckNamedValue(v)
}

func (c *pgConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if c.broken != nil {
		return nil, &statementError{c.broken}
	}
	res, err := c.Conn.ExecContext(ctx, query, args)
	if err != nil {
		return nil, c.note(err)
	}
	c.used = true
	return res, nil
}

func (c *pgConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if c.broken != nil {
		return nil, &statementError{c.broken}
	}
	inner, err := c.Conn.QueryContext(ctx, query, args)
	if err != nil {
		return nil, c.note(err)
	}
	full, ok := inner.(*stdlib.Rows)
	if !ok {
		return nil, errors.Join(fmt.Errorf("the driver's rows %T are not those that are needed", inner), inner.Close())
	}
	c.used = true
	return &pgRows{Rows: full, conn: c}, nil
}

// pgRows are rows whose errors the connection remembers.
type pgRows struct {
	*stdlib.Rows
	conn *pgConn
}

func (r *pgRows) Next(dest []driver.Value) error {
	err := r.Rows.Next(dest)
	if err != nil && r.Rows.Close() != nil { // io.EOF is no error of the rows
		return r.conn.note(err)
	}
	return err
}

func (r *pgRows) Close() error {
	if err := r.Rows.Close(); err != nil {
		return r.conn.note(err)
	}
	return nil
}

// BeginTx begins the transaction of the plan, in one round trip with its settings.
func (c *pgConn) BeginTx(ctx context.Context, _ driver.TxOptions) (driver.Tx, error) {
	begin := "begin" // of a migration, which has no plan
	if c.plan.ctx != nil {
		ctx, begin = c.plan.ctx, c.plan.begin
	}
	if _, err := c.pg().Exec(ctx, begin).ReadAll(); err != nil {
		err = c.note(err)
		c.rollback()
		return nil, err
	}
	return pgTx{c, ctx}, nil
}

// ResetSession refuses a connection that is of no use any more.
func (c *pgConn) ResetSession(ctx context.Context) error {
	if !c.IsValid() {
		return driver.ErrBadConn
	}
	now := c.clock.Now()
	if now.Sub(c.asked) > idleTrust {
		ctx, cancel := context.WithTimeout(ctx, pingWait)
		defer cancel()
		if err := c.pg().Ping(ctx); err != nil {
			if pgconn.Timeout(err) {
				// Nobody answers, not even that there is nobody: the others would wait as long.
				c.generation.CompareAndSwap(c.born, c.born+1)
			}
			return driver.ErrBadConn
		}
	}
	c.asked = now
	return nil
}

// IsValid says whether the connection may be used again.
func (c *pgConn) IsValid() bool {
	return !c.pg().IsClosed() && c.pg().TxStatus() == 'I' && c.born >= c.generation.Load()
}

// rollback ends the transaction, if there is one. If that does not succeed the connection is closed, which ends it too.
func (c *pgConn) rollback() {
	if c.pg().IsClosed() || c.pg().TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), pingWait)
	defer cancel()
	if _, err := c.pg().Exec(ctx, "rollback").ReadAll(); err != nil {
		_ = c.pg().Close(ctx)
	}
}

// pgTx ends the transaction of its connection.
type pgTx struct {
	conn *pgConn
	ctx  context.Context // of the call
}

func (t pgTx) Rollback() error {
	t.conn.rollback()
	return nil
}

// Commit returns nil if the transaction is committed, an unknownError if it may be, and any other error if it is not.
func (t pgTx) Commit() error {
	c := t.conn
	if c.broken != nil {
		c.rollback()
		return &statementError{c.broken}
	}
	if c.pg().IsClosed() {
		return c.note(pgconn.ErrConnClosed) // nothing is sent
	}
	ctx, cancel := commitContext(t.ctx)
	defer cancel()
	c.unsaved = false
	results, err := c.pg().Exec(ctx, "commit").ReadAll()
	var refused *pgconn.PgError
	switch {
	case err == nil && c.unsaved:
		return &unknownError{errNotReplicated}
	case err == nil && len(results) == 1 && results[0].CommandTag.String() == "COMMIT":
		return nil
	case err == nil:
		return c.note(errors.New("the server had rolled the transaction back"))
	case errors.As(err, &refused) && refused.SeverityUnlocalized == "ERROR" && !c.pg().IsClosed():
		return c.note(err) // the server has said no, and lives
	default:
		// The driver's SafeToRetry is not asked: it also says yes of a connection that broke after the commit was sent.
		c.note(err)
		return &unknownError{oneLine(err)}
	}
}

// What a commit is waited for.
const (
	leastCommitWait = time.Second
	mostCommitWait  = 30 * time.Second // without a deadline
)

// commitContext returns the context of a commit: the end of the call does not cancel it, only its deadline does.
func commitContext(ctx context.Context) (context.Context, context.CancelFunc) {
	wait := mostCommitWait
	if deadline, ok := ctx.Deadline(); ok {
		wait = max(time.Until(deadline), leastCommitWait)
	}
	return context.WithTimeout(context.WithoutCancel(ctx), wait)
}
