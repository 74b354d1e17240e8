package ledger

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Head is the end of the ledger.
type Head struct {
	// Transfers and Accounts are the numbers of the last of each; zero means that there is none.
	Transfers, Accounts int64
	// Hash is that of the last transfer.
	Hash Hash
}

// Book is the part of the books that some transfers need. It is for one goroutine. What it returns belongs to it: a
// caller reads it, until the next change.
type Book struct {
	head     Head
	accounts map[int64]*Account
	byKey    map[Key]*Account
	byID     map[AccountID]*Account
	pending  map[int64]*Outstanding
	moved    map[int64]*reversible
	chain    chain

	// What has changed since Load, in order.
	opened    []*Account
	touched   []*Account // accounts that were there, each once
	isTouched map[int64]bool
	transfers []*Transfer
	settled   []*Outstanding // outstanding transfers that were there, each once
	isSettled map[int64]bool

	journal []undo
}

// reversible is a transfer that moved money, and whether that was moved back.
type reversible struct {
	Transfer
	reversed bool
}

// undo is how something was before a change.
type undo struct {
	account       *Account
	balance, held int64
	pending       *Outstanding
	remaining     int64
	moved         *reversible
}

// NewBook returns a book that ends at head and has nothing in it.
func NewBook(head Head) *Book {
	return &Book{
		head: head, accounts: make(map[int64]*Account), byKey: make(map[Key]*Account), byID: make(map[AccountID]*Account),
		pending: make(map[int64]*Outstanding), moved: make(map[int64]*reversible),
		isTouched: make(map[int64]bool), isSettled: make(map[int64]bool),
	}
}

// LoadAccount adds an account as the store has it.
func (b *Book) LoadAccount(a Account) { b.add(&a) }

func (b *Book) add(a *Account) {
	b.accounts[a.Number], b.byKey[a.Key], b.byID[a.ID] = a, a, a
}

// LoadPending adds a pending transfer as the store has it. The accounts of its legs have to be loaded as well.
func (b *Book) LoadPending(p Outstanding) { b.pending[p.Number] = &p }

// LoadMoved adds a transfer that moved money, and whether it was reversed. The accounts of its legs have to be loaded
// as well.
func (b *Book) LoadMoved(t Transfer, reversed bool) { b.moved[t.Number] = &reversible{t, reversed} }

// Head returns where the ledger ends now.
func (b *Book) Head() Head { return b.head }

// Account returns the account with the key, nil where there is none in the book.
func (b *Book) Account(key Key) *Account { return b.byKey[key] }

// AccountByID returns the account with the id, nil where there is none in the book.
func (b *Book) AccountByID(id AccountID) *Account { return b.byID[id] }

// AccountByNumber returns the account with the number, nil where there is none in the book.
func (b *Book) AccountByNumber(n int64) *Account { return b.accounts[n] }

// Pending returns the outstanding transfer with the number, nil where there is none in the book.
func (b *Book) Pending(number int64) *Outstanding { return b.pending[number] }

// Reference returns what the transfer with the number is of; nothing where it is not in the book.
func (b *Book) Reference(number int64) string {
	if p := b.pending[number]; p != nil {
		return p.Reference
	}
	if m := b.moved[number]; m != nil {
		return m.Reference
	}
	return ""
}

// Open adds an account with the ID, the key, the limit, the metadata and the time of a, and gives it its number. It
// returns ErrAccountExists if its key is in the book.
func (b *Book) Open(a Account) (*Account, error) {
	if have := b.byKey[a.Key]; have != nil {
		return nil, ErrAccountExists.With("account_id", string(have.ID))
	}
	b.head.Accounts++
	a.Number, a.Balance, a.Held = b.head.Accounts, 0, 0
	opened := &a
	b.add(opened)
	b.opened = append(b.opened, opened)
	return opened, nil
}

// Note is what the writer says of a transfer.
type Note struct {
	Reference string
	Metadata  map[string]string
	At        time.Time
}

// Move moves money. It returns ErrUnbalanced, ErrOverdrawn or ErrBalanceOverflow.
func (b *Book) Move(legs []Leg, note Note) (*Transfer, error) {
	if err := b.check(legs); err != nil {
		return nil, err
	}
	t := b.begin(Move, legs, 0, note)
	return b.commit(t, b.move(t, true))
}

