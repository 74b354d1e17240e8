package sqldb

import (
	"context"
	"database/sql"
	"errors"
)

// errOnlyOne is the answer to what a ReadOne does not do.
var errOnlyOne = errors.New("ReadOne runs one statement, and one that returns rows: use Read or Write")

// one lets one query through.
type one struct {
	inner   Querier
	used    bool
	refused bool
	row     *sql.Row // what was read, to be closed if fn has not
	rows    *sql.Rows
}

// run calls fn with o and returns its error, or that it did more than it may.
func (o *one) run(fn func(q Querier) error) error {
	defer o.close()
	err := fn(o)
	if o.refused {
		return errOnlyOne
	}
	return err
}

// close closes rows that were left open. A context that ends would do so too, at the price of a goroutine for each statement.
func (o *one) close() {
	if o.row != nil {
		_ = o.row.Scan() // whether there is a row or not, and whether it was read or not, it is closed afterwards
	}
	if o.rows != nil {
		_ = o.rows.Close()
	}
}

// ExecContext refuses.
func (o *one) ExecContext(context.Context, string, ...any) (sql.Result, error) {
	o.refused = true
	return nil, errOnlyOne
}

// QueryContext runs the statement.
func (o *one) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if o.used {
		o.refused = true
		return nil, errOnlyOne
	}
	o.used = true
	rows, err := o.inner.QueryContext(ctx, query, args...)
	o.rows = rows
	return rows, err
}

// QueryRowContext runs the statement.
func (o *one) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	if o.used {
		o.refused = true
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx) // only so can a Row have an error
		cancel()
		return o.inner.QueryRowContext(ctx, query, args...)
	}
	o.used = true
	o.row = o.inner.QueryRowContext(ctx, query, args...)
	return o.row
}
