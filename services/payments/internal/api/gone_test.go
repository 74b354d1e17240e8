package api_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
)

// Whoever hangs up, or runs out of time, while a charge is written cannot know what came of it. The same key tells.
func TestAClientThatIsGoneLearnsByTheSameKeyWhatCameOfItsCharge(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		limit func(context.Context) (context.Context, context.CancelFunc)
		leave bool
		codes []codes.Code // whichever side sees it first
	}{
		"it hangs up": {context.WithCancel, true, []codes.Code{codes.Canceled}},
		"it runs out of time": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Second)
		}, false, []codes.Code{codes.Unavailable, codes.DeadlineExceeded}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, t.TempDir())
			inside, open, once := make(chan struct{}), make(chan struct{}), sync.Once{}
			wait := func() {
				once.Do(func() {
					close(inside)
					<-open
				})
			}
			s.opening.Store(&wait) // the account of the customer, with the charge
			goOn := sync.OnceFunc(func() { close(open) })
			defer goOn()

			ctx, leave := row.limit(limit(t))
			defer leave()
			ended := make(chan error, 1)
			go func() {
				_, err := s.orders().Charge(ctx, request("k"))
				ended <- err
			}()
			<-inside
			if row.leave {
				leave()
			}
			if err := <-ended; !slices.Contains(row.codes, status.Code(err)) {
				t.Errorf("it ended with %v, want %v", err, row.codes)
			}
			goOn()
			var header metadata.MD
			told, err := s.orders().Charge(limit(t), request("k"), grpc.Header(&header))
			if p := told.GetPayment(); err != nil || p.GetState() != paymentsv1.PaymentState_PAYMENT_STATE_CAPTURED || p.GetCapturedCents() != 150 {
				t.Fatalf("the key tells %v, %v", told, err)
			}
			if v := header.Get("idempotency-replayed"); len(v) != 1 || v[0] != "true" {
				t.Errorf("the header says %q: it was charged by the second call", v)
			}
			list, err := s.orders().ListPayments(limit(t), &paymentsv1.ListPaymentsRequest{})
			if err != nil || len(list.GetPayments()) != 1 {
				t.Errorf("%d payments, %v", len(list.GetPayments()), err)
			}
			s.verify(t)
		})
	}
}
