package api_test

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	"github.com/concordat-dev/concordat/kit/kittest"
)

// refusal is what a caller is told of a request that is refused: all of it but the texts.
type refusal struct {
	code       codes.Code
	reason     string   // with its domain before it, where that is not payments.v1
	violations []string // "field rule", in their order
	metadata   map[string]string
}

func invalid(violations ...string) refusal {
	return refusal{code: codes.InvalidArgument, reason: "policy.v1 INVALID_REQUEST", violations: violations}
}

func precondition(reason string, metadata ...string) refusal {
	r := refusal{code: codes.FailedPrecondition, reason: reason}
	for i := 0; i < len(metadata); i += 2 {
		if r.metadata == nil {
			r.metadata = make(map[string]string)
		}
		r.metadata[metadata[i]] = metadata[i+1]
	}
	return r
}

// want compares what err tells with r.
func (r refusal) want(t *testing.T, err error) {
	t.Helper()
	domain, reason, ok := strings.Cut(r.reason, " ")
	if !ok {
		domain, reason = "payments.v1", r.reason
	}
	f := kittest.WantFault(t, err, r.code, reason)
	if f.Domain() != domain {
		t.Errorf("the domain is %q, want %q", f.Domain(), domain)
	}
	var violations []string
	for _, v := range f.Violations() {
		violations = append(violations, v.Field+" "+v.Rule)
	}
	if !slices.Equal(violations, r.violations) {
		t.Errorf("the violations are %q, want %q", violations, r.violations)
	}
	if !maps.Equal(f.Metadata(), r.metadata) {
		t.Errorf("the metadata is %v, want %v", f.Metadata(), r.metadata)
	}
}

