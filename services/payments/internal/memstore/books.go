package memstore

import (
	"context"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"time"

	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// Account implements payments.Store.
func (s *Store) Account(ctx context.Context, id ledger.AccountID, at time.Time) (ledger.Account, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return ledger.Account{}, err
	}
	i := slices.IndexFunc(s.accounts, func(a ledger.Account) bool { return a.ID == id })
	if i < 0 || !at.IsZero() && s.accounts[i].CreatedAt.After(at) {
		return ledger.Account{}, ledger.ErrAccountNotFound
	}
	a := s.accounts[i]
	if at.IsZero() {
		return a, nil
	}
	a.Balance, a.Held = 0, 0
	for _, t := range s.transfers {
		if t.At.After(at) {
			break
		}
		if e, ok := entryOf(t, a.Number); ok {
			a.Balance, a.Held = e.BalanceAfter, e.HeldAfter
		}
	}
	return a, nil
}

func entryOf(t ledger.Transfer, account int64) (ledger.Entry, bool) {
	i := slices.IndexFunc(t.Entries, func(e ledger.Entry) bool { return e.Account == account })
	if i < 0 {
		return ledger.Entry{}, false
	}
	return t.Entries[i], true
}

// Accounts implements payments.Store.
func (s *Store) Accounts(ctx context.Context, owner string, after int64, limit int) ([]ledger.Account, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var found []ledger.Account
	for _, a := range s.accounts {
		if a.Number > after && len(found) < limit && (owner == "" || a.Owner == owner) {
			found = append(found, a)
		}
	}
	return found, nil
}

// Entries implements payments.Store.
func (s *Store) Entries(ctx context.Context, id ledger.AccountID, before int64, limit int) ([]payments.AccountEntry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var found []payments.AccountEntry
	for _, t := range slices.Backward(s.transfers) {
		if before != 0 && t.Number >= before || len(found) == limit {
			continue
		}
		for _, e := range t.Entries {
			if s.accounts[e.Account-1].ID == id {
				found = append(found, payments.AccountEntry{Entry: e, Transfer: t.Number, Kind: t.Kind, Reference: t.Reference, At: t.At})
			}
		}
	}
	return found, nil
}

// Transfer implements payments.Store.
func (s *Store) Transfer(ctx context.Context, number int64) (ledger.Transfer, map[int64]ledger.AccountID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return ledger.Transfer{}, nil, err
	}
	if number < 1 || number > int64(len(s.transfers)) {
		return ledger.Transfer{}, nil, ledger.ErrTransferNotFound
	}
	t := s.transfers[number-1]
	ids := make(map[int64]ledger.AccountID)
	for _, l := range t.Legs {
		ids[l.Account] = s.accounts[l.Account-1].ID
	}
	return t, ids, nil
}

// AccountIDs implements payments.Store.
func (s *Store) AccountIDs(ctx context.Context, numbers []int64) (map[int64]ledger.AccountID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ids := make(map[int64]ledger.AccountID, len(numbers))
	for _, n := range numbers {
		if n >= 1 && n <= int64(len(s.accounts)) {
			ids[n] = s.accounts[n-1].ID
		}
	}
	return ids, nil
}

// TrialBalance implements payments.Store.
func (s *Store) TrialBalance(ctx context.Context) (payments.TrialBalance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return payments.TrialBalance{}, err
	}
	type sums struct {
		credit, debit big.Int
		accounts      int64
	}
	all := map[string]*sums{}
	for _, a := range s.accounts {
		if all[a.Currency] == nil {
			all[a.Currency] = &sums{}
		}
		of := all[a.Currency]
		of.accounts++
		if n := big.NewInt(a.Balance); n.Sign() > 0 {
			of.credit.Add(&of.credit, n)
		} else {
			of.debit.Sub(&of.debit, n)
		}
	}
	b := payments.TrialBalance{Head: s.head.Ledger}
	for _, currency := range slices.Sorted(maps.Keys(all)) {
		of := all[currency]
		b.Rows = append(b.Rows, payments.TrialBalanceRow{
			Currency: currency, Credit: of.credit.String(), Debit: of.debit.String(), Accounts: of.accounts,
		})
	}
	return b, nil
}

// Verify implements payments.Store, as far as what is in memory can be wrong by itself: the chain, the sums of
// entries, and the balances.
func (s *Store) Verify(ctx context.Context) (payments.Proof, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return payments.Proof{}, err
	}
	proof := payments.Proof{Transfers: int64(len(s.transfers))}
	find := func(rule, row string) {
		proof.Findings = append(proof.Findings, payments.Finding{Rule: rule, Row: row})
	}
	var head ledger.Head
	balance, held := make([]int64, len(s.accounts)), make([]int64, len(s.accounts))
	for i := range s.transfers {
		t := &s.transfers[i]
		if err := ledger.Verify(head, t, func(n int64) ledger.AccountID { return s.accounts[n-1].ID }); err != nil {
			find("the chain is whole", err.Error())
		}
		sums := map[string]int64{}
		for _, e := range t.Entries {
			balance[e.Account-1] += e.Amount
			held[e.Account-1] += e.Held
			sums[s.accounts[e.Account-1].Currency] += e.Amount
		}
		for currency, sum := range sums {
			if sum != 0 {
				find("the entries of a transfer sum to zero in each currency", fmt.Sprint(t.Number, " ", currency))
			}
		}
		head = ledger.Head{Transfers: t.Number, Hash: t.Hash}
	}
	for i, a := range s.accounts {
		if a.Balance != balance[i] || a.Held != held[i] || a.Held < 0 {
			find("a balance is the sum of the entries", string(a.ID))
		}
	}
	return proof, nil
}
