package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/concordat-dev/concordat/kit/client"
	"github.com/concordat-dev/concordat/kit/grpcfault"
	"github.com/concordat-dev/concordat/services/gateway/internal/contract"
)

// RequestIDHeader carries the id of a request: accepted from the caller where ValidRequestID says so, made otherwise,
// returned in the headers of an answer and the trailers of an error, and sent on.
const RequestIDHeader = client.RequestIDHeader

// ValidRequestID reports whether a caller may name its request so: up to 64 letters, digits and "-_.".
func ValidRequestID(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	}) < 0
}

// Origin is what another listener knows of a call that it hands to Server.ServeHTTP, and what it learns of it.
type Origin struct {
	// RequestID is the id of the request, which that listener has told the caller already.
	RequestID string
	// Address is the address of the caller, without port.
	Address string
	// Protocol is what the caller speaks, for the log.
	Protocol string

	mu      sync.Mutex
	reached bool
	failure error
	code    codes.Code
	ended   bool
}

type originKey struct{}

// WithOrigin returns the context of a request whose call has that origin.
func WithOrigin(ctx context.Context, o *Origin) context.Context {
	return context.WithValue(ctx, originKey{}, o)
}

// Fail tells the forwarder that what it reads of the request is cut off, and why. The first call counts.
func (o *Origin) Fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failure == nil {
		o.failure = err
	}
}

// Failed reports whether Fail was called.
func (o *Origin) Failed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failure != nil
}

// Reached reports whether the request became a call, which has a line of its own in the log.
func (o *Origin) Reached() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.reached
}

// Code returns how the call ended; ok is false where it has not.
func (o *Origin) Code() (code codes.Code, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.code, o.ended
}

// call is what the edge knows of one call.
type call struct {
	name     string
	method   *contract.Method // nil for what is not of the contract
	id       string
	address  string
	protocol string
	started  time.Time
	origin   *Origin // nil on a listener of our own
	cause    error   // what the caller is not told
	told     bool    // whether the caller has the id; only the goroutine that answers looks
}

type callKey struct{}

func callFrom(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// failure returns why the request is cut off, nil where it is not.
func (c *call) failure() error {
	if c.origin == nil {
		return nil
	}
	c.origin.mu.Lock()
	defer c.origin.mu.Unlock()
	return c.origin.failure
}

func (f *Forwarder) open(ctx context.Context, name string) (context.Context, *call) {
	c := &call{name: name, started: f.cfg.Clock.Now(), protocol: "grpc"}
	if o, ok := ctx.Value(originKey{}).(*Origin); ok {
		c.origin, c.id, c.address, c.protocol = o, o.RequestID, o.Address, o.Protocol
		o.mu.Lock()
		o.reached = true
		o.mu.Unlock()
	} else {
		if v := metadata.ValueFromIncomingContext(ctx, RequestIDHeader); len(v) == 1 && ValidRequestID(v[0]) {
			c.id = v[0]
		} else {
			c.id = f.cfg.NewID()
		}
		if p, ok := peer.FromContext(ctx); ok {
			c.address = f.ClientAddress(p.Addr.String(), forwardedOf(ctx))
		}
	}
	return context.WithValue(ctx, callKey{}, c), c
}

func (f *Forwarder) observeUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (resp any, err error) {
	ctx, c := f.open(ctx, info.FullMethod)
	defer func() { err = f.close(ctx, c, recover(), err) }()
	return h(ctx, req)
}

func (f *Forwarder) observeStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) (err error) {
	ctx, c := f.open(ss.Context(), info.FullMethod)
	defer func() { err = f.close(ctx, c, recover(), err) }()
	return h(srv, observed{ss, ctx, c})
}

// observed is a stream whose first answer brings the id of the request.
type observed struct {
	grpc.ServerStream
	ctx  context.Context
	call *call
}

func (o observed) Context() context.Context { return o.ctx }

func (o observed) SendHeader(md metadata.MD) error {
	o.call.tell(o.SetHeader)
	return o.ServerStream.SendHeader(md)
}

func (o observed) SendMsg(m any) error {
	o.call.tell(o.SetHeader)
	return o.ServerStream.SendMsg(m)
}

// tell gives the caller the id of the request, once, unless another listener has. set fails only where it is too late.
func (c *call) tell(set func(metadata.MD) error) {
	if c.origin == nil && !c.told {
		c.told = true
		_ = set(metadata.Pairs(RequestIDHeader, c.id))
	}
}

// panicError carries a panic's value and stack to the log.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// close ends the call: a panic becomes an internal error, and the log gets its line.
func (f *Forwarder) close(ctx context.Context, c *call, panicked any, err error) error {
	if panicked != nil {
		err = c.refuse(broken(&panicError{value: panicked, stack: debug.Stack()}))
	}
	code := status.Code(err)
	if c.origin != nil {
		c.origin.mu.Lock()
		c.origin.code, c.origin.ended = code, true
		c.origin.mu.Unlock()
	}
	if err == nil {
		c.tell(func(md metadata.MD) error { return grpc.SetHeader(ctx, md) })
	} else { // headers before an error would keep clients from repeating the call
		c.tell(func(md metadata.MD) error { return grpc.SetTrailer(ctx, md) })
	}
	f.log(ctx, c, code, err)
	return err
}

func (f *Forwarder) log(ctx context.Context, c *call, code codes.Code, err error) {
	level := slog.LevelInfo
	switch {
	case code == codes.Internal, code == codes.Unknown, code == codes.DataLoss:
		level = slog.LevelError
	case c.method == nil:
		level = slog.LevelDebug // health and reflection, and names that nobody declared
	}
	if !f.cfg.Log.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 10)
	attrs = append(attrs,
		slog.String("method", c.name),
		slog.String("code", code.String()),
		slog.Duration("took", f.cfg.Clock.Now().Sub(c.started).Round(time.Microsecond)),
		slog.String("request_id", c.id),
		slog.String("protocol", c.protocol),
		slog.String("address", c.address),
	)
	if err != nil {
		attrs = append(attrs, slog.String("reason", grpcfault.FromError(err).Reason()))
	}
	if c.cause != nil {
		attrs = append(attrs, slog.String("cause", c.cause.Error()))
	}
	if p := new(panicError); errors.As(c.cause, &p) {
		attrs = append(attrs, slog.String("stack", string(p.stack)))
	}
	f.cfg.Log.LogAttrs(ctx, level, "call", attrs...)
}
