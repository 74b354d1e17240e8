package server

import (
	"context"
	"errors"
	"time"

	"github.com/concordat-dev/concordat/kit/fault"
)

// Draining returns a channel that is closed when the server begins to stop: a handler of a stream then finishes what it
// has received and returns ErrDraining. Outside of a call it is never closed.
func Draining(ctx context.Context) <-chan struct{} {
	if c := callFrom(ctx); c != nil {
		return c.server.drain.Done()
	}
	return nil
}

// ErrDraining: the server is stopping; go on elsewhere.
var ErrDraining = fault.New(fault.Unavailable, "DRAINING", "the server is stopping").WithDomain(fault.Domain)

// Heartbeat is how often a quiet stream sends its resume point.
const Heartbeat = 15 * time.Second

// Subscription is a place in an ordered log of events.
type Subscription[E any] interface {
	// Next waits for the next event and returns it with the token of the point right after it.
	Next(ctx context.Context) (event E, token string, err error)
	// Position returns the token of the point up to which Next has returned everything.
	Position() string
	// OnCut has fn called, on a goroutine of its own, when the subscription is cut because it did not keep up: with what Next
	// will return once nothing is buffered any more.
	OnCut(fn func(why error))
}

// Follow serves a Watch method: it sends the bare resume point at once, each event with the point after it, and the
// bare point again whenever the stream was quiet for a Heartbeat. It returns when the caller leaves, when the server
// drains (ErrDraining) or the call runs out of time, then with the resume point in the metadata, or with the
// subscription's own error. send gets nil for a bare point.
//
// A client that takes nothing holds up a send for as long as it likes: what is sent waits in its flow-control window, and 64 KiB
// and a message in ours. So the call ends with the subscription, and when the server drains: a send that waits then is given up,
// Follow returns why, with the point right after the last event that was sent, and the caller closes what is buffered. The
// client finds all that was sent, and then the status.
func Follow[E any](ctx context.Context, sub Subscription[E], send func(event *E, token string) error) error {
	f := follower[E]{sub: sub, send: send}
	if c := callFrom(ctx); c != nil && c.cancel != nil {
		f.call = c
		sub.OnCut(c.cancel)
		defer context.AfterFunc(c.server.drain, func() { c.cancel(ErrDraining) })()
	}
	err := f.bare()
	for err == nil {
		if err = f.untilQuiet(ctx); errors.Is(err, errQuiet) {
			err = f.bare()
		}
	}
	switch {
	case errors.Is(err, ErrDraining):
		return ErrDraining.With("resume_token", f.position())
	case ctx.Err() != nil:
		return cutShort(ctx, err, f.position())
	default:
		return err
	}
}

// cutShort returns why a stream ends whose ctx has ended: for that reason, unless send had said another one before.
func cutShort(ctx context.Context, err error, position string) error {
	cause := context.Cause(ctx)
	if said, ok := fault.As(err); ok && !errors.Is(said, cause) {
		return err
	}
	if f, ok := fault.As(cause); ok {
		return f.With("resume_token", position)
	}
	return cause
}

// follower is what Follow knows.
type follower[E any] struct {
	sub  Subscription[E]
	send func(event *E, token string) error
	call *call  // nil outside of a stream
	told string // the point that was sent last
	owed bool   // the event after it was taken from the subscription, and not sent
}

// position returns the point up to which everything was sent.
func (f *follower[E]) position() string {
	if f.owed {
		return f.told
	}
	return f.sub.Position()
}

// bare sends where the subscription stands.
func (f *follower[E]) bare() error {
	point := f.sub.Position()
	if err := f.send(nil, point); err != nil {
		return err
	}
	f.told = point
	return nil
}

// tell sends an event. An error may also be what send makes of one that was sent.
func (f *follower[E]) tell(event *E, token string) error {
	before := f.sent()
	err := f.send(event, token)
	if f.owed = err != nil && f.sent() == before; !f.owed {
		f.told = token
	}
	return err
}

// sent returns how many messages the call has sent.
func (f *follower[E]) sent() int64 {
	if f.call == nil {
		return 0
	}
	return f.call.sent.Load()
}

var errQuiet = errors.New("quiet")

// untilQuiet sends events until it returns errQuiet, after a Heartbeat without one, ErrDraining, or another error.
func (f *follower[E]) untilQuiet(ctx context.Context) error {
	waiting, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(Heartbeat, func() { cancel(errQuiet) })
	defer quiet.Stop()
	for {
		if ctx.Err() != nil { // though there may always be one more event
			return context.Cause(ctx)
		}
		event, token, err := f.sub.Next(waiting)
		if err != nil && waiting.Err() != nil {
			return context.Cause(waiting)
		}
		if err != nil {
			return err
		}
		if err := f.tell(&event, token); err != nil {
			return err
		}
		quiet.Reset(Heartbeat)
	}
}
