package sqldb

import (
	"container/list"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"time"

	sqlite3 "modernc.org/sqlite/lib"
)

// maxStatements is how many prepared statements a connection keeps.
const maxStatements = 128

// connector opens connections that keep their prepared statements and know when a transaction is lost.
type connector struct{ driver.Connector }

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	inner, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	full, ok := inner.(engineConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("the driver's connection %T lacks a method that is needed", inner), inner.Close())
	}
	return &conn{engineConn: full, statements: make(map[string]*list.Element), order: list.New()}, nil
}

// engineConn is what is used of the driver's connection.
type engineConn interface {
	driver.Conn
	driver.ConnPrepareContext
	driver.SessionResetter
	driver.Validator
}

// engineStmt is what is used of the driver's statement.
type engineStmt interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

// conn adds two things to the driver's connection. It keeps statements prepared, because to compile one costs
// more than to run it. And it remembers the first error of a transaction: SQLite rolls back by itself after
// some errors, and what came later would then be committed statement by statement.
type conn struct {
	engineConn

	statements map[string]*list.Element // of *statement
	order      *list.List               // the one used last is in front

	inTx   bool
	broken error // the first error of the transaction
	bad    bool  // the connection must not be used again
}

type statement struct {
	query string
	stmt  engineStmt
}

var (
	_ driver.ExecerContext     = (*conn)(nil)
	_ driver.QueryerContext    = (*conn)(nil)
	_ driver.ConnBeginTx       = (*conn)(nil)
	_ driver.SessionResetter   = (*conn)(nil)
	_ driver.Validator         = (*conn)(nil)
	_ driver.NamedValueChecker = (*conn)(nil)
)

// statementError is the answer of a transaction that had lost a statement before.
type statementError struct{ err error }

func (e *statementError) Error() string {
	return "the transaction ended with an error: " + e.err.Error()
}
func (e *statementError) Unwrap() error { return e.err }

// CheckNamedValue refuses times, which the driver would write as text that neither sorts nor compares.
func (c *conn) CheckNamedValue(v *driver.NamedValue) error {
	value, err := driver.DefaultParameterConverter.ConvertValue(v.Value)
	if err != nil {
		return err
	}
	if _, ok := value.(time.Time); ok {
		return errTimeArgument
	}
	v.Value = value
	return nil
}

func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if c.broken != nil {
		return nil, &statementError{c.broken}
	}
	s, err := c.take(ctx, query)
	if err != nil {
		return nil, c.note(err)
	}
	res, err := s.stmt.ExecContext(ctx, args)
	if err != nil {
		s.stmt.Close()
		return nil, c.note(err)
	}
	c.keep(s)
	return res, nil
}

func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if c.broken != nil {
		return nil, &statementError{c.broken}
	}
	s, err := c.take(ctx, query)
	if err != nil {
		return nil, c.note(err)
	}
	inner, err := s.stmt.QueryContext(ctx, args)
	if err != nil {
		s.stmt.Close()
		return nil, c.note(err)
	}
	return &rows{Rows: inner, conn: c, statement: s}, nil
}

// note remembers the first error of a transaction.
func (c *conn) note(err error) error {
	if c.inTx && c.broken == nil {
		c.broken = err
	}
	return err
}

// take returns a prepared statement that nobody else uses; keep gives it back.
func (c *conn) take(ctx context.Context, query string) (*statement, error) {
	if e, ok := c.statements[query]; ok {
		delete(c.statements, query)
		return c.order.Remove(e).(*statement), nil
	}
	prepared, err := c.engineConn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	stmt, ok := prepared.(engineStmt)
	if !ok {
		return nil, errors.Join(fmt.Errorf("the driver's statement %T lacks a method that is needed", prepared), prepared.Close())
	}
	return &statement{query: query, stmt: stmt}, nil
}

func (c *conn) keep(s *statement) {
	if _, ok := c.statements[s.query]; ok {
		s.stmt.Close() // the same query was used twice at once
		return
	}
	if c.order.Len() >= maxStatements {
		oldest := c.order.Remove(c.order.Back()).(*statement)
		delete(c.statements, oldest.query)
		oldest.stmt.Close()
	}
	c.statements[s.query] = c.order.PushFront(s)
}

// BeginTx begins a transaction that takes the write lock at once, or one that reads a snapshot.
func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if opts.Isolation != 0 {
		return nil, errors.New("a transaction has no other isolation than serializable")
	}
	query := "BEGIN IMMEDIATE"
	if opts.ReadOnly {
		query = "BEGIN"
	}
	if _, err := c.ExecContext(ctx, query, nil); err != nil {
		// An interrupted BEGIN may have taken effect.
		c.bad = true
		return nil, err
	}
	c.inTx = true
	return transaction{c}, nil
}

// ResetSession refuses a connection that is in an unknown state.
func (c *conn) ResetSession(ctx context.Context) error {
	if c.bad {
		return driver.ErrBadConn
	}
	return c.engineConn.ResetSession(ctx)
}

// IsValid says whether the connection may go back to the pool.
func (c *conn) IsValid() bool { return !c.bad && c.engineConn.IsValid() }

// Close closes the statements and the connection.
func (c *conn) Close() error {
	var errs []error
	for e := c.order.Front(); e != nil; e = e.Next() {
		errs = append(errs, e.Value.(*statement).stmt.Close())
	}
	c.order.Init()
	clear(c.statements)
	return errors.Join(append(errs, c.engineConn.Close())...)
}

// transaction ends the transaction of its connection.
type transaction struct{ conn *conn }

func (t transaction) Commit() error {
	c := t.conn
	if c.broken != nil {
		err := &statementError{c.broken}
		if rerr := t.Rollback(); rerr != nil {
			return errors.Join(err, rerr)
		}
		return err
	}
	if _, err := c.ExecContext(context.Background(), "COMMIT", nil); err != nil {
		// After some errors the transaction is still open, and the connection must not keep it.
		if rerr := t.Rollback(); rerr != nil {
			return errors.Join(err, rerr)
		}
		return err
	}
	c.inTx = false
	return nil
}

func (t transaction) Rollback() error {
	c := t.conn
	lost := c.broken != nil
	c.inTx, c.broken = false, nil
	_, err := c.ExecContext(context.Background(), "ROLLBACK", nil)
	if err == nil || lost && hasCode(err, sqlite3.SQLITE_ERROR) {
		return nil // the engine had rolled back already: there is no transaction to end
	}
	c.bad = true
	return fmt.Errorf("roll back: %w", err)
}

// rows gives its statement back when it is closed.
type rows struct {
	driver.Rows
	conn      *conn
	statement *statement
}

func (r *rows) Next(dest []driver.Value) error {
	err := r.Rows.Next(dest)
	if err != nil && err != io.EOF {
		return r.conn.note(err)
	}
	return err
}

func (r *rows) Close() error {
	if err := r.Rows.Close(); err != nil {
		return errors.Join(err, r.statement.stmt.Close())
	}
	r.conn.keep(r.statement)
	return nil
}
