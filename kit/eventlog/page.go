package eventlog

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/concordat-dev/concordat/kit/sqldb"
)

// Limits of a page; whichever is met first ends it.
const (
	pageEvents = 256
	pageBytes  = 1 << 20 // of payload, beside the last event

	// pageMost is the most bytes that a page can have.
	pageMost = pageBytes + MaxPayload + pageEvents*2*MaxName
)

// page is a piece of the log: all that it has between after and through.
type page struct {
	after, through int64
	events         []Event
	head           int64 // the last event that the log has had
	atHead         bool  // there was no more when it was read
	trimmed        int64 // up to here the log had been trimmed when it was read; more than after means a gap
}

// readPage reads what comes after a position.
func (l *Log) readPage(ctx context.Context, after int64) (page, error) {
	var p page
	err := l.db.ReadOne(ctx, func(q sqldb.Querier) error {
		p = page{after: after, through: after}
		return p.read(ctx, q, l.db.Engine())
	})
	return p, err
}

// The statements that read a page, or the one row without an event when there is none. On PostgreSQL what does not fit is
// left out by the server: all that a statement returns is sent, also when nobody reads it any more.
const (
	pageSQLite = `
SELECT m.trimmed, max(m.trimmed, coalesce((SELECT max(seq) FROM event_log), 0)), e.seq, e.at, e.subject, e.type, e.payload
FROM event_log_meta m LEFT JOIN event_log e ON e.seq > $1 WHERE m.id = 1 ORDER BY e.seq LIMIT $2`

	pagePostgres = `
SELECT m.trimmed, greatest(m.trimmed, (SELECT max(seq) FROM event_log)), e.seq, e.at, e.subject, e.type, e.payload
FROM event_log_meta m LEFT JOIN (
    SELECT *, sum(octet_length(payload)) OVER (ORDER BY seq ROWS UNBOUNDED PRECEDING) - octet_length(payload) AS bytes
    FROM (SELECT * FROM event_log WHERE seq > $1 ORDER BY seq LIMIT $2) AS next
) AS e ON e.bytes < $3 WHERE m.id = 1 ORDER BY e.seq`
)

func (p *page) read(ctx context.Context, q sqldb.Querier, engine sqldb.Engine) error {
	args := []any{p.after, pageEvents}
	if engine == sqldb.PostgreSQL {
		args = append(args, pageBytes)
	}
	rows, err := q.QueryContext(ctx, engine.Pick(pageSQLite, pagePostgres), args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	bytes := 0
	for rows.Next() && bytes < pageBytes {
		var e Event
		var seq, at sql.NullInt64
		var subject, kind sql.NullString
		if err := rows.Scan(&p.trimmed, &p.head, &seq, &at, &subject, &kind, &e.Payload); err != nil {
			return fmt.Errorf("event after %d: %w", p.through, err)
		}
		if !seq.Valid {
			break
		}
		e.Seq, e.At, e.Subject, e.Type = seq.Int64, time.UnixMicro(at.Int64).UTC(), subject.String, kind.String
		p.events = append(p.events, e)
		p.through = e.Seq
		bytes += len(e.Payload)
	}
	p.atHead = p.through >= p.head
	return rows.Err()
}

// History returns the events of a subject that come after a number and are still retained, in order and at most limit of
// them: for an export. It goes on after the Seq of the last one. On PostgreSQL an event is in it as soon as it has its number,
// a moment after its transaction.
func (l *Log) History(ctx context.Context, q sqldb.Querier, subject string, after int64, limit int) ([]Event, error) {
	rows, err := q.QueryContext(ctx, `
SELECT seq, at, type, payload FROM event_log WHERE subject = $1 AND seq > $2 ORDER BY seq LIMIT $3`, l.subject(subject), after, limit)
	if err != nil {
		return nil, fmt.Errorf("history of events: %w", err)
	}
	defer rows.Close()
	var events []Event
	for rows.Next() {
		e := Event{Subject: subject}
		var at int64
		if err := rows.Scan(&e.Seq, &at, &e.Type, &e.Payload); err != nil {
			return nil, fmt.Errorf("history of events: %w", err)
		}
		e.At = time.UnixMicro(at).UTC()
		events = append(events, e)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("history of events: %w", err)
	}
	return events, nil
}

// subject returns a subject as an argument.
func (l *Log) subject(s string) any {
	if l.shared {
		return []byte(s)
	}
	return s
}
