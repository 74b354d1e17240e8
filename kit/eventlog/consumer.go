package eventlog

import (
	"context"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/sqldb"
)

// Source is where a consumer's events come from: the Watch method of another service, or a log of this one (Log.Source).
type Source[E any] interface {
	// Open begins to follow right after what the token stands for; without a token, with what happens from then on. The
	// stream lives until ctx ends. An error for which errors.Is(err, ErrTooOld) holds says that the token is of no use any
	// more, here or from Next.
	Open(ctx context.Context, token string) (Stream[E], error)
}

// Stream is a Source that was opened. It is for one goroutine.
type Stream[E any] interface {
	// Next waits for the next event and returns it with the token to go on after it. Without an event (nil) it says where
	// the stream stands: first of all after an Open without a token, and now and then while nothing happens, so that the
	// cursor does not become too old.
	Next(ctx context.Context) (event *E, token string, err error)
}

const (
	// readAhead is how many events wait in memory while a transaction is under way, and in one transaction.
	readAhead = 128
	// firstPause and lastPause bound the wait before a consumer goes on after an error.
	firstPause, lastPause = 100 * time.Millisecond, 30 * time.Second
	// standbyPause is how long a process waits where another one follows with the same cursor.
	standbyPause = 10 * time.Second
)

// ConsumerOptions say what a consumer does. All fields are required, except where it says otherwise.
type ConsumerOptions[E any] struct {
	// Name is the cursor's name in the database. It never changes.
	Name string
	// DB is the database of the effects; its Options must list ConsumerMigrations.
	DB *sqldb.DB
	// Source is where the events come from.
	Source Source[E]
	// Apply has the effect of an event, all of it in tx: the cursor moves in the same transaction, so that the effect is
	// there exactly once. After an error it is called again, with pauses, until it returns nil: an event that is to be passed
	// over is one that Apply returns nil for. It can be called again also without an error, with another tx, because the
	// transaction did not come through.
	Apply func(ctx context.Context, tx *sqldb.Tx, event *E) error
	// Rebuild makes the effects anew from the present state of the source, and is called when there is no cursor yet or its
	// token is too old. The events since a moment before it follow, so Apply meets some whose effect is there already.
	// It is called again after an error. Optional: without it a new consumer begins with what happens from then on, and Run
	// returns ErrTooOld when the token is too old.
	Rebuild func(ctx context.Context) error
	// At returns when an event happened. Optional: without it the time at which it came is taken.
	At func(event *E) time.Time
	// Report is told of each error that the consumer goes on after. It must be quick. Optional.
	Report func(err error)
	// Clock paces the attempts.
	Clock clock.Clock
	// Rand is where the jitter of the pauses comes from. It is safe for concurrent use.
	Rand io.Reader
}

// Consumer follows a source and has an effect of each event exactly once, over breaks of the source, crashes and replicas:
// the effect and the cursor move in one transaction, and the cursor moves from where it was read or not at all. Several
// processes may run the same consumer; one of them has the effects and the others stand by.
type Consumer[E any] struct {
	opts  ConsumerOptions[E]
	batch int // how many events are applied in one transaction; only Run uses it

	mu     sync.Mutex
	status consumerState
}

// NewConsumer returns a consumer that begins with Run.
func NewConsumer[E any](opts ConsumerOptions[E]) (*Consumer[E], error) {
	if opts.Name == "" || opts.DB == nil || opts.Source == nil || opts.Apply == nil || opts.Clock == nil || opts.Rand == nil {
		return nil, errors.New("event consumer: a name, a database, a source, an effect, a clock and a source of randomness are required")
	}
	return &Consumer[E]{opts: opts, batch: readAhead}, nil
}

// errElsewhere: another process has moved the cursor.
var errElsewhere = errors.New("another process follows with this cursor")

// Run follows the source until ctx ends, and then returns nil. It goes on after every error but ErrTooOld without a Rebuild,
// and those of a database that is closed or has failed.
func (c *Consumer[E]) Run(ctx context.Context) error {
	c.began()
	rebuild := false
	for failures := 0; ; failures++ {
		moved, err := c.follow(ctx, rebuild)
		rebuild = errors.Is(err, ErrTooOld)
		if moved {
			failures = 0
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case rebuild && c.opts.Rebuild == nil,
			errors.Is(err, sqldb.ErrClosed), errors.Is(err, sqldb.ErrStorageFailed):
			return fmt.Errorf("consumer %s: %w", c.opts.Name, err)
		}
		pause := min(firstPause<<min(failures, 20), lastPause)
		if errors.Is(err, errElsewhere) {
			pause = standbyPause
		}
		c.broke(err)
		select {
		case <-ctx.Done():
			return nil
		case <-c.opts.Clock.After(jittered(c.opts.Rand, pause)):
		}
	}
}

