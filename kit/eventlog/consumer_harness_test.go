package eventlog

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/sqldb"
)

// feed is a source whose events are numbers and whose tokens are positions: it has what it was given, breaks when it is told
// to, and forgets what is old.
type feed struct {
	mu     sync.Mutex
	events []string
	oldest int           // the position before which everything is forgotten
	again  int           // how many events a stream repeats that the token has behind it
	broken error         // what the streams end with, once
	more   chan struct{} // closed and made anew with each change
	opened []string      // the tokens of all streams
}

func newFeed() *feed { return &feed{more: make(chan struct{})} }

func (f *feed) change(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
	close(f.more)
	f.more = make(chan struct{})
}

func (f *feed) add(events ...string) { f.change(func() { f.events = append(f.events, events...) }) }

func (f *feed) opens() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.opened)
}

func (f *feed) Open(_ context.Context, token string) (Stream[string], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opened = append(f.opened, token)
	if token == "" {
		return &feedStream{feed: f, at: len(f.events), tell: true}, nil
	}
	at, err := strconv.Atoi(token)
	if err != nil {
		return nil, err
	}
	if at < f.oldest {
		return nil, fmt.Errorf("open: %w", ErrTooOld)
	}
	return &feedStream{feed: f, at: max(at-f.again, 0)}, nil
}

type feedStream struct {
	feed *feed
	at   int
	tell bool
}

func (s *feedStream) Next(ctx context.Context) (*string, string, error) {
	for {
		s.feed.mu.Lock()
		err, more := s.feed.broken, s.feed.more
		s.feed.broken = nil
		var event *string
		if err == nil && !s.tell && s.at < len(s.feed.events) {
			event = &s.feed.events[s.at]
			s.at++
		}
		tell := s.tell
		s.tell = false
		s.feed.mu.Unlock()
		if err != nil || event != nil || tell {
			return event, strconv.Itoa(s.at), err
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil, "", ctx.Err()
		}
	}
}

// follower is a consumer whose effect is a row for each event.
type follower struct {
	t    *testing.T
	feed *feed
	db   *sqldb.DB
	opts ConsumerOptions[string]

	mu     sync.Mutex
	errors []error
}

func newFollower(t *testing.T, at place, feed *feed) *follower {
	t.Helper()
	db, err := sqldb.Open(t.Context(), at.options(clock.System(), ConsumerMigrations()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	f := &follower{t: t, feed: feed, db: db}
	f.write(`CREATE TABLE IF NOT EXISTS effect (id ` + db.Engine().Pick("INTEGER PRIMARY KEY", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY") + `, what TEXT NOT NULL)`)
	f.opts = ConsumerOptions[string]{
		Name: "test", DB: db, Source: feed, Clock: hasty{clock.System()}, Rand: rand.Reader,
		Apply: insertEffect,
		Report: func(err error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.errors = append(f.errors, err)
		},
	}
	return f
}

func insertEffect(ctx context.Context, tx *sqldb.Tx, event *string) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO effect (what) VALUES ($1)`, *event)
	return err
}

// hasty is a clock whose pauses are a hundredth as long.
type hasty struct{ clock.Clock }

func (h hasty) After(d time.Duration) <-chan time.Time { return h.Clock.After(d / 100) }

func (f *follower) write(statement string, args ...any) {
	f.t.Helper()
	err := f.db.Write(context.Background(), func(tx *sqldb.Tx) error {
		_, err := tx.ExecContext(context.Background(), statement, args...)
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

// start runs a consumer until stop, which returns what Run did.
func (f *follower) start() (c *Consumer[string], stop func() error) {
	f.t.Helper()
	c, err := NewConsumer(f.opts)
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	f.t.Cleanup(func() { _ = stop() })
	return c, stop
}

func (f *follower) effects() []string {
	f.t.Helper()
	var all []string
	err := f.db.ReadOne(context.Background(), func(q sqldb.Querier) error {
		all = nil
		rows, err := q.QueryContext(context.Background(), `SELECT what FROM effect ORDER BY id`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var what string
			if err := rows.Scan(&what); err != nil {
				return err
			}
			all = append(all, what)
		}
		return rows.Err()
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return all
}

// until waits for a condition that comes true by itself.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// wantEffects waits until the last of them is there, and checks that these are all.
func (f *follower) wantEffects(want ...string) {
	f.t.Helper()
	last := want[len(want)-1]
	until(f.t, "the effect "+last, func() bool { return slices.Contains(f.effects(), last) })
	if got := f.effects(); !slices.Equal(got, want) {
		f.t.Errorf("the effects are %q, want %q", got, want)
	}
}

// settled returns the status of a consumer once it has taken note of n effects, which it does after they can be seen.
func settled[E any](t *testing.T, c *Consumer[E], n int64) ConsumerStatus {
	t.Helper()
	until(t, fmt.Sprintf("%d effects in the status", n), func() bool { return c.Status().Applied >= n })
	return c.Status()
}

// following starts a consumer and waits until it has a cursor.
func (f *follower) following() (c *Consumer[string], stop func() error) {
	f.t.Helper()
	c, stop = f.start()
	until(f.t, "a cursor", func() bool { at, err := c.cursor(context.Background()); return err == nil && at.version > 0 })
	return c, stop
}
