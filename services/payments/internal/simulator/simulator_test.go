package simulator_test

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
	"github.com/concordat-dev/concordat/services/payments/internal/simulator"
)

func TestATokenSaysWhatBecomesOfAPayment(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		token     string
		immediate bool
		first     error // of the first question
		want      payments.Decline
	}{
		"none":               {"", true, nil, payments.NotDeclined},
		"a good one":         {simulator.OK, true, nil, payments.NotDeclined},
		"declined":           {simulator.Declined, true, nil, payments.Declined},
		"no money":           {simulator.InsufficientFunds, true, nil, payments.InsufficientFunds},
		"an old card":        {simulator.ExpiredCard, true, nil, payments.ExpiredCard},
		"none of ours":       {"tok_of_somebody_else", true, nil, payments.InvalidToken},
		"fails at first":     {simulator.Flaky, false, simulator.ErrUnreachable, payments.NotDeclined},
		"its answer is lost": {simulator.LostResponse, false, simulator.ErrUnreachable, payments.NotDeclined},
		"does not answer":    {simulator.Timeout, false, context.Canceled, payments.NotDeclined},
	} {
		s := simulator.New(clocktest.New(time.Unix(0, 0)))
		op := payments.Operation{Key: "k", Token: c.token}
		if s.Immediate(op) != c.immediate {
			t.Errorf("%s: immediate is not %v", name, c.immediate)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // what waits for an answer waits no longer
		if _, err := s.Process(ctx, op); !errors.Is(err, c.first) || c.first == nil && err != nil {
			t.Errorf("%s: the first question: %v, want %v", name, err, c.first)
		}
		if got, err := s.Process(t.Context(), op); err != nil || got != c.want {
			t.Errorf("%s: the second question: %q, %v; want %q", name, got, err, c.want)
		}
		if got, err := s.Process(ctx, payments.Operation{Key: "other", Token: c.token}); c.first != nil && err == nil {
			t.Errorf("%s: another operation is taken for the same: %q", name, got)
		}
	}
}

// A payment that was made with such a token is approved, and what its token says is declined later: at once, or by a
// processor behind a network, whose first answer does not come.
func TestATokenSaysWhatIsDeclinedLater(t *testing.T) {
	t.Parallel()
	for _, token := range []string{
		simulator.CaptureDeclined, simulator.RefundDeclined, simulator.LateCaptureDeclined, simulator.LateRefundDeclined, simulator.OK, "",
	} {
		s := simulator.New(clocktest.New(time.Unix(0, 0)))
		made := payments.Operation{Key: "made", Kind: payments.OpAuthorize, Payment: "p", Token: token}
		if got, err := s.Process(t.Context(), made); err != nil || got != payments.NotDeclined || !s.Immediate(made) {
			t.Fatalf("%q: to begin with %q, %v", token, got, err)
		}
		for kind, declines := range map[payments.OperationKind][2]string{
			payments.OpCapture: {simulator.CaptureDeclined, simulator.LateCaptureDeclined},
			payments.OpRefund:  {simulator.RefundDeclined, simulator.LateRefundDeclined},
			payments.OpCancel:  {"none", "none"},
		} {
			op := payments.Operation{Key: string(kind), Kind: kind, Payment: "p"}
			late := token == declines[1]
			want := payments.NotDeclined
			if late || token == declines[0] {
				want = payments.Declined
			}
			if s.Immediate(op) == late {
				t.Errorf("%q: %s is immediate: %v", token, kind, !late)
			}
			if late {
				if _, err := s.Process(t.Context(), op); !errors.Is(err, simulator.ErrUnreachable) {
					t.Errorf("%q: the first question for %s: %v", token, kind, err)
				}
			}
			if got, err := s.Process(t.Context(), op); err != nil || got != want {
				t.Errorf("%q: %s is answered with %q, %v; want %q", token, kind, got, err, want)
			}
			op.Payment = "of another token"
			if got, err := s.Process(t.Context(), op); err != nil || got != payments.NotDeclined {
				t.Errorf("%q: %s of another payment is answered with %q, %v", token, kind, got, err)
			}
		}
	}
}

func TestTheOldestPaymentOfWhichSomethingIsDeclinedIsForgotten(t *testing.T) {
	t.Parallel()
	s := simulator.New(clocktest.New(time.Unix(0, 0)))
	id := func(i int) payments.ID { return payments.ID(strconv.Itoa(i)) }
	for i := range simulator.Remembered + 1 {
		op := payments.Operation{Key: "made", Kind: payments.OpCharge, Payment: id(i), Token: simulator.RefundDeclined}
		for range 2 { // a repetition counts once
			if _, err := s.Process(t.Context(), op); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, want := range map[int]payments.Decline{0: payments.NotDeclined, 1: payments.Declined, simulator.Remembered: payments.Declined} {
		got, err := s.Process(t.Context(), payments.Operation{Key: "k", Kind: payments.OpRefund, Payment: id(i)})
		if err != nil || got != want {
			t.Errorf("the refund of payment %d: %q, %v; want %q", i, got, err, want)
		}
	}
}

func TestASlowProcessorAnswersAfterItsDelayOrNotAtAll(t *testing.T) {
	t.Parallel()
	clock := clocktest.New(time.Unix(0, 0))
	s := simulator.New(clock)
	op := payments.Operation{Key: "k", Token: simulator.Slow}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Process(ctx, op); !errors.Is(err, context.Canceled) {
		t.Errorf("whoever asked is gone: %v", err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := s.Process(t.Context(), op)
		answered <- err
	}()
	if err := clock.WaitPending(t.Context(), 2); err != nil { // the timer of the one who is gone is there too
		t.Fatal(err)
	}
	clock.Advance(simulator.Delay - 1)
	select {
	case err := <-answered:
		t.Fatalf("it answered before its time: %v", err)
	default:
	}
	clock.Advance(1)
	if err := <-answered; err != nil {
		t.Error(err)
	}
}
