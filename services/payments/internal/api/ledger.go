package api

import (
	"context"
	"time"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// ledgerServer answers payments.v1.LedgerService.
type ledgerServer struct {
	paymentsv1.UnimplementedLedgerServiceServer

	*Server
}

var _ paymentsv1.LedgerServiceServer = ledgerServer{}

// errOwnerNoCustomer: the account of a customer is to belong to somebody who can be none. Charges and erasures find a
// customer's accounts by the user id.
var errOwnerNoCustomer = fault.New(fault.InvalidArgument, "INVALID_REQUEST", "the request breaks the rules of its message").
	WithDomain(fault.Domain).
	WithViolation("owner", "string.uuid", "must be a user id, a UUID, for an account of a customer")

// OpenAccount opens an account.
func (s ledgerServer) OpenAccount(
	ctx context.Context, req *paymentsv1.OpenAccountRequest,
) (*paymentsv1.OpenAccountResponse, error) {
	if req.GetKind() == paymentsv1.AccountKind_ACCOUNT_KIND_CUSTOMER && !isUUID(req.GetOwner()) {
		return nil, errOwnerNoCustomer
	}
	outcome, err := s.payments.OpenAccount(ctx, identity.From(ctx).Key(), req.GetIdempotencyKey(), payments.OpenAccount{
		Key:      ledger.Key{Owner: owner(req.GetOwner()), Kind: accountKind(req.GetKind()), Currency: req.GetCurrency()},
		Limited:  req.OverdraftLimitCents != nil,
		Limit:    req.GetOverdraftLimitCents(),
		Metadata: req.GetMetadata(),
	})
	if err != nil {
		return nil, err
	}
	sayReplayed(ctx, outcome)
	return &paymentsv1.OpenAccountResponse{Account: accountToProto(outcome.Account)}, nil
}

// GetAccount returns an account.
func (s ledgerServer) GetAccount(
	ctx context.Context, req *paymentsv1.GetAccountRequest,
) (*paymentsv1.GetAccountResponse, error) {
	var at time.Time
	if req.GetAt() != nil {
		at = req.GetAt().AsTime()
	}
	a, err := s.payments.Account(ctx, viewer(identity.From(ctx)), accountID(req.GetAccountId()), at)
	if err != nil {
		return nil, err
	}
	return &paymentsv1.GetAccountResponse{Account: accountToProto(a)}, nil
}

// ListAccounts returns a page of accounts.
func (s ledgerServer) ListAccounts(
	ctx context.Context, req *paymentsv1.ListAccountsRequest,
) (*paymentsv1.ListAccountsResponse, error) {
	whose := owner(req.GetOwner())
	scope := pageScope(ctx, paymentsv1.LedgerService_ListAccounts_FullMethodName, whose)
	after, err := s.openPage(scope, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	found, more, err := s.payments.Accounts(ctx, whose, after, int(req.GetPageSize()))
	if err != nil {
		return nil, err
	}
	resp := &paymentsv1.ListAccountsResponse{Accounts: make([]*paymentsv1.Account, len(found))}
	for i, a := range found {
		resp.Accounts[i] = accountToProto(a)
	}
	if more {
		resp.NextPageToken = s.sealPage(scope, found[len(found)-1].Number)
	}
	return resp, nil
}

// ListEntries returns a page of the entries of an account.
func (s ledgerServer) ListEntries(
	ctx context.Context, req *paymentsv1.ListEntriesRequest,
) (*paymentsv1.ListEntriesResponse, error) {
	id := accountID(req.GetAccountId())
	scope := pageScope(ctx, paymentsv1.LedgerService_ListEntries_FullMethodName, string(id))
	before, err := s.openPage(scope, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	found, more, err := s.payments.Entries(ctx, viewer(identity.From(ctx)), id, before, int(req.GetPageSize()))
	if err != nil {
		return nil, err
	}
	resp := &paymentsv1.ListEntriesResponse{Entries: make([]*paymentsv1.Entry, len(found))}
	for i, e := range found {
		resp.Entries[i] = entryToProto(e)
	}
	if more {
		resp.NextPageToken = s.sealPage(scope, found[len(found)-1].Transfer)
	}
	return resp, nil
}

// Transfer moves money between accounts.
func (s ledgerServer) Transfer(
	ctx context.Context, req *paymentsv1.TransferRequest,
) (*paymentsv1.TransferResponse, error) {
	operations := make([]payments.TransferOperation, len(req.GetOperations()))
	for i, o := range req.GetOperations() {
		operations[i] = operation(o)
	}
	outcome, err := s.payments.Transfer(ctx, identity.From(ctx).Key(), req.GetIdempotencyKey(), operations, req.GetMetadata())
	if err != nil {
		return nil, err
	}
	ids, err := s.accountIDs(ctx, outcome.Transfers)
	if err != nil {
		return nil, err
	}
	sayReplayed(ctx, outcome)
	resp := &paymentsv1.TransferResponse{Transfers: make([]*paymentsv1.Transfer, len(outcome.Transfers))}
	for i, t := range outcome.Transfers {
		resp.Transfers[i] = transferToProto(t, ids)
	}
	return resp, nil
}

// accountIDs returns the ids of the accounts of the transfers.
func (s ledgerServer) accountIDs(ctx context.Context, transfers []ledger.Transfer) (map[int64]ledger.AccountID, error) {
	var numbers []int64
	for _, t := range transfers {
		for _, l := range t.Legs {
			numbers = append(numbers, l.Account)
		}
	}
	return s.payments.AccountIDs(ctx, numbers)
}

// operation returns what an operation asks for; the contract has checked that it is one.
func operation(o *paymentsv1.TransferOperation) payments.TransferOperation {
	switch {
	case o.GetMove() != nil:
		move := payments.TransferOperation{Kind: ledger.Move}
		if o.GetMove().GetPending() {
			move.Kind, move.ExpiresIn = ledger.Pending, o.GetMove().GetExpiresIn().AsDuration()
		}
		for _, l := range o.GetMove().GetLegs() {
			move.Legs = append(move.Legs, payments.TransferLeg{Account: accountID(l.GetAccountId()), Amount: l.GetAmountCents()})
		}
		return move
	case o.GetPost() != nil:
		return payments.TransferOperation{Kind: ledger.Post, Of: o.GetPost().GetTransferNumber(), Amount: o.GetPost().GetAmountCents()}
	case o.GetVoid() != nil:
		return payments.TransferOperation{Kind: ledger.Void, Of: o.GetVoid().GetTransferNumber()}
	default:
		return payments.TransferOperation{Kind: ledger.Reversal, Of: o.GetReverse().GetTransferNumber()}
	}
}

// GetTransfer returns a transfer.
func (s ledgerServer) GetTransfer(
	ctx context.Context, req *paymentsv1.GetTransferRequest,
) (*paymentsv1.GetTransferResponse, error) {
	t, ids, err := s.payments.GetTransfer(ctx, req.GetTransferNumber())
	if err != nil {
		return nil, err
	}
	return &paymentsv1.GetTransferResponse{Transfer: transferToProto(t, ids)}, nil
}

// GetTrialBalance returns the sums of all balances.
func (s ledgerServer) GetTrialBalance(
	ctx context.Context, _ *paymentsv1.GetTrialBalanceRequest,
) (*paymentsv1.GetTrialBalanceResponse, error) {
	b, err := s.payments.TrialBalance(ctx)
	if err != nil {
		return nil, err
	}
	resp := &paymentsv1.GetTrialBalanceResponse{
		Rows:           make([]*paymentsv1.TrialBalanceRow, len(b.Rows)),
		TransferNumber: b.Head.Transfers,
	}
	if b.Head.Transfers > 0 {
		resp.Hash = b.Head.Hash[:]
	}
	for i, r := range b.Rows {
		resp.Rows[i] = &paymentsv1.TrialBalanceRow{
			Currency: r.Currency, CreditCents: r.Credit, DebitCents: r.Debit, AccountCount: r.Accounts,
		}
	}
	return resp, nil
}

// VerifyLedger proves the books.
func (s ledgerServer) VerifyLedger(
	ctx context.Context, _ *paymentsv1.VerifyLedgerRequest,
) (*paymentsv1.VerifyLedgerResponse, error) {
	proof, err := s.payments.Verify(ctx)
	if err != nil {
		return nil, err
	}
	resp := &paymentsv1.VerifyLedgerResponse{Sound: len(proof.Findings) == 0, TransferCount: proof.Transfers}
	for _, f := range proof.Findings {
		resp.Findings = append(resp.Findings, &paymentsv1.LedgerFinding{Rule: f.Rule, Row: f.Row})
	}
	return resp, nil
}
