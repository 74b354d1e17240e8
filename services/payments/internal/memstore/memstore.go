// Package memstore keeps payments in memory: a store for tests, and the plainest reading of what payments.Store
// promises. Nothing of it survives the process.
package memstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// Store keeps payments in memory. It is safe for concurrent use. Commands take turns.
type Store struct {
	clock clock.Clock
	newID func() string

	mu        sync.Mutex
	head      payments.Head
	accounts  []ledger.Account // by number, less one
	transfers []ledger.Transfer
	pending   map[int64]int64 // what is left of pending transfers
	reversed  map[int64]bool
	payments  map[payments.ID]payments.Payment
	order     []payments.ID // of payments, by number
	kept      map[payments.Key]payments.Kept
	log       []payments.Transaction
	more      chan struct{} // closed when the log has grown
}

var _ payments.Store = (*Store)(nil)

// New returns an empty store. newID mints ids for accounts.
func New(c clock.Clock, newID func() string) *Store {
	return &Store{
		clock: c, newID: newID, pending: map[int64]int64{}, reversed: map[int64]bool{},
		payments: map[payments.ID]payments.Payment{}, kept: map[payments.Key]payments.Kept{}, more: make(chan struct{}),
	}
}

// Do implements payments.Store.
func (s *Store) Do(ctx context.Context, c payments.Command) (payments.Outcome, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		return payments.Outcome{}, context.Cause(ctx)
	}
	w := payments.NewWork(s.load(c), s.clock.Now(), s.newID)
	outcome, err := w.Do(c)
	if err != nil {
		return payments.Outcome{}, err
	}
	changes := w.Changes()
	for _, p := range changes.Made {
		if _, ok := s.payments[p.ID]; ok {
			return payments.Outcome{}, fmt.Errorf("there is a payment %s", p.ID)
		}
	}
	s.write(changes)
	return outcome, nil
}

// load returns all that the command may need.
func (s *Store) load(c payments.Command) payments.Loaded {
	l := payments.Loaded{Head: s.head, Reversed: map[int64]bool{}, Accounts: slices.Clone(s.accounts)}
	if k, ok := s.kept[c.Claim.Key]; ok {
		l.Kept = append(l.Kept, k)
	}
	transfers := slices.Clone(c.Needs.Transfers)
	for _, id := range c.Needs.Payments {
		if p, ok := s.payments[id]; ok {
			l.Payments = append(l.Payments, p)
			transfers = append(transfers, p.Hold)
		}
	}
	for _, n := range transfers {
		if n < 1 || n > int64(len(s.transfers)) {
			continue
		}
		t := s.transfers[n-1]
		if t.Kind == ledger.Pending {
			l.Pending = append(l.Pending, ledger.Outstanding{Transfer: t, Remaining: s.pending[n]})
			continue
		}
		l.Transfers = append(l.Transfers, t)
		l.Reversed[n] = s.reversed[n]
	}
	return l
}

func (s *Store) write(c payments.Changes) {
	s.head = c.Head
	for _, a := range c.Ledger.Opened {
		s.accounts = append(s.accounts, *a)
	}
	for _, a := range c.Ledger.Moved {
		s.accounts[a.Number-1] = *a
	}
	for _, t := range c.Ledger.Transfers {
		s.transfers = append(s.transfers, *t)
		if t.Kind == ledger.Reversal {
			s.reversed[t.Of] = true
		}
	}
	for _, p := range slices.Concat(c.Ledger.Pending, c.Ledger.Settled) {
		s.pending[p.Number] = p.Remaining
	}
	for _, p := range c.Made {
		s.payments[p.ID] = p
		s.order = append(s.order, p.ID)
	}
	for _, p := range c.Changed {
		s.payments[p.ID] = p
	}
	for _, k := range c.Claimed {
		s.kept[k.Key] = *k
	}
	if len(c.Told) > 0 {
		s.log = append(s.log, c.Told...)
		close(s.more)
		s.more = make(chan struct{})
	}
}

// Lookup implements payments.Store.
func (s *Store) Lookup(ctx context.Context, claim payments.Claim) (payments.Outcome, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return payments.Outcome{}, false, err
	}
	k, ok := s.kept[claim.Key]
	switch {
	case !ok:
		return payments.Outcome{}, false, nil
	case k.Digest != claim.Digest:
		return payments.Outcome{}, false, payments.ErrIdempotencyKeyReused
	case k.Outcome.Open != nil:
		return payments.Outcome{}, false, payments.ErrInFlight
	}
	return k.Outcome, true, nil
}

