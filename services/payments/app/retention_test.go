package app

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	"github.com/concordat-dev/concordat/kit/kittest"
)

// What the settings say of events, the running service keeps to: here from its second start on.
func TestTheServiceKeepsAsManyEventsAsItsSettingsSay(t *testing.T) {
	t.Parallel()
	cfg, _ := besideAuth(t)
	a := run(t, cfg)
	orders := dial(t, a, "orders", "")
	watch, err := orders.WatchTransactions(limit(t), &paymentsv1.WatchTransactionsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	begin, err := watch.Recv()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"k1", "k2"} {
		if _, err := orders.Charge(limit(t), request(key, ann)); err != nil {
			t.Fatal(err)
		}
	}
	resume := func() error {
		watch, err := orders.WatchTransactions(limit(t), &paymentsv1.WatchTransactionsRequest{ResumeToken: begin.GetResumeToken()})
		if err != nil {
			t.Fatal(err)
		}
		_, err = watch.Recv()
		return err
	}
	a.stop()
	a = run(t, cfg)
	orders = dial(t, a, "orders", "")
	if err := resume(); err != nil {
		t.Errorf("all are kept, and a watch from the beginning ends with %v", err)
	}
	a.stop()
	cfg.EventLimit = 1
	a = run(t, cfg)
	orders = dial(t, a, "orders", "")
	for end := time.Now().Add(time.Minute); ; {
		if err = resume(); err != nil || time.Now().After(end) {
			break
		}
	}
	kittest.WantFault(t, err, codes.OutOfRange, "RESUME_TOKEN_TOO_OLD")
	a.verify(t) // which asks for no event that is no longer kept
}
