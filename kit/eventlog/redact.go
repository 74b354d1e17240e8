package eventlog

import (
	"context"
	"fmt"
	"time"

	"github.com/concordat-dev/concordat/kit/sqldb"
)

// redactBatch is how many events are in memory at once.
const redactBatch = 100

// Redact rewrites the payloads of all events of a subject that the log has, those of this transaction included, in the
// transaction that erases what they are about: fn gets each and returns what stands in its place. Numbers, times and types
// stay, so tokens do too.
//
// A subscriber that has the event in its buffer, or a page of it in memory, may still be given the old payload: that is at most
// Options.BufferSize events for each, and ends with the process. On the disk the old payload is gone when the database has used
// its place again (vacuum on PostgreSQL), and from backups when they are.
//
// On PostgreSQL no event gets its number until the transaction ends, so it should come last in it. fn returns an error to roll
// the transaction back; Event.Seq is 0 for an event that has no number yet.
func (l *Log) Redact(ctx context.Context, tx *sqldb.Tx, subject string, fn func(Event) (payload []byte, err error)) error {
	if l.inbox != nil {
		if err := l.inbox.redact(ctx, tx, subject, fn); err != nil {
			return fmt.Errorf("redact events: %w", err)
		}
	}
	for after := int64(0); ; {
		events, err := l.History(ctx, tx, subject, after, redactBatch)
		if err != nil {
			return fmt.Errorf("redact events: %w", err)
		}
		for _, e := range events {
			payload, err := redacted(e, fn)
			if err != nil {
				return fmt.Errorf("redact event %d: %w", e.Seq, err)
			}
			if _, err := tx.ExecContext(ctx, `UPDATE event_log SET payload = $1 WHERE seq = $2`, payload, e.Seq); err != nil {
				return fmt.Errorf("redact event %d: %w", e.Seq, err)
			}
			after = e.Seq
		}
		if len(events) < redactBatch {
			return nil
		}
	}
}

func redacted(e Event, fn func(Event) ([]byte, error)) ([]byte, error) {
	payload, err := fn(e)
	if err != nil {
		return nil, err
	}
	if len(payload) > MaxPayload {
		return nil, fmt.Errorf("the payload has %d bytes, more than %d", len(payload), MaxPayload)
	}
	return present(payload), nil
}

// redact rewrites what has no number yet. It holds the lock: an event that is moved at the same time would keep its payload.
func (b *inbox) redact(ctx context.Context, tx *sqldb.Tx, subject string, fn func(Event) ([]byte, error)) error {
	if err := b.lock(ctx, tx); err != nil {
		return err
	}
	places, events, err := b.of(ctx, tx, subject)
	if err != nil {
		return err
	}
	for i, e := range events {
		payload, err := redacted(e, fn)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE event_log_inbox SET payload = $1 WHERE ctid = $2::text::tid`, payload, places[i]); err != nil {
			return err
		}
	}
	return nil
}

// of returns the events of a subject that have no number yet, and where they are in the table.
func (b *inbox) of(ctx context.Context, tx *sqldb.Tx, subject string) (places []string, events []Event, err error) {
	rows, err := tx.QueryContext(ctx, `
SELECT ctid::text, at, type, payload FROM event_log_inbox WHERE subject = $1 ORDER BY arrival`, []byte(subject))
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var place string
		var at int64
		e := Event{Subject: subject}
		if err := rows.Scan(&place, &at, &e.Type, &e.Payload); err != nil {
			return nil, nil, err
		}
		e.At = time.UnixMicro(at).UTC()
		places, events = append(places, place), append(events, e)
	}
	return places, events, rows.Err()
}
