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
	cancel  context.CancelFunc // closes rows that were left open
}

// run calls fn with o and returns its error, or that it did more than it may.
func (o *one) run(fn func(q Querier) error) error {
	defer func() {
		if o.cancel != nil {
			o.cancel()
		}
	}()
	err := fn(o)
	if o.refused {
		return errOnlyOne
	}
	return err
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
	return o.inner.QueryContext(o.enter(ctx), query, args...)
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
	return o.inner.QueryRowContext(o.enter(ctx), query, args...)
}

// enter returns the context of the statement.
func (o *one) enter(ctx context.Context) context.Context {
	o.used = true
	ctx, o.cancel = context.WithCancel(ctx)
	return ctx
}