// Hold holds what the legs take, until it is posted or voided; expires is for the transfer to say, zero for never. It
// returns ErrUnbalanced, ErrOverdrawn or ErrBalanceOverflow.
func (b *Book) Hold(legs []Leg, expires time.Time, note Note) (*Transfer, error) {
	if err := b.check(legs); err != nil {
		return nil, err
	}
	t := b.begin(Pending, legs, 0, note)
	t.ExpiresAt = expires
	if _, err := b.commit(t, b.hold(t)); err != nil {
		return nil, err
	}
	b.pending[t.Number] = &Outstanding{Transfer: *t, Remaining: t.Whole()}
	return t, nil
}

// Post moves amount of what a pending transfer holds, zero meaning all that is left. It returns ErrTransferNotFound,
// ErrStateConflict where nothing is left, ErrAmountExceeded, ErrUnbalanced for a part of a transfer with more than two
// legs, and ErrBalanceOverflow.
func (b *Book) Post(number, amount int64, note Note) (*Transfer, error) {
	p, err := b.outstanding(number)
	if err != nil {
		return nil, err
	}
	if amount == 0 {
		amount = p.Remaining
	}
	switch {
	case amount < 0:
		return nil, ErrUnbalanced.WithText("an amount is below zero")
	case len(p.Legs) != 2 && amount != p.Remaining:
		return nil, ErrUnbalanced.WithText("only a transfer of two legs can be posted in parts")
	case amount > p.Remaining:
		return nil, ErrAmountExceeded.With("available_cents", strconv.FormatInt(p.Remaining, 10))
	}
	t := b.begin(Post, p.portion(amount), number, note)
	err = b.release(t)
	if err == nil {
		err = b.move(t, false)
	}
	if _, err := b.commit(t, err); err != nil {
		return nil, err
	}
	b.settle(p, p.Remaining-amount)
	return t, nil
}

// Void releases what a pending transfer still holds. It returns ErrTransferNotFound or ErrStateConflict.
func (b *Book) Void(number int64, note Note) (*Transfer, error) {
	p, err := b.outstanding(number)
	if err != nil {
		return nil, err
	}
	t := b.begin(Void, p.portion(p.Remaining), number, note)
	if _, err := b.commit(t, b.release(t)); err != nil {
		return nil, err
	}
	b.settle(p, 0)
	return t, nil
}

// Reverse moves back what a transfer has moved, once. It returns ErrTransferNotFound, ErrStateConflict, ErrOverdrawn or
// ErrBalanceOverflow.
func (b *Book) Reverse(number int64, note Note) (*Transfer, error) {
	m := b.moved[number]
	switch {
	case m == nil && b.pending[number] != nil:
		return nil, ErrStateConflict.With("state", string(Pending))
	case m == nil:
		return nil, ErrTransferNotFound
	case m.reversed:
		return nil, ErrStateConflict.With("state", "REVERSED")
	case m.Kind != Move && m.Kind != Post:
		return nil, ErrStateConflict.With("state", string(m.Kind))
	}
	legs := make([]Leg, len(m.Legs))
	for i, l := range m.Legs {
		legs[i] = Leg{l.Account, -l.Amount}
	}
	t := b.begin(Reversal, legs, number, note)
	if _, err := b.commit(t, b.move(t, true)); err != nil {
		return nil, err
	}
	b.journal = append(b.journal, undo{moved: m})
	m.reversed = true
	return t, nil
}

// outstanding returns a pending transfer of which something is left.
func (b *Book) outstanding(number int64) (*Outstanding, error) {
	p := b.pending[number]
	switch {
	case p == nil && b.moved[number] != nil:
		return nil, ErrStateConflict.With("state", string(b.moved[number].Kind))
	case p == nil:
		return nil, ErrTransferNotFound
	case p.Remaining == 0:
		return nil, ErrStateConflict.With("state", "SETTLED")
	}
	return p, nil
}

// portion returns the legs of amount of what is left.
func (p *Outstanding) portion(amount int64) []Leg {
	if len(p.Legs) != 2 {
		return p.Legs
	}
	legs := []Leg{{p.Legs[0].Account, amount}, {p.Legs[1].Account, amount}}
	if p.Legs[0].Amount < 0 {
		legs[0].Amount = -amount
	} else {
		legs[1].Amount = -amount
	}
	return legs
}

