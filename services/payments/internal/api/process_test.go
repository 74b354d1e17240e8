package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	"github.com/concordat-dev/concordat/kit/policy"
	"github.com/concordat-dev/concordat/kit/server"
)

// wire is the client's side of a stream: it sends total charges and then whatever end says.
type wire struct {
	grpc.ServerStream
	ctx      context.Context
	total    int
	end      error         // what Recv returns after the charges; nil waits until the context ends
	slow     chan struct{} // where set, each Send takes a value from it
	broken   error         // what Send returns
	received atomic.Int64
	sent     []string // the keys that were answered, in order
}

func (w *wire) Context() context.Context { return w.ctx }

func (w *wire) Recv() (*chargeRequest, error) {
	n := int(w.received.Add(1))
	if n <= w.total {
		return &chargeRequest{Charge: &paymentsv1.ChargeRequest{IdempotencyKey: fmt.Sprint(n)}}, nil
	}
	if w.end != nil {
		return nil, w.end
	}
	<-w.ctx.Done()
	return nil, w.ctx.Err()
}

func (w *wire) Send(resp *chargeResponse) error {
	if w.slow != nil {
		select {
		case <-w.slow:
		case <-w.ctx.Done():
			return w.ctx.Err()
		}
	}
	if w.broken != nil {
		return w.broken
	}
	w.sent = append(w.sent, resp.GetIdempotencyKey())
	return nil
}

// echo answers at once.
func echo(_ context.Context, req *chargeRequest) *chargeResponse {
	return &chargeResponse{IdempotencyKey: req.GetCharge().GetIdempotencyKey()}
}

// gate answers when it is opened, or when the context ends.
type gate struct {
	open     chan struct{}
	canceled atomic.Int64
}

func (g *gate) process(ctx context.Context, req *chargeRequest) *chargeResponse {
	select {
	case <-g.open:
	case <-ctx.Done():
		g.canceled.Add(1)
	}
	return echo(ctx, req)
}

// run runs a pipeline in the bubble of the test and returns where its end comes out.
func run(w *wire, draining <-chan struct{}, process func(context.Context, *chargeRequest) *chargeResponse) <-chan error {
	done := make(chan error, 1)
	go func() { done <- pipeline(w, draining, process) }()
	return done
}

func inBubble(t *testing.T, test func(t *testing.T, ctx context.Context, leave func(error))) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, leave := context.WithCancelCause(context.Background())
		defer leave(nil)
		test(t, ctx, leave)
	})
}

func TestNothingMoreIsReadWhileTheWindowIsFullOfChargesUnderWay(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ func(error)) {
		w, g := &wire{ctx: ctx, total: 1000, end: io.EOF}, &gate{open: make(chan struct{})}
		done := run(w, nil, g.process)
		for answered := range 3 {
			synctest.Wait()
			if got := int(w.received.Load()); got != chargeWindow+answered {
				t.Fatalf("%d charges were read with %d answered, want %d", got, answered, chargeWindow+answered)
			}
			g.open <- struct{}{} // one charge more is done
		}
		close(g.open)
		if err := <-done; err != nil || len(w.sent) != 1000 {
			t.Errorf("%d answers, %v", len(w.sent), err)
		}
	})
}

func TestNothingMoreIsReadWhileTheClientDoesNotTakeItsAnswers(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ func(error)) {
		w := &wire{ctx: ctx, total: 1000, end: io.EOF, slow: make(chan struct{})}
		done := run(w, nil, echo)
		for taken := range 3 {
			synctest.Wait()
			if got := int(w.received.Load()); got != chargeWindow+taken {
				t.Fatalf("%d charges were read with %d answers taken, want %d", got, taken, chargeWindow+taken)
			}
			w.slow <- struct{}{}
		}
		close(w.slow)
		if err := <-done; err != nil || len(w.sent) != 1000 {
			t.Errorf("%d answers, %v", len(w.sent), err)
		}
	})
}

