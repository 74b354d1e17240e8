// Package ledger is double-entry bookkeeping: accounts, and transfers between them that sum to zero in each currency,
// in one gap-free order, each bound to all before it by a hash.
//
// A Book is the part of the books that a batch of transfers needs, in memory: a store loads it, lets transfers be made
// in it, and writes down what has changed. Nothing here reads a clock, draws an id or knows how anything is kept.
//
// What is promised: money is neither made nor lost by a transfer; a balance stays in the range of an int64; an account
// with a limit does not go below it; what a pending transfer holds cannot be spent; a transfer that is refused changes
// nothing.
package ledger

import (
	"fmt"
	"strconv"
	"time"

	"github.com/concordat-dev/concordat/kit/fault"
)

// AccountID is the id of an account, a UUIDv7 in its canonical form.
type AccountID string

// Kind is what an account is for.
type Kind string

// The kinds of accounts.
const (
	// Customer is what a customer stands at. Below zero it is money that the outside (a card, a bank) owes for them.
	Customer Kind = "CUSTOMER"
	// Merchant is what has been taken in.
	Merchant Kind = "MERCHANT"
	// General is anything else.
	General Kind = "GENERAL"
)

// Key names an account by what it is: an owner has at most one of each kind in each currency.
type Key struct {
	Owner    string
	Kind     Kind
	Currency string // ISO 4217
}

// Account is one account of the ledger.
type Account struct {
	// Number is its place in the order in which accounts were opened: 1, 2, 3 and so on. Legs and entries name it by this.
	Number int64
	ID     AccountID
	Key
	// Limited says that the balance, less what is held, may not go below -Limit. Limit is zero or above.
	Limited bool
	Limit   int64
	// Balance is the sum of the entries of the account, Held that of what pending transfers hold back of it, zero or
	// above; both in the minor unit of the currency.
	Balance, Held int64
	Metadata      map[string]string // nil where there is none
	CreatedAt     time.Time         // in UTC, to the microsecond
}

// TransferKind is what a transfer does.
type TransferKind string

// The kinds of transfers.
const (
	Move     TransferKind = "MOVE"     // moves money
	Pending  TransferKind = "PENDING"  // holds it
	Post     TransferKind = "POST"     // moves what was held, or a part of it
	Void     TransferKind = "VOID"     // releases what is still held
	Reversal TransferKind = "REVERSAL" // moves back what a MOVE or a POST has moved
)

// Leg is what a transfer is about on one account: above zero is put in, below zero is taken out.
type Leg struct {
	Account int64 // its number
	Amount  int64
}

// Entry is what a transfer did to one account.
type Entry struct {
	Account int64 // its number
	// Amount is by how much the balance has changed, Held by how much what is held has; not both are zero.
	Amount, Held int64
	// BalanceAfter and HeldAfter are the account's right after.
	BalanceAfter, HeldAfter int64
}

// Transfer is one movement. It is never changed or removed.
type Transfer struct {
	// Number is its place in the ledger: 1, 2, 3 and so on, without gaps.
	Number int64
	Kind   TransferKind
	// Legs are what is moved, or held, or released: at least two, which sum to zero in each currency.
	Legs []Leg
	// Of is the transfer that is posted, voided or reversed; zero for other kinds.
	Of int64
	// Reference says what the transfer is of: a payment, or nothing. It is an id, never personal.
	Reference string
	// ExpiresAt is until when a pending transfer holds. Zero means until it is posted or voided.
	ExpiresAt time.Time
	// Metadata is what the caller wrote on it. It is not part of the hash, so that it can be erased.
	Metadata map[string]string
	At       time.Time // in UTC, to the microsecond
	// Entries are the effects, in the order of the legs. A leg without effect has none: a pending transfer holds what it
	// takes, and promises nothing to whom it would give.
	Entries []Entry
	// Hash binds the transfer to all before it; see Chain.
	Hash Hash
}

// Outstanding is a pending transfer with what is left of it.
type Outstanding struct {
	Transfer
	// Remaining is what is still held: of two legs the amount, of more legs 1 for all of it. Zero means nothing.
	Remaining int64
}

