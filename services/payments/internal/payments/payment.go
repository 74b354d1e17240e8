package payments

import (
	"time"

	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
)

// ID is the id of a payment, a UUIDv7 in its canonical form.
type ID string

// CustomerID is the id of a customer: a user id, a UUID in its canonical form.
type CustomerID string

// OrderID is what the caller calls the order that is paid.
type OrderID string

// MerchantOwner is the owner of the merchant accounts, into which customers pay.
const MerchantOwner = "merchant"

// State is where a payment stands.
type State string

// The states. All but the first and the last two follow from the amounts.
const (
	StateProcessing        State = "PROCESSING" // the processor was asked to authorize and has not said
	StateAuthorized        State = "AUTHORIZED"
	StateCaptured          State = "CAPTURED"
	StatePartiallyRefunded State = "PARTIALLY_REFUNDED"
	StateRefunded          State = "REFUNDED"
	StateCanceled          State = "CANCELED" // given up or expired before anything was captured
	StateFailed            State = "FAILED"   // declined
)

// Decline is why a payment was declined. A decline is an answer, not an error, and final.
type Decline string

// The declines.
const (
	NotDeclined       Decline = ""
	Declined          Decline = "DECLINED" // the processor does not tell why
	InsufficientFunds Decline = "INSUFFICIENT_FUNDS"
	ExpiredCard       Decline = "EXPIRED_CARD"
	InvalidToken      Decline = "INVALID_TOKEN"
)

// Payment is money that a customer pays for an order. Amounts are in the minor unit of the currency.
type Payment struct {
	// Number is its place in the order in which payments were made: 1, 2, 3 and so on, without gaps.
	Number   int64
	ID       ID
	Order    OrderID
	Customer CustomerID
	Amount   int64 // what was asked for, above zero
	Currency Currency
	State    State
	// Captured is what was captured, Refunded what of that was given back, Capturable what may still be captured: it is
	// held on the customer's account.
	Captured, Refunded, Capturable int64
	// Hold is the pending transfer that holds what may be captured; zero where nothing was ever held.
	Hold int64
	// ExpiresAt is when what may still be captured is released. Zero where nothing was held.
	ExpiresAt time.Time
	// Decline is why the payment failed. In the outcome of a capture, a cancellation or a refund, and in what is told of it,
	// it is why that was declined, and the payment is as it was.
	Decline Decline
	// Busy says that a remote processor was asked to change the payment and has not said: nothing else may change it.
	Busy bool
	// Metadata is what the caller wrote on it; nil where there is nothing.
	Metadata map[string]string
	// CreatedAt and UpdatedAt are in UTC, to the microsecond.
	CreatedAt, UpdatedAt time.Time
}

// CustomerAccount returns the key of the account that the payment is taken from.
func (p *Payment) CustomerAccount() ledger.Key { return CustomerAccount(p.Customer, p.Currency) }

// MerchantAccount returns the key of the account that the payment goes to.
func (p *Payment) MerchantAccount() ledger.Key { return MerchantAccount(p.Currency) }

// CustomerAccount returns the key of the account of a customer in a currency.
func CustomerAccount(customer CustomerID, currency Currency) ledger.Key {
	return ledger.Key{Owner: string(customer), Kind: ledger.Customer, Currency: string(currency)}
}

// MerchantAccount returns the key of the account into which payments of a currency go.
func MerchantAccount(currency Currency) ledger.Key {
	return ledger.Key{Owner: MerchantOwner, Kind: ledger.Merchant, Currency: string(currency)}
}

// stateOf returns the state that follows from the amounts of a payment that was authorized.
func (p *Payment) stateOf() State {
	switch {
	case p.Captured == 0 && p.Capturable > 0:
		return StateAuthorized
	case p.Captured == 0:
		return StateCanceled
	case p.Refunded == 0:
		return StateCaptured
	case p.Refunded < p.Captured:
		return StatePartiallyRefunded
	default:
		return StateRefunded
	}
}

// TransactionType is what can happen to a payment.
type TransactionType string

// The types of transactions.
const (
	TransactionCharged    TransactionType = "CHARGED" // authorized and captured in one
	TransactionAuthorized TransactionType = "AUTHORIZED"
	TransactionCaptured   TransactionType = "CAPTURED"
	TransactionCanceled   TransactionType = "CANCELED"
	TransactionExpired    TransactionType = "EXPIRED"
	TransactionRefunded   TransactionType = "REFUNDED"
	TransactionFailed     TransactionType = "FAILED" // the payment, or a change of it, was declined
	TransactionProcessing TransactionType = "PROCESSING"
)

// Transaction is one thing that happened to a payment. It is written with the change itself.
type Transaction struct {
	Type TransactionType
	// Amount is how much it was about, in the minor unit of the currency.
	Amount int64
	// Payment is the payment as it was right after.
	Payment Payment
	// At is when it was written, in UTC, to the microsecond.
	At time.Time
}
