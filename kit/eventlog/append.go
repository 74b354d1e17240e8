package eventlog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/concordat-dev/concordat/kit/sqldb"
)

// Append adds the events to the log, in this order, in the transaction of the change that they tell of. Subscribers
// are given them once that is committed.
//
// On PostgreSQL transactions that commit at about the same time come in the order of their calls of Append. So a store
// appends after the statements that change, or lock, what the event is about: then whoever waits for that appends later.
func (l *Log) Append(ctx context.Context, tx *sqldb.Tx, events ...Event) error {
	for _, e := range events {
		if err := e.check(); err != nil {
			return fmt.Errorf("append event %q: %w", e.Type, err)
		}
	}
	if len(events) == 0 {
		return nil
	}
	add := l.insert
	switch {
	case l.inbox != nil:
		add = l.insertUnnumbered
	case l.shared:
		add = l.insertNext
	}
	if err := add(ctx, tx, events); err != nil {
		return fmt.Errorf("append %d events: %w", len(events), err)
	}
	tx.OnCommit(l.appended.signal)
	return nil
}

func (e *Event) check() error {
	switch {
	case e.Type == "" || len(e.Type) > MaxName:
		return fmt.Errorf("the type has %d bytes, not 1 to %d", len(e.Type), MaxName)
	case !utf8.ValidString(e.Type) || strings.Contains(e.Type, "\x00"):
		return fmt.Errorf("the type is no text")
	case len(e.Subject) > MaxName:
		return fmt.Errorf("the subject has %d bytes, more than %d", len(e.Subject), MaxName)
	case len(e.Payload) > MaxPayload:
		return fmt.Errorf("the payload has %d bytes, more than %d", len(e.Payload), MaxPayload)
	}
	return nil
}

// time returns At as it is kept.
func (l *Log) time(e Event) int64 {
	if e.At.IsZero() {
		return l.clock.Now().UnixMicro()
	}
	return e.At.UnixMicro()
}

// present returns a payload that is not NULL.
func present(payload []byte) []byte {
	if payload == nil {
		return []byte{}
	}
	return payload
}

// insert adds events on SQLite.
func (l *Log) insert(ctx context.Context, tx *sqldb.Tx, events []Event) error {
	return tx.Insert(ctx, "event_log", []string{"at", "subject", "type", "payload"}, len(events), l.filler(events))
}

// filler fills rows with the time, the subject, the type and the payload of events.
func (l *Log) filler(events []Event) func(i int, row []any) {
	return func(i int, row []any) {
		e := &events[i]
		row[0], row[1], row[2], row[3] = l.time(*e), e.Subject, e.Type, present(e.Payload)
	}
}

// insertUnnumbered adds events to the inbox of PostgreSQL.
func (l *Log) insertUnnumbered(ctx context.Context, tx *sqldb.Tx, events []Event) error {
	if len(events) >= sqldb.CopyLeast {
		return tx.Insert(ctx, "event_log_inbox", []string{"at", "subject", "type", "payload"}, len(events), l.filler(events))
	}
	_, err := tx.ExecContext(ctx, `
INSERT INTO event_log_inbox (at, subject, type, payload)
SELECT at, subject, type, payload
FROM unnest($1::bigint[], $2::bytea[], $3::text[], $4::bytea[]) WITH ORDINALITY AS e (at, subject, type, payload, n) ORDER BY n`,
		l.arrays(events)...)
	return err
}

// lastNumber is the number of the last event of the log of PostgreSQL, or of the last that was trimmed.
const lastNumber = `SELECT greatest(m.trimmed, (SELECT max(seq) FROM event_log)) AS last FROM event_log_meta m WHERE m.id = 1`

// insertNext adds events to the log of PostgreSQL, with the next numbers: nobody else appends before the transaction has ended.
func (l *Log) insertNext(ctx context.Context, tx *sqldb.Tx, events []Event) error {
	tx.Notify(channel)
	if len(events) >= sqldb.CopyLeast {
		var last int64
		if err := tx.QueryRowContext(ctx, lastNumber).Scan(&last); err != nil {
			return err
		}
		fill := l.filler(events)
		return tx.Insert(ctx, "event_log", []string{"seq", "at", "subject", "type", "payload"}, len(events), func(i int, row []any) {
			row[0] = last + int64(i) + 1
			fill(i, row[1:])
		})
	}
	_, err := tx.ExecContext(ctx, `
INSERT INTO event_log (seq, at, subject, type, payload)
SELECT last + n, at, subject, type, payload
FROM (`+lastNumber+`) l,
	unnest($1::bigint[], $2::bytea[], $3::text[], $4::bytea[]) WITH ORDINALITY AS e (at, subject, type, payload, n)`,
		l.arrays(events)...)
	return err
}

// WriteOne runs one statement of a store that adds events beside what else it writes, as a transaction of its own: see
// sqldb.DB.WriteOne. It is for PostgreSQL and a log with one appender (Options.OneAppender), which the statement itself
// makes sure of. with are the other parts of it, `WITH name AS (…), …`, with their arguments; the events are added if the
// part when has a row, which tells whether anything was written.
func (l *Log) WriteOne(ctx context.Context, with string, args []any, when string, events []Event) (written bool, err error) {
	if !l.shared || l.inbox != nil {
		return false, errors.New("the log has several appenders, or is not on PostgreSQL")
	}
	for _, e := range events {
		if err := e.check(); err != nil {
			return false, fmt.Errorf("append event %q: %w", e.Type, err)
		}
	}
	query := new(strings.Builder)
	query.WriteString(with)
	if len(events) > 0 {
		query.WriteString(", appended AS (INSERT INTO event_log (seq, at, subject, type, payload) SELECT last + n, at, subject, type, payload FROM (" +
			lastNumber + ") l, " + when + ", (VALUES ")
		for i, e := range events {
			if i > 0 {
				query.WriteString(", ")
			}
			n := len(args)
			fmt.Fprintf(query, "(%d, $%d::bigint, $%d::bytea, $%d::text, $%d::bytea)", i+1, n+1, n+2, n+3, n+4)
			args = append(args, l.time(e), []byte(e.Subject), e.Type, present(e.Payload))
		}
		query.WriteString(") AS e (n, at, subject, type, payload))")
	}
	query.WriteString(" SELECT FROM " + when)
	n, err := l.db.WriteOne(ctx, query.String(), args, channel)
	if n > 0 {
		l.appended.signal()
	}
	return n > 0, err
}

// arrays returns the events as arguments of PostgreSQL.
func (l *Log) arrays(events []Event) []any {
	at := make([]int64, len(events))
	subjects := make([][]byte, len(events))
	types := make([]string, len(events))
	payloads := make([][]byte, len(events))
	for i, e := range events {
		at[i], subjects[i], types[i], payloads[i] = l.time(e), []byte(e.Subject), e.Type, present(e.Payload)
	}
	return []any{at, subjects, types, payloads}
}
