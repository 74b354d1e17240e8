package server

import (
	"context"
	"errors"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/policy"
	"github.com/concordat-dev/concordat/kit/telemetry"
	"github.com/concordat-dev/concordat/kit/usage"
)

// call is what the path knows of one call, unary or stream. It is the context that the handler gets (context.go).
type call struct {
	identity.Call // the caller, once that is decided, and the request id

	server  *Server
	method  *policy.Method // nil for a method that nobody declared
	name    string         // the full name, as it came
	header  metadata.MD    // what came with it; not to be changed
	conn    *connection
	started time.Time
	tell    *telemetry.Method // what is told of the method
	trace   telemetry.Trace
	coming  sync.Mutex
	last    proto.Message // the last message that came, under coming
	tally   *usage.Tally  // nil where nobody counts the fields of its messages

	credentials policy.Credentials // what it came with
	fault       *fault.Fault       // what it was answered with

	announced      arrival   // the context of the transport's stream
	earlier, later *call     // among those that no handler has taken up
	waiting        bool      // it is among them
	found          int       // how often it was found to have ended there
	ended          time.Time // when that was first found, up to lostEvery late

	deadline time.Time               // zero until it is known
	cause    error                   // what its end is called
	cancel   context.CancelCauseFunc // nil where the transport ends the stream in time
	timer    *time.Timer             // calls cancel at the deadline
	bound    atomic.Pointer[bound]
	bounding sync.Mutex // guards the making of bound, and over
	over     bool

	body   handler // what is below the last step
	stream serverStream
	reply  any // what the handler of a unary call returned

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

// path is what every call goes through, outermost first. It begins when the transport announces the call (arrival.go).
func (s *Server) path() []step {
	return []step{
		observe(s),      // sees every outcome, refusals included
		faults(s),       // error to status; nothing internal leaves
		recoverPanic(s), // a panic below is one more internal fault
		deadline(s),     // no call is for ever
		authenticate(s), // who is it
		authorize(s),    // may they: a method without a policy is a no
		limit(s),        // how often
		receive(s),      // the message of a client that does not stream: of nobody else is one read
		admit(s),        // not more than can be done in time
		validate(s),     // does the request keep the contract's promises
		use(s),          // which fields of the contract does it fill in
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

func (s *Server) check(c *call, m proto.Message) error {
	for _, check := range s.checks {
		if err := check(c, m); err != nil {
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

// serve takes up a call that was announced: every method of every service is registered with it (register.go).
func (s *Server) serve(ss grpc.ServerStream, body handler) error {
	c := callFrom(ss.Context())
	if !s.arrivals.take(c) {
		return context.Canceled // it was told to have ended
	}
	c.Context = s.telemetry.Begin(ss.Context(), &c.trace, c.tell, c.header, c.started)
	c.body = body
	c.stream.open(ss, c)
	defer c.end()
	return s.run(c)
}

// unary is the body of a call with one message each way.
func unary(srv any, h grpc.MethodHandler) handler {
	return func(c *call) (err error) {
		c.reply, err = h(srv, c, c.stream.RecvMsg, nil)
		return err
	}
}

// streaming is the body of every other call.
func streaming(srv any, h grpc.StreamHandler) handler {
	return func(c *call) error { return h(srv, &c.stream) }
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
