package token

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/fault"
)

// News is one message of a feed: something that ended tokens, or that nothing has up to a point.
type News struct {
	// Revocation is what ended, nil where nothing did.
	Revocation *Revocation
	// Point is where to resume, right after this message.
	Point string
}

// Open opens the issuer's feed of what ends tokens: right after a point that it gave out, or, where that is "", with what
// happened at a time or later. next waits for the next message. Both end with ctx. A point from which the feed cannot go
// on without a gap is refused, by either, with one of the reasons RESUME_TOKEN_TOO_OLD and RESUME_TOKEN_INVALID.
//
// A feed on which nothing happens says so at least every 30 s.
type Open func(ctx context.Context, point string, since time.Time) (next func() (News, error), err error)

// FollowerConfig is what a Follower needs; every field is required.
type FollowerConfig struct {
	// Open opens the feed.
	Open Open
	// Verifier is told what the feed says.
	Verifier *Verifier
	// Clock paces the attempts to open the feed.
	Clock clock.Clock
	// Random returns numbers from 0 up to 1; they spread the attempts of many followers.
	Random func() float64
	// Log hears when the feed breaks, when it is back, and when it had a gap.
	Log *slog.Logger
}

// How a feed is followed.
const (
	// quiet is how long a feed may say nothing before it is taken for broken, whatever the connection says.
	quiet = 45 * time.Second
	// firstPause and lastPause bound the pause before a feed is opened again; it doubles with each failure.
	firstPause = 100 * time.Millisecond
	lastPause  = 2 * time.Second
	// worth is how many failures in a row are worth a line in the log: streams end by themselves now and then, and the
	// issuer may start later than we do.
	worth = 5
	// overlap is how much longer back than any token lives a feed without a point begins, because clocks differ.
	overlap = time.Minute
)

// Follower tells a Verifier what the issuer says of tokens that have ended. While the feed is broken tokens that end in
// the meantime are still good, as long as they live; once it is back, all that was missed is made up for. A new Follower
// begins far enough in the past for every token that may be alive.
type Follower struct {
	cfg   FollowerConfig
	heard atomic.Int64 // when the feed last said something, in nanoseconds since 1970; zero: never
	gaps  atomic.Int64
}

// NewFollower returns a Follower. It does nothing until Run.
func NewFollower(cfg FollowerConfig) *Follower { return &Follower{cfg: cfg} }

// Heard returns when the feed last said something, the zero time where it never has.
func (f *Follower) Heard() time.Time {
	if ns := f.heard.Load(); ns != 0 {
		return time.Unix(0, ns)
	}
	return time.Time{}
}

// Gaps returns how often the feed could not be resumed where it broke off.
func (f *Follower) Gaps() int64 { return f.gaps.Load() }

// Run follows the feed until ctx ends. Whatever happens to the feed, it tries again.
func (f *Follower) Run(ctx context.Context) {
	point, failures := "", 0
	for {
		heard, err := f.follow(ctx, &point, failures >= worth)
		if ctx.Err() != nil {
			return
		}
		if heard {
			failures = 0
		}
		if failures++; failures == worth {
			f.cfg.Log.Warn("revoked access tokens are not heard of, and are good until they are or until they expire", "cause", err)
		}
		if lost(err) && point != "" {
			f.gap()
			point = ""
		}
		select {
		case <-ctx.Done():
			return
		case <-f.cfg.Clock.After(f.pause(failures)):
		}
	}
}

// pause returns how long to wait after so many failures in a row.
func (f *Follower) pause(failures int) time.Duration {
	d := firstPause
	for ; failures > 1 && d < lastPause; failures-- {
		d *= 2
	}
	d = min(d, lastPause)
	return d/2 + time.Duration(f.cfg.Random()*float64(d/2))
}

// gap makes up for what the feed can no longer tell. What it still has of the time in which tokens live is read again; but
// its history may be another one now. So whoever has a token shows that its session goes on, by refreshing it.
func (f *Follower) gap() {
	f.gaps.Add(1)
	now := f.cfg.Clock.Now()
	f.cfg.Log.Error("the feed of revoked access tokens has a gap: all tokens that were issued until now are refused and must be refreshed")
	f.cfg.Verifier.Revoke(Revocation{At: now})
}

var (
	errTooOld  = fault.New(fault.OutOfRange, "RESUME_TOKEN_TOO_OLD", "").WithDomain(fault.Domain)
	errInvalid = fault.New(fault.InvalidArgument, "RESUME_TOKEN_INVALID", "").WithDomain(fault.Domain)
	errQuiet   = fmt.Errorf("nothing was heard for %s", quiet)
)

// lost reports whether the error says that the feed cannot go on where it was.
func lost(err error) bool { return errors.Is(err, errTooOld) || errors.Is(err, errInvalid) }

// follow opens the feed and tells what it says until it ends. It moves the point on, and reports whether it heard anything,
// to the log too where that is news.
func (f *Follower) follow(ctx context.Context, point *string, tell bool) (heard bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	messages, ended := make(chan News), make(chan error, 1)
	go func() { ended <- f.read(ctx, *point, messages) }()
	silence := f.cfg.Clock.After(quiet)
	for {
		select {
		case n := <-messages:
			if n.Revocation != nil {
				f.cfg.Verifier.Revoke(*n.Revocation)
			}
			*point = n.Point
			f.heard.Store(f.cfg.Clock.Now().UnixNano())
			if tell {
				f.cfg.Log.Info("revoked access tokens are heard of again")
			}
			heard, tell = true, false
		case <-silence:
			since := f.cfg.Clock.Now().Sub(f.Heard())
			if heard && since < quiet {
				silence = f.cfg.Clock.After(quiet - since)
				continue
			}
			cancel(errQuiet)
			<-ended // the feed ends with its context
			return heard, errQuiet
		case err := <-ended:
			return heard, err
		}
	}
}

// read opens the feed and hands on what it says, until it ends.
func (f *Follower) read(ctx context.Context, point string, messages chan<- News) error {
	next, err := f.cfg.Open(ctx, point, f.cfg.Clock.Now().Add(-MaxLife-overlap))
	if err != nil {
		return err
	}
	for {
		n, err := next()
		if err != nil {
			return err
		}
		select {
		case messages <- n:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
