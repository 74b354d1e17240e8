package api_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	"github.com/concordat-dev/concordat/kit/kittest"
)

func (s *service) ledger() paymentsv1.LedgerServiceClient {
	return paymentsv1.NewLedgerServiceClient(s.AsService("orders"))
}

func openAccount(t *testing.T, s *service, owner, currency string, limitCents *int64) *paymentsv1.Account {
	t.Helper()
	resp, err := s.ledger().OpenAccount(limit(t), &paymentsv1.OpenAccountRequest{
		Owner: owner, Kind: paymentsv1.AccountKind_ACCOUNT_KIND_GENERAL, Currency: currency, IdempotencyKey: owner + currency,
		OverdraftLimitCents: limitCents, Metadata: map[string]string{"name": owner},
	})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetAccount()
}

func move(from, to *paymentsv1.Account, cents int64) *paymentsv1.MoveOperation {
	return &paymentsv1.MoveOperation{Legs: []*paymentsv1.TransferLeg{
		{AccountId: from.GetAccountId(), AmountCents: -cents}, {AccountId: to.GetAccountId(), AmountCents: cents},
	}}
}

func transfer(key string, operations ...*paymentsv1.TransferOperation) *paymentsv1.TransferRequest {
	return &paymentsv1.TransferRequest{IdempotencyKey: key, Operations: operations, Metadata: map[string]string{"why": "test"}}
}

func moving(m *paymentsv1.MoveOperation) *paymentsv1.TransferOperation {
	return &paymentsv1.TransferOperation{Operation: &paymentsv1.TransferOperation_Move{Move: m}}
}

func posting(number, cents int64) *paymentsv1.TransferOperation {
	return &paymentsv1.TransferOperation{Operation: &paymentsv1.TransferOperation_Post{Post: &paymentsv1.PostOperation{TransferNumber: number, AmountCents: cents}}}
}

func voiding(number int64) *paymentsv1.TransferOperation {
	return &paymentsv1.TransferOperation{Operation: &paymentsv1.TransferOperation_Void{Void: &paymentsv1.VoidOperation{TransferNumber: number}}}
}

func reversing(number int64) *paymentsv1.TransferOperation {
	return &paymentsv1.TransferOperation{Operation: &paymentsv1.TransferOperation_Reverse{Reverse: &paymentsv1.ReverseOperation{TransferNumber: number}}}
}

func TestMoneyMovesBetweenAccounts(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	bank, shop := openAccount(t, s, "bank", "EUR", nil), openAccount(t, s, "shop", "EUR", proto.Int64(0))
	if shop.OverdraftLimitCents == nil || shop.GetMetadata()["name"] != "shop" || bank.OverdraftLimitCents != nil {
		t.Errorf("opened %v, %v", bank, shop)
	}
	pending := move(shop, bank, 30)
	pending.Pending, pending.ExpiresIn = true, durationpb.New(time.Hour)
	req := transfer("t", moving(move(bank, shop, 100)), moving(pending))
	resp, err := s.ledger().Transfer(limit(t), req)
	if err != nil || len(resp.GetTransfers()) != 2 {
		t.Fatalf("%v, %v", resp, err)
	}
	first, hold := resp.GetTransfers()[0], resp.GetTransfers()[1]
	if first.GetTransferNumber() != 1 || first.GetKind() != paymentsv1.TransferKind_TRANSFER_KIND_MOVE || len(first.GetHash()) != 32 ||
		first.GetLegs()[0].GetAccountId() != bank.GetAccountId() || hold.ExpiresAt == nil || hold.GetMetadata()["why"] != "test" {
		t.Errorf("transfers: %v", resp)
	}
	again, err := s.ledger().Transfer(limit(t), req)
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, again, resp)
	got, err := s.ledger().GetTransfer(limit(t), &paymentsv1.GetTransferRequest{TransferNumber: 2})
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, got.GetTransfer(), hold)
	if _, err := s.ledger().Transfer(limit(t), transfer("p", posting(2, 10), voiding(2), reversing(1))); err == nil {
		t.Error("what was spent was taken back")
	} else {
		kittest.WantFault(t, err, codes.FailedPrecondition, "OVERDRAWN")
	}
	if _, err := s.ledger().Transfer(limit(t), transfer("p", posting(2, 10), voiding(2))); err != nil {
		t.Error(err)
	}
	account, err := s.ledger().GetAccount(limit(t), &paymentsv1.GetAccountRequest{AccountId: shop.GetAccountId()})
	if a := account.GetAccount(); err != nil || a.GetBalanceCents() != 90 || a.GetHeldCents() != 0 {
		t.Errorf("the shop: %v, %v", a, err)
	}
	before, err := s.ledger().GetAccount(limit(t), &paymentsv1.GetAccountRequest{AccountId: shop.GetAccountId(), At: timestamppb.New(hold.GetCreatedAt().AsTime())})
	if a := before.GetAccount(); err != nil || a.GetBalanceCents() != 100 || a.GetHeldCents() != 30 {
		t.Errorf("the shop before: %v, %v", a, err)
	}
	entries, err := s.ledger().ListEntries(limit(t), &paymentsv1.ListEntriesRequest{AccountId: shop.GetAccountId(), PageSize: 2})
	if err != nil || len(entries.GetEntries()) != 2 || entries.GetEntries()[0].GetTransferNumber() != 4 || entries.GetNextPageToken() == "" {
		t.Fatalf("entries: %v, %v", entries, err)
	}
	rest, err := s.ledger().ListEntries(limit(t), &paymentsv1.ListEntriesRequest{AccountId: shop.GetAccountId(), PageSize: 2, PageToken: entries.GetNextPageToken()})
	if err != nil || len(rest.GetEntries()) != 2 || rest.GetEntries()[1].GetBalanceAfterCents() != 100 || rest.GetNextPageToken() != "" {
		t.Errorf("the rest: %v, %v", rest, err)
	}
	trial, err := s.ledger().GetTrialBalance(limit(t), &paymentsv1.GetTrialBalanceRequest{})
	if err != nil || len(trial.GetRows()) != 1 || trial.GetRows()[0].GetCreditCents() != "90" || trial.GetRows()[0].GetDebitCents() != "90" || trial.GetTransferNumber() != 4 {
		t.Errorf("trial balance: %v, %v", trial, err)
	}
	proof, err := s.ledger().VerifyLedger(limit(t), &paymentsv1.VerifyLedgerRequest{})
	if err != nil || !proof.GetSound() || proof.GetTransferCount() != 4 {
		t.Errorf("proof: %v, %v", proof, err)
	}
	s.verify(t)
}

