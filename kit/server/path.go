package server

import (
	"context"
	"errors"
	"io"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/grpcfault"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/policy"
	"github.com/concordat-dev/concordat/kit/telemetry"
)

// call is what the path knows of one call, unary or stream. It is the context that the handler gets (context.go).
type call struct {
	identity.Call // the caller, once that is decided, and the request id

	server  *Server
	method  *policy.Method // nil for a method that nobody declared
	name    string         // the full name, as it came
	started time.Time
	tell    *telemetry.Method // what is told of the method
	trace   telemetry.Trace
	last    proto.Message // the last message that came

	credentials policy.Credentials // what it came with
	fault       *fault.Fault       // what it was answered with

	deadline time.Time // zero until it is known
	cause    error     // what its end is called
	bound    atomic.Pointer[bound]
	bounding sync.Mutex // guards the making of bound, and over
	over     bool

	body      handler           // what is below the last step
	handle    grpc.UnaryHandler // of a unary call, with its request and response
	req, resp any

	received, sent           atomic.Int64 // messages
	receivedBytes, sentBytes atomic.Int64 // payload, uncompressed
}

// handler is what is left of the path below a step.
type handler func(c *call) error

// step is one concern of the path. It is written once and holds for unary calls and streams alike.
type step struct {
	name string
	// around runs once a call, around all that is below.
	around func(next handler) handler
	// message runs for each message received, before the handler sees it; nil where there is nothing to do.
	message func(c *call, m proto.Message) error
}

// path is what every call goes through, outermost first. What never reaches it, because the transport already failed
// it, is seen by the stats handler (observe.go).
func (s *Server) path() []step {
	return []step{
		observe(s),      // sees every outcome, refusals included
		faults(s),       // error to status; nothing internal leaves
		recoverPanic(s), // a panic below is one more internal fault
		deadline(s),     // no call is for ever
		authenticate(s), // who is it
		authorize(s),    // may they: a method without a policy is a no
		limit(s),        // how often
		validate(s),     // does the request keep the contract's promises
	}
}

// compose makes one handler and one message check of the steps.
func (s *Server) compose(steps []step) {
	next := handler(func(c *call) error { return c.body(c) })
	for i := len(steps) - 1; i >= 0; i-- {
		if steps[i].around != nil {
			next = steps[i].around(next)
		}
	}
	s.run = next
	for _, st := range steps {
		if st.message != nil {
			s.checks = append(s.checks, st.message)
		}
	}
}

func (s *Server) check(c *call, m any) error {
	pm, ok := m.(proto.Message)
	if !ok {
		return nil // a forwarding server's frame: its path has no message steps
	}
	for _, check := range s.checks {
		if err := check(c, pm); err != nil {
			return err
		}
	}
	return nil
}

type callKey struct{}

func callFrom(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// unary is the interceptor of calls with one message each way.
func (s *Server) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
	c := callFrom(ctx)
	c.Context, c.body, c.handle, c.req = ctx, answer, h, req
	defer c.end()
	if err := s.run(c); err != nil {
		return nil, err
	}
	return c.resp, nil
}

// answer is the body of a unary call.
func answer(c *call) (err error) {
	if err := c.server.check(c, c.req); err != nil {
		return err
	}
	c.resp, err = c.handle(c, c.req)
	return err
}

// stream is the interceptor of every other call.
func (s *Server) stream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
	c := callFrom(ss.Context())
	c.Context = ss.Context()
	c.body = func(c *call) error {
		wrapped := &serverStream{ServerStream: ss, call: c}
		done := make(chan error, 1)
		go func() {
			done <- safely(func() error { return h(srv, wrapped) })
		}()
		select {
		case err := <-done:
			return err
		case <-c.Done():
		}
		// The call is over. A handler that watches its context ends by itself and says where to resume; one that sits in
		// a receive, which only the transport can end, is left behind: the stream ends without it, and so does it then.
		last := time.NewTimer(unwind)
		defer last.Stop()
		select {
		case err := <-done:
			return err
		case <-last.C:
			wrapped.over.Store(true)
			return context.Cause(c)
		}
	}
	defer c.end()
	return s.run(c)
}

// unwind is how long a handler has to return once its context has ended.
const unwind = 200 * time.Millisecond

// serverStream is a stream whose messages go through the path.
type serverStream struct {
	grpc.ServerStream
	call *call
	over atomic.Bool
	told atomic.Bool // the request id is in the headers
}

func (s *serverStream) Context() context.Context { return s.call }

func (s *serverStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		if errors.Is(err, io.EOF) {
			return err
		}
		return unread(s.call, err)
	}
	return s.call.server.check(s.call, m)
}

func (s *serverStream) SendMsg(m any) error {
	if s.over.Load() {
		return context.Cause(s.call)
	}
	if !s.told.Swap(true) {
		_ = s.SetHeader(metadata.Pairs(RequestIDHeader, s.call.RequestID)) // fails only where the handler has sent headers
	}
	return streamFault(s.call, s.ServerStream.SendMsg(m))
}

var errTooLarge = fault.New(fault.ResourceExhausted, "MESSAGE_TOO_LARGE", "a message is larger than the server takes").
	WithDomain(fault.Domain)

// streamFault turns an error of the transport into one whose text is ours. io.EOF and nil stay.
func streamFault(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	st, ok := status.FromError(err)
	if !ok {
		return err // io.EOF
	}
	if f := grpcfault.FromStatus(st.Proto()); f.Kind() == fault.ResourceExhausted {
		return errTooLarge.Because(err)
	} else {
		return f.WithText("the stream is broken").Because(err)
	}
}

// errPanic carries a panic's value and stack to the log.
type errPanic struct {
	value any
	stack []byte
}

func (e *errPanic) Error() string { return "panic in the handler" }

// safely turns a panic of f into an error. Only the log sees what it said.
func safely(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &errPanic{value: v, stack: debug.Stack()}
		}
	}()
	return f()
}

func panicOf(err error) *errPanic {
	var p *errPanic
	errors.As(err, &p)
	return p
}
