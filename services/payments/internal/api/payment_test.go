package api_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

func TestAChargeIsAnsweredWithThePayment(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	for name, client := range map[string]paymentsv1.PaymentServiceClient{
		"customer":      s.as(ann),
		"administrator": s.as(bob, "payments.admin"),
		"service":       s.orders(),
	} {
		var header metadata.MD
		resp, err := client.Charge(limit(t), request("k-"+name), grpc.Header(&header))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if v := header.Get("idempotency-replayed"); len(v) != 0 {
			t.Errorf("%s: a first charge has the header %q", name, v)
		}
		p := resp.GetPayment()
		if p.GetPaymentId() == "" || p.GetCreatedAt().AsTime().IsZero() {
			t.Errorf("%s: no id or no time in %v", name, p)
		}
		wantEqual(t, p, &paymentsv1.Payment{
			PaymentId: p.GetPaymentId(), OrderId: "X1", CustomerId: ann, AmountCents: 150, Currency: "EUR",
			State:    paymentsv1.PaymentState_PAYMENT_STATE_CAPTURED,
			Metadata: map[string]string{"cart": "7"}, CreatedAt: p.GetCreatedAt(),
			CapturedCents: 150, UpdatedAt: p.GetCreatedAt(),
		})
	}
	s.verify(t)
}

func TestARepeatedChargeIsAnsweredWithTheFirstPaymentAndSaysSo(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	first, err := s.as(ann).Charge(limit(t), request("k"))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(){
		"nothing has changed":        func() {},
		"the customer is locked now": func() { s.customers.set(ann, false) },
		"auth does not answer": func() {
			s.customers.setAnswer(func(context.Context) error { return payments.ErrUpstreamUnavailable })
		},
	} {
		change()
		var header metadata.MD
		again, err := s.as(ann).Charge(limit(t), request("k"), grpc.Header(&header))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		wantEqual(t, again, first)
		if v := header.Get("idempotency-replayed"); len(v) != 1 || v[0] != "true" {
			t.Errorf("%s: the header is %q", name, v)
		}
	}
	s.verify(t)
}

func TestARepeatedChargeWithItsCustomerIdInCapitalsIsTheSame(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	first := charge(t, s, "k")
	again := charge(t, s, "k", func(r *paymentsv1.ChargeRequest) { r.CustomerId = strings.ToUpper(ann) })
	wantEqual(t, again, first)
	resp, err := s.orders().GetPayment(limit(t), &paymentsv1.GetPaymentRequest{PaymentId: strings.ToUpper(first.GetPaymentId())})
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, resp.GetPayment(), first)
}

func TestTheSmallestAndTheLargestChargeAreTaken(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	charge(t, s, "k1", func(r *paymentsv1.ChargeRequest) { r.AmountCents = 50 })
	charge(t, s, "k2", func(r *paymentsv1.ChargeRequest) { r.AmountCents = 99999999 })
	charge(t, s, strings.Repeat("k", 255))
	s.verify(t)
}

func TestAChargeWhileAuthDoesNotAnswerIsUnavailable(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	s.customers.setAnswer(func(context.Context) error { return payments.ErrUpstreamUnavailable })
	_, err := s.orders().Charge(limit(t), request("k"))
	f := kittest.WantFault(t, err, codes.Unavailable, "UPSTREAM_UNAVAILABLE")
	if f.Domain() != "policy.v1" || f.Metadata()["upstream"] != "auth" {
		t.Errorf("domain %q, metadata %v", f.Domain(), f.Metadata())
	}
	// Nothing was stored: the same key charges once auth is back.
	s.customers.setAnswer(nil)
	var header metadata.MD
	if _, err := s.orders().Charge(limit(t), request("k"), grpc.Header(&header)); err != nil {
		t.Fatal(err)
	}
	if v := header.Get("idempotency-replayed"); len(v) != 0 {
		t.Errorf("the header is %q", v)
	}
	s.verify(t)
}

func TestWhatBreaksInsideIsNotShown(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	s.customers.setAnswer(func(context.Context) error { return errors.New("the secret of the house") })
	_, err := s.orders().Charge(limit(t), request("k"))
	kittest.WantFault(t, err, codes.Internal, "INTERNAL")
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the text is %q", err)
	}
}