func TestWhatCannotBeMovedSaysWhy(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	bank, shop, dollars := openAccount(t, s, "bank", "EUR", nil), openAccount(t, s, "shop", "EUR", proto.Int64(5)), openAccount(t, s, "bank", "USD", nil)
	p := held(t, s, "k")
	nobody := &paymentsv1.Account{AccountId: bob}
	unbalanced := move(bank, shop, 5)
	unbalanced.Legs[1].AmountCents = 6
	for name, c := range map[string]struct {
		operation *paymentsv1.TransferOperation
		code      codes.Code
		reason    string
		field     string
	}{
		"an account that is not there":  {moving(move(bank, nobody, 5)), codes.NotFound, "ACCOUNT_NOT_FOUND", ""},
		"a sum that is not zero":        {moving(unbalanced), codes.InvalidArgument, "UNBALANCED", "operations[0].move"},
		"two currencies":                {moving(move(bank, dollars, 5)), codes.InvalidArgument, "UNBALANCED", "operations[0].move"},
		"one account twice":             {moving(move(bank, bank, 5)), codes.InvalidArgument, "UNBALANCED", "operations[0].move.legs[1]"},
		"more than the overdraft":       {moving(move(shop, bank, 6)), codes.FailedPrecondition, "OVERDRAWN", ""},
		"a transfer that is not there":  {posting(99, 0), codes.NotFound, "TRANSFER_NOT_FOUND", ""},
		"a hold of a payment":           {posting(1, 0), codes.FailedPrecondition, "STATE_CONFLICT", ""},
		"a hold of a payment, released": {voiding(1), codes.FailedPrecondition, "STATE_CONFLICT", ""},
		"no operation":                  {&paymentsv1.TransferOperation{}, codes.InvalidArgument, "INVALID_REQUEST", "operations[0].operation"},
	} {
		_, err := s.ledger().Transfer(limit(t), transfer("t", c.operation))
		t.Log(name)
		f := kittest.WantFault(t, err, c.code, c.reason)
		if c.field != "" {
			kittest.WantViolations(t, f, c.field)
		}
	}
	_, err := s.ledger().OpenAccount(limit(t), &paymentsv1.OpenAccountRequest{
		Owner: "bank", Kind: paymentsv1.AccountKind_ACCOUNT_KIND_GENERAL, Currency: "EUR", IdempotencyKey: "again",
	})
	if f := kittest.WantFault(t, err, codes.AlreadyExists, "ACCOUNT_EXISTS"); f.Metadata()["account_id"] != bank.GetAccountId() {
		t.Errorf("metadata %v", f.Metadata())
	}
	_, err = s.ledger().OpenAccount(limit(t), &paymentsv1.OpenAccountRequest{
		Owner: "x", Kind: paymentsv1.AccountKind_ACCOUNT_KIND_GENERAL, Currency: "ZZZ", IdempotencyKey: "z",
	})
	kittest.WantFault(t, err, codes.InvalidArgument, "CURRENCY_UNKNOWN")
	_, err = s.ledger().OpenAccount(limit(t), &paymentsv1.OpenAccountRequest{
		Owner: "ann", Kind: paymentsv1.AccountKind_ACCOUNT_KIND_CUSTOMER, Currency: "EUR", IdempotencyKey: "ann",
	})
	kittest.WantViolations(t, kittest.WantFault(t, err, codes.InvalidArgument, "INVALID_REQUEST"), "owner")
	if p.GetState() != paymentsv1.PaymentState_PAYMENT_STATE_AUTHORIZED {
		t.Errorf("the payment: %v", p)
	}
	s.verify(t)
}

