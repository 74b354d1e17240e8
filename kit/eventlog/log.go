package eventlog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/sqldb"
)

const (
	defaultBuffer = 1024
	defaultPoll   = time.Second
	// trimBatch is how many events one transaction of a trim removes, so that writers wait for no more than that.
	trimBatch = 1000
)

// Log is the event log of one database. It is safe for concurrent use.
type Log struct {
	db     *sqldb.DB
	clock  clock.Clock
	buffer int
	poll   time.Duration
	tokens signer

	wake chan struct{} // holds a value when there may be something to read
	cut  atomic.Int64  // subscriptions that did not keep up

	mu      sync.Mutex
	last    int64 // up to here the live subscriptions have been served
	live    map[*Subscription]struct{}
	running bool
	stopped bool
}

// Open opens the log that is in db, whose Options must list Migrations. The first time it makes the epoch and the key
// of the tokens.
func Open(ctx context.Context, db *sqldb.DB, opts Options) (*Log, error) {
	switch {
	case opts.Clock == nil || opts.Rand == nil:
		return nil, errors.New("event log: a clock and a source of randomness are required")
	case opts.BufferSize < 0 || opts.PollInterval < 0:
		return nil, fmt.Errorf("event log: buffer of %d events, poll interval of %s", opts.BufferSize, opts.PollInterval)
	}
	l := &Log{
		db:     db,
		clock:  opts.Clock,
		buffer: opts.BufferSize,
		poll:   opts.PollInterval,
		wake:   make(chan struct{}, 1),
		live:   make(map[*Subscription]struct{}),
	}
	if l.buffer == 0 {
		l.buffer = defaultBuffer
	}
	if l.poll == 0 {
		l.poll = defaultPoll
	}
	if err := l.loadTokens(ctx, opts.Rand); err != nil {
		return nil, fmt.Errorf("open event log: %w", err)
	}
	return l, nil
}

// loadTokens reads the epoch and the key of the tokens, and makes them if there are none.
func (l *Log) loadTokens(ctx context.Context, rand io.Reader) error {
	err := l.db.Read(ctx, func(q sqldb.Querier) error { return l.readTokens(ctx, q) })
	if !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	return l.db.Write(ctx, func(tx *sqldb.Tx) error {
		var epoch [epochSize]byte
		var key [keySize]byte
		if _, err := io.ReadFull(rand, epoch[:]); err != nil {
			return fmt.Errorf("make the epoch: %w", err)
		}
		if _, err := io.ReadFull(rand, key[:]); err != nil {
			return fmt.Errorf("make the token key: %w", err)
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO event_log_meta (id, epoch, token_key) VALUES (1, $1, $2) ON CONFLICT DO NOTHING`,
			epoch[:], key[:])
		if err != nil {
			return err
		}
		return l.readTokens(ctx, tx)
	})
}

func (l *Log) readTokens(ctx context.Context, q sqldb.Querier) error {
	var epoch, key []byte
	if err := q.QueryRowContext(ctx, `SELECT epoch, token_key FROM event_log_meta WHERE id = 1`).Scan(&epoch, &key); err != nil {
		return err
	}
	if len(epoch) != epochSize || len(key) != keySize {
		return fmt.Errorf("epoch of %d bytes, token key of %d bytes", len(epoch), len(key))
	}
	l.tokens = signer{epoch: [epochSize]byte(epoch), key: [keySize]byte(key)}
	return nil
}

// Append adds the events to the log, in this order, in the transaction of the change that they tell of. Subscribers
// are given them once that is committed.
func (l *Log) Append(ctx context.Context, tx *sqldb.Tx, events ...Event) error {
	for _, e := range events {
		if err := l.append(ctx, tx, e); err != nil {
			return fmt.Errorf("append event %q: %w", e.Type, err)
		}
	}
	tx.OnCommit(l.signal)
	return nil
}

func (l *Log) append(ctx context.Context, tx *sqldb.Tx, e Event) error {
	switch {
	case e.Type == "" || len(e.Type) > MaxName:
		return fmt.Errorf("the type has %d bytes, not 1 to %d", len(e.Type), MaxName)
	case len(e.Subject) > MaxName:
		return fmt.Errorf("the subject has %d bytes, more than %d", len(e.Subject), MaxName)
	case len(e.Payload) > MaxPayload:
		return fmt.Errorf("the payload has %d bytes, more than %d", len(e.Payload), MaxPayload)
	}
	at := e.At
	if at.IsZero() {
		at = l.clock.Now()
	}
	payload := e.Payload
	if payload == nil {
		payload = []byte{}
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO event_log (at, subject, type, payload) VALUES ($1, $2, $3, $4)`,
		at.UnixMicro(), e.Subject, e.Type, payload)
	return err
}

// signal says that there may be something new to read. It never blocks.
func (l *Log) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Run serves the subscriptions until ctx ends, and then returns nil: it reads what was committed and hands it to
// those who want it. Subscriptions end with ErrStopped when it returns. It returns an error when the log cannot be
// read or was run before, and sqldb.ErrStorageFailed when the storage failed during a commit: what is on the disk is known
// again when the database is opened anew, so the process should end.
func (l *Log) Run(ctx context.Context) error {
	l.mu.Lock()
	if l.running || l.stopped {
		l.mu.Unlock()
		return errors.New("the event log was run before")
	}
	l.running = true
	l.mu.Unlock()
	defer l.stop()

	poll := l.clock.After(l.poll)
	for {
		err := l.serve(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !sqldb.IsBusy(err):
			return fmt.Errorf("read the event log: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
		case <-l.db.Failed():
			return sqldb.ErrStorageFailed
		case <-poll:
			poll = l.clock.After(l.poll)
		}
	}
}

// serve hands out what has been committed, until there is no more or nobody wants it.
func (l *Log) serve(ctx context.Context) error {
	for {
		l.mu.Lock()
		after, wanted := l.last, len(l.live) > 0
		l.mu.Unlock()
		if !wanted {
			return nil
		}
		p, err := l.readPage(ctx, after)
		if err != nil {
			return err
		}
		l.handOut(p)
		if p.atHead {
			return nil
		}
	}
}

// handOut gives a page to the live subscriptions.
func (l *Log) handOut(p page) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.live {
		if !s.offer(p) {
			delete(l.live, s)
		}
	}
	l.last = max(l.last, p.through)
}

// stop ends all subscriptions.
func (l *Log) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running, l.stopped = false, true
	for s := range l.live {
		s.finish(ErrStopped)
	}
	clear(l.live)
}

// join makes s live and returns true if it has read all that the live ones have been given, so that it misses nothing
// and gets nothing twice; and also if it has ended. It returns false if there is more to read first.
func (l *Log) join(s *Subscription) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.stopped && s.end == nil {
		s.end = ErrStopped
	}
	if s.closed || s.end != nil {
		return true
	}
	if !s.atHead {
		return false
	}
	if len(l.live) == 0 {
		l.last = max(l.last, s.seen) // nobody needs what is before
	}
	if s.seen < l.last {
		return false
	}
	s.live = true
	l.live[s] = struct{}{}
	l.signal() // what was committed while nobody was live has woken nobody
	return true
}