// settle writes down what is left of p.
func (b *Book) settle(p *Outstanding, remaining int64) {
	b.journal = append(b.journal, undo{pending: p, remaining: p.Remaining})
	p.Remaining = remaining
	if !b.isSettled[p.Number] {
		b.isSettled[p.Number] = true
		b.settled = append(b.settled, p)
	}
}

// check returns ErrUnbalanced unless the legs can be a transfer.
func (b *Book) check(legs []Leg) error {
	if len(legs) < 2 {
		return ErrUnbalanced.WithText("a transfer has at least two legs")
	}
	if len(legs) == 2 { // as nearly all are
		from, to := b.accounts[legs[0].Account], b.accounts[legs[1].Account]
		if from != nil && to != nil && from != to && from.Currency == to.Currency &&
			legs[0].Amount != 0 && legs[0].Amount != minInt64 && legs[0].Amount == -legs[1].Amount {
			return nil
		}
	}
	sums := make(map[string]int64)
	for i, l := range legs {
		a := b.accounts[l.Account]
		if a == nil {
			return ErrAccountNotFound
		}
		if l.Amount == 0 || l.Amount == minInt64 {
			return invalid(i, "must move something")
		}
		for _, other := range legs[:i] {
			if other.Account == l.Account {
				return invalid(i, "must be on an account of its own")
			}
		}
		sum, ok := add(sums[a.Currency], l.Amount)
		if !ok {
			return invalid(i, "must not take the sum of the legs out of range")
		}
		sums[a.Currency] = sum
	}
	for currency, sum := range sums {
		if sum != 0 {
			return ErrUnbalanced.WithText(fmt.Sprintf("the legs in %s sum to %d, not to zero", currency, sum))
		}
	}
	return nil
}

func (b *Book) begin(kind TransferKind, legs []Leg, of int64, note Note) *Transfer {
	return &Transfer{
		Number: b.head.Transfers + 1, Kind: kind, Legs: legs, Of: of,
		Reference: note.Reference, Metadata: note.Metadata, At: note.At,
		Entries: make([]Entry, 0, len(legs)),
	}
}

// commit takes the transfer into the book, or, with an error, takes back what it has done.
func (b *Book) commit(t *Transfer, err error) (*Transfer, error) {
	if err != nil {
		for i := len(t.Entries) - 1; i >= 0; i-- { // the last of an account is the first to go
			a := b.accounts[t.Entries[i].Account]
			a.Balance -= t.Entries[i].Amount
			a.Held -= t.Entries[i].Held
			b.journal = b.journal[:len(b.journal)-1]
		}
		return nil, err
	}
	for _, e := range t.Entries {
		if a := b.accounts[e.Account]; !b.isTouched[a.Number] {
			b.isTouched[a.Number] = true
			b.touched = append(b.touched, a)
		}
	}
	t.Entries = merge(t.Entries)
	t.Hash = b.chain.next(b.head.Hash, t, b.id)
	b.head.Transfers, b.head.Hash = t.Number, t.Hash
	b.transfers = append(b.transfers, t)
	return t, nil
}

func (b *Book) id(number int64) AccountID { return b.accounts[number].ID }

// merge makes one entry of those of one account: a posting first releases and then moves.
func merge(entries []Entry) []Entry {
	merged := entries[:0]
next:
	for _, e := range entries {
		for i := range merged {
			if m := &merged[i]; m.Account == e.Account {
				m.Amount, m.Held = m.Amount+e.Amount, m.Held+e.Held
				m.BalanceAfter, m.HeldAfter = e.BalanceAfter, e.HeldAfter
				continue next
			}
		}
		merged = append(merged, e)
	}
	return merged
}

// move changes the balances by the legs. limits says whether the limits of the accounts count: what was held was held
// within them.
func (b *Book) move(t *Transfer, limits bool) error {
	for _, l := range t.Legs {
		a := b.accounts[l.Account]
		before, _ := a.Available()
		if err := b.enter(t, a, l.Amount, 0); err != nil {
			return err
		}
		if limits && l.Amount < 0 {
			if err := a.overdrawn(before); err != nil {
				return err
			}
		}
	}
	return nil
}

// hold holds what the legs take.
func (b *Book) hold(t *Transfer) error {
	for _, l := range t.Legs {
		if l.Amount > 0 {
			continue
		}
		a := b.accounts[l.Account]
		before, _ := a.Available()
		if err := b.enter(t, a, 0, -l.Amount); err != nil {
			return err
		}
		if err := a.overdrawn(before); err != nil {
			return err
		}
	}
	return nil
}