// Whole returns what Remaining is right after t was made.
func (t *Transfer) Whole() int64 {
	if len(t.Legs) != 2 {
		return 1
	}
	return max(t.Legs[0].Amount, t.Legs[1].Amount)
}

// The faults of this package. The metadata that each has is named; amounts are decimal numbers in minor units.
var (
	// ErrAccountNotFound: there is no such account, or the viewer may not know that there is.
	ErrAccountNotFound = fault.New(fault.NotFound, "ACCOUNT_NOT_FOUND", "no such account")
	// ErrAccountExists: the owner has an account of this kind in this currency. Metadata: account_id.
	ErrAccountExists = fault.New(fault.AlreadyExists, "ACCOUNT_EXISTS", "there is such an account")
	// ErrTransferNotFound: there is no such transfer.
	ErrTransferNotFound = fault.New(fault.NotFound, "TRANSFER_NOT_FOUND", "no such transfer")
	// ErrUnbalanced: the legs do not sum to zero in each currency, or name an account twice, or one moves nothing.
	ErrUnbalanced = fault.New(fault.InvalidArgument, "UNBALANCED", "the transfer does not balance")
	// ErrOverdrawn: an account would go below its limit. Metadata: account_id, available_cents.
	ErrOverdrawn = fault.New(fault.FailedPrecondition, "OVERDRAWN", "an account would be overdrawn")
	// ErrBalanceOverflow: an account's balance would leave the range of an int64.
	ErrBalanceOverflow = fault.New(fault.FailedPrecondition, "BALANCE_OVERFLOW", "a balance would go out of range")
	// ErrStateConflict: what is posted, voided or reversed is not, or no more, in a state for it. Metadata: state.
	ErrStateConflict = fault.New(fault.FailedPrecondition, "STATE_CONFLICT", "the state does not allow that")
	// ErrAmountExceeded: more than what is left was asked for. Metadata: available_cents.
	ErrAmountExceeded = fault.New(fault.FailedPrecondition, "AMOUNT_EXCEEDED", "that is more than what is left")
)

// Faults returns every fault of this package, for tests that hold them against the contract.
func Faults() []*fault.Fault {
	return []*fault.Fault{
		ErrAccountNotFound, ErrAccountExists, ErrTransferNotFound, ErrUnbalanced, ErrOverdrawn, ErrBalanceOverflow,
		ErrStateConflict, ErrAmountExceeded,
	}
}

// Available returns how much can be taken out of the account, zero or above, and whether there is a limit at all.
func (a *Account) Available() (amount int64, limited bool) {
	if !a.Limited {
		return 0, false
	}
	free, ok := sub(a.Balance, a.Held)
	if !ok {
		return 0, true
	}
	if free, ok = add(free, a.Limit); !ok {
		return maxInt64, true // so much that the limit does not matter
	}
	return max(free, 0), true
}

// overdrawn returns ErrOverdrawn unless what is free of the account is within its limit.
func (a *Account) overdrawn(before int64) error {
	if !a.Limited {
		return nil
	}
	free, ok := sub(a.Balance, a.Held)
	if ok && (free >= 0 || free >= -a.Limit) {
		return nil
	}
	return ErrOverdrawn.With("account_id", string(a.ID)).With("available_cents", strconv.FormatInt(before, 10))
}

const (
	maxInt64 = 1<<63 - 1
	minInt64 = -1 << 63
)

// add returns a + b, and whether that is in range.
func add(a, b int64) (int64, bool) {
	sum := a + b
	return sum, (sum > a) == (b > 0) || b == 0
}

// sub returns a - b, and whether that is in range.
func sub(a, b int64) (int64, bool) {
	diff := a - b
	return diff, (diff < a) == (b > 0) || b == 0
}

func invalid(leg int, text string) error {
	return ErrUnbalanced.WithViolation(fmt.Sprintf("legs[%d]", leg), "transfer.balanced", text)
}
