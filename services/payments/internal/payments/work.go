package payments

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
)

// Digest is what binds a key to the content that it was used for.
type Digest [sha256.Size]byte

// Key is what makes a repeated call the same call. The zero Key stands for none: such a command is no caller's, and is
// judged by the state that it finds.
type Key struct {
	Caller string // whose key it is; equal keys of different callers have nothing to do with each other
	Method string // the kind of call
	Key    string // what the caller made up
}

// Claim is a key with the content that it stands for.
type Claim struct {
	Key
	Digest Digest
}

// Outcome is what a command has led to: one of its parts, by the kind of the command.
type Outcome struct {
	Payment   Payment           // as it was right after
	Account   ledger.Account    // as it was opened
	Transfers []ledger.Transfer // as they were written
	// Open says that a processor has been asked and has not answered: the outcome is not known yet, and the key is in
	// flight until a command with Resolves says what it is.
	Open *Intent
	// Replayed says that it is the outcome of an earlier command with the same key. It is not kept.
	Replayed bool
}

// Intent is what a processor was asked for. It is written down before the processor is asked, so that after a crash it
// can be asked again with the same key.
type Intent struct {
	Claim     Claim
	Operation Operation
	At        time.Time // when it was written down
}

// Kept is a claim with its outcome, as a store keeps them. At is when the claim was made.
type Kept struct {
	Claim
	Outcome Outcome
	At      time.Time
}

// Needs says what a command must find in the work: what is not there does not exist.
type Needs struct {
	Payments  []ID
	Accounts  []ledger.Key
	IDs       []ledger.AccountID // accounts by their ids
	Transfers []int64            // transfers to post, void or reverse, with the accounts of their legs
}

// Command is one change. A store makes those that wait at the same time in one transaction, one after another: what
// one has done the next one sees, and one that is refused leaves nothing behind and bothers nobody.
type Command struct {
	Claim Claim
	Needs Needs
	// Resolves says that the command brings the outcome of a claim that is in flight.
	Resolves bool
	// Run decides, and makes its changes in the work. It asks for nothing else but the work and what it was given,
	// because it may be called again on another work, when an attempt to write has failed. An error of it is that of the
	// command.
	Run func(w *Work) (Outcome, error)
}

// Loaded is what a store has read for the commands of a work, or remembers: all of it as it is at Head.
type Loaded struct {
	Head      Head
	Kept      []Kept // the claims that have been made before
	Payments  []Payment
	Accounts  []ledger.Account
	Pending   []ledger.Outstanding
	Transfers []ledger.Transfer // others than pending ones
	Reversed  map[int64]bool    // which of the Transfers were reversed
}

// Head is the end of everything that is numbered. Whoever changes anything that a command decides by moves Version on.
type Head struct {
	Ledger   ledger.Head
	Payments int64 // the number of the last one; zero means that there is none
	Version  int64 // how many works have been written
}

// Work is what commands change. It is for one goroutine.
type Work struct {
	Book *ledger.Book

	head     Head
	now      time.Time
	newID    func() string
	payments map[ID]*Payment
	kept     map[Key]*Kept
	written  map[Key]bool // what Kept of this work is new or resolved

	made    []ID
	changed []ID
	known   map[ID]bool // what is in made or changed
	told    []Transaction
	claims  []*Kept
	undo    []func() // of payments and claims, since the last command
}

// NewWork returns a work on what was loaded. now is the time of its changes, newID mints ids for accounts.
func NewWork(l Loaded, now time.Time, newID func() string) *Work {
	w := &Work{
		Book: ledger.NewBook(l.Head.Ledger), head: l.Head, now: now.UTC().Truncate(time.Microsecond), newID: newID,
		payments: make(map[ID]*Payment, len(l.Payments)), kept: make(map[Key]*Kept, len(l.Kept)),
		written: make(map[Key]bool), known: make(map[ID]bool),
	}
	for _, a := range l.Accounts {
		w.Book.LoadAccount(a)
	}
	for _, p := range l.Pending {
		w.Book.LoadPending(p)
	}
	for _, t := range l.Transfers {
		w.Book.LoadMoved(t, l.Reversed[t.Number])
	}
	for i := range l.Payments {
		w.payments[l.Payments[i].ID] = &l.Payments[i]
	}
	for i := range l.Kept {
		w.kept[l.Kept[i].Key] = &l.Kept[i]
	}
	return w
}

// Do runs a command. It returns the first outcome where the claim was made before, also in this work, and what is
// wrong with the claim or with the command, its panic included; then the work is as it was.
func (w *Work) Do(c Command) (Outcome, error) {
	claimed := c.Claim.Key != Key{}
	kept := w.kept[c.Claim.Key]
	switch {
	case !claimed && c.Resolves:
		return Outcome{}, errors.New("a command without a claim resolves nothing")
	case claimed && kept != nil && kept.Digest != c.Claim.Digest:
		return Outcome{}, ErrIdempotencyKeyReused
	case claimed && kept != nil && kept.Outcome.Open == nil:
		replay := kept.Outcome
		replay.Replayed = true
		return replay, nil
	case claimed && kept != nil && !c.Resolves:
		return Outcome{}, ErrInFlight
	case claimed && kept == nil && c.Resolves:
		return Outcome{}, errors.New("a claim that nobody has made cannot be resolved")
	}
	outcome, err := w.run(c)
	if err != nil {
		return Outcome{}, err
	}
	if claimed {
		w.keep(c, kept, outcome)
	}
	return outcome, nil
}

