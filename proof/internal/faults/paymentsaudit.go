package faults

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
)

// Audit implements Workload. It holds the payments, the entries of the ledger, and then the events, against the book.
func (p *payments) Audit(ctx context.Context, conn *grpc.ClientConn, by time.Time, cursor *Cursor) (Audit, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	client, ledger := paymentsv1.NewPaymentServiceClient(conn), paymentsv1.NewLedgerServiceClient(conn)
	found, err := p.all(ctx, client)
	if err != nil {
		return Audit{}, err
	}
	a := p.compare(found, by)
	entries := make([][]*paymentsv1.Entry, bankAccounts)
	for n := range entries {
		if entries[n], err = p.entries(ctx, ledger, n); err != nil {
			return a, err
		}
	}
	p.compareMoved(entries, by, &a)
	if err := p.balance(ctx, ledger); err != nil {
		return a, err
	}
	if cursor == nil {
		cursor = &Cursor{}
	}
	if cursor.token == "" {
		cursor.token, cursor.told = p.token, make(map[string]int)
	}
	if err := p.events(ctx, client, cursor, &a); err != nil {
		return a, err
	}
	p.compareTold(found, cursor, &a)
	p.mu.Lock()
	defer p.mu.Unlock()
	a.Wrong, p.wrongs = append(a.Wrong, p.wrongs...), nil
	a.Glances, p.glances = p.glances, 0
	return a, nil
}

// all reads all payments, by order.
func (p *payments) all(ctx context.Context, client paymentsv1.PaymentServiceClient) (map[string][]*paymentsv1.Payment, error) {
	found := make(map[string][]*paymentsv1.Payment)
	for token := ""; ; {
		page, err := client.ListPayments(ctx, &paymentsv1.ListPaymentsRequest{PageSize: 1000, PageToken: token})
		if err != nil {
			return nil, fmt.Errorf("list payments: %w", err)
		}
		for _, got := range page.GetPayments() {
			found[got.GetOrderId()] = append(found[got.GetOrderId()], got)
		}
		if token = page.GetNextPageToken(); token == "" {
			return found, nil
		}
	}
}

// entries reads all entries of an account.
func (p *payments) entries(ctx context.Context, ledger paymentsv1.LedgerServiceClient, account int) (all []*paymentsv1.Entry, err error) {
	for token := ""; ; {
		page, err := ledger.ListEntries(ctx, &paymentsv1.ListEntriesRequest{AccountId: p.accounts[account], PageSize: 1000, PageToken: token})
		if err != nil {
			return nil, fmt.Errorf("list entries: %w", err)
		}
		all = append(all, page.GetEntries()...)
		if token = page.GetNextPageToken(); token == "" {
			return all, nil
		}
	}
}

// compare holds the payments against the book.
func (p *payments) compare(found map[string][]*paymentsv1.Payment, by time.Time) (a Audit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.charges {
		list := found[c.order]
		if c.refused && len(list) > 0 {
			a.wrong("%s was refused, and is %v", c.order, list[0])
			continue
		}
		a.Doubled += max(len(list)-1, 0)
		done := c.done(by)
		a.Acknowledged += done
		acknowledged := !c.seen.IsZero() && !c.seen.After(by)
		if acknowledged {
			a.Acknowledged++
		}
		if len(list) == 0 {
			a.Lost += done
			if acknowledged {
				a.Lost++
			}
			continue
		}
		got := list[0]
		switch n := c.steppedTo(standingOf(got)); {
		case n < 0 && c.kind == remote && got.GetState() == paymentsv1.PaymentState_PAYMENT_STATE_PROCESSING:
			if c.settled && acknowledged {
				a.Lost++
			}
		case n < 0 || n > len(c.steps):
			a.wrong("%s is %v, which nobody asked for", c.order, got)
		case n < done:
			a.Lost += done - n
		}
		if got.GetAmountCents() != c.amount || got.GetCustomerId() != c.customer || got.GetCurrency() != currency {
			a.wrong("%s was to be %d of %s, and is %v", c.order, c.amount, c.customer, got)
		}
		if c.id != "" && got.GetPaymentId() != c.id {
			a.wrong("%s is payment %s, and was %s", c.order, got.GetPaymentId(), c.id)
		}
	}
	for order := range found {
		if p.orders[order] == nil && !strings.HasPrefix(order, marker) {
			a.wrong("%q is there, which nobody asked for", order)
		}
	}
	return a
}

// compareMoved holds the entries of the accounts against the transfers of the book.
func (p *payments) compareMoved(entries [][]*paymentsv1.Entry, by time.Time, a *Audit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	moved := make(map[int64]map[int]int64) // by number: what it moved, by account
	for account, list := range entries {
		for _, e := range list {
			if moved[e.GetTransferNumber()] == nil {
				moved[e.GetTransferNumber()] = make(map[int]int64)
			}
			moved[e.GetTransferNumber()][account] += e.GetAmountCents()
		}
	}
	open := 0 // transfers of which nobody knows yet whether they were made
	for _, t := range p.transfers {
		if !t.settled || t.done.After(by) {
			open++
			continue
		}
		if t.refused {
			continue
		}
		a.Acknowledged++
		legs, ok := moved[t.number]
		switch {
		case !ok:
			a.Lost++
		case len(legs) != 2 || legs[t.from] != -t.amount || legs[t.to] != t.amount:
			a.wrong("transfer %d was to move %d from account %d to %d, and moved %v", t.number, t.amount, t.from, t.to, legs)
		}
		delete(moved, t.number)
	}
	a.Doubled += max(len(moved)-open, 0)
}

// events reads the events from the cursor up to those of a charge that is made now.
func (p *payments) events(ctx context.Context, client paymentsv1.PaymentServiceClient, cursor *Cursor, a *Audit) error {
	key := p.newID()
	end := marker + key
	if _, err := client.Charge(ctx, &paymentsv1.ChargeRequest{
		OrderId: end, AmountCents: 50, Currency: currency, IdempotencyKey: key, CustomerId: p.customers[0],
	}); err != nil {
		return fmt.Errorf("mark the end of the events: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.WatchTransactions(ctx, &paymentsv1.WatchTransactionsRequest{ResumeToken: cursor.token})
	if err != nil {
		return err
	}
	for {
		resp, err := stream.Recv()
		if token := cutAt(err); token != "" {
			cursor.token = token
			if stream, err = client.WatchTransactions(ctx, &paymentsv1.WatchTransactionsRequest{ResumeToken: token}); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("read the events: %w", err)
		}
		cursor.token = resp.GetResumeToken()
		if resp.GetTransaction() == nil {
			continue
		}
		got := resp.GetTransaction().GetPayment()
		if got.GetOrderId() == end {
			return nil
		}
		what := toldOf(got.GetOrderId(), standingOf(got))
		if cursor.told[what]++; cursor.told[what] > 1 {
			a.Doubled++
		}
	}
}

// compareTold holds the events against the payments: each step of each is told once.
func (p *payments) compareTold(found map[string][]*paymentsv1.Payment, cursor *Cursor, a *Audit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for order, list := range found {
		c := p.orders[order]
		if c == nil {
			continue
		}
		for n := range c.steppedTo(standingOf(list[0])) + 1 {
			at, _ := c.after(n)
			if told := cursor.told[toldOf(order, at)]; told != 1 {
				a.wrong("%s has taken its step %d, of which %d events tell", order, n, told)
			}
		}
	}
}

// toldOf is what an event tells.
func toldOf(order string, s standing) string {
	return fmt.Sprintf("%s: %s %d %d %d", order, s.state, s.captured, s.refunded, s.capturable)
}