func TestWhoMayNotChargeIsRefused(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	for name, c := range map[string]struct {
		conn   *grpc.ClientConn
		code   codes.Code
		reason string
	}{
		"nobody":                       {s.Anonymous(), codes.Unauthenticated, "CREDENTIALS_MISSING"},
		"a user without the scope":     {s.As(ann, "payments.read"), codes.PermissionDenied, "SCOPE_MISSING"},
		"another user":                 {s.As(bob, "payments.write"), codes.PermissionDenied, "NOT_SELF"},
		"a token that nobody has made": {s.WithToken("nonsense"), codes.Unauthenticated, "TOKEN_INVALID"},
	} {
		_, err := paymentsv1.NewPaymentServiceClient(c.conn).Charge(limit(t), request("k"))
		t.Log(name)
		kittest.WantFault(t, err, c.code, c.reason)
	}
}

func TestAThousandEqualChargesAtOnceAreOnePaymentAndAThousandEqualAnswers(t *testing.T) {
	t.Parallel()
	const n = 1000
	s := start(t, t.TempDir())
	// Every other one comes from the customer, whose keys are not those of the service.
	clients := []paymentsv1.PaymentServiceClient{s.orders(), s.as(ann)}
	type answer struct {
		payment  *paymentsv1.Payment
		replayed bool
	}
	answers, errs := make([]answer, n), make([]error, n)
	ctx := limit(t)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			var header metadata.MD
			resp, err := clients[i%2].Charge(ctx, request("k"), grpc.Header(&header))
			answers[i], errs[i] = answer{resp.GetPayment(), len(header.Get("idempotency-replayed")) == 1}, err
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	made := [2]int{}
	for i, a := range answers {
		if !a.replayed {
			made[i%2]++
		}
		if !proto.Equal(a.payment, answers[i%2].payment) {
			t.Fatalf("charge %d got %v, charge %d got %v", i, a.payment, i%2, answers[i%2].payment)
		}
	}
	if made != [2]int{1, 1} {
		t.Errorf("%v charges were no replay, want one of each caller", made)
	}
	list, err := s.orders().ListPayments(ctx, &paymentsv1.ListPaymentsRequest{})
	if err != nil || len(list.GetPayments()) != 2 {
		t.Errorf("%d payments, %v; want one of each caller", len(list.GetPayments()), err)
	}
	s.verify(t)
}

func TestAPaymentIsShownToThoseWhoMaySeeIt(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	want := charge(t, s, "k")
	for name, client := range map[string]paymentsv1.PaymentServiceClient{
		"its customer":     s.as(ann),
		"an administrator": s.as(bob, "payments.admin"),
		"a service":        s.orders(),
	} {
		resp, err := client.GetPayment(limit(t), &paymentsv1.GetPaymentRequest{PaymentId: want.GetPaymentId()})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		wantEqual(t, resp.GetPayment(), want)
	}
}

func TestAPaymentOfAnotherIsAsGoodAsMissing(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	theirs := charge(t, s, "k").GetPaymentId()
	answer := func(id string) proto.Message {
		_, err := s.as(bob).GetPayment(limit(t), &paymentsv1.GetPaymentRequest{PaymentId: id})
		kittest.WantFault(t, err, codes.NotFound, "PAYMENT_NOT_FOUND")
		return withoutRequest(t, err)
	}
	wantEqual(t, answer(theirs), answer(nobody))
}

// withoutRequest returns the status of err without the detail that is of each call.
func withoutRequest(t *testing.T, err error) proto.Message {
	t.Helper()
	p := status.Convert(err).Proto()
	kept := p.GetDetails()[:0]
	for _, d := range p.GetDetails() {
		if !d.MessageIs(&errdetails.RequestInfo{}) {
			kept = append(kept, d)
		}
	}
	if len(kept) == 0 {
		t.Fatal("the status has no details")
	}
	p.Details = kept
	return p
}

func TestGetPaymentWantsAnID(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	for _, id := range []string{"", "1", nobody + "0"} {
		_, err := s.orders().GetPayment(limit(t), &paymentsv1.GetPaymentRequest{PaymentId: id})
		f := kittest.WantFault(t, err, codes.InvalidArgument, "INVALID_REQUEST")
		kittest.WantViolations(t, f, "payment_id")
	}
}

