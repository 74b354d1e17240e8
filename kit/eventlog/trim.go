package eventlog

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"time"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/sqldb"
)

const (
	// trimBatch is how many events one transaction of a trim removes, so that writers wait for no more than that.
	trimBatch = 1000
	// retainInterval is how often Run looks for events that are no longer retained.
	retainInterval = time.Minute
)

// Retention says which events are kept. A limit that is zero is none.
type Retention struct {
	// MaxAge is how long an event is kept, counted from its At.
	MaxAge time.Duration
	// MaxEvents is how many events are kept.
	MaxEvents int64
}

// cut says where a trim ends: before the event with a number, and before the first that is not older than a time.
type cut struct {
	before int64
	at     int64 // microseconds since 1970
}

// Trim removes the events whose Seq is less than before, and returns how many those were. Tokens from before then are
// too old; subscriptions that had not come so far end with ErrTooOld. Transactions that append do not wait for it on
// PostgreSQL, and on SQLite for one batch of it at a time.
func (l *Log) Trim(ctx context.Context, before int64) (int64, error) {
	return l.trim(ctx, cut{before: before, at: math.MaxInt64})
}

// TrimBefore removes the events up to the first that happened at t or later, and returns how many those were.
func (l *Log) TrimBefore(ctx context.Context, t time.Time) (int64, error) {
	return l.trim(ctx, cut{before: math.MaxInt64, at: t.UnixMicro()})
}

func (l *Log) trim(ctx context.Context, c cut) (int64, error) {
	removed := int64(0)
	for {
		n, more, err := l.trimBatch(ctx, c)
		removed += n
		if err != nil {
			return removed, fmt.Errorf("trim event log: %w", err)
		}
		if !more {
			return removed, nil
		}
	}
}

func (l *Log) trimBatch(ctx context.Context, c cut) (removed int64, more bool, err error) {
	err = l.db.Write(ctx, func(tx *sqldb.Tx) error {
		removed, more = 0, false
		// The lock is that of trims alone: appending does not touch this row.
		var trimmed, head int64
		err := tx.QueryRowContext(ctx, `SELECT trimmed FROM event_log_meta WHERE id = 1`+l.db.Engine().ForUpdate()).Scan(&trimmed)
		if err != nil {
			return err
		}
		if trimmed, head, err = l.bounds(ctx, tx); err != nil {
			return err
		}
		through := min(c.before-1, head)
		if through > trimmed+trimBatch {
			through, more = trimmed+trimBatch, true
		}
		young := sql.NullInt64{}
		err = tx.QueryRowContext(ctx, `SELECT min(seq) FROM event_log WHERE seq > $1 AND seq <= $2 AND at >= $3`, trimmed, through, c.at).Scan(&young)
		if err != nil {
			return err
		}
		if young.Valid {
			through, more = young.Int64-1, false
		}
		if through <= trimmed {
			return nil
		}
		res, err := tx.ExecContext(ctx, `DELETE FROM event_log WHERE seq <= $1`, through)
		if err != nil {
			return err
		}
		if removed, err = res.RowsAffected(); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE event_log_meta SET trimmed = $1 WHERE id = 1`, through)
		return err
	})
	if err != nil {
		return 0, false, err
	}
	return removed, more, nil
}

// bounds returns up to which event the log has been trimmed, and the last event that it has had.
func (l *Log) bounds(ctx context.Context, q sqldb.Querier) (trimmed, head int64, err error) {
	err = q.QueryRowContext(ctx, `
SELECT trimmed, `+l.db.Engine().Greatest()+`(trimmed, coalesce((SELECT max(seq) FROM event_log), 0)) FROM event_log_meta WHERE id = 1`).
		Scan(&trimmed, &head)
	return trimmed, head, err
}

// retain removes now and then what is no longer retained, until ctx ends.
func (l *Log) retain(ctx context.Context) error {
	for {
		err := l.trimToRetention(ctx)
		if err != nil && ctx.Err() == nil && !l.passing(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.clock.After(retainInterval):
		}
	}
}

func (l *Log) trimToRetention(ctx context.Context) error {
	if l.keep.MaxAge > 0 {
		if _, err := l.TrimBefore(ctx, l.clock.Now().Add(-l.keep.MaxAge)); err != nil {
			return err
		}
	}
	if l.keep.MaxEvents == 0 {
		return nil
	}
	var head int64
	err := l.db.ReadOne(ctx, func(q sqldb.Querier) (err error) {
		_, head, err = l.bounds(ctx, q)
		return err
	})
	if err != nil {
		return err
	}
	_, err = l.Trim(ctx, head-l.keep.MaxEvents+1)
	return err
}

// tooOld returns ErrTooOld with the oldest token that the log can resume from.
func (l *Log) tooOld(scope string, trimmed int64) *fault.Fault {
	return ErrTooOld.With(MetadataOldestToken, l.tokens.token(scope, trimmed))
}
