package sqlstore

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
	"github.com/concordat-dev/concordat/services/payments/internal/simulator"
)

// model is what must be true of some accounts and payments, said in the plainest way: no batches, no database, no
// hashes.
type model struct {
	now      time.Time
	accounts map[ledger.AccountID]*modelAccount
	payments []*modelPayment
	moved    map[int64]*modelTransfer // by number: MOVE, POST, and VOID and REVERSAL, which nothing can be done to
	holds    map[int64]*modelHold     // by number
	kept     map[payments.Key]*modelKept
}

// modelAccount is an account: below -limit, less what is held, it does not go.
type modelAccount struct {
	limited              bool
	limit, balance, held int64
}

func (a *modelAccount) mayTake(amount int64) bool {
	return !a.limited || a.balance-a.held-amount >= -a.limit
}

// modelTransfer moved an amount from one account to another; nothing where amount is zero.
type modelTransfer struct {
	from, to *modelAccount
	amount   int64
	payment  bool // it is a payment's
	reversed bool
}

// modelHold holds what is left of an amount.
type modelHold struct {
	from, to *modelAccount
	left     int64
	expires  time.Time // zero for never
	payment  *modelPayment
}

// modelPayment is a payment, as it is now. authorize says that it was to be authorized only, and asked is the key that
// waits for what a processor says of it.
type modelPayment struct {
	is        payments.Payment
	token     string
	authorize bool
	hold      *modelHold
	asked     *modelKept
}

// modelKept is a key with what it was used for and what came of it.
type modelKept struct {
	content   string
	at        time.Time
	open      bool
	payment   payments.Payment
	transfers []ledger.Transfer
}

// errReplay stands for an answer that is the one of the key; it is no error of the service.
var errReplay = errors.New("the answer of before")

// claim returns what the key says to the content: nil where it is free.
func (m *model) claim(key payments.Key, content string) (*modelKept, error) {
	k := m.kept[key]
	switch {
	case k == nil:
		return nil, nil
	case k.content != content:
		return nil, payments.ErrIdempotencyKeyReused
	case k.open:
		return nil, payments.ErrInFlight
	}
	return k, errReplay
}

// The tokens of a processor behind a network, whose first answer does not come.
func remote(token string) bool { return token == simulator.Flaky || token == simulator.LostResponse }

// decline returns how a token is declined.
func decline(token string) payments.Decline {
	switch token {
	case "", simulator.OK, simulator.Flaky, simulator.LostResponse, simulator.CaptureDeclined, simulator.RefundDeclined:
		return payments.NotDeclined
	case simulator.Declined:
		return payments.Declined
	case simulator.InsufficientFunds:
		return payments.InsufficientFunds
	case simulator.ExpiredCard:
		return payments.ExpiredCard
	}
	return payments.InvalidToken
}

// declines says whether a change is declined because of the token that the payment was made with.
func (p *modelPayment) declines(method string) bool {
	return method == "capture" && p.token == simulator.CaptureDeclined || method == "refund" && p.token == simulator.RefundDeclined
}

// charge returns the payment that a charge with a free key makes, without what only the service knows: its id, number
// and times. It moves and holds nothing yet.
func (m *model) charge(c payments.Charge, from *modelAccount) payments.Payment {
	p := payments.Payment{Order: c.Order, Customer: c.Customer, Amount: c.Amount, Currency: payments.Currency(c.Currency), Metadata: c.Metadata}
	p.Decline = decline(c.Token)
	if p.Decline == payments.NotDeclined && !from.mayTake(c.Amount) {
		p.Decline = payments.InsufficientFunds
	}
	switch {
	case p.Decline != payments.NotDeclined:
		p.State = payments.StateFailed
	case remote(c.Token):
		p.State, p.Busy = payments.StateProcessing, true
	case c.AuthorizeOnly:
		p.State, p.Capturable = payments.StateAuthorized, c.Amount
	default:
		p.State, p.Captured = payments.StateCaptured, c.Amount
	}
	return p
}

// capturable returns how much of p a capture of amount takes, and why it cannot be.
func (m *model) capturable(p *modelPayment, amount int64) (int64, error) {
	switch {
	case p.is.Busy:
		return 0, payments.ErrInFlight
	case p.is.Capturable == 0, !p.is.ExpiresAt.After(m.now):
		return 0, ledger.ErrStateConflict
	case amount > p.is.Capturable:
		return 0, ledger.ErrAmountExceeded
	case amount == 0:
		return p.is.Capturable, nil
	}
	return amount, nil
}

func (m *model) refundable(p *modelPayment, amount int64) (int64, error) {
	left := p.is.Captured - p.is.Refunded
	switch {
	case p.is.Busy:
		return 0, payments.ErrInFlight
	case left == 0:
		return 0, ledger.ErrStateConflict
	case amount > left:
		return 0, ledger.ErrAmountExceeded
	case amount == 0:
		return left, nil
	}
	return amount, nil
}

// state returns the state that follows from the amounts of a payment that was authorized.
func state(p payments.Payment) payments.State {
	switch {
	case p.Captured == 0 && p.Capturable > 0:
		return payments.StateAuthorized
	case p.Captured == 0:
		return payments.StateCanceled
	case p.Refunded == 0:
		return payments.StateCaptured
	case p.Refunded == p.Captured:
		return payments.StateRefunded
	}
	return payments.StatePartiallyRefunded
}