// The token of a payment can say that what is done with it later is declined. The caller is told why, the same by a
// repetition, and the payment is open to another try.
func TestACaptureOrRefundThatIsDeclinedIsAnsweredWithThePaymentAsItWas(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	for token, change := range map[string]func(id string, header *metadata.MD) (*paymentsv1.Payment, error){
		"tok_capture_declined": func(id string, header *metadata.MD) (*paymentsv1.Payment, error) {
			resp, err := s.orders().CapturePayment(limit(t), &paymentsv1.CapturePaymentRequest{PaymentId: id, IdempotencyKey: "c"}, grpc.Header(header))
			return resp.GetPayment(), err
		},
		"tok_refund_declined": func(id string, header *metadata.MD) (*paymentsv1.Payment, error) {
			resp, err := s.orders().RefundPayment(limit(t), &paymentsv1.RefundPaymentRequest{PaymentId: id, IdempotencyKey: "r"}, grpc.Header(header))
			return resp.GetPayment(), err
		},
	} {
		p := charge(t, s, token, func(r *paymentsv1.ChargeRequest) {
			r.PaymentToken, r.Capture = token, proto.Bool(token != "tok_capture_declined")
		})
		var first, second metadata.MD
		declined, err := change(p.GetPaymentId(), &first)
		if err != nil || declined.GetDeclineCode() != paymentsv1.DeclineCode_DECLINE_CODE_DECLINED || len(first.Get("idempotency-replayed")) > 0 {
			t.Fatalf("%s: %v, %v", token, declined, err)
		}
		again, err := change(p.GetPaymentId(), &second)
		if err != nil || len(second.Get("idempotency-replayed")) != 1 {
			t.Errorf("%s, again: %v, %v", token, second, err)
		}
		wantEqual(t, again, declined)
		got, err := s.orders().GetPayment(limit(t), &paymentsv1.GetPaymentRequest{PaymentId: p.GetPaymentId()})
		if err != nil {
			t.Fatal(err)
		}
		p.UpdatedAt = got.GetPayment().GetUpdatedAt()
		wantEqual(t, got.GetPayment(), p)
		p.DeclineCode = paymentsv1.DeclineCode_DECLINE_CODE_DECLINED
		wantEqual(t, declined, p)
	}
	p := charge(t, s, "late", func(r *paymentsv1.ChargeRequest) { r.PaymentToken = "tok_late_refund_declined" })
	refund := &paymentsv1.RefundPaymentRequest{PaymentId: p.GetPaymentId(), IdempotencyKey: "late"}
	_, err := s.orders().RefundPayment(limit(t), refund)
	kittest.WantFault(t, err, codes.Unavailable, "PROCESSOR_UNAVAILABLE")
	_, err = s.orders().RefundPayment(limit(t), refund)
	kittest.WantFault(t, err, codes.Aborted, "IDEMPOTENCY_KEY_IN_FLIGHT")
	s.verify(t)
}

func TestWhatAProcessorHasNotAnsweredIsInFlight(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	req := request("k")
	req.PaymentToken = "tok_flaky"
	_, err := s.orders().Charge(limit(t), req)
	kittest.WantFault(t, err, codes.Unavailable, "PROCESSOR_UNAVAILABLE")
	_, err = s.orders().Charge(limit(t), req)
	if f := kittest.WantFault(t, err, codes.Aborted, "IDEMPOTENCY_KEY_IN_FLIGHT"); f.RetryAfter() <= 0 {
		t.Error("it does not say when to come back")
	}
	list, err := s.orders().ListPayments(limit(t), &paymentsv1.ListPaymentsRequest{Filter: "state = PROCESSING"})
	if err != nil || len(list.GetPayments()) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	p := list.GetPayments()[0]
	if p.GetCapturableCents() != 0 || p.AuthorizationExpiresAt != nil {
		t.Errorf("nothing can be captured, and it says %v", p)
	}
	_, err = s.orders().CapturePayment(limit(t), &paymentsv1.CapturePaymentRequest{PaymentId: p.GetPaymentId(), IdempotencyKey: "c"})
	kittest.WantFault(t, err, codes.Aborted, "IDEMPOTENCY_KEY_IN_FLIGHT")
	s.verify(t)
}
