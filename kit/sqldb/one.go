package sqldb

import (
	"context"
	"database/sql"
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
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

// WriteOne runs one statement that writes, as a transaction of its own, and returns how many rows it says that it has
// changed, or returned. On PostgreSQL that is one round trip, where a Write takes one to begin and one to commit. It is
// not retried. There is no limit on the server but that of ReadOne. Listeners of the channels are told as by Tx.Notify.
//
// An error may be ErrOutcomeUnknown, as that of Write, also where a connection turned out to be broken.
func (db *DB) WriteOne(ctx context.Context, query string, args []any, channels ...string) (n int64, err error) {
	if db.readOnly {
		return 0, ErrReadOnly
	}
	if err := db.enter(); err != nil {
		return 0, err
	}
	defer db.users.Done()
	if s, ok := db.engine.(*server); ok && !s.guarded {
		n, err = s.writeOne(ctx, query, args)
		if err == nil || errors.Is(err, ErrOutcomeUnknown) {
			s.announce(channels)
		}
		return n, err
	}
	err = db.engine.write(ctx, func(tx *Tx) error {
		res, err := tx.ExecContext(ctx, query, args...)
		if err != nil {
			return err
		}
		for _, c := range channels {
			tx.Notify(c)
		}
		n, err = res.RowsAffected()
		return err
	})
	return n, err
}

// writeOne runs a statement that is committed with its answer.
func (s *server) writeOne(ctx context.Context, query string, args []any) (int64, error) {
	if err := s.writeTurns.take(ctx, "a connection"); err != nil {
		return 0, err
	}
	defer s.writeTurns.give()
	conn, err := s.takeOne(ctx, s.pool)
	if err != nil {
		return 0, classify(ctx, err)
	}
	defer conn.Close()
	within, cancel := commitContext(ctx)
	defer cancel()
	res, err := conn.ExecContext(within, query, args...)
	var refused *pgconn.PgError
	switch {
	case err == nil && conn.own.unsaved:
		return 0, ErrOutcomeUnknown.Because(errNotReplicated)
	case err == nil:
		return res.RowsAffected()
	case errors.As(err, &refused) && refused.SeverityUnlocalized == "ERROR" && !conn.own.pg().IsClosed():
		return 0, classify(ctx, err) // the server has said no, and lives
	default:
		return 0, ErrOutcomeUnknown.Because(oneLine(err))
	}
}
