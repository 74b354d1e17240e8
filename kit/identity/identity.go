// Package identity says who is calling. The request path finds it out and puts it into the context; handlers
// read it.
package identity

import (
	"context"
	"slices"
	"time"
)

// User is the person or script that an access token speaks for.
type User struct {
	// ID is the subject of the token.
	ID string
	// SessionID names the session that the token belongs to.
	SessionID string
	// Scopes are what the token allows.
	Scopes []string
	// IssuedAt is when the token was made, to the microsecond.
	IssuedAt time.Time
	// ExpiresAt is when the token ends.
	ExpiresAt time.Time
}

// Caller is who a call is from. At most one of User and service holds: a call that carries a token is judged as
// the user's, whoever forwards it.
type Caller struct {
	// User is set where the call was judged by its access token.
	User *User
	// Peer is the SPIFFE name at the other end of the connection: "gateway", "payments", "developer".
	Peer string
	// AsService is true where the call was judged by the certificate of its peer.
	AsService bool
	// Address is where the call came from: the address that the edge saw, else that of the connection, without
	// port.
	Address string
}

// UserID returns the id of the user, or "" where the call is nobody's.
func (c Caller) UserID() string {
	if c.User == nil {
		return ""
	}
	return c.User.ID
}

// Service returns the name of the calling service, or "" where the call was not judged as a service's.
func (c Caller) Service() string {
	if !c.AsService {
		return ""
	}
	return c.Peer
}

// Has reports whether the caller's token carries the scope. A service carries none: what it may do is a matter
// of the method's policy.
func (c Caller) Has(scope string) bool {
	return c.User != nil && slices.Contains(c.User.Scopes, scope)
}

// Key identifies the caller among all: the scope of idempotency keys, page tokens and rates.
func (c Caller) Key() string {
	switch {
	case c.User != nil:
		return "user:" + c.User.ID
	case c.AsService:
		return "service:" + c.Peer
	default:
		return "address:" + c.Address
	}
}

// Call is the context of one call: what the request path finds out stands in it, and is found through the context without
// a chain of values, one for each thing. The path owns it and writes it before it hands it on.
type Call struct {
	context.Context
	// Caller is who the call is from.
	Caller Caller
	// RequestID is the id of the request.
	RequestID string
}

type (
	callerKey  struct{}
	requestKey struct{}
)

// Value implements context.Context.
func (c *Call) Value(key any) any {
	if v := c.Own(key); v != nil {
		return v
	}
	return c.Context.Value(key)
}

// Own returns what Value does for the things that stand in the Call itself, and nil for every other key.
func (c *Call) Own(key any) any {
	switch key.(type) {
	case callerKey:
		return &c.Caller
	case requestKey:
		return &c.RequestID
	}
	return nil
}

// With returns a context that carries the caller.
func With(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, &c)
}

// From returns the caller of the call that ctx belongs to: the zero Caller, who may do nothing, outside of one.
func From(ctx context.Context) Caller {
	if c, ok := ctx.Value(callerKey{}).(*Caller); ok {
		return *c
	}
	return Caller{}
}

// WithRequestID returns a context that carries the id of the request.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestKey{}, &id)
}

// RequestID returns the id of the request that ctx belongs to, "" outside of one.
func RequestID(ctx context.Context) string {
	if id, ok := ctx.Value(requestKey{}).(*string); ok {
		return *id
	}
	return ""
}