// release gives back what the legs had taken.
func (b *Book) release(t *Transfer) error {
	for _, l := range t.Legs {
		if l.Amount > 0 {
			continue
		}
		a := b.accounts[l.Account]
		if a.Held < -l.Amount {
			return fmt.Errorf("account %s holds %d, less than the %d to release", a.ID, a.Held, -l.Amount)
		}
		if err := b.enter(t, a, 0, l.Amount); err != nil {
			return err
		}
	}
	return nil
}

// enter changes an account and writes the entry.
func (b *Book) enter(t *Transfer, a *Account, amount, held int64) error {
	balance, ok := add(a.Balance, amount)
	if !ok {
		return ErrBalanceOverflow
	}
	hold, ok := add(a.Held, held)
	if !ok {
		return ErrBalanceOverflow
	}
	if _, ok := sub(balance, hold); !ok {
		return ErrBalanceOverflow
	}
	b.journal = append(b.journal, undo{account: a, balance: a.Balance, held: a.Held})
	a.Balance, a.Held = balance, hold
	t.Entries = append(t.Entries, Entry{a.Number, amount, held, balance, hold})
	return nil
}

// Mark is a moment in the life of a book.
type Mark struct {
	head                                         Head
	journal, opened, touched, transfers, settled int
}

// Mark returns this moment, for Rollback.
func (b *Book) Mark() Mark {
	return Mark{b.head, len(b.journal), len(b.opened), len(b.touched), len(b.transfers), len(b.settled)}
}

// Rollback takes back all that was done since the mark. Marks that are later become invalid.
func (b *Book) Rollback(m Mark) {
	for i := len(b.journal) - 1; i >= m.journal; i-- {
		switch u := b.journal[i]; {
		case u.account != nil:
			u.account.Balance, u.account.Held = u.balance, u.held
		case u.pending != nil:
			u.pending.Remaining = u.remaining
		case u.moved != nil:
			u.moved.reversed = false
		}
	}
	for _, a := range b.opened[m.opened:] {
		delete(b.accounts, a.Number)
		delete(b.byKey, a.Key)
		delete(b.byID, a.ID)
	}
	for _, a := range b.touched[m.touched:] {
		delete(b.isTouched, a.Number)
	}
	for _, t := range b.transfers[m.transfers:] {
		delete(b.pending, t.Number)
	}
	for _, p := range b.settled[m.settled:] {
		delete(b.isSettled, p.Number)
	}
	b.journal, b.opened, b.touched = b.journal[:m.journal], b.opened[:m.opened], b.touched[:m.touched]
	b.transfers, b.settled, b.head = b.transfers[:m.transfers], b.settled[:m.settled], m.head
}

// Changes is what a store writes down.
type Changes struct {
	Head Head
	// Opened are the new accounts and Moved those that were there and have changed, each with its balances as they are
	// now.
	Opened, Moved []*Account
	// Transfers are the new ones, in their order.
	Transfers []*Transfer
	// Pending are the new pending transfers, and Settled those that were there and have less left now.
	Pending, Settled []*Outstanding
}

// Changes returns what has happened since the book was made.
func (b *Book) Changes() Changes {
	c := Changes{Head: b.head, Opened: b.opened, Transfers: b.transfers}
	fresh := b.head.Accounts - int64(len(b.opened))
	for _, a := range b.touched {
		if a.Number <= fresh {
			c.Moved = append(c.Moved, a)
		}
	}
	before := b.head.Transfers - int64(len(b.transfers))
	for _, t := range b.transfers {
		if t.Kind == Pending {
			c.Pending = append(c.Pending, b.pending[t.Number])
		}
	}
	for _, p := range b.settled {
		if p.Number <= before {
			c.Settled = append(c.Settled, p)
		}
	}
	return c
}

// Verify returns an error unless t follows before in the ledger: its number, the sum of its entries, and its hash. ids
// returns the ids of accounts by their numbers.
func Verify(before Head, t *Transfer, ids func(number int64) AccountID) error {
	var problems []error
	if t.Number != before.Transfers+1 {
		problems = append(problems, fmt.Errorf("transfer %d comes after %d", t.Number, before.Transfers))
	}
	if Chain(before.Hash, t, ids) != t.Hash {
		problems = append(problems, fmt.Errorf("the hash of transfer %d is not that of what it says", t.Number))
	}
	return errors.Join(problems...)
}
