package payments

import (
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
)

func TestOneChargeInTenHasTheKeyAndTheContentOfTheOneBefore(t *testing.T) {
	b := &book{}
	charges := make(map[string]*paymentsv1.ChargeRequest)
	for n := range 1_005 {
		if len(charges) != b.keys() {
			t.Fatalf("after %d charges there are %d keys, not %d", n, len(charges), b.keys())
		}
		c := b.charge()
		if first := charges[c.GetIdempotencyKey()]; first != nil && !proto.Equal(first, c) {
			t.Errorf("%v and %v have one key", first, c)
		}
		charges[c.GetIdempotencyKey()] = c
	}
	if len(charges) != 905 {
		t.Errorf("1,005 charges have %d keys", len(charges))
	}
}

func TestOnlyACapturedPaymentIsAGoodAnswer(t *testing.T) {
	b := &book{}
	for _, tc := range []struct {
		name    string
		payment *paymentsv1.Payment
		want    string
	}{
		{"captured", &paymentsv1.Payment{PaymentId: "p", State: paymentsv1.PaymentState_PAYMENT_STATE_CAPTURED}, ""},
		{"declined", &paymentsv1.Payment{PaymentId: "p", State: paymentsv1.PaymentState_PAYMENT_STATE_FAILED}, "PAYMENT_STATE_FAILED"},
		{"missing", nil, "PAYMENT_STATE_UNSPECIFIED"},
	} {
		err := b.request().Check(encoded(&paymentsv1.ChargeResponse{Payment: tc.payment}))
		key, serr := b.dialog().Answer(encoded(&paymentsv1.ProcessChargesResponse{
			IdempotencyKey: "key-1", Result: &paymentsv1.ProcessChargesResponse_Payment{Payment: tc.payment},
		}))
		if key != "key-1" {
			t.Errorf("%s: the answer has the key %q", tc.name, key)
		}
		for _, err := range []error{err, serr} {
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
			}
		}
	}
	_, err := b.dialog().Answer(encoded(&paymentsv1.ProcessChargesResponse{
		IdempotencyKey: "key-1", Result: &paymentsv1.ProcessChargesResponse_Error{Error: &status.Status{Code: 8, Message: "too much"}},
	}))
	if err == nil || !strings.Contains(err.Error(), "too much") {
		t.Errorf("an error of a stream: %v", err)
	}
}