// jittered returns a time between the half of d and d.
func jittered(random io.Reader, d time.Duration) time.Duration {
	var b [8]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return d
	}
	return d - time.Duration(binary.LittleEndian.Uint64(b[:])%uint64(d/2))
}

// item is what a stream has given.
type item[E any] struct {
	event *E
	token string
	at    time.Time
	err   error
}

// follow opens the source and applies what comes, until there is an error. It says whether the cursor has moved.
func (c *Consumer[E]) follow(ctx context.Context, rebuild bool) (moved bool, err error) {
	at, err := c.cursor(ctx)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel()
	if at.version == 0 || rebuild {
		at.token = ""
	}
	stream, err := c.opts.Source.Open(ctx, at.token)
	if err != nil {
		return false, fmt.Errorf("open the source: %w", err)
	}
	if at.token == "" {
		if err := c.begin(ctx, stream, &at); err != nil {
			return false, err
		}
		moved = true
	}
	items := make(chan item[E], readAhead)
	reading.Go(func() {
		for {
			i := c.receive(ctx, stream)
			select {
			case items <- i:
			case <-ctx.Done():
				return
			}
			if i.err != nil {
				return
			}
		}
	})
	for {
		batch, err := c.gather(ctx, items)
		if len(batch) > 0 {
			if err := c.apply(ctx, &at, batch); err != nil {
				return moved, err
			}
			moved = true
		}
		if err != nil {
			return moved, err
		}
	}
}

// receive takes the next item from the stream.
func (c *Consumer[E]) receive(ctx context.Context, stream Stream[E]) item[E] {
	event, token, err := stream.Next(ctx)
	if err == nil && token == "" {
		err = errors.New("it gave no token")
	}
	if err != nil {
		return item[E]{err: fmt.Errorf("read the source: %w", err)}
	}
	i := item[E]{event: event, token: token, at: c.opts.Clock.Now()}
	c.heard(i.at)
	if event != nil && c.opts.At != nil {
		i.at = c.opts.At(event)
	}
	return i
}

// begin takes the position of a stream without a past, makes the effects anew, and keeps the position.
func (c *Consumer[E]) begin(ctx context.Context, stream Stream[E], at *cursor) error {
	first := c.receive(ctx, stream)
	if first.err != nil {
		return first.err
	}
	if c.opts.Rebuild != nil {
		c.rebuilding()
		if err := c.opts.Rebuild(ctx); err != nil {
			return fmt.Errorf("rebuild: %w", err)
		}
	}
	return c.apply(ctx, at, []item[E]{first})
}

// gather waits for an item and returns it with what else is there, up to the size of a batch; and the error after them.
func (c *Consumer[E]) gather(ctx context.Context, items <-chan item[E]) (batch []item[E], err error) {
	c.idle(len(items) == 0)
	var i item[E]
	select {
	case i = <-items:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for {
		if i.err != nil {
			return batch, i.err
		}
		batch = append(batch, i)
		if len(batch) >= c.batch {
			return batch, nil
		}
		select {
		case i = <-items:
		default:
			return batch, nil
		}
	}
}

// apply has the effects of a batch and moves the cursor behind it, or neither.
func (c *Consumer[E]) apply(ctx context.Context, at *cursor, batch []item[E]) error {
	c.working(batch[0].at)
	last := batch[len(batch)-1]
	err := c.opts.DB.Write(ctx, func(tx *sqldb.Tx) error {
		// First of all, so that of two processes one waits here for the other, and then leaves without an effect.
		if err := c.move(ctx, tx, *at, last.token); err != nil {
			return err
		}
		before := at.token
		for _, i := range batch {
			if i.event != nil && i.token != before { // a source that repeats its last event does not have it twice
				if err := c.opts.Apply(ctx, tx, i.event); err != nil {
					return fmt.Errorf("apply: %w", err)
				}
			}
			before = i.token
		}
		return nil
	})
	if err != nil {
		c.batch = 1 // so that all before one that cannot be applied are
		return err
	}
	c.batch = min(2*c.batch, readAhead)
	at.token = last.token
	at.version++
	c.applied(batch)
	return nil
}

//go:embed consumer_migrations
var consumerMigrations embed.FS

// ConsumerMigrations returns the table of the cursors, for sqldb.Options.
func ConsumerMigrations() sqldb.Set {
	return sqldb.Set{Name: "event_cursor", FS: consumerMigrations, Dir: "consumer_migrations"}
}
