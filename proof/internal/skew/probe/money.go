package main

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
)

// money charges, captures, cancels and gives back.
func (p *probe) money(ctx context.Context, me person) {
	const service = "payments.v1.PaymentService/"
	feed, err := p.payments.WatchTransactions(ctx, &paymentsv1.WatchTransactionsRequest{CustomerId: me.id})
	first, err := next(feed, err)
	seen := []proto.Message{first}
	charge := func(order string) *paymentsv1.ChargeRequest {
		return &paymentsv1.ChargeRequest{
			OrderId: order, AmountCents: 1999, Currency: "EUR", IdempotencyKey: p.uuid(order), CustomerId: me.id,
			Metadata: map[string]string{"item": "a difference engine"},
		}
	}
	id := ok(p, ctx, service+"Charge", "a charge", p.payments.Charge, withFuture(charge("order-1"))).GetPayment().GetPaymentId()
	again := ok(p, ctx, service+"Charge", "the same again", p.payments.Charge, charge("order-1")).GetPayment().GetPaymentId()
	if id != again || id == "" {
		p.fails(unary, service+"Charge", "one key is one payment", "it is %q, and then %q", id, again)
	}
	other := charge("order-1")
	other.AmountCents++
	call(p, ctx, service+"Charge", "the same key for another amount", codes.FailedPrecondition, p.payments.Charge, other)
	small := charge("order-small")
	small.AmountCents = 1
	call(p, ctx, service+"Charge", "too small an amount", codes.InvalidArgument, p.payments.Charge, small)
	stranger := charge("order-stranger")
	stranger.CustomerId = p.uuid("nobody")
	call(p, ctx, service+"Charge", "a customer who is not there", codes.NotFound, p.payments.Charge, stranger)
	ok(p, as(ctx, me.token), service+"Charge", "a charge over the edge", p.checkout.Charge, withFuture(charge("order-2")))
	hold := func(order string) string {
		req := charge(order)
		req.Capture = new(bool)
		return ok(p, ctx, service+"Charge", "a hold for "+order, p.payments.Charge, req).GetPayment().GetPaymentId()
	}
	held := hold("order-3")
	ok(p, ctx, service+"CapturePayment", "a part of it", p.payments.CapturePayment, &paymentsv1.CapturePaymentRequest{
		PaymentId: held, AmountCents: 1000, IdempotencyKey: p.uuid("capture"), FinalCapture: true,
	})
	ok(p, ctx, service+"RefundPayment", "a part of that", p.payments.RefundPayment, &paymentsv1.RefundPaymentRequest{
		PaymentId: held, AmountCents: 400, IdempotencyKey: p.uuid("refund"),
	})
	ok(p, ctx, service+"CancelPayment", "a hold is given up", p.payments.CancelPayment, &paymentsv1.CancelPaymentRequest{
		PaymentId: hold("order-4"), IdempotencyKey: p.uuid("cancel"),
	})
	ok(p, ctx, service+"GetPayment", "the payment", p.payments.GetPayment, &paymentsv1.GetPaymentRequest{PaymentId: id})
	page := ok(p, ctx, service+"ListPayments", "a page", p.payments.ListPayments, &paymentsv1.ListPaymentsRequest{CustomerId: me.id, PageSize: 2})
	ok(p, ctx, service+"ListPayments", "the next page", p.payments.ListPayments, &paymentsv1.ListPaymentsRequest{
		CustomerId: me.id, PageSize: 2, PageToken: page.GetNextPageToken(),
	})
	const transactions = 7 // two charges, two holds, a capture, a refund, a cancellation
	for range transactions {
		var m *paymentsv1.WatchTransactionsResponse
		m, err = nextThat(feed, err, func(m *paymentsv1.WatchTransactionsResponse) bool { return m.GetTransaction() != nil })
		if err == nil {
			seen = append(seen, m)
		}
	}
	p.step(serverStream, service+"WatchTransactions", "what happened to the payments", codes.OK, err, seen...)
	p.pipeline(ctx, charge)
}

