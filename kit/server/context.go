package server

import (
	"context"
	"time"
)

// The call is the context of its handler: what the path finds out is read from its fields, and its deadline costs nothing
// until somebody waits for it. Most calls answer without ever asking, and for them a timer, a context and a place among the
// parent's children would be made and undone for nothing: the first Done makes them.

var _ context.Context = (*call)(nil)

// bound is a deadline that somebody waits for.
type bound struct {
	ctx    context.Context
	cancel context.CancelFunc
}

// until bounds the call, by the earliest of its deadlines. It is for the steps before the handler: once somebody waits, it
// is too late.
func (c *call) until(deadline time.Time, cause error) {
	if c.deadline.IsZero() || deadline.Before(c.deadline) {
		c.deadline, c.cause = deadline, cause
		if c.cancel != nil {
			if c.timer != nil {
				c.timer.Stop()
			}
			c.timer = time.AfterFunc(time.Until(deadline), func() { c.cancel(cause) })
		}
	}
}

// Deadline implements context.Context.
func (c *call) Deadline() (time.Time, bool) {
	if c.deadline.IsZero() {
		return c.Context.Deadline()
	}
	return c.deadline, true
}

// Done implements context.Context.
func (c *call) Done() <-chan struct{} { return c.bounded().Done() }

// Err implements context.Context.
func (c *call) Err() error {
	if b := c.bound.Load(); b != nil {
		return b.ctx.Err()
	}
	if err := c.Context.Err(); err != nil || c.deadline.IsZero() || time.Now().Before(c.deadline) {
		return err
	}
	return c.bounded().Err()
}

// Value implements context.Context. What context itself looks for is found in the bound, once there is one: that is how a
// context below this one learns its end and the cause of it.
func (c *call) Value(key any) any {
	if key == (callKey{}) {
		return c
	}
	if v := c.Own(key); v != nil {
		return v
	}
	if v := c.trace.Value(key); v != nil {
		return v
	}
	if b := c.bound.Load(); b != nil {
		return b.ctx.Value(key)
	}
	return c.Context.Value(key)
}

// bounded returns the context that ends with the call's deadline.
func (c *call) bounded() context.Context {
	if b := c.bound.Load(); b != nil {
		return b.ctx
	}
	if c.deadline.IsZero() || c.cancel != nil {
		return c.Context
	}
	c.bounding.Lock()
	defer c.bounding.Unlock()
	if b := c.bound.Load(); b != nil {
		return b.ctx
	}
	ctx, cancel := context.WithDeadlineCause(c.Context, c.deadline, c.cause)
	if c.over {
		cancel()
	}
	c.bound.Store(&bound{ctx, cancel})
	return ctx
}

// end ends the context with the call.
func (c *call) end() {
	c.stream.request.Free()
	if c.timer != nil {
		c.timer.Stop()
	}
	if c.cancel != nil {
		c.cancel(nil)
	}
	c.bounding.Lock()
	defer c.bounding.Unlock()
	c.over = true
	if b := c.bound.Load(); b != nil {
		b.cancel()
	}
}