// What callers get wrong, one row for each way: each is answered with its code, its reason, and where in the request
// it is; and it changes nothing.
func TestBadInputIsRefusedWithItsReasonAndChangesNothing(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	const locked = "0197a000-0000-7000-8000-00000000000c"
	s.customers.set(locked, false)
	admin := func() paymentsv1.PaymentServiceClient { return s.as(bob, "payments.admin") }
	charging := func(change func(*paymentsv1.ChargeRequest)) func() error {
		req := request("fresh")
		change(req)
		return func() error { _, err := s.orders().Charge(limit(t), req); return err }
	}
	capturing := func(p *paymentsv1.Payment, key string, cents int64) func() error {
		return func() error {
			_, err := admin().CapturePayment(limit(t), &paymentsv1.CapturePaymentRequest{PaymentId: p.GetPaymentId(), AmountCents: cents, IdempotencyKey: key})
			return err
		}
	}
	refunding := func(p *paymentsv1.Payment, key string, cents int64) func() error {
		return func() error {
			_, err := admin().RefundPayment(limit(t), &paymentsv1.RefundPaymentRequest{PaymentId: p.GetPaymentId(), AmountCents: cents, IdempotencyKey: key})
			return err
		}
	}
	canceling := func(client paymentsv1.PaymentServiceClient, p *paymentsv1.Payment) func() error {
		return func() error {
			_, err := client.CancelPayment(limit(t), &paymentsv1.CancelPaymentRequest{PaymentId: p.GetPaymentId(), IdempotencyKey: "fresh"})
			return err
		}
	}
	transferring := func(legs ...*paymentsv1.TransferLeg) func() error {
		return func() error {
			_, err := s.ledger().Transfer(limit(t), transfer("fresh", moving(&paymentsv1.MoveOperation{Legs: legs})))
			return err
		}
	}
	leg := func(a *paymentsv1.Account, cents int64) *paymentsv1.TransferLeg {
		return &paymentsv1.TransferLeg{AccountId: a.GetAccountId(), AmountCents: cents}
	}

	open, paid, back := held(t, s, "open"), charge(t, s, "paid"), charge(t, s, "back")
	failed := charge(t, s, "failed", func(r *paymentsv1.ChargeRequest) { r.PaymentToken = "tok_expired_card" })
	if failed.GetState() != paymentsv1.PaymentState_PAYMENT_STATE_FAILED || failed.GetDeclineCode() != paymentsv1.DeclineCode_DECLINE_CODE_EXPIRED_CARD {
		t.Errorf("declined: %v", failed)
	}
	if err := refunding(back, "used", 0)(); err != nil {
		t.Fatal(err)
	}
	missing := &paymentsv1.Payment{PaymentId: nobody}
	// The merchant has as many yen as there can be.
	yen, err := s.ledger().OpenAccount(limit(t), &paymentsv1.OpenAccountRequest{
		Owner: "merchant", Kind: paymentsv1.AccountKind_ACCOUNT_KIND_MERCHANT, Currency: "JPY", IdempotencyKey: "yen",
	})
	if err != nil {
		t.Fatal(err)
	}
	bank, shop, till := openAccount(t, s, "bank", "JPY", nil), openAccount(t, s, "shop", "JPY", nil), openAccount(t, s, "till", "JPY", proto.Int64(7))
	if _, err := s.ledger().Transfer(limit(t), transfer("all", moving(move(bank, yen.GetAccount(), math.MaxInt64)))); err != nil {
		t.Fatal(err)
	}
	before := s.everything(t)

	long := strings.Repeat("x", 1000)
	for name, c := range map[string]struct {
		call func() error
		want refusal
	}{
		"an amount of 0":         {charging(func(r *paymentsv1.ChargeRequest) { r.AmountCents = 0 }), invalid("amount_cents int64.gte_lte")},
		"an amount of 49":        {charging(func(r *paymentsv1.ChargeRequest) { r.AmountCents = 49 }), invalid("amount_cents int64.gte_lte")},
		"an amount of -1":        {charging(func(r *paymentsv1.ChargeRequest) { r.AmountCents = -1 }), invalid("amount_cents int64.gte_lte")},
		"an amount of 100000000": {charging(func(r *paymentsv1.ChargeRequest) { r.AmountCents = 100000000 }), invalid("amount_cents int64.gte_lte")},
		"the greatest amount":    {charging(func(r *paymentsv1.ChargeRequest) { r.AmountCents = math.MaxInt64 }), invalid("amount_cents int64.gte_lte")},
		"a balance that would pass an int64": {
			charging(func(r *paymentsv1.ChargeRequest) { r.Currency = "JPY" }), precondition("BALANCE_OVERFLOW"),
		},
		"legs whose sum passes an int64": {
			transferring(leg(bank, math.MaxInt64), leg(shop, math.MaxInt64), leg(till, 2)),
			refusal{code: codes.InvalidArgument, reason: "UNBALANCED", violations: []string{"operations[0].move.legs[1] transfer.balanced"}},
		},
		"a leg that has no opposite": {
			transferring(leg(bank, math.MinInt64), leg(shop, math.MaxInt64)),
			refusal{code: codes.InvalidArgument, reason: "UNBALANCED", violations: []string{"operations[0].move.legs[0] transfer.balanced"}},
		},
		"more than the overdraft": {
			transferring(leg(till, -8), leg(bank, 8)), precondition("OVERDRAWN", "account_id", till.GetAccountId(), "available_cents", "7"),
		},

		"a currency EURO":             {charging(func(r *paymentsv1.ChargeRequest) { r.Currency = "EURO" }), invalid("currency string.max_len", "currency string.pattern")},
		"a currency in small letters": {charging(func(r *paymentsv1.ChargeRequest) { r.Currency = "eur" }), invalid("currency string.pattern")},
		"no currency":                 {charging(func(r *paymentsv1.ChargeRequest) { r.Currency = "" }), invalid("currency string.pattern")},
		"a currency that nobody has":  {charging(func(r *paymentsv1.ChargeRequest) { r.Currency = "ZZZ" }), unknownCurrency()},
		"one that is no more":         {charging(func(r *paymentsv1.ChargeRequest) { r.Currency = "DEM" }), unknownCurrency()},
		"gold, which has no exponent": {charging(func(r *paymentsv1.ChargeRequest) { r.Currency = "XAU" }), unknownCurrency()},
		"the currency of tests":       {charging(func(r *paymentsv1.ChargeRequest) { r.Currency = "XTS" }), unknownCurrency()},

		"no key":                  {charging(func(r *paymentsv1.ChargeRequest) { r.IdempotencyKey = "" }), invalid("idempotency_key string.pattern")},
		"a key of 256 characters": {charging(func(r *paymentsv1.ChargeRequest) { r.IdempotencyKey = long[:256] }), invalid("idempotency_key string.max_len")},
		"a key with a NUL":        {charging(func(r *paymentsv1.ChargeRequest) { r.IdempotencyKey = "a\x00b" }), invalid("idempotency_key string.pattern")},
		"a key with a space":      {charging(func(r *paymentsv1.ChargeRequest) { r.IdempotencyKey = "a b" }), invalid("idempotency_key string.pattern")},
		"a capture without a key": {capturing(open, "", 0), invalid("idempotency_key string.pattern")},
		"a refund without a key":  {refunding(paid, "", 0), invalid("idempotency_key string.pattern")},
		"the key of another charge": {
			charging(func(r *paymentsv1.ChargeRequest) { r.IdempotencyKey, r.AmountCents = "paid", 151 }), precondition("IDEMPOTENCY_KEY_REUSED"),
		},
		"the key of a charge that only authorized": {
			charging(func(r *paymentsv1.ChargeRequest) { r.IdempotencyKey = "open" }), precondition("IDEMPOTENCY_KEY_REUSED"),
		},
		"the key of another refund": {refunding(paid, "used", 0), precondition("IDEMPOTENCY_KEY_REUSED")},

		"no order":                      {charging(func(r *paymentsv1.ChargeRequest) { r.OrderId = "" }), invalid("order_id string.pattern")},
		"an order of 65 characters":     {charging(func(r *paymentsv1.ChargeRequest) { r.OrderId = long[:65] }), invalid("order_id string.max_len")},
		"33 entries of metadata":        {charging(many), invalid("metadata map.max_pairs")},
		"metadata with an empty key":    {charging(func(r *paymentsv1.ChargeRequest) { r.Metadata = map[string]string{"": "v"} }), invalid(`metadata[""] string.pattern`)},
		"metadata with too long values": {charging(func(r *paymentsv1.ChargeRequest) { r.Metadata = map[string]string{"k": long[:513]} }), invalid(`metadata["k"] string.max_len`)},
		"no customer":                   {charging(func(r *paymentsv1.ChargeRequest) { r.CustomerId = "" }), invalid("customer_id string.uuid_empty")},
		"a customer that is no UUID":    {charging(func(r *paymentsv1.ChargeRequest) { r.CustomerId = "ann" }), invalid("customer_id string.uuid")},
		"a customer who is not there": {
			charging(func(r *paymentsv1.ChargeRequest) { r.CustomerId = nobody }),
			refusal{code: codes.NotFound, reason: "CUSTOMER_NOT_FOUND", metadata: map[string]string{"customer_id": nobody}},
		},
		"a customer who is locked": {
			charging(func(r *paymentsv1.ChargeRequest) { r.CustomerId = locked }), precondition("CUSTOMER_INACTIVE", "customer_id", locked),
		},

		"a capture of more than was authorized": {capturing(open, "fresh", 151), precondition("AMOUNT_EXCEEDED", "available_cents", "150")},
		"a capture of what is captured":         {capturing(paid, "fresh", 0), precondition("STATE_CONFLICT", "state", "CAPTURED")},
		"a capture of what failed":              {capturing(failed, "fresh", 0), precondition("STATE_CONFLICT", "state", "FAILED")},
		"a capture of less than nothing":        {capturing(open, "fresh", -1), invalid("amount_cents int64.gte_lte")},
		"a refund of a failed payment":          {refunding(failed, "fresh", 0), precondition("STATE_CONFLICT", "state", "FAILED")},
		"a refund of what is only held":         {refunding(open, "fresh", 0), precondition("STATE_CONFLICT", "state", "AUTHORIZED")},
		"a refund of what was given back":       {refunding(back, "fresh", 1), precondition("STATE_CONFLICT", "state", "REFUNDED")},
		"a refund of more than was captured":    {refunding(paid, "fresh", 151), precondition("AMOUNT_EXCEEDED", "available_cents", "150")},
		"a cancellation of what is captured":    {canceling(s.as(ann), paid), precondition("STATE_CONFLICT", "state", "CAPTURED")},
		"a cancellation of another's payment":   {canceling(s.as(bob), open), refusal{code: codes.NotFound, reason: "PAYMENT_NOT_FOUND"}},
		"a cancellation of none":                {canceling(s.as(bob), missing), refusal{code: codes.NotFound, reason: "PAYMENT_NOT_FOUND"}},
		"a refund of none":                      {refunding(missing, "fresh", 0), refusal{code: codes.NotFound, reason: "PAYMENT_NOT_FOUND"}},
		"a capture by the customer": {
			func() error {
				_, err := s.as(ann).CapturePayment(limit(t), &paymentsv1.CapturePaymentRequest{PaymentId: open.GetPaymentId(), IdempotencyKey: "fresh"})
				return err
			},
			refusal{code: codes.PermissionDenied, reason: "policy.v1 SCOPE_MISSING", metadata: map[string]string{"scope": "payments.admin"}},
		},
	} {
		t.Run(name, func(t *testing.T) { c.want.want(t, c.call()) })
	}
	wantEqual(t, withoutRequest(t, canceling(s.as(bob), open)()), withoutRequest(t, canceling(s.as(bob), missing)()))
	if after := s.everything(t); after != before {
		t.Errorf("there is %s now, there was %s", after, before)
	}
	s.verify(t)
}

