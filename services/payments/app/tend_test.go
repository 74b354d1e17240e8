package app

import (
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/kit/kittest"
)

// What nobody calls for is done while the service runs: by its clock, and not before its time.
func TestARunningServiceDoesWhatItsTimeHasMadeToDo(t *testing.T) {
	t.Parallel()
	cfg, _ := besideAuth(t)
	cfg.AuthorizationExpiry, cfg.KeyRetention = 10*time.Minute, 20*time.Minute
	manual := clocktest.New(time.Now())
	began := manual.Now()
	a := run(t, cfg, func(d *kit.Deps) { d.Clock = manual })
	orders := dial(t, a, "orders", "")
	charge := func(key string, change func(*paymentsv1.ChargeRequest)) (p *paymentsv1.Payment, replayed bool, err error) {
		req := request(key, ann)
		if change != nil {
			change(req)
		}
		var header metadata.MD
		resp, err := orders.Charge(limit(t), req, grpc.Header(&header))
		return resp.GetPayment(), len(header.Get("idempotency-replayed")) > 0, err
	}
	// step lets time pass until something is done, or fails the test.
	step := func(what string, by time.Duration, done func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !done(); manual.Advance(by) {
			if time.Now().After(end) {
				t.Fatalf("%s: not done after %s", what, manual.Now().Sub(began))
			}
		}
	}

	flaky := func(r *paymentsv1.ChargeRequest) { r.PaymentToken = "tok_flaky" }
	_, _, err := charge("unanswered", flaky)
	kittest.WantFault(t, err, codes.Unavailable, "PROCESSOR_UNAVAILABLE")
	_, _, err = charge("unanswered", flaky)
	kittest.WantFault(t, err, codes.Aborted, "IDEMPOTENCY_KEY_IN_FLIGHT")
	step("a processor that has not answered is asked again", time.Second, func() bool {
		p, replayed, err := charge("unanswered", flaky)
		return err == nil && replayed && p.GetState() == paymentsv1.PaymentState_PAYMENT_STATE_CAPTURED
	})

	held, _, err := charge("held", func(r *paymentsv1.ChargeRequest) { r.Capture = proto.Bool(false) })
	if err != nil || held.GetState() != paymentsv1.PaymentState_PAYMENT_STATE_AUTHORIZED {
		t.Fatalf("authorized: %v, %v", held, err)
	}
	paid, _, err := charge("paid", nil)
	if err != nil {
		t.Fatal(err)
	}
	since := manual.Now()
	state := func() paymentsv1.PaymentState {
		resp, err := orders.GetPayment(limit(t), &paymentsv1.GetPaymentRequest{PaymentId: held.GetPaymentId()})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetPayment().GetState()
	}
	step("what is not captured is released", 5*time.Second, func() bool { return state() == paymentsv1.PaymentState_PAYMENT_STATE_CANCELED })
	if after := manual.Now().Sub(since); after < cfg.AuthorizationExpiry {
		t.Errorf("released after %s, want %s", after, cfg.AuthorizationExpiry)
	}
	var again *paymentsv1.Payment
	step("an old key is forgotten", time.Minute, func() bool {
		p, replayed, err := charge("paid", nil)
		if err != nil {
			t.Fatal(err)
		}
		again = p
		return !replayed
	})
	if after := manual.Now().Sub(since); after < cfg.KeyRetention || again.GetPaymentId() == paid.GetPaymentId() {
		t.Errorf("forgotten after %s, want %s; it makes %v", after, cfg.KeyRetention, again)
	}
	a.verify(t)
}