// pipeline charges over a stream that goes both ways, each charge after the answer to the one before, so that the order
// is the same each time.
func (p *probe) pipeline(ctx context.Context, charge func(order string) *paymentsv1.ChargeRequest) {
	const method = "payments.v1.PaymentService/ProcessCharges"
	bad := charge("order-bad")
	bad.Currency = "euro"
	var seen []proto.Message
	stream, err := p.payments.ProcessCharges(ctx)
	for _, req := range []*paymentsv1.ChargeRequest{withFuture(charge("order-5")), bad, charge("order-6"), charge("order-5")} {
		if err == nil {
			err = stream.Send(&paymentsv1.ProcessChargesRequest{Charge: req})
		}
		var m *paymentsv1.ProcessChargesResponse
		if err == nil {
			m, err = stream.Recv()
		}
		if err == nil && m.GetIdempotencyKey() != req.GetIdempotencyKey() {
			err = fmt.Errorf("%s is answered with the key %q", req.GetOrderId(), m.GetIdempotencyKey())
		}
		if err == nil {
			seen = append(seen, m)
		}
	}
	if err == nil {
		err = stream.CloseSend()
	}
	p.step(bothWays, method, "four charges, one of them wrong and one twice", codes.OK, err, seen...)
}

// books uses the ledger.
func (p *probe) books(ctx context.Context) {
	const service = "payments.v1.LedgerService/"
	open := func(owner string) string {
		return ok(p, ctx, service+"OpenAccount", "an account of "+owner, p.ledger.OpenAccount, &paymentsv1.OpenAccountRequest{
			Owner: owner, Kind: paymentsv1.AccountKind_ACCOUNT_KIND_GENERAL, Currency: "EUR", OverdraftLimitCents: proto.Int64(5000),
			IdempotencyKey: p.uuid("open " + owner), Metadata: map[string]string{"of": owner},
		}).GetAccount().GetAccountId()
	}
	from, to := open("skew.from"), open("skew.to")
	number := int64(0)
	made := ok(p, ctx, service+"Transfer", "a transfer", p.ledger.Transfer, &paymentsv1.TransferRequest{
		IdempotencyKey: p.uuid("transfer"), Operations: p.move(from, to), Metadata: map[string]string{"why": "skew"},
	}).GetTransfers()
	if len(made) > 0 {
		number = made[0].GetTransferNumber()
	}
	ok(p, ctx, service+"GetTransfer", "the transfer", p.ledger.GetTransfer, &paymentsv1.GetTransferRequest{TransferNumber: number})
	ok(p, ctx, service+"GetAccount", "the account", p.ledger.GetAccount, &paymentsv1.GetAccountRequest{AccountId: to})
	ok(p, ctx, service+"ListAccounts", "the accounts of one", p.ledger.ListAccounts, &paymentsv1.ListAccountsRequest{Owner: "skew.to"})
	ok(p, ctx, service+"ListEntries", "its entries", p.ledger.ListEntries, &paymentsv1.ListEntriesRequest{AccountId: to})
	ok(p, ctx, service+"GetTrialBalance", "the trial balance", p.ledger.GetTrialBalance, &paymentsv1.GetTrialBalanceRequest{})
	sound := ok(p, ctx, service+"VerifyLedger", "the books", p.ledger.VerifyLedger, &paymentsv1.VerifyLedgerRequest{})
	if !sound.GetSound() {
		p.step(unary, service+"VerifyLedger", "the books are sound", codes.OK, errors.New("they are not"))
	}
}

// move is a transfer of 12.34 from one account to another.
func (p *probe) move(from, to string) []*paymentsv1.TransferOperation {
	legs := []*paymentsv1.TransferLeg{{AccountId: from, AmountCents: -1234}, {AccountId: to, AmountCents: 1234}}
	return []*paymentsv1.TransferOperation{{Operation: &paymentsv1.TransferOperation_Move{Move: &paymentsv1.MoveOperation{Legs: legs}}}}
}
