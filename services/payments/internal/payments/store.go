package payments

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
)

// Store keeps payments, the ledger behind them and the keys they were made with. It is safe for concurrent use.
// Implementations pass storetest.Run.
//
// Beside what each method says, the methods return the error of ctx, and faults of the storage itself.
type Store interface {
	// Do runs a command, once for its claim: claim, payments, transfers, balances and events are written in one
	// transaction, all or nothing, and are on the disk when it returns. Commands that wait at the same time are written
	// together; they wait in a queue of bounded length, in their order.
	//
	// It returns the errors of Work.Do; ErrOverloaded when the queue is full; the error of ctx where ctx ended before the
	// command's batch began to be written. Then nothing was written. Where ctx ends while it is being written, and where
	// the storage fails to say whether it was, the error is sqldb.ErrOutcomeUnknown: the same claim tells later.
	Do(ctx context.Context, c Command) (Outcome, error)

	// Lookup returns the outcome of the claim, and whether there is one. It returns ErrIdempotencyKeyReused if the key
	// was used for other content, and ErrInFlight if its outcome is not known yet.
	Lookup(ctx context.Context, claim Claim) (Outcome, bool, error)

	// Payment returns a payment. It returns ErrPaymentNotFound if there is none.
	Payment(ctx context.Context, id ID) (Payment, error)
	// Payments returns the payments that match, newest first.
	Payments(ctx context.Context, query Query) ([]Payment, error)

	// Account returns an account, with the balances of the moment at where that is not zero: what was written until then
	// counts. It returns ledger.ErrAccountNotFound if there is none, or was none then.
	Account(ctx context.Context, id ledger.AccountID, at time.Time) (ledger.Account, error)
	// Accounts returns up to limit accounts whose number is above after, in the order of their numbers: those of one
	// owner, or all where owner is empty.
	Accounts(ctx context.Context, owner string, after int64, limit int) ([]ledger.Account, error)
	// Entries returns up to limit entries of an account, newest first, of transfers whose number is below before, zero
	// meaning from the newest. Of an account that is not there it returns none.
	Entries(ctx context.Context, id ledger.AccountID, before int64, limit int) ([]AccountEntry, error)
	// Transfer returns a transfer, with the ids of the accounts of its legs by their numbers. It returns
	// ledger.ErrTransferNotFound.
	Transfer(ctx context.Context, number int64) (ledger.Transfer, map[int64]ledger.AccountID, error)
	// AccountIDs returns the ids of accounts by their numbers.
	AccountIDs(ctx context.Context, numbers []int64) (map[int64]ledger.AccountID, error)
	// TrialBalance returns the sums of all balances, of one snapshot.
	TrialBalance(ctx context.Context) (TrialBalance, error)
	// Verify proves the books from one snapshot: see Proof. It reads everything.
	Verify(ctx context.Context) (Proof, error)

	// Expired returns up to limit pending transfers of which something is left and whose time is over at now, the oldest
	// first: those after one that it has returned before, nil meaning from the oldest.
	Expired(ctx context.Context, now time.Time, after *ledger.Outstanding, limit int) ([]ledger.Outstanding, error)
	// Intents returns up to limit intents without an outcome that were written down before t, the oldest first: those after
	// one that it has returned before, nil meaning from the oldest.
	Intents(ctx context.Context, before time.Time, after *Intent, limit int) ([]Intent, error)
	// Forget removes up to limit claims that were made before t and are not in flight, and says how many it has removed.
	Forget(ctx context.Context, before time.Time, limit int) (int, error)

	// Watch begins to follow the transactions of one customer, or of all where customer is empty: after the resume token,
	// or from now on where that is empty. A token is good for the same customer only. It returns faults of the event log
	// for a token that is not one or too old.
	Watch(ctx context.Context, customer CustomerID, token string) (Feed, error)
}

