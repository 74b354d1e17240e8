package payments

import "time"

// ID is the id of a payment, a UUIDv7 in its canonical form.
type ID string

// CustomerID is the id of a customer: a user id, a UUID in its canonical form.
type CustomerID string

// OrderID is what the caller calls the order that is paid.
type OrderID string

// State is where a payment stands.
type State string

// StateCaptured: the money has moved.
const StateCaptured State = "CAPTURED"

// Payment is money that a customer has paid for an order.
type Payment struct {
	ID       ID
	Order    OrderID
	Customer CustomerID
	// Amount is in the minor unit of the currency, above zero.
	Amount   int64
	Currency Currency
	State    State
	// Metadata is what the caller wrote on it; nil where there is nothing.
	Metadata map[string]string
	// CreatedAt is in UTC, to the microsecond.
	CreatedAt time.Time
}

// TransactionType is what can happen to a payment.
type TransactionType string

// TransactionCharged: a customer was charged.
const TransactionCharged TransactionType = "CHARGED"

// Transaction is one thing that happened to a payment. It is written with the change itself.
type Transaction struct {
	Type TransactionType
	// Payment is the payment as it was right after.
	Payment Payment
	// At is when it was written, in UTC, to the microsecond.
	At time.Time
}
