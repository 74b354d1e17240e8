package api_test

import (
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	"github.com/concordat-dev/concordat/kit/kittest"
)

func held(t *testing.T, s *service, key string) *paymentsv1.Payment {
	t.Helper()
	return charge(t, s, key, func(r *paymentsv1.ChargeRequest) { r.Capture = proto.Bool(false) })
}

func TestAPaymentIsAuthorizedCapturedInPartsAndGivenBack(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	p := held(t, s, "k")
	if p.GetState() != paymentsv1.PaymentState_PAYMENT_STATE_AUTHORIZED || p.GetCapturableCents() != 150 || p.AuthorizationExpiresAt == nil {
		t.Errorf("authorized: %v", p)
	}
	id := p.GetPaymentId()
	captured, err := s.orders().CapturePayment(limit(t), &paymentsv1.CapturePaymentRequest{PaymentId: id, AmountCents: 100, IdempotencyKey: "c"})
	if p := captured.GetPayment(); err != nil || p.GetState() != paymentsv1.PaymentState_PAYMENT_STATE_CAPTURED || p.GetCapturedCents() != 100 || p.GetCapturableCents() != 50 {
		t.Errorf("captured: %v, %v", p, err)
	}
	var header metadata.MD
	again, err := s.orders().CapturePayment(limit(t), &paymentsv1.CapturePaymentRequest{PaymentId: id, AmountCents: 100, IdempotencyKey: "c"}, grpc.Header(&header))
	if err != nil || header.Get("idempotency-replayed")[0] != "true" {
		t.Errorf("again: %v, %v", header, err)
	}
	wantEqual(t, again, captured)
	canceled, err := s.as(ann).CancelPayment(limit(t), &paymentsv1.CancelPaymentRequest{PaymentId: id, IdempotencyKey: "x"})
	if p := canceled.GetPayment(); err != nil || p.GetState() != paymentsv1.PaymentState_PAYMENT_STATE_CAPTURED || p.GetCapturableCents() != 0 || p.AuthorizationExpiresAt != nil {
		t.Errorf("canceled: %v, %v", p, err)
	}
	refunded, err := s.orders().RefundPayment(limit(t), &paymentsv1.RefundPaymentRequest{PaymentId: id, IdempotencyKey: "r"})
	if p := refunded.GetPayment(); err != nil || p.GetState() != paymentsv1.PaymentState_PAYMENT_STATE_REFUNDED || p.GetRefundedCents() != 100 {
		t.Errorf("given back: %v, %v", p, err)
	}
	s.verify(t)
}

func TestAFilterListsWhatItSaysAndABadOneSaysWhere(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	small := charge(t, s, "a", func(r *paymentsv1.ChargeRequest) { r.AmountCents = 50 })
	open := held(t, s, "b")
	list := func(filter string) ([]string, error) {
		resp, err := s.orders().ListPayments(limit(t), &paymentsv1.ListPaymentsRequest{Filter: filter})
		var ids []string
		for _, p := range resp.GetPayments() {
			ids = append(ids, p.GetPaymentId())
		}
		return ids, err
	}
	for filter, want := range map[string][]string{
		``:                                      {open.GetPaymentId(), small.GetPaymentId()},
		`  state = "CAPTURED" `:                 {small.GetPaymentId()},
		`state = AUTHORIZED`:                    {open.GetPaymentId()},
		`state != CAPTURED AND order_id = "X1"`: {open.GetPaymentId()},
		`amount_cents < 100`:                    {small.GetPaymentId()},
		`amount_cents >= -5 AND currency = "EUR"`:     {open.GetPaymentId(), small.GetPaymentId()},
		`(amount_cents > 50) AND amount_cents <= 150`: {open.GetPaymentId()},
		`created_at > "2020-01-01T00:00:00Z"`:         {open.GetPaymentId(), small.GetPaymentId()},
		`order_id = "'; DROP TABLE payments; --"`:     nil,
	} {
		got, err := list(filter)
		if err != nil || len(got) != len(want) || len(got) > 0 && got[0] != want[0] {
			t.Errorf("%s: %v, %v; want %v", filter, got, err, want)
		}
	}
	for filter, rule := range map[string]string{
		`state = "NONE"`:                        "filter.value",
		`customer_id = "x"`:                     "filter.field",
		`state > CAPTURED`:                      "filter.operator",
		`amount_cents = "many"`:                 "filter.value",
		`created_at > 2020-01-01T00:00:00Z`:     "filter.syntax",
		`created_at > "yesterday"`:              "filter.value",
		`state = CAPTURED OR amount_cents = 50`: "filter.operator",
		`NOT state = CAPTURED`:                  "filter.operator",
		`state`:                                 "filter.syntax",
		`(`:                                     "filter.syntax",
		`a.b = 1`:                               "filter.field",
		`password = (a = b)`:                    "filter.field",
		`state:CAPTURED`:                        "filter.operator",
		`state = (a = b)`:                       "filter.value",
		"currency = \"\x00\"":                   "filter.value",
		`state = CAPTURED AND`:                  "filter.syntax",
		"order_id = \"\x00\"":                   "filter.value",
		`amount_cents=1 amount_cents=1 amount_cents=1 amount_cents=1 amount_cents=1 amount_cents=1 amount_cents=1 amount_cents=1 amount_cents=1 amount_cents=1 amount_cents=1 amount_cents=1 amount_cents=1 amount_cents=1 amount_cents=1 amount_cents=1 amount_cents=1`: "filter.size",
	} {
		_, err := list(filter)
		t.Log(filter)
		f := kittest.WantFault(t, err, codes.InvalidArgument, "FILTER_INVALID")
		if v := f.Violations(); len(v) != 1 || v[0].Field != "filter" || v[0].Rule != rule {
			t.Errorf("violations %v, want %s", v, rule)
		}
	}
	first, err := s.orders().ListPayments(limit(t), &paymentsv1.ListPaymentsRequest{Filter: "amount_cents > 1", PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.orders().ListPayments(limit(t), &paymentsv1.ListPaymentsRequest{Filter: "amount_cents > 2", PageToken: first.GetNextPageToken()})
	kittest.WantFault(t, err, codes.InvalidArgument, "PAGE_TOKEN_INVALID")
}