// run runs a command, and takes back what it has done where it does not come through. A panic of it is an error of its
// own.
func (w *Work) run(c Command) (outcome Outcome, err error) {
	mark, told, made, changed := w.Book.Mark(), len(w.told), len(w.made), len(w.changed)
	payments, through := w.head.Payments, false
	w.undo = w.undo[:0]
	defer func() {
		if through {
			return
		}
		if v := recover(); v != nil {
			outcome, err = Outcome{}, fmt.Errorf("panic in a command: %v\n%s", v, debug.Stack())
		}
		w.Book.Rollback(mark)
		for i := len(w.undo) - 1; i >= 0; i-- {
			w.undo[i]()
		}
		w.told, w.made, w.changed, w.head.Payments = w.told[:told], w.made[:made], w.changed[:changed], payments
	}()
	outcome, err = c.Run(w)
	through = err == nil
	return outcome, err
}

// keep writes down the outcome of a claim.
func (w *Work) keep(c Command, kept *Kept, outcome Outcome) {
	outcome.Replayed = false
	if outcome.Open != nil {
		outcome.Open.Claim, outcome.Open.At = c.Claim, w.now
	}
	if kept == nil {
		kept = &Kept{Claim: c.Claim, At: w.now}
		w.kept[c.Claim.Key] = kept
	}
	kept.Outcome = outcome
	if !w.written[c.Claim.Key] {
		w.written[c.Claim.Key] = true
		w.claims = append(w.claims, kept)
	}
}

// Now returns the time of the changes of this work: in UTC, to the microsecond.
func (w *Work) Now() time.Time { return w.now }

// Payment returns a payment of the work, and ErrPaymentNotFound where there is none.
func (w *Work) Payment(id ID) (Payment, error) {
	p := w.payments[id]
	if p == nil {
		return Payment{}, ErrPaymentNotFound
	}
	return *p, nil
}

// Put makes a payment, or changes the one with its id, and tells of it. It stamps UpdatedAt, and CreatedAt and Number
// of a new one, and returns what it wrote.
func (w *Work) Put(p Payment, what TransactionType, amount int64) Payment {
	p.UpdatedAt = w.now
	before := w.payments[p.ID]
	if before == nil {
		w.head.Payments++
		p.Number, p.CreatedAt = w.head.Payments, w.now
		w.made = append(w.made, p.ID)
	} else {
		p.Number, p.CreatedAt = before.Number, before.CreatedAt
	}
	known := w.known[p.ID]
	if before != nil && !known {
		w.changed = append(w.changed, p.ID)
	}
	w.known[p.ID] = true
	w.payments[p.ID] = &p
	w.undo = append(w.undo, func() {
		if before == nil {
			delete(w.payments, p.ID)
		} else {
			w.payments[p.ID] = before
		}
		if !known {
			delete(w.known, p.ID)
		}
	})
	w.told = append(w.told, Transaction{Type: what, Amount: amount, Payment: p, At: w.now})
	return p
}

// PutDeclined writes that a processor has declined what it was asked for of a payment that is there: to capture amount,
// to cancel, or to give back. p is written as it is. What is told and returned has the decline, which the payment itself
// keeps nothing of: it has not failed.
func (w *Work) PutDeclined(p Payment, amount int64, decline Decline) Payment {
	p = w.Put(p, TransactionFailed, amount)
	p.Decline = decline
	w.told[len(w.told)-1].Payment.Decline = decline
	return p
}

// Account returns the account with the key, and opens it, without a limit, where there is none.
func (w *Work) Account(key ledger.Key) *ledger.Account {
	if a := w.Book.Account(key); a != nil {
		return a
	}
	a, err := w.Book.Open(ledger.Account{ID: ledger.AccountID(w.newID()), Key: key, CreatedAt: w.now})
	if err != nil {
		panic(fmt.Sprintf("open an account that is not there: %v", err)) // the look before was at the same book
	}
	return a
}

// Changes is what a store writes down, all in one transaction.
type Changes struct {
	Head   Head
	Ledger ledger.Changes
	// Made are the new payments, in their order, and Changed those that were there.
	Made, Changed []Payment
	// Told are the events, in their order.
	Told []Transaction
	// Claimed are the claims of which the outcome is new, also those that were in flight before.
	Claimed []*Kept
}

// Empty says that there is nothing to write.
func (c *Changes) Empty() bool {
	return len(c.Ledger.Transfers) == 0 && len(c.Ledger.Opened) == 0 && len(c.Told) == 0 && len(c.Claimed) == 0
}

// Changes returns what the commands have done.
func (w *Work) Changes() Changes {
	c := Changes{Head: w.head, Ledger: w.Book.Changes(), Told: w.told, Claimed: w.claims}
	c.Head.Ledger = c.Ledger.Head
	c.Made, c.Changed = make([]Payment, len(w.made)), make([]Payment, len(w.changed))
	for i, id := range w.made {
		c.Made[i] = *w.payments[id]
	}
	for i, id := range w.changed {
		c.Changed[i] = *w.payments[id]
	}
	if !c.Empty() {
		c.Head.Version++
	}
	return c
}
