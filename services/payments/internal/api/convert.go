package api

import (
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// customerID returns the id in its canonical form; a UUID may come in capitals.
func customerID(text string) payments.CustomerID { return payments.CustomerID(strings.ToLower(text)) }

func paymentID(text string) payments.ID { return payments.ID(strings.ToLower(text)) }

func accountID(text string) ledger.AccountID { return ledger.AccountID(strings.ToLower(text)) }

func toProto(p payments.Payment) *paymentsv1.Payment {
	if p.Capturable == 0 { // what is held while a processor is asked is none of the caller's
		p.ExpiresAt = time.Time{}
	}
	return &paymentsv1.Payment{
		PaymentId:              string(p.ID),
		OrderId:                string(p.Order),
		CustomerId:             string(p.Customer),
		AmountCents:            p.Amount,
		Currency:               string(p.Currency),
		State:                  stateToProto(p.State),
		Metadata:               p.Metadata,
		CreatedAt:              timestamppb.New(p.CreatedAt),
		CapturedCents:          p.Captured,
		RefundedCents:          p.Refunded,
		CapturableCents:        p.Capturable,
		AuthorizationExpiresAt: optionalTime(p.ExpiresAt),
		DeclineCode:            declineToProto(p.Decline),
		UpdatedAt:              timestamppb.New(p.UpdatedAt),
	}
}

func optionalTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func stateToProto(s payments.State) paymentsv1.PaymentState {
	return paymentsv1.PaymentState(paymentsv1.PaymentState_value["PAYMENT_STATE_"+string(s)])
}

func declineToProto(d payments.Decline) paymentsv1.DeclineCode {
	return paymentsv1.DeclineCode(paymentsv1.DeclineCode_value["DECLINE_CODE_"+string(d)])
}

func transactionToProto(t payments.Transaction) *paymentsv1.Transaction {
	return &paymentsv1.Transaction{
		Type:        paymentsv1.TransactionType(paymentsv1.TransactionType_value["TRANSACTION_TYPE_"+string(t.Type)]),
		Payment:     toProto(t.Payment),
		Timestamp:   timestamppb.New(t.At),
		AmountCents: t.Amount,
	}
}

func accountToProto(a ledger.Account) *paymentsv1.Account {
	p := &paymentsv1.Account{
		AccountId:    string(a.ID),
		Owner:        a.Owner,
		Kind:         paymentsv1.AccountKind(paymentsv1.AccountKind_value["ACCOUNT_KIND_"+string(a.Kind)]),
		Currency:     a.Currency,
		BalanceCents: a.Balance,
		HeldCents:    a.Held,
		Metadata:     a.Metadata,
		CreatedAt:    timestamppb.New(a.CreatedAt),
	}
	if a.Limited {
		p.OverdraftLimitCents = &a.Limit
	}
	return p
}

// accountKind returns the domain's name of a kind, which the contract has checked.
func accountKind(k paymentsv1.AccountKind) ledger.Kind {
	return ledger.Kind(strings.TrimPrefix(k.String(), "ACCOUNT_KIND_"))
}

// owner returns the owner of an account as it is kept: a user id in its canonical form, any other name as it is.
func owner(text string) string {
	if isUUID(text) {
		return strings.ToLower(text)
	}
	return text
}

// isUUID says whether a text has the form of a UUID, in either case.
func isUUID(text string) bool {
	for i, c := range []byte(text) {
		switch i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			if !strings.ContainsRune("0123456789abcdefABCDEF", rune(c)) {
				return false
			}
		}
	}
	return len(text) == 36
}

func transferKindToProto(k ledger.TransferKind) paymentsv1.TransferKind {
	return paymentsv1.TransferKind(paymentsv1.TransferKind_value["TRANSFER_KIND_"+string(k)])
}

func transferToProto(t ledger.Transfer, ids map[int64]ledger.AccountID) *paymentsv1.Transfer {
	p := &paymentsv1.Transfer{
		TransferNumber:   t.Number,
		Kind:             transferKindToProto(t.Kind),
		Legs:             make([]*paymentsv1.TransferLeg, len(t.Legs)),
		OfTransferNumber: t.Of,
		PaymentId:        t.Reference,
		ExpiresAt:        optionalTime(t.ExpiresAt),
		Metadata:         t.Metadata,
		CreatedAt:        timestamppb.New(t.At),
		Hash:             t.Hash[:],
	}
	for i, l := range t.Legs {
		p.Legs[i] = &paymentsv1.TransferLeg{AccountId: string(ids[l.Account]), AmountCents: l.Amount}
	}
	return p
}

func entryToProto(e payments.AccountEntry) *paymentsv1.Entry {
	return &paymentsv1.Entry{
		TransferNumber:    e.Transfer,
		Kind:              transferKindToProto(e.Kind),
		AmountCents:       e.Amount,
		HeldCents:         e.Held,
		BalanceAfterCents: e.BalanceAfter,
		HeldAfterCents:    e.HeldAfter,
		PaymentId:         e.Reference,
		CreatedAt:         timestamppb.New(e.At),
	}
}
