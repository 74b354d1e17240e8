package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Row is a row that is being read.
type Row interface {
	// Scan copies the columns into what dest points to, in their order. A column that may be NULL needs a place for that, such as
	// a sql.NullString.
	Scan(dest ...any) error
}

// ReadRows is ReadOne for a statement whose rows are looked at one by one: it calls each with every row, until that returns an
// error. On PostgreSQL it goes past database/sql, which costs more than the reading where rows are many or wide.
//
// It returns the error of each, or what Read does.
func (db *DB) ReadRows(ctx context.Context, each func(row Row) error, query string, args ...any) error {
	if err := db.enter(); err != nil {
		return err
	}
	defer db.users.Done()
	return db.engine.readRows(ctx, each, query, args)
}

func (s *embedded) readRows(ctx context.Context, each func(Row) error, query string, args []any) error {
	return s.readOne(ctx, func(q Querier) error {
		rows, err := q.QueryContext(ctx, query, args...)
		if err != nil {
			return err
		}
		for rows.Next() {
			if err := each(rows); err != nil {
				return errors.Join(err, rows.Close())
			}
		}
		return errors.Join(rows.Err(), rows.Close())
	})
}

func (s *server) readRows(ctx context.Context, each func(Row) error, query string, args []any) error {
	for _, a := range args {
		if err := checkArgument(a); err != nil {
			return err
		}
	}
	if err := s.readTurns.take(ctx, "a connection"); err != nil {
		return err
	}
	defer s.readTurns.give()
	return s.retry(ctx, func() (err, again error) {
		conn, err := s.takeOne(ctx, s.pool)
		if err != nil {
			return err, mayRetry(err)
		}
		defer conn.Close()
		// Raw closes the connection when each panics.
		err = conn.Raw(func(any) error { return conn.own.readRows(ctx, each, query, args) })
		return err, conn.unread()
	})
}

// readRows runs a statement without database/sql.
func (c *pgConn) readRows(ctx context.Context, each func(Row) error, query string, args []any) error {
	rows, err := c.Conn.Conn().Query(ctx, query, args...)
	if err != nil {
		return c.note(err)
	}
	row := &pgRow{rows}
	for rows.Next() {
		c.used = true
		if err := each(row); err != nil {
			rows.Close()
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return c.note(err)
	}
	return nil
}

// pgRow is a row without the rest of what the driver can do with it.
type pgRow struct{ rows pgx.Rows }

// Scan implements Row.
func (r *pgRow) Scan(dest ...any) error {
	if err := r.rows.Scan(dest...); err != nil {
		return fmt.Errorf("scan a row: %w", err)
	}
	return nil
}

// checkArgument refuses times: columns hold integers.
func checkArgument(value any) error {
	switch value.(type) {
	case time.Time, *time.Time, sql.NullTime:
		return errTimeArgument
	}
	return nil
}

// errTimeArgument is the answer to a time as an argument, which would be written as text that neither sorts nor compares.
var errTimeArgument = errors.New("a time is stored as an integer, such as UnixMicro")
