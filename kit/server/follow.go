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
	return drainOf(ctx).Done()
}

// drainOf returns the context that ends when the server begins to stop.
func drainOf(ctx context.Context) context.Context {
	if c := callFrom(ctx); c != nil {
		return c.server.drain
	}
	return context.Background()
}

// ErrDraining: the server is stopping; go on elsewhere.
var ErrDraining = fault.New(fault.Unavailable, "DRAINING", "the server is stopping").WithDomain(fault.Domain)

// Heartbeat is how often a quiet stream sends its resume point.
const Heartbeat = 15 * time.Second

// Subscription is a place in an ordered log of events.
type Subscription[E any] interface {
	// Next waits for the next event and returns it with the token of the point right after it.
	Next(ctx context.Context) (event E, token string, err error)
	// Position returns the token of the point up to which everything has been told.
	Position() string
}

// Follow serves a Watch method: it sends the bare resume point at once, each event with the point after it, and the
// bare point again whenever the stream was quiet for a Heartbeat. It returns when the caller leaves, when the server
// drains (ErrDraining) or the call runs out of time, then with the resume point in the metadata, or with the
// subscription's own error. send gets nil for a bare point.
func Follow[E any](ctx context.Context, sub Subscription[E], send func(event *E, token string) error) error {
	if err := send(nil, sub.Position()); err != nil {
		return err
	}
	for {
		err := untilQuiet(ctx, sub, send)
		switch {
		case errors.Is(err, errQuiet):
			if err := send(nil, sub.Position()); err != nil {
				return err
			}
		case errors.Is(err, ErrDraining):
			return ErrDraining.With("resume_token", sub.Position())
		case ctx.Err() != nil:
			return cutShort(ctx, err, sub.Position())
		default:
			return err
		}
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

var errQuiet = errors.New("quiet")

// untilQuiet sends events until it returns errQuiet, after a Heartbeat without one, ErrDraining, or another error.
func untilQuiet[E any](ctx context.Context, sub Subscription[E], send func(event *E, token string) error) error {
	drain := drainOf(ctx)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(Heartbeat, func() { cancel(errQuiet) })
	defer quiet.Stop()
	defer context.AfterFunc(drain, func() { cancel(ErrDraining) })()
	for {
		event, token, err := sub.Next(ctx)
		if err != nil && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		if err := send(&event, token); err != nil {
			return err
		}
		quiet.Reset(Heartbeat)
	}
}