// post moves a part of what is held.
func (h *modelHold) post(amount int64) {
	h.left -= amount
	h.from.held -= amount
	h.from.balance -= amount
	h.to.balance += amount
}

// void releases what is held still.
func (h *modelHold) void() {
	h.from.held -= h.left
	h.left = 0
}

// operation is one of a transfer, between accounts of the model.
type operation struct {
	kind     ledger.TransferKind
	from, to ledger.AccountID
	amount   int64
	of       int64
	expires  time.Duration
}

// do does the operations on m, in their order, and returns why the first that is refused is, or errReplay. The
// transfers that are made have the numbers from next on. What is refused leaves m as it is only if it is a copy.
func (m *model) do(operations []operation, next int64) error {
	for i, o := range operations {
		number := next + int64(i)
		from, to := m.accounts[o.from], m.accounts[o.to]
		h, t := m.holds[o.of], m.moved[o.of]
		if h != nil && h.payment != nil || t != nil && t.payment {
			return ledger.ErrStateConflict
		}
		switch o.kind {
		case ledger.Move, ledger.Pending:
			if o.from == o.to {
				return ledger.ErrUnbalanced
			}
			if !from.mayTake(o.amount) {
				return ledger.ErrOverdrawn
			}
			if o.kind == ledger.Move {
				from.balance -= o.amount
				to.balance += o.amount
				m.moved[number] = &modelTransfer{from: from, to: to, amount: o.amount}
				continue
			}
			from.held += o.amount
			m.holds[number] = &modelHold{from: from, to: to, left: o.amount}
			if o.expires > 0 {
				m.holds[number].expires = m.now.Add(o.expires)
			}
		case ledger.Post, ledger.Void:
			switch {
			case t != nil:
				return ledger.ErrStateConflict
			case h == nil:
				return ledger.ErrTransferNotFound
			case h.left == 0:
				return ledger.ErrStateConflict
			}
			if o.kind == ledger.Void {
				h.void()
				m.moved[number] = &modelTransfer{}
				continue
			}
			amount := o.amount
			if amount == 0 {
				amount = h.left
			}
			if amount > h.left {
				return ledger.ErrAmountExceeded
			}
			h.post(amount)
			m.moved[number] = &modelTransfer{from: h.from, to: h.to, amount: amount}
		case ledger.Reversal:
			switch {
			case h != nil:
				return ledger.ErrStateConflict
			case t == nil:
				return ledger.ErrTransferNotFound
			case t.reversed, t.amount == 0:
				return ledger.ErrStateConflict
			case !t.to.mayTake(t.amount):
				return ledger.ErrOverdrawn
			}
			t.from.balance += t.amount
			t.to.balance -= t.amount
			t.reversed = true
			m.moved[number] = &modelTransfer{}
		}
	}
	return nil
}

// copied returns a copy of what do changes.
func (m *model) copied() *model {
	c := &model{now: m.now, accounts: make(map[ledger.AccountID]*modelAccount), moved: make(map[int64]*modelTransfer), holds: make(map[int64]*modelHold)}
	same := make(map[*modelAccount]*modelAccount)
	for id, a := range m.accounts {
		copied := *a
		c.accounts[id], same[a] = &copied, &copied
	}
	for n, t := range m.moved {
		copied := *t
		copied.from, copied.to = same[t.from], same[t.to]
		c.moved[n] = &copied
	}
	for n, h := range m.holds {
		copied := *h
		copied.from, copied.to = same[h.from], same[h.to]
		c.holds[n] = &copied
	}
	return c
}

// takeOver makes of m what its copy has become. What points into m stays right: the accounts and holds are changed in
// place.
func (m *model) takeOver(c *model) {
	back := make(map[*modelAccount]*modelAccount)
	for id, a := range m.accounts {
		*a, back[c.accounts[id]] = *c.accounts[id], a
	}
	for n, t := range c.moved {
		t.from, t.to = back[t.from], back[t.to]
		m.moved[n] = t
	}
	for n, h := range c.holds {
		h.from, h.to = back[h.from], back[h.to]
		if m.holds[n] != nil {
			m.holds[n].left = h.left
		} else {
			m.holds[n] = h
		}
	}
}

// release releases what is held and whose time is over, as the service does by and by.
func (m *model) release() (released []*modelPayment) {
	for _, n := range slices.Sorted(maps.Keys(m.holds)) {
		h := m.holds[n]
		if h.left == 0 || h.expires.IsZero() || h.expires.After(m.now) || h.payment != nil && h.payment.is.Busy {
			continue
		}
		h.void()
		if h.payment != nil {
			h.payment.is.Capturable = 0
			released = append(released, h.payment)
		}
	}
	return released
}

// forget forgets the keys that are older than age.
func (m *model) forget(age time.Duration) {
	maps.DeleteFunc(m.kept, func(_ payments.Key, k *modelKept) bool { return !k.open && k.at.Before(m.now.Add(-age)) })
}
