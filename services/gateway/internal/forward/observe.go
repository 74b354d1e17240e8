package forward

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/concordat-dev/concordat/kit/client"
	"github.com/concordat-dev/concordat/kit/telemetry"
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

// OriginFrom returns the origin that WithOrigin has put into ctx.
func OriginFrom(ctx context.Context) *Origin {
	o, _ := ctx.Value(originKey{}).(*Origin)
	return o
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
	client   string // what it says it is
	protocol string
	started  time.Time
	origin   *Origin // nil on a listener of our own
	cause    error   // what the caller is not told
	told     bool    // whether the caller has the id; only the goroutine that answers looks
	handled  bool    // whether a handler has answered, and not the transport

	tell                  *telemetry.Method
	trace                 telemetry.Trace
	messagesIn, bytesIn   atomic.Int64
	messagesOut, bytesOut atomic.Int64
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

// open makes the call that the transport announces, and its context.
func (f *Forwarder) open(ctx context.Context, name string) context.Context {
	c := &call{name: name, started: f.cfg.Clock.Now(), protocol: protocols[0]}
	if o := OriginFrom(ctx); o != nil {
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
	return context.WithValue(f.tell.begin(ctx, c), callKey{}, c)
}

func (f *Forwarder) observeUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (resp any, err error) {
	defer func() { err = f.close(ctx, callFrom(ctx), recover(), err) }()
	return h(ctx, req)
}

func (f *Forwarder) observeStream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) (err error) {
	c := callFrom(ss.Context())
	defer func() { err = f.close(ss.Context(), c, recover(), err) }()
	return h(srv, observed{ss, c})
}

// observed is a stream whose first answer brings the id of the request.
type observed struct {
	grpc.ServerStream
	call *call
}

func (o observed) SendHeader(md metadata.MD) error {
	o.call.tellID(o.SetHeader)
	return o.ServerStream.SendHeader(md)
}

func (o observed) SendMsg(m any) error {
	o.call.tellID(o.SetHeader)
	return o.ServerStream.SendMsg(m)
}

// tellID gives the caller the id of the request, once, unless another listener has. set fails only where it is too late.
func (c *call) tellID(set func(metadata.MD) error) {
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

// close ends what the handler does: a panic becomes an internal error. What became of the call is told by the teller, which
// also sees the calls that never get here.
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
		c.tellID(func(md metadata.MD) error { return grpc.SetHeader(ctx, md) })
	} else { // headers before an error would keep clients from repeating the call
		c.tellID(func(md metadata.MD) error { return grpc.SetTrailer(ctx, md) })
	}
	c.handled = true
	return err
}
