package eventlog

import (
	"context"
	"fmt"
	"time"

	"github.com/concordat-dev/concordat/kit/sqldb"
)

// Limits of a page; whichever is met first ends it.
const (
	pageEvents = 256
	pageBytes  = 1 << 20 // of payload, beside the last event
)

// page is a piece of the log: all that it has between after and through.
type page struct {
	after, through int64
	events         []Event
	atHead         bool  // there was no more when it was read
	trimmed        int64 // up to here the log had been trimmed when it was read; more than after means a gap
}

// readPage reads what comes after a position.
func (l *Log) readPage(ctx context.Context, after int64) (page, error) {
	p := page{after: after, through: after}
	err := l.db.Read(ctx, func(q sqldb.Querier) error {
		if err := q.QueryRowContext(ctx, `SELECT trimmed FROM event_log_meta WHERE id = 1`).Scan(&p.trimmed); err != nil {
			return err
		}
		return p.read(ctx, q)
	})
	return p, err
}

func (p *page) read(ctx context.Context, q sqldb.Querier) error {
	rows, err := q.QueryContext(ctx, `
SELECT seq, at, subject, type, payload FROM event_log WHERE seq > $1 ORDER BY seq LIMIT $2`, p.after, pageEvents)
	if err != nil {
		return err
	}
	defer rows.Close()
	bytes := 0
	for rows.Next() {
		var e Event
		var at int64
		if err := rows.Scan(&e.Seq, &at, &e.Subject, &e.Type, &e.Payload); err != nil {
			return fmt.Errorf("event after %d: %w", p.through, err)
		}
		e.At = time.UnixMicro(at).UTC()
		p.events = append(p.events, e)
		p.through = e.Seq
		if bytes += len(e.Payload); bytes >= pageBytes {
			return rows.Err()
		}
	}
	p.atHead = len(p.events) < pageEvents
	return rows.Err()
}