// leave ends the service of s.
func (l *Log) leave(s *Subscription) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.live, s)
}

// Trim removes the events whose Seq is less than before, and returns how many those were. Tokens from before then are
// too old; subscriptions that had not come so far end with ErrTooOld.
func (l *Log) Trim(ctx context.Context, before int64) (int64, error) {
	removed := int64(0)
	for {
		n, more, err := l.trimBatch(ctx, before)
		removed += n
		if err != nil {
			return removed, fmt.Errorf("trim event log: %w", err)
		}
		if !more {
			return removed, nil
		}
	}
}

// TrimBefore removes the events up to the first that happened at t or later, and returns how many those were.
func (l *Log) TrimBefore(ctx context.Context, t time.Time) (int64, error) {
	before := int64(math.MaxInt64)
	err := l.db.Read(ctx, func(q sqldb.Querier) error {
		err := q.QueryRowContext(ctx, `SELECT seq FROM event_log WHERE at >= $1 ORDER BY seq LIMIT 1`, t.UnixMicro()).Scan(&before)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("trim event log: %w", err)
	}
	return l.Trim(ctx, before)
}

func (l *Log) trimBatch(ctx context.Context, before int64) (removed int64, more bool, err error) {
	err = l.db.Write(ctx, func(tx *sqldb.Tx) error {
		trimmed, head, err := bounds(ctx, tx)
		if err != nil {
			return err
		}
		through := min(before-1, head)
		if through <= trimmed {
			return nil
		}
		if through-trimmed > trimBatch {
			through, more = trimmed+trimBatch, true
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
func bounds(ctx context.Context, q sqldb.Querier) (trimmed, head int64, err error) {
	err = q.QueryRowContext(ctx, `
SELECT trimmed, max(trimmed, coalesce((SELECT max(seq) FROM event_log), 0)) FROM event_log_meta WHERE id = 1`).Scan(&trimmed, &head)
	return trimmed, head, err
}

// tooOld returns ErrTooOld with the oldest token that the log can resume from.
func (l *Log) tooOld(scope string, trimmed int64) *fault.Fault {
	return ErrTooOld.With(MetadataOldestToken, l.tokens.token(scope, trimmed))
}