func many(r *paymentsv1.ChargeRequest) {
	for i := range 32 { // beside the cart
		r.Metadata[fmt.Sprint("key", i)] = ""
	}
}

func unknownCurrency() refusal {
	return refusal{code: codes.InvalidArgument, reason: "CURRENCY_UNKNOWN", violations: []string{"currency currency.iso4217"}}
}

// everything returns how many payments, accounts and transfers there are.
func (s *service) everything(t *testing.T) string {
	t.Helper()
	list, err := s.orders().ListPayments(limit(t), &paymentsv1.ListPaymentsRequest{PageSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	accounts, err := s.ledger().ListAccounts(limit(t), &paymentsv1.ListAccountsRequest{PageSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	trial, err := s.ledger().GetTrialBalance(limit(t), &paymentsv1.GetTrialBalanceRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(len(list.GetPayments()), " payments, ", len(accounts.GetAccounts()), " accounts, ", trial.GetTransferNumber(), " transfers")
}

func TestABadRequestIsToldAllThatIsWrongAndAsksNobodyForTheCustomer(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	_, err := s.orders().Charge(limit(t), &paymentsv1.ChargeRequest{})
	f := kittest.WantFault(t, err, codes.InvalidArgument, "INVALID_REQUEST")
	kittest.WantViolations(t, f, "amount_cents", "currency", "customer_id", "idempotency_key", "order_id")
	if s.customers.requests != 0 {
		t.Errorf("the customer was asked for %d times", s.customers.requests)
	}
}

func TestEqualKeysOfOtherCallersAndMethodsHaveNothingToDoWithEachOther(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	first := charge(t, s, "k")
	// Another caller, with the same content and with another.
	same, err := s.as(ann).Charge(limit(t), request("k"))
	if err != nil || same.GetPayment().GetPaymentId() == first.GetPaymentId() {
		t.Errorf("the same of another caller: %v, %v", same, err)
	}
	other := request("k")
	other.CustomerId, other.AmountCents = bob, 50
	if resp, err := s.as(bob).Charge(limit(t), other); err != nil || resp.GetPayment().GetAmountCents() != 50 {
		t.Errorf("another of another caller: %v, %v", resp, err)
	}
	// Another method.
	refunded, err := s.orders().RefundPayment(limit(t), &paymentsv1.RefundPaymentRequest{PaymentId: first.GetPaymentId(), AmountCents: 2, IdempotencyKey: "k"})
	if err != nil || refunded.GetPayment().GetRefundedCents() != 2 {
		t.Errorf("a refund with the key of a charge: %v, %v", refunded, err)
	}
	// None of them has taken the key from the first.
	wantEqual(t, charge(t, s, "k"), first)
	s.verify(t)
}

func TestARefusedRequestTakesNoKey(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	for _, change := range []func(*paymentsv1.ChargeRequest){
		func(r *paymentsv1.ChargeRequest) { r.AmountCents = 49 },
		func(r *paymentsv1.ChargeRequest) { r.Currency = "ZZZ" },
		func(r *paymentsv1.ChargeRequest) { r.CustomerId = nobody },
	} {
		req := request("k")
		change(req)
		if resp, err := s.orders().Charge(limit(t), req); err == nil {
			t.Errorf("%v is taken: %v", req, resp)
		}
	}
	if p := charge(t, s, "k"); p.GetState() != paymentsv1.PaymentState_PAYMENT_STATE_CAPTURED {
		t.Errorf("charged: %v", p)
	}
}