// Feed is a place in the order in which transactions were written. Next is for one goroutine. It must be closed.
type Feed interface {
	// Next waits for the next transaction and returns it with the token to resume right after it. It returns the error of
	// ctx, and may then be called again without losing anything; and faults of the event log, with the place to resume
	// from, when no more comes.
	Next(ctx context.Context) (Transaction, string, error)
	// Position returns the token of the place up to which Next has returned everything.
	Position() string
	// OnCut has fn called, on a goroutine of its own, when the feed is cut because its reader did not keep up: with the fault
	// that Next returns after what is buffered. The last fn counts.
	OnCut(fn func(why error))
	// Close ends the feed.
	Close()
}

// Query says which payments to list.
type Query struct {
	// Customer is whose payments to list. Empty means everybody's: whether the caller may ask for that was decided before.
	Customer CustomerID
	// Where are conditions that all have to be true.
	Where []Condition
	// Before is the number of the last payment of the page before: only payments with a lower number are listed. Zero
	// means the first page.
	Before int64
	// Limit is the most payments to return. Zero means DefaultPageSize; more than MaxPageSize means MaxPageSize.
	Limit int
}

// Field is what payments can be filtered by.
type Field string

// The fields, and the type of the values that they are compared with.
const (
	FieldState     Field = "state"        // State
	FieldCurrency  Field = "currency"     // Currency
	FieldOrder     Field = "order_id"     // OrderID
	FieldAmount    Field = "amount_cents" // int64
	FieldCreatedAt Field = "created_at"   // time.Time
)

// Operator compares a field with a value.
type Operator string

// The operators. Texts have the first two only.
const (
	Equal          Operator = "="
	NotEqual       Operator = "!="
	Less           Operator = "<"
	LessOrEqual    Operator = "<="
	Greater        Operator = ">"
	GreaterOrEqual Operator = ">="
)

// Condition is a comparison of a field with a value of the field's type.
type Condition struct {
	Field    Field
	Operator Operator
	Value    any
}

// Page is a part of a list.
type Page struct {
	Payments []Payment
	// More says that there are payments after the last of this page.
	More bool
}

// AccountEntry is an entry with the transfer that made it.
type AccountEntry struct {
	ledger.Entry
	Transfer  int64 // its number
	Kind      ledger.TransferKind
	Reference string // the payment, empty for none
	At        time.Time
}

// TrialBalance is the sums of all balances.
type TrialBalance struct {
	Rows []TrialBalanceRow // ordered by currency
	Head ledger.Head       // the end of the ledger that they are of
}

// TrialBalanceRow has the sums of one currency, as decimal numbers because they may pass an int64: Credit of the
// balances above zero, Debit of those below, without its sign. In whole books they are equal.
type TrialBalanceRow struct {
	Currency      string
	Credit, Debit string
	Accounts      int64
}

// Proof is what was found in the books. Sound books have no findings. What is proven: the transfers are numbered
// without a gap and each has the hash that follows from the one before; the entries of each sum to zero in each
// currency; the balance of an account and what it holds are the sums of its entries, and each entry says what they
// were right after; what pending transfers hold is what is left of them; a payment's amounts are those of its
// transfers, its state follows from them, and it is busy where a processor is being asked and nowhere else; every key
// that is kept has its payment; every change of a payment has its event, unless events have been trimmed, and every
// event its payment.
type Proof struct {
	Findings  []Finding
	Transfers int64 // how many were read
}

// Err returns nil for sound books, and else an error that names every finding.
func (p Proof) Err() error {
	var broken []error
	for _, f := range p.Findings {
		broken = append(broken, fmt.Errorf("broken: %s: %q", f.Rule, f.Row))
	}
	return errors.Join(broken...)
}

// Finding is one row that breaks a rule: up to MaxFindings are named of each rule.
type Finding struct {
	Rule string // in words
	Row  string // its id or number
}

// MaxFindings is how many rows Verify names of each rule.
const MaxFindings = 10
