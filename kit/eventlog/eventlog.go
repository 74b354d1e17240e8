// Package eventlog is the ordered log of what happened to the data of one service, kept in the same database,
// so that a change and its event commit together or not at all.
//
// What is promised: a subscriber is given every event that matches, in the order of the log, once: no gap and
// no duplicate, also when it resumes with a token after a break, in another process or after a crash. What is
// refused: a subscriber that does not keep up is cut with the token to resume from, instead of growing a
// buffer, which is bounded in events and in bytes; and a token that is older than what is retained is refused, instead of skipping what is gone.
//
// On PostgreSQL several processes share a log: their transactions append without waiting for each other, and the log gets its
// order once they are committed (see inbox.go). A Consumer follows a log, of this or of another service, and has an effect of
// each event exactly once.
//
// A store appends in the transaction of the change:
//
//	db, err := sqldb.Open(ctx, sqldb.Options{
//		Dir: dir, File: "users.db", Clock: clock.System(),
//		Migrations: []sqldb.Set{eventlog.Migrations(), users.Migrations()},
//	})
//	…
//	log, err := eventlog.Open(ctx, db, eventlog.Options{Clock: clock.System(), Rand: rand.Reader})
//	…
//	err = db.Write(ctx, func(tx *sqldb.Tx) error {
//		if _, err := tx.ExecContext(ctx, `UPDATE users SET state = $1 WHERE id = $2`, state, id); err != nil {
//			return err
//		}
//		return log.Append(ctx, tx, eventlog.Event{Subject: id, Type: "USER_DISABLED", Payload: payload})
//	})
//
// One goroutine of the process runs log.Run; a watcher reads:
//
//	sub, err := log.Subscribe(ctx, eventlog.Watch{Scope: "users.v1/WatchUsers", Token: req.GetResumeToken(), Match: match})
//	…
//	defer sub.Close()
//	for {
//		event, token, err := sub.Next(ctx)
//		if err != nil {
//			return err // ErrSlowConsumer, ErrStopped: with the metadata resume_token
//		}
//		…
//	}
package eventlog

import (
	"embed"
	"io"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/fanout"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/sqldb"
)

// Limits of an event.
const (
	// MaxName is the most bytes in Subject and in Type.
	MaxName = 255
	// MaxPayload is the most bytes in Payload.
	MaxPayload = 1 << 20
)

// Event is one thing that happened. Subscribers share its payload and must not change it.
type Event struct {
	// Seq is its place in the log, from 1 upwards; never used twice, and not without gaps. The log assigns it: on SQLite with
	// Append, on PostgreSQL once the transaction is committed.
	Seq int64
	// At is when it happened, in UTC, to the microsecond. Zero means the time of Append.
	At time.Time
	// Subject is the id of what it happened to. It may be empty.
	Subject string
	// Type is the name of what happened, in UTF-8. Required.
	Type string
	// Payload is what the service has to say of it, in a form of its own.
	Payload []byte

	memo *fanout.Memo // of an event that Run hands out to all who are live
}

// size is how many bytes are counted for an event.
func (e Event) size() int { return len(e.Subject) + len(e.Type) + len(e.Payload) }

// What Subscribe and Next return beside the errors of the database and of their context. Those with the metadata
// resume_token say where to go on.
var (
	// ErrBadToken: the resume token was not given out by this log for this kind of watch. It has a violation on
	// resume_token.
	ErrBadToken = fault.New(fault.InvalidArgument, "RESUME_TOKEN_INVALID", "the resume token is not valid").WithDomain(fault.Domain).
			WithViolation("resume_token", "resume_token.valid", "must be a token that this method returned")
	// ErrTooOld: the log no longer has, or never had, the events after the resume token. The metadata
	// oldest_resume_token is the oldest token that can be resumed from; the subscriber reads the present state
	// anew.
	ErrTooOld = fault.New(fault.OutOfRange, "RESUME_TOKEN_TOO_OLD", "the events after the resume token are no longer kept").WithDomain(fault.Domain)
	// ErrSlowConsumer: the subscriber did not keep up and was cut. The metadata resume_token is where it goes on.
	ErrSlowConsumer = fault.New(fault.ResourceExhausted, "CONSUMER_TOO_SLOW", "the consumer is too slow: resume from the token").WithDomain(fault.Domain)
	// ErrStopped: the log is stopping. The metadata resume_token, on a subscription, is where it goes on.
	ErrStopped = fault.New(fault.Unavailable, "EVENT_LOG_STOPPED", "the event log is stopping: resume from the token").WithDomain(fault.Domain)
	// ErrSubscriptionClosed: Next was called on a subscription that its owner closed.
	ErrSubscriptionClosed = fault.New(fault.Canceled, "SUBSCRIPTION_CLOSED", "the subscription is closed").WithDomain(fault.Domain)
)

// The metadata keys of the faults above.
const (
	// MetadataResumeToken holds the token to resume from.
	MetadataResumeToken = "resume_token"
	// MetadataOldestToken holds the oldest token that can be resumed from.
	MetadataOldestToken = "oldest_resume_token"
)

// Options say how a log runs.
type Options struct {
	// Clock stamps events and paces the polling. Required.
	Clock clock.Clock
	// Rand is where the epoch and the key of the tokens come from when the log is opened for the first time.
	// Required.
	Rand io.Reader
	// BufferSize is how many events that match wait in memory for one subscriber: one more cuts it. Zero means 1024.
	BufferSize int
	// BufferBytes is how many bytes of payloads and names wait there at most: an event that goes beyond finds the subscriber too slow,
	// unless nothing else waits. Zero means 4.5 MB, two of the largest reads of the log, so that one read alone cuts nobody.
	// Subscribers who wait for the same events share their payloads.
	BufferBytes int
	// PollInterval is how often the log is read when nothing has woken it. Zero means 1 s.
	PollInterval time.Duration
	// OneAppender says that transactions which append take turns: each takes a lock that all of them take, in the same database, before
	// it appends, and holds it until it has ended. Then events get their numbers as they are appended, on PostgreSQL too, and
	// are written once instead of twice. It never changes for a log that has events, and without the lock numbers would be given
	// twice, which fails the second transaction.
	OneAppender bool
	// Retention is what Run keeps of the log. Zero keeps all of it. A consumer that has not come as far as what is removed
	// is told so with ErrTooOld, whatever it has registered.
	Retention Retention
}

// Watch says what a subscriber wants.
type Watch struct {
	// Scope is the kind of the watch, such as "users.v1/WatchUsers". A token is accepted only in the scope that
	// it was given out in. What the match depends on belongs into it where a token must not be moved to another
	// filter.
	Scope string
	// Token is where to resume: right after its position. Empty means: what is committed after Subscribe has
	// returned.
	Token string
	// Since is where to begin without a Token, as far back as the log goes: right after the last event that happened
	// before it. Zero means with what is committed after Subscribe has returned.
	Since time.Time
	// Match says whether the subscriber wants an event; nil means all. It is called for every event, by the one
	// goroutine that serves all subscribers: it must be quick, must not block and must not change the event.
	Match func(Event) bool
}

//go:embed migrations
var migrations embed.FS

// Migrations returns the tables of the log, for sqldb.Options.
func Migrations() sqldb.Set { return sqldb.Set{Name: "eventlog", FS: migrations, Dir: "migrations"} }
