package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/server"
)

const (
	// chargeWindow is how many charges of a stream are under way at most: read, and their answer not yet sent. While it is
	// full nothing more is read, which the transport's flow control passes on to the client.
	chargeWindow = 64
	// chargeTimeout bounds one charge of a stream, as the policy of Charge bounds a call.
	chargeTimeout = 5 * time.Second
)

// errChargeMissing: a request of a stream has no charge.
var errChargeMissing = fault.New(fault.InvalidArgument, "INVALID_REQUEST", "the request breaks the rules of its message").
	WithDomain(fault.Domain).
	WithViolation("charge", "required", "value is required")

type (
	chargeStream   = grpc.BidiStreamingServer[paymentsv1.ProcessChargesRequest, paymentsv1.ProcessChargesResponse]
	chargeRequest  = paymentsv1.ProcessChargesRequest
	chargeResponse = paymentsv1.ProcessChargesResponse
)

// ProcessCharges charges many customers over one stream.
func (s *Server) ProcessCharges(stream chargeStream) error {
	return pipeline(stream, server.Draining(stream.Context()), s.process)
}

// pipeline answers each request of the stream with what process makes of it, up to chargeWindow of them at once. One
// goroutine reads, each charge has one of its own, and the caller's sends the answers.
//
// It returns nil once the client is done and all is answered, server.ErrDraining once draining is closed and all that
// was received is answered, the error of the stream, or why its context ended.
func pipeline(
	stream chargeStream, draining <-chan struct{}, process func(context.Context, *chargeRequest) *chargeResponse,
) error {
	ctx, cancel := context.WithCancel(stream.Context())
	in := &intake{
		stream: stream,
		window: make(chan struct{}, chargeWindow),
		items:  make(chan *chargeRequest, chargeWindow),
		ended:  make(chan error, 1),
		stop:   make(chan struct{}),
	}
	var charging sync.WaitGroup
	defer charging.Wait()
	defer cancel()
	defer in.close()
	// A receive that waits is ended by the transport alone, once the handler has returned. So nobody waits for the reader.
	go in.read()

	var (
		answers = make(chan *chargeResponse, chargeWindow) // has room for all, so that no charge waits for the client
		ended   = in.ended                                 // nil once nothing more is read
		open    = 0                                        // charges under way
		result  error
	)
	for ended != nil || open > 0 || len(in.items) > 0 {
		select {
		case req := <-in.items:
			open++
			charging.Go(func() { answers <- process(ctx, req) })
		case answer := <-answers:
			open--
			if err := stream.Send(answer); err != nil {
				return fmt.Errorf("answer charge: %w", err)
			}
			<-in.window
		case err := <-ended:
			// What was read before is answered all the same.
			ended, draining = nil, nil
			if !errors.Is(err, io.EOF) {
				result = fmt.Errorf("receive charge: %w", err)
			}
		case <-draining:
			ended, draining = nil, nil
			in.close()
			result = server.ErrDraining
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return result
}

// intake is the reading side of a stream of charges.
type intake struct {
	stream chargeStream
	window chan struct{}       // holds a value for each charge that was read and not yet answered
	items  chan *chargeRequest // has room for the window: the reader waits for the window alone
	ended  chan error          // gets why reading ended, after the last item; io.EOF when the client is done
	stop   chan struct{}
	once   sync.Once
}

// read reads until the stream ends or close is called.
func (in *intake) read() {
	for {
		select {
		case <-in.stop:
			return
		case in.window <- struct{}{}:
		}
		req, err := in.stream.Recv()
		if err != nil {
			in.ended <- err
			return
		}
		in.items <- req
	}
}

// close lets the reader end at its next step.
func (in *intake) close() { in.once.Do(func() { close(in.stop) }) }

// process answers one charge of a stream.
func (s *Server) process(ctx context.Context, req *chargeRequest) *chargeResponse {
	resp := &chargeResponse{IdempotencyKey: req.GetCharge().GetIdempotencyKey()}
	payment, replayed, err := s.processCharge(ctx, req.GetCharge())
	if err != nil {
		if ctx.Err() == nil {
			s.report(ctx, req.GetCharge(), err)
		}
		resp.Result = &paymentsv1.ProcessChargesResponse_Error{Error: server.PartStatus(ctx, req.GetCharge(), err, domain)}
		return resp
	}
	resp.Result = &paymentsv1.ProcessChargesResponse_Payment{Payment: payment}
	resp.Replayed = replayed
	return resp
}

// processCharge does what Charge does behind the request path: time limit, rules of the message, the charge.
func (s *Server) processCharge(
	ctx context.Context, req *paymentsv1.ChargeRequest,
) (payment *paymentsv1.Payment, replayed bool, err error) {
	// The request path guards the goroutine of the handler, not this one.
	defer func() {
		if v := recover(); v != nil {
			s.log.ErrorContext(ctx, "panic in a charge", "panic", server.PartText(ctx, req, v),
				"stack", server.PartText(ctx, req, string(debug.Stack())), "request_id", identity.RequestID(ctx))
			err = errPanic
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, chargeTimeout)
	defer cancel()
	if req == nil {
		return nil, false, errChargeMissing
	}
	if err := server.Validate(ctx, req); err != nil {
		return nil, false, err
	}
	outcome, err := s.charge(ctx, req)
	if err != nil {
		return nil, false, err
	}
	return toProto(outcome.Payment), outcome.Replayed, nil
}

// errPanic stands for a panic that has been logged.
var errPanic = errors.New("panic in a charge")

// report writes down an error that the client is not told and that ends here: the stream goes on without it.
func (s *Server) report(ctx context.Context, req *paymentsv1.ChargeRequest, err error) {
	if errors.Is(err, errPanic) || fault.KindOf(err) != fault.Internal {
		return
	}
	s.log.LogAttrs(ctx, slog.LevelError, "charge of a stream",
		slog.String("cause", server.PartText(ctx, req, err)), slog.String("request_id", identity.RequestID(ctx)))
}