// Payment implements payments.Store.
func (s *Store) Payment(ctx context.Context, id payments.ID) (payments.Payment, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return payments.Payment{}, err
	}
	p, ok := s.payments[id]
	if !ok {
		return payments.Payment{}, payments.ErrPaymentNotFound
	}
	return p, nil
}

// Payments implements payments.Store.
func (s *Store) Payments(ctx context.Context, q payments.Query) ([]payments.Payment, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var found []payments.Payment
	for _, id := range slices.Backward(s.order) {
		p := s.payments[id]
		if len(found) == q.Limit {
			break
		}
		if q.Before != 0 && p.Number >= q.Before || q.Customer != "" && q.Customer != p.Customer {
			continue
		}
		matches := true
		for _, c := range q.Where {
			ok, err := holds(c, p)
			if err != nil {
				return nil, err
			}
			matches = matches && ok
		}
		if matches {
			found = append(found, p)
		}
	}
	return found, nil
}

// holds says whether a condition is true of a payment.
func holds(c payments.Condition, p payments.Payment) (bool, error) {
	var order int
	switch v := c.Value.(type) {
	case payments.State:
		order = cmp.Compare(p.State, v)
	case payments.Currency:
		order = cmp.Compare(p.Currency, v)
	case payments.OrderID:
		order = cmp.Compare(p.Order, v)
	case int64:
		order = cmp.Compare(p.Amount, v)
	case time.Time:
		order = p.CreatedAt.Compare(v)
	default:
		return false, fmt.Errorf("a condition with a %T", v)
	}
	if !slices.Contains([]payments.Field{
		payments.FieldState, payments.FieldCurrency, payments.FieldOrder, payments.FieldAmount, payments.FieldCreatedAt,
	}, c.Field) {
		return false, fmt.Errorf("a condition on %q", c.Field)
	}
	switch c.Operator {
	case payments.Equal:
		return order == 0, nil
	case payments.NotEqual:
		return order != 0, nil
	case payments.Less:
		return order < 0, nil
	case payments.LessOrEqual:
		return order <= 0, nil
	case payments.Greater:
		return order > 0, nil
	case payments.GreaterOrEqual:
		return order >= 0, nil
	default:
		return false, fmt.Errorf("a condition with the operator %q", c.Operator)
	}
}

// Expired implements payments.Store.
func (s *Store) Expired(ctx context.Context, now time.Time, after *ledger.Outstanding, limit int) ([]ledger.Outstanding, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var over []ledger.Outstanding
	for n, left := range s.pending {
		t := s.transfers[n-1]
		if left > 0 && !t.ExpiresAt.IsZero() && !t.ExpiresAt.After(now) {
			over = append(over, ledger.Outstanding{Transfer: t, Remaining: left})
		}
	}
	order := func(a, b ledger.Outstanding) int {
		return cmp.Or(a.ExpiresAt.Compare(b.ExpiresAt), cmp.Compare(a.Number, b.Number))
	}
	if after != nil {
		over = slices.DeleteFunc(over, func(o ledger.Outstanding) bool { return order(o, *after) <= 0 })
	}
	slices.SortFunc(over, order)
	return over[:min(limit, len(over))], nil
}

// Intents implements payments.Store.
func (s *Store) Intents(ctx context.Context, before time.Time, after *payments.Intent, limit int) ([]payments.Intent, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var open []payments.Intent
	for _, k := range s.kept {
		if k.Outcome.Open != nil && k.Outcome.Open.At.Before(before) {
			open = append(open, *k.Outcome.Open)
		}
	}
	order := func(a, b payments.Intent) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Operation.Key, b.Operation.Key))
	}
	if after != nil {
		open = slices.DeleteFunc(open, func(i payments.Intent) bool { return order(i, *after) <= 0 })
	}
	slices.SortFunc(open, order)
	return open[:min(limit, len(open))], nil
}

// Forget implements payments.Store.
func (s *Store) Forget(ctx context.Context, before time.Time, limit int) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	removed := 0
	for key, k := range s.kept {
		if removed < limit && k.Outcome.Open == nil && k.At.Before(before) {
			delete(s.kept, key)
			removed++
		}
	}
	return removed, nil
}
