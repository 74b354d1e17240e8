package eventlog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/fanout"
	"github.com/concordat-dev/concordat/kit/sqldb"
)

const (
	defaultBuffer      = 1024
	defaultBufferBytes = 2 * pageMost
	defaultPoll        = time.Second
	// channel is what processes on one database tell each other by that there is more in the log.
	channel = "event_log"
)

// Log is the event log of one database. It is safe for concurrent use.
type Log struct {
	db          *sqldb.DB
	clock       clock.Clock
	buffer      int // events
	bufferBytes int
	poll        time.Duration
	keep        Retention
	tokens      signer
	shared      bool   // on PostgreSQL
	inbox       *inbox // nil where an event has its number once it is appended: on SQLite, and with Options.OneAppender

	appended wake // there may be something to number and read
	noticed  wake // there may be something to read

	mu      sync.Mutex
	last    int64 // up to here the live subscriptions have been served
	live    map[*Subscription]struct{}
	running bool
	stopped bool
	gauges  gauges
}

// Open opens the log that is in db, whose Options must list Migrations. The first time it makes the epoch and the key
// of the tokens. Of a db that is open for reading alone the log can be read, and neither appended to nor run.
func Open(ctx context.Context, db *sqldb.DB, opts Options) (*Log, error) {
	switch {
	case opts.Clock == nil || opts.Rand == nil:
		return nil, errors.New("event log: a clock and a source of randomness are required")
	case opts.BufferSize < 0 || opts.BufferBytes < 0 || opts.PollInterval < 0:
		return nil, fmt.Errorf("event log: buffer of %d events and %d bytes, poll interval of %s",
			opts.BufferSize, opts.BufferBytes, opts.PollInterval)
	case opts.Retention.MaxAge < 0 || opts.Retention.MaxEvents < 0:
		return nil, fmt.Errorf("event log: retention of %s and %d events", opts.Retention.MaxAge, opts.Retention.MaxEvents)
	}
	l := &Log{
		db:          db,
		clock:       opts.Clock,
		buffer:      opts.BufferSize,
		bufferBytes: opts.BufferBytes,
		poll:        opts.PollInterval,
		keep:        opts.Retention,
		appended:    make(wake, 1),
		noticed:     make(wake, 1),
		live:        make(map[*Subscription]struct{}),
	}
	if l.shared = db.Engine() == sqldb.PostgreSQL; l.shared && !opts.OneAppender {
		l.inbox = &inbox{db: db, clock: opts.Clock}
	}
	if l.buffer == 0 {
		l.buffer = defaultBuffer
	}
	if l.bufferBytes == 0 {
		l.bufferBytes = defaultBufferBytes
	}
	if l.poll == 0 {
		l.poll = defaultPoll
	}
	if err := l.loadTokens(ctx, opts.Rand); err != nil {
		return nil, fmt.Errorf("open event log: %w", err)
	}
	if l.inbox != nil && !db.ReadOnly() {
		// Before anything is appended: what was written down on another server must not be taken for this one's. A full disk is
		// left to Run, whose first success looks at all that is in the inbox: what there is can be read meanwhile.
		if err := l.inbox.order(ctx); err != nil && !errors.Is(err, sqldb.ErrStorageFull) {
			return nil, fmt.Errorf("open event log: %w", err)
		}
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
	l.tokens.epoch, l.tokens.key = [epochSize]byte(epoch), [keySize]byte(key)
	return nil
}

// wake tells one goroutine that there is something to do; it holds a value until that is seen.
type wake chan struct{}

// signal never blocks.
func (w wake) signal() {
	select {
	case w <- struct{}{}:
	default:
	}
}

// handOut gives a page to the live subscriptions.
func (l *Log) handOut(p page) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range p.events {
		p.events[i].memo = &fanout.Memo{}
	}
	for s := range l.live {
		if !s.offer(p) {
			delete(l.live, s)
		}
	}
	l.last = max(l.last, p.through)
	l.gauges.read(p, l.clock.Now())
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
	l.noticed.signal() // what was committed while nobody was live has woken nobody
	return true
}

// leave ends the service of s.
func (l *Log) leave(s *Subscription) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.live, s)
	l.gauges.open--
}

// count takes note of subscriptions that were opened.
func (l *Log) count(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gauges.open += n
}
