package forward

import (
	"context"
	"errors"
	"io"
	"runtime/debug"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/grpcfault"
	"github.com/concordat-dev/concordat/kit/server"
	"github.com/concordat-dev/concordat/services/gateway/internal/contract"
	"github.com/concordat-dev/concordat/services/gateway/internal/upstream"
)

// pass is one call on its way through: down is the caller's side, up the service's.
type pass struct {
	call   *call
	method *contract.Method
	drain  context.Context
	down   grpc.ServerStream
	up     grpc.ClientStream
	ctx    context.Context // of up; its cause says why we ended it
	cancel context.CancelCauseFunc
	ending upstream.Ending
	first  frame // the request of a method that has one

	sending sync.Mutex // guards sends to up, and what follows
	closed  bool       // nothing more is sent
	short   bool       // closed before the caller had finished
}

// begin reads the request of a method that has one and opens the call to the service.
func (f *Forwarder) begin(c *call, m *contract.Method, down grpc.ServerStream) (*pass, error) {
	p := &pass{call: c, method: m, drain: f.drain, down: down}
	if !m.ClientStream {
		if err := down.RecvMsg(&p.first); err != nil {
			return nil, c.received(err)
		}
	}
	ctx, err := outgoing(down.Context(), c)
	if err != nil {
		p.first.free()
		return nil, err
	}
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	desc := &grpc.StreamDesc{ClientStreams: m.ClientStream, ServerStreams: m.ServerStream}
	p.up, err = f.cfg.Conn(m.Upstream).NewStream(upstream.Keep(p.ctx, &p.ending), desc, c.name, grpc.ForceCodecV2(newCodec()))
	if err != nil {
		p.first.free()
		p.cancel(nil)
		return nil, p.ended(err)
	}
	return p, nil
}

// received returns the error of a call whose next request did not come.
func (c *call) received(err error) error {
	switch failure := c.failure(); {
	case failure != nil:
		return failure
	case errors.Is(err, io.EOF):
		return errNoMessage
	default:
		return ReceiveFault(err)
	}
}

// run passes messages until the service has ended the call, or we have.
func (p *pass) run() error {
	defer p.cancel(nil)
	if p.method.Streams() {
		defer context.AfterFunc(p.drain, p.stop)()
	}
	if p.method.ClientStream {
		go p.pumpRequests()
	} else {
		err := p.up.SendMsg(&p.first)
		p.first.free()
		if err != nil && !errors.Is(err, io.EOF) { // then the status comes by receiving
			return p.call.refuse(p.ended(broken(err)))
		}
	}
	err := p.pumpResponses()
	p.down.SetTrailer(returned(p.up.Trailer()))
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return p.call.refuse(p.ended(err))
	case p.cutShort():
		return p.call.refuse(server.ErrDraining)
	default:
		return nil
	}
}

// stop ends a stream because the process stops. In both directions the service hears that nothing more comes, answers
// what it has, and ends the stream; every other stream would not end by that, or would look finished.
func (p *pass) stop() {
	if p.method.ClientStream && p.method.ServerStream {
		p.closeSend(true)
	} else {
		p.cancel(server.ErrDraining)
	}
}

// pumpRequests sends on what the caller sends, until the caller has finished or cannot be understood.
func (p *pass) pumpRequests() {
	defer func() {
		if v := recover(); v != nil {
			p.cancel(&panicError{value: v, stack: debug.Stack()})
		}
	}()
	for {
		var f frame
		if err := p.down.RecvMsg(&f); err != nil {
			if errors.Is(err, io.EOF) && p.call.failure() == nil {
				p.closeSend(false)
				return
			}
			p.cancel(p.call.received(err))
			return
		}
		ok := p.send(&f)
		f.free()
		if !ok {
			return
		}
	}
}

// send sends one request on and reports whether another one may follow.
func (p *pass) send(f *frame) bool {
	p.sending.Lock()
	defer p.sending.Unlock()
	if p.closed {
		return false
	}
	err := p.up.SendMsg(f)
	if err != nil && !errors.Is(err, io.EOF) {
		p.cancel(broken(err))
	}
	return err == nil
}

// closeSend tells the service that nothing more comes. short says that the caller had not finished.
func (p *pass) closeSend(short bool) {
	p.sending.Lock()
	defer p.sending.Unlock()
	if !p.closed {
		p.closed, p.short = true, short
		_ = p.up.CloseSend() // where it fails, receiving says why
	}
}

func (p *pass) cutShort() bool {
	p.sending.Lock()
	defer p.sending.Unlock()
	return p.short
}

// pumpResponses passes headers and messages back. It returns io.EOF or nil when the service has ended the call well.
func (p *pass) pumpResponses() error {
	header, err := p.up.Header()
	if err != nil {
		return err
	}
	if header != nil {
		set := p.down.SetHeader
		if p.method.ServerStream {
			set = p.down.SendHeader
		}
		if err := set(returned(header)); err != nil {
			return ReceiveFault(err)
		}
	}
	for {
		var f frame
		if err := p.up.RecvMsg(&f); err != nil {
			f.free()
			return err
		}
		err := p.down.SendMsg(&f)
		f.free()
		if err != nil {
			return ReceiveFault(err)
		}
		if !p.method.ServerStream {
			return nil
		}
	}
}

// ended returns the error of a call that did not end well: why we ended it, what the service said, that it does not
// answer, or that the caller has left.
func (p *pass) ended(err error) error {
	cause := context.Cause(p.ctx)
	over := errors.Is(cause, context.Canceled) || errors.Is(cause, context.DeadlineExceeded)
	switch {
	case cause != nil && !over:
		return cause
	case p.ending.Err != nil:
		if f := upstreamFault(p.ending.Err, p.method.Upstream); f != nil {
			return f
		}
		return said{p.ending.Err}
	case over:
		return grpcfault.Public(cause, fault.Domain)
	default:
		return err
	}
}

// said is a status that a service has given; it passes as it is.
type said struct{ error }

func (s said) Unwrap() error { return s.error }

// refuse returns the status error that the caller gets for err, and remembers err for the log.
func (c *call) refuse(err error) error {
	var verbatim said
	if errors.As(err, &verbatim) {
		return verbatim.error
	}
	c.cause = err
	if f, ok := fault.As(err); ok {
		c.cause = f.Unwrap()
	}
	return status.FromProto(statusOf(err, c.id)).Err()
}
