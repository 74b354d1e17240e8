package sqlstore

import (
	"context"
	"errors"

	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// What is written of each table.
var (
	paymentWritten = columns("number", number, "payment_id", text, "order_id", text, "customer_id", text, "amount", number,
		"currency", text, "state", text, "captured", number, "refunded", number, "capturable", number, "hold", number,
		"expires_at", number, "decline", text, "busy", number, "metadata", text, "created_at", number, "updated_at", number)
	paymentChanged = columns("number", number, "state", text, "captured", number, "refunded", number, "capturable", number,
		"hold", number, "expires_at", number, "decline", text, "busy", number, "updated_at", number)
	accountWritten = columns("number", number, "account_id", text, "owner", text, "kind", text, "currency", text,
		"overdraft", number, "metadata", text, "created_at", number)
	transferWritten = columns("number", number, "kind", text, "of", number, "payment_id", text, "expires_at", number,
		"metadata", text, "at", number, "content", bytes, "hash", bytes)
	entryWritten = columns("account", number, "transfer", number, "amount", number, "held", number, "balance_after", number,
		"held_after", number)
	pendingWritten = columns("transfer", number, "remaining", number, "expires_at", number)
	pendingChanged = columns("transfer", number, "remaining", number)
	keyWritten     = columns("id", bytes, "digest", bytes, "at", number, "payment", number, "outcome", text, "intent", text)
	keyChanged     = columns("id", bytes, "payment", number, "outcome", text, "intent", text)
	headChanged    = columns("id", number, "version", number, "payments", number, "accounts", number, "transfers", number, "hash", bytes)
)

// store writes the changes and their events, all in the transaction. What of it need not be made under the lock of the
// ledger is made while the database is at work.
func (s *Store) store(ctx context.Context, tx *sqldb.Tx, l *payments.Loaded, c *payments.Changes) error {
	var (
		events  []eventlog.Event
		problem error
		encoded = make(chan struct{})
	)
	go func() {
		defer close(encoded)
		events, problem = encodeEvents(c.Told)
	}()
	err := write(ctx, tx, changesOf(l, c))
	if <-encoded; err != nil || problem != nil {
		return errors.Join(err, problem)
	}
	return s.log.Append(ctx, tx, events...)
}

// changesOf returns what is written of the tables, with the head as the last.
func changesOf(l *payments.Loaded, c *payments.Changes) []change {
	before := make(map[payments.Key]bool, len(l.Kept))
	for i := range l.Kept {
		before[l.Kept[i].Key] = true
	}
	var claims, resolved []*payments.Kept
	for _, k := range c.Claimed {
		if before[k.Key] {
			resolved = append(resolved, k)
		} else {
			claims = append(claims, k)
		}
	}
	type leg struct {
		ledger.Entry
		transfer int64
	}
	var legs []leg
	for _, t := range c.Ledger.Transfers {
		for _, e := range t.Entries {
			legs = append(legs, leg{e, t.Number})
		}
	}
	return []change{
		{table: "payments", columns: paymentWritten, n: len(c.Made), fill: func(i int, row []any) {
			p := &c.Made[i]
			set(row, p.Number, string(p.ID), string(p.Order), string(p.Customer), p.Amount, string(p.Currency), string(p.State),
				p.Captured, p.Refunded, p.Capturable, p.Hold, micros(p.ExpiresAt), string(p.Decline), flag(p.Busy),
				encodeMetadata(p.Metadata), p.CreatedAt.UnixMicro(), p.UpdatedAt.UnixMicro())
		}},
		{table: "transfers", columns: transferWritten, n: len(c.Ledger.Transfers), fill: func(i int, row []any) {
			t := c.Ledger.Transfers[i]
			set(row, t.Number, string(t.Kind), t.Of, t.Reference, micros(t.ExpiresAt), encodeMetadata(t.Metadata), t.At.UnixMicro(),
				encodeContent(t), t.Hash[:])
		}},
		{table: "entries", columns: entryWritten, n: len(legs), fill: func(i int, row []any) {
			e := &legs[i]
			set(row, e.Account, e.transfer, e.Amount, e.Held, e.BalanceAfter, e.HeldAfter)
		}},
		{table: "idempotency_keys", columns: keyWritten, n: len(claims), fill: func(i int, row []any) {
			k := claims[i]
			payment, outcome := encodeOutcome(k.Outcome)
			set(row, keyID(k.Key), k.Digest[:], k.At.UnixMicro(), payment, outcome, encodeIntent(k.Outcome.Open))
		}},
		{table: "accounts", columns: accountWritten, n: len(c.Ledger.Opened), fill: func(i int, row []any) {
			a := c.Ledger.Opened[i]
			var overdraft any
			if a.Limited {
				overdraft = a.Limit
			}
			set(row, a.Number, string(a.ID), a.Owner, string(a.Kind), a.Currency, overdraft, encodeMetadata(a.Metadata), a.CreatedAt.UnixMicro())
		}},
		{table: "payments", columns: paymentChanged, update: true, n: len(c.Changed), fill: func(i int, row []any) {
			p := &c.Changed[i]
			set(row, p.Number, string(p.State), p.Captured, p.Refunded, p.Capturable, p.Hold, micros(p.ExpiresAt), string(p.Decline),
				flag(p.Busy), p.UpdatedAt.UnixMicro())
		}},
		{table: "pending", columns: pendingWritten, n: len(c.Ledger.Pending), fill: func(i int, row []any) {
			p := c.Ledger.Pending[i]
			set(row, p.Number, p.Remaining, micros(p.ExpiresAt))
		}},
		{table: "pending", columns: pendingChanged, update: true, n: len(c.Ledger.Settled), fill: func(i int, row []any) {
			p := c.Ledger.Settled[i]
			set(row, p.Number, p.Remaining)
		}},
		{table: "idempotency_keys", columns: keyChanged, update: true, n: len(resolved), fill: func(i int, row []any) {
			k := resolved[i]
			payment, outcome := encodeOutcome(k.Outcome)
			set(row, keyID(k.Key), payment, outcome, encodeIntent(k.Outcome.Open))
		}},
		{table: "head", columns: headChanged, update: true, n: 1, fill: func(_ int, row []any) {
			h := c.Head
			set(row, int64(1), h.Version, h.Payments, h.Ledger.Accounts, h.Ledger.Transfers, h.Ledger.Hash[:])
		}},
	}
}

// set sets the values of a row.
func set(row []any, values ...any) { copy(row, values) }

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
