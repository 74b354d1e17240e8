package main_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	"github.com/concordat-dev/concordat/kit/grpcfault"
	"github.com/concordat-dev/concordat/kit/server"
)

// TestAProcessThatIsToldToStopFinishesItsCallsAndTellsItsStreams stops the program with 200 charges under way, each of which
// waits a second for its processor, and 50 streams open.
func TestAProcessThatIsToldToStopFinishesItsCallsAndTellsItsStreams(t *testing.T) {
	t.Parallel()
	const calls, streams = 200, 50
	dir := t.TempDir()
	s := run(t, dir)
	p := at(t, s.grpc)
	p.signUp(t, "ada@example.com", request1, "")
	p.signIn(t, "ada@example.com")
	if _, err := p.charge("first", 100); err != nil {
		t.Fatal(err)
	}
	type end struct {
		err  error
		last string          // the resume point
		told map[string]bool // payments
	}
	ended := make(chan end, streams)
	for range streams {
		w, err := p.payments.WatchTransactions(p.ctx, &paymentsv1.WatchTransactionsRequest{CustomerId: p.id})
		if err != nil {
			t.Fatal(err)
		}
		first, err := w.Recv() // the resume point: it is subscribed
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			e := end{last: first.GetResumeToken(), told: map[string]bool{}}
			for {
				resp, err := w.Recv()
				if err != nil {
					e.err = err
					ended <- e
					return
				}
				e.last = resp.GetResumeToken()
				e.told[resp.GetTransaction().GetPayment().GetPaymentId()] = true
			}
		}()
	}
	var failed atomic.Int64
	paid := make(chan string, calls)
	var wg sync.WaitGroup
	for i := range calls {
		wg.Go(func() {
			resp, err := p.payments.Charge(p.ctx, &paymentsv1.ChargeRequest{
				OrderId: "o", AmountCents: 1999, Currency: "EUR", IdempotencyKey: fmt.Sprintf("slow-%d", i), CustomerId: p.id, PaymentToken: "tok_slow",
			})
			if err != nil || resp.GetPayment().GetState() != paymentsv1.PaymentState_PAYMENT_STATE_CAPTURED {
				if failed.Add(1) <= 3 {
					t.Errorf("a charge under way: %v, %v", resp.GetPayment().GetState(), err)
				}
			}
			paid <- resp.GetPayment().GetPaymentId()
		})
	}
	admin := s.find(`^ +admin +(http://\S+)`)[1] + "/metrics"
	const underWay = `grpc_server_in_flight{grpc_method="Charge",grpc_service="payments.v1.PaymentService",grpc_type="unary",service="payments"} 200`
	for end := time.Now().Add(20 * time.Second); !strings.Contains(scrape(t, admin), underWay+"\n"); {
		if time.Now().After(end) {
			t.Fatal("not all charges are under way")
		}
	}
	began := time.Now()
	if code := s.signal(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("the stop took %s", took)
	}
	wg.Wait()
	if n := failed.Load(); n > 0 {
		t.Errorf("%d of %d charges under way failed", n, calls)
	}
	var some end
	for range streams {
		some = <-ended
		if status.Code(some.err) != codes.Unavailable || !errors.Is(grpcfault.FromError(some.err), server.ErrDraining) || some.last == "" {
			t.Errorf("a stream ended with %v, behind %q", some.err, some.last)
		}
	}
	// Behind the last message that a stream brought is the rest.
	again := at(t, run(t, dir).grpc)
	again.signIn(t, "ada@example.com")
	w, err := again.payments.WatchTransactions(again.ctx, &paymentsv1.WatchTransactionsRequest{CustomerId: p.id, ResumeToken: some.last})
	if err != nil {
		t.Fatal(err)
	}
	before := len(some.told)
	for range calls {
		for id := <-paid; !some.told[id]; {
			resp, err := w.Recv()
			if err != nil {
				t.Fatalf("%d payments were told before the stop, and %d behind: %v", before, len(some.told)-before, err)
			}
			some.told[resp.GetTransaction().GetPayment().GetPaymentId()] = true
		}
	}
}
