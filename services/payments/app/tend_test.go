package app

import (
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/services/payments/internal/simulator"
)

// hurried is a clock on which a millisecond is a second.
type hurried struct{ began time.Time }

func (h hurried) Now() time.Time { return h.began.Add(1000 * time.Since(h.began)) }

func (h hurried) After(d time.Duration) <-chan time.Time { return clock.System().After(d / 1000) }

// TestWhatNobodyCallsForIsDoneWhileTheServiceRuns has a running service release what was not captured in time, ask again about what a
// processor has not answered, and forget keys that are old.
func TestWhatNobodyCallsForIsDoneWhileTheServiceRuns(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := listen(t, "127.0.0.1:0")
	startAuth(t, filepath.Join(dir, "pki"), l)
	cfg := config(dir, "passthrough:///"+l.Addr().String())
	cfg.AuthorizationExpiry, cfg.KeyRetention = 30*time.Second, 2*time.Minute
	d := deps(t.Output())
	d.Clock = hurried{time.Now()}
	a := runWith(t, cfg, d)
	orders := dial(t, a, "orders", "")
	ctx := limit(t)
	watch, err := orders.WatchTransactions(ctx, &paymentsv1.WatchTransactionsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	// until waits until the watch has told of something of an order.
	until := func(order string, what paymentsv1.TransactionType) {
		t.Helper()
		for {
			got, err := watch.Recv()
			if err != nil {
				t.Fatalf("while waiting for %v of %s: %v", what, order, err)
			}
			if tx := got.GetTransaction(); tx.GetPayment().GetOrderId() == order && tx.GetType() == what {
				return
			}
		}
	}

	held := request("held", ann)
	held.OrderId, held.Capture = "held", new(bool)
	if _, err := orders.Charge(ctx, held); err != nil {
		t.Fatal(err)
	}
	until("held", paymentsv1.TransactionType_TRANSACTION_TYPE_EXPIRED)

	open := request("open", ann)
	open.OrderId, open.PaymentToken = "open", simulator.Flaky
	_, err = orders.Charge(ctx, open)
	kittest.WantFault(t, err, codes.Unavailable, "PROCESSOR_UNAVAILABLE")
	until("open", paymentsv1.TransactionType_TRANSACTION_TYPE_CHARGED)

	first, err := orders.Charge(ctx, request("old", ann))
	for again := first; err == nil && again.GetPayment().GetPaymentId() == first.GetPayment().GetPaymentId(); {
		again, err = orders.Charge(ctx, request("old", ann)) // a replay, for as long as the key is kept
	}
	if err != nil {
		t.Fatalf("while the key is kept: %v", err)
	}
	a.verify(t)
}