func TestEachChargeIsAnsweredOnceAndTheStreamEndsWellWhenTheClientIsDone(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ func(error)) {
		for _, total := range []int{0, 1, chargeWindow, chargeWindow + 1, 500} {
			w := &wire{ctx: ctx, total: total, end: io.EOF}
			if err := pipeline(w, nil, echo); err != nil {
				t.Errorf("%d charges: %v", total, err)
			}
			seen := map[string]bool{}
			for _, key := range w.sent {
				seen[key] = true
			}
			if len(w.sent) != total || len(seen) != total {
				t.Errorf("%d charges: %d answers of %d keys", total, len(w.sent), len(seen))
			}
		}
	})
}

func TestADrainAnswersWhatWasReceivedAndEndsTheStream(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, leave func(error)) {
		draining := make(chan struct{})
		w, g := &wire{ctx: ctx, total: 10}, &gate{open: make(chan struct{})}
		done := run(w, draining, g.process)
		synctest.Wait()
		close(draining)
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("it ended before the charges under way were answered: %v", err)
		default:
		}
		close(g.open)
		if err := <-done; !errors.Is(err, server.ErrDraining) || len(w.sent) != 10 {
			t.Errorf("%d answers, %v", len(w.sent), err)
		}
		if n := g.canceled.Load(); n != 0 {
			t.Errorf("%d charges were given up", n)
		}
	})
}

func TestADrainReadsNothingMore(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ func(error)) {
		draining := make(chan struct{})
		w, g := &wire{ctx: ctx, total: 1000, end: io.EOF}, &gate{open: make(chan struct{})}
		done := run(w, draining, g.process)
		synctest.Wait()
		close(draining)
		synctest.Wait()
		close(g.open)
		if err := <-done; !errors.Is(err, server.ErrDraining) {
			t.Errorf("got %v", err)
		}
		synctest.Wait()
		if got := int(w.received.Load()); got != chargeWindow || len(w.sent) != chargeWindow {
			t.Errorf("%d charges were read and %d answered, want %d", got, len(w.sent), chargeWindow)
		}
	})
}

func TestABrokenReceiveEndsTheStreamOnceAllIsAnswered(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ func(error)) {
		broken := errors.New("broken")
		w := &wire{ctx: ctx, total: 10, end: broken}
		if err := pipeline(w, nil, echo); !errors.Is(err, broken) || len(w.sent) != 10 {
			t.Errorf("%d answers, %v", len(w.sent), err)
		}
	})
}

func TestAClientThatIsGoneEndsTheChargesUnderWay(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, leave func(error)) {
		gone := errors.New("gone")
		w, g := &wire{ctx: ctx, total: 10}, &gate{open: make(chan struct{})}
		done := run(w, nil, g.process)
		synctest.Wait()
		leave(gone)
		if err := <-done; err == nil {
			t.Error("no error")
		}
		if n := g.canceled.Load(); n != 10 {
			t.Errorf("%d charges were told, want 10", n)
		}
	})
}

func TestAnAnswerThatCannotBeSentEndsTheChargesUnderWay(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context, _ func(error)) {
		broken := errors.New("broken")
		w, g := &wire{ctx: ctx, total: 10, broken: broken}, &gate{open: make(chan struct{})}
		done := run(w, nil, g.process)
		g.open <- struct{}{}
		if err := <-done; !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
		if n := g.canceled.Load(); n != 9 {
			t.Errorf("%d charges were told, want 9", n)
		}
	})
}

func TestAChargeOfAStreamHasAsLongAsACharge(t *testing.T) {
	t.Parallel()
	table, err := policy.Compile(serviceDescriptor())
	if err != nil {
		t.Fatal(err)
	}
	if got := table[paymentsv1.PaymentService_Charge_FullMethodName].Timeout; got != chargeTimeout {
		t.Errorf("Charge has %s, a charge of a stream %s", got, chargeTimeout)
	}
}

func serviceDescriptor() protoreflect.ServiceDescriptor {
	return paymentsv1.File_payments_v1_payment_service_proto.Services().ByName("PaymentService")
}
