package faults

import (
	"context"
	"fmt"
	"time"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
)

// transfer is money that was to be moved between two of the accounts.
type transfer struct {
	key       string
	from, to  int // in accounts
	amount    int64
	call, ret time.Duration // of the first time that it was sent, and of the answer; ret is zero without one
	number    int64
	refused   bool // whether the account had too little
	settled   bool
	asked     time.Time // when it was asked for first
	done      time.Time
}

// acknowledged says whether the money was said to have been moved by then.
func (t *transfer) acknowledged(by time.Time) bool {
	return t.settled && !t.refused && !t.done.After(by)
}

// reading is what the balance of an account was said to be.
type reading struct {
	account   int
	balance   int64
	call, ret time.Duration
}

// moveOnce moves money between two accounts, or looks at one.
func (p *payments) moveOnce(ctx context.Context, ledger paymentsv1.LedgerServiceClient) {
	p.mu.Lock()
	what := p.random.IntN(20)
	from := p.random.IntN(bankAccounts)
	to := (from + 1 + p.random.IntN(bankAccounts-1)) % bankAccounts
	fresh := &transfer{key: p.newID(), from: from, to: to, amount: 1 + p.random.Int64N(mostMoved), call: p.since(), asked: time.Now()}
	t := fresh
	if what < 2 && len(p.transfers) > 0 { // one in ten is one that there was
		// Not one that is under way: of two that are sent at once one may be refused and the other not.
		if was := p.transfers[max(len(p.transfers)-1-p.random.IntN(50), 0)]; was.settled && !was.refused {
			t = was
		}
	}
	if t == fresh && what < 16 {
		p.transfers = append(p.transfers, t)
	}
	p.mu.Unlock()
	if what >= 16 {
		p.again(ctx, func(ctx context.Context) error { return p.read(ctx, ledger, from) })
		return
	}
	p.again(ctx, func(ctx context.Context) error { return p.move(ctx, ledger, t) })
	_ = sleep(ctx, time.Millisecond) // so that a history can be held against all orders
}

// move sends a transfer. That an account has too little is an answer, and no failure.
func (p *payments) move(ctx context.Context, ledger paymentsv1.LedgerServiceClient, t *transfer) error {
	p.mu.Lock()
	req := &paymentsv1.TransferRequest{IdempotencyKey: t.key, Operations: []*paymentsv1.TransferOperation{{
		Operation: &paymentsv1.TransferOperation_Move{Move: &paymentsv1.MoveOperation{Legs: []*paymentsv1.TransferLeg{
			{AccountId: p.accounts[t.from], AmountCents: -t.amount}, {AccountId: p.accounts[t.to], AmountCents: t.amount},
		}}},
	}}}
	p.mu.Unlock()
	resp, err := ledger.Transfer(ctx, req)
	refused := err != nil && reason(err) == "FailedPrecondition OVERDRAWN"
	if err != nil && !refused {
		return err
	}
	var number int64
	if moved := resp.GetTransfers(); len(moved) == 1 {
		number = moved[0].GetTransferNumber()
	} else if !refused {
		p.wrong("a transfer is answered with %v", resp)
	}
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case refused && p.deaf:
		// A refusal is not kept: it tells what the account has at the moment, as a reading does.
	case !t.settled:
		t.settled, t.refused, t.number, t.done, t.ret = true, refused, number, now, p.since()
	case refused && !t.refused || number != t.number && !t.refused:
		p.wrongs = append(p.wrongs, fmt.Sprintf("transfer %d is answered with number %d (refused: %t) when it is sent again", t.number, number, refused))
	}
	return nil
}

// read reads the balance of an account.
func (p *payments) read(ctx context.Context, ledger paymentsv1.LedgerServiceClient, account int) error {
	p.mu.Lock()
	id := p.accounts[account]
	r := reading{account: account, call: p.since()}
	p.mu.Unlock()
	resp, err := ledger.GetAccount(ctx, &paymentsv1.GetAccountRequest{AccountId: id})
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.deaf {
		return nil
	}
	r.balance, r.ret = resp.GetAccount().GetBalanceCents(), p.since()
	p.readings = append(p.readings, r)
	return nil
}

// glance looks at what always holds: each currency sums to zero, and so does what was only moved between the accounts, none of which
// is overdrawn further than it may be. A service that is broken at the moment need not answer.
func (p *payments) glance(ctx context.Context, ledger paymentsv1.LedgerServiceClient) {
	attempt, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if p.balance(attempt, ledger) == nil {
		p.mu.Lock()
		p.glances += 2
		p.mu.Unlock()
	}
	_ = sleep(ctx, glance)
}

// balance looks at what always holds, and returns why it could not.
func (p *payments) balance(ctx context.Context, ledger paymentsv1.LedgerServiceClient) error {
	trial, err := ledger.GetTrialBalance(ctx, &paymentsv1.GetTrialBalanceRequest{})
	if err != nil {
		return fmt.Errorf("read the trial balance: %w", err)
	}
	for _, row := range trial.GetRows() {
		if row.GetCreditCents() != row.GetDebitCents() {
			p.wrong("the books do not balance: %v", row)
		}
	}
	list, err := ledger.ListAccounts(ctx, &paymentsv1.ListAccountsRequest{PageSize: 1000})
	if err != nil {
		return fmt.Errorf("list accounts: %w", err)
	}
	if list.GetNextPageToken() != "" {
		return fmt.Errorf("there are more than %d accounts", len(list.GetAccounts()))
	}
	p.sum(list.GetAccounts())
	return nil
}

// sum holds the accounts, as they were at one moment, against what always holds.
func (p *payments) sum(accounts []*paymentsv1.Account) {
	var all, moved int64
	for _, a := range accounts {
		all += a.GetBalanceCents()
		if a.GetKind() == paymentsv1.AccountKind_ACCOUNT_KIND_GENERAL {
			moved += a.GetBalanceCents()
			if a.GetBalanceCents() < -a.GetOverdraftLimitCents() {
				p.wrong("%s has %d and may have no less than %d", a.GetOwner(), a.GetBalanceCents(), -a.GetOverdraftLimitCents())
			}
		}
	}
	if all != 0 || moved != 0 {
		p.wrong("all balances sum to %d, those between which money was only moved to %d", all, moved)
	}
}