func TestTheAccountOfACustomerIsTheOneThatChargesAreTakenFrom(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	opened, err := s.ledger().OpenAccount(limit(t), &paymentsv1.OpenAccountRequest{
		Owner: strings.ToUpper(ann), Kind: paymentsv1.AccountKind_ACCOUNT_KIND_CUSTOMER, Currency: "EUR", IdempotencyKey: "k",
		OverdraftLimitCents: proto.Int64(149),
	})
	if err != nil || opened.GetAccount().GetOwner() != ann {
		t.Fatalf("%v, %v", opened, err)
	}
	if p := charge(t, s, "too-much"); p.GetDeclineCode() != paymentsv1.DeclineCode_DECLINE_CODE_INSUFFICIENT_FUNDS {
		t.Errorf("a charge above the limit: %v", p)
	}
	charge(t, s, "enough", func(r *paymentsv1.ChargeRequest) { r.AmountCents = 149 })
	found, err := paymentsv1.NewLedgerServiceClient(s.As(ann, "payments.read")).ListAccounts(limit(t), &paymentsv1.ListAccountsRequest{
		Owner: strings.ToUpper(ann),
	})
	if err != nil || len(found.GetAccounts()) != 1 || found.GetAccounts()[0].GetBalanceCents() != -149 {
		t.Errorf("%v, %v", found, err)
	}
	s.verify(t)
}

func TestACustomerSeesTheirAccountsAndNobodyElses(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	charge(t, s, "a")
	charge(t, s, "b", ofBob)
	client := func(user string) paymentsv1.LedgerServiceClient {
		return paymentsv1.NewLedgerServiceClient(s.As(user, "payments.read"))
	}
	own, err := client(ann).ListAccounts(limit(t), &paymentsv1.ListAccountsRequest{Owner: ann})
	if err != nil || len(own.GetAccounts()) != 1 || own.GetAccounts()[0].GetBalanceCents() != -150 {
		t.Fatalf("ann's: %v, %v", own, err)
	}
	id := own.GetAccounts()[0].GetAccountId()
	if _, err := client(ann).GetAccount(limit(t), &paymentsv1.GetAccountRequest{AccountId: id}); err != nil {
		t.Error(err)
	}
	if e, err := client(ann).ListEntries(limit(t), &paymentsv1.ListEntriesRequest{AccountId: id}); err != nil || len(e.GetEntries()) != 1 {
		t.Errorf("%v, %v", e, err)
	}
	_, err = client(bob).ListAccounts(limit(t), &paymentsv1.ListAccountsRequest{Owner: ann})
	kittest.WantFault(t, err, codes.PermissionDenied, "NOT_SELF")
	_, err = client(bob).GetAccount(limit(t), &paymentsv1.GetAccountRequest{AccountId: id})
	kittest.WantFault(t, err, codes.NotFound, "ACCOUNT_NOT_FOUND")
	_, err = client(bob).ListEntries(limit(t), &paymentsv1.ListEntriesRequest{AccountId: id})
	kittest.WantFault(t, err, codes.NotFound, "ACCOUNT_NOT_FOUND")
	_, err = client(ann).GetTrialBalance(limit(t), &paymentsv1.GetTrialBalanceRequest{})
	kittest.WantFault(t, err, codes.PermissionDenied, "SCOPE_MISSING")
	all, err := s.ledger().ListAccounts(limit(t), &paymentsv1.ListAccountsRequest{PageSize: 2})
	if err != nil || len(all.GetAccounts()) != 2 || all.GetNextPageToken() == "" {
		t.Fatalf("all: %v, %v", all, err)
	}
	rest, err := s.ledger().ListAccounts(limit(t), &paymentsv1.ListAccountsRequest{PageSize: 2, PageToken: all.GetNextPageToken()})
	if err != nil || len(rest.GetAccounts()) != 1 || rest.GetNextPageToken() != "" {
		t.Errorf("the rest: %v, %v", rest, err)
	}
}
