package sqlstore

import (
	"context"

	"github.com/concordat-dev/concordat/kit/sqldb"
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
		"overdraft", number, "balance", number, "held", number, "metadata", text, "created_at", number)
	accountChanged  = columns("number", number, "balance", number, "held", number)
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

// store writes the changes and their events, all in the transaction.
func (s *Store) store(ctx context.Context, tx *sqldb.Tx, l *payments.Loaded, c *payments.Changes) error {
	all, err := changesOf(l, c)
	if err != nil {
		return err
	}
	if err := write(ctx, tx, all); err != nil {
		return err
	}
	return s.announce(ctx, tx, c.Told)
}

func changesOf(l *payments.Loaded, c *payments.Changes) ([]change, error) {
	var (
		made     = change{table: "payments", columns: paymentWritten}
		changed  = change{table: "payments", columns: paymentChanged, update: true}
		opened   = change{table: "accounts", columns: accountWritten}
		moved    = change{table: "accounts", columns: accountChanged, update: true}
		entered  = change{table: "transfers", columns: transferWritten}
		entries  = change{table: "entries", columns: entryWritten}
		pending  = change{table: "pending", columns: pendingWritten}
		settled  = change{table: "pending", columns: pendingChanged, update: true}
		claimed  = change{table: "idempotency_keys", columns: keyWritten}
		resolved = change{table: "idempotency_keys", columns: keyChanged, update: true}
		head     = change{table: "head", columns: headChanged, update: true}
	)
	for i := range c.Made {
		p := &c.Made[i]
		metadata, err := encodeMetadata(p.Metadata)
		if err != nil {
			return nil, err
		}
		made.rows = append(made.rows, []any{p.Number, string(p.ID), string(p.Order), string(p.Customer), p.Amount,
			string(p.Currency), string(p.State), p.Captured, p.Refunded, p.Capturable, p.Hold, micros(p.ExpiresAt), string(p.Decline),
			flag(p.Busy), metadata, p.CreatedAt.UnixMicro(), p.UpdatedAt.UnixMicro()})
	}
	for i := range c.Changed {
		p := &c.Changed[i]
		changed.rows = append(changed.rows, []any{p.Number, string(p.State), p.Captured, p.Refunded, p.Capturable, p.Hold,
			micros(p.ExpiresAt), string(p.Decline), flag(p.Busy), p.UpdatedAt.UnixMicro()})
	}
	for _, a := range c.Ledger.Opened {
		metadata, err := encodeMetadata(a.Metadata)
		if err != nil {
			return nil, err
		}
		var overdraft any
		if a.Limited {
			overdraft = a.Limit
		}
		opened.rows = append(opened.rows, []any{a.Number, string(a.ID), a.Owner, string(a.Kind), a.Currency, overdraft,
			a.Balance, a.Held, metadata, a.CreatedAt.UnixMicro()})
	}
	for _, a := range c.Ledger.Moved {
		moved.rows = append(moved.rows, []any{a.Number, a.Balance, a.Held})
	}
	for _, t := range c.Ledger.Transfers {
		metadata, err := encodeMetadata(t.Metadata)
		if err != nil {
			return nil, err
		}
		entered.rows = append(entered.rows, []any{t.Number, string(t.Kind), t.Of, t.Reference, micros(t.ExpiresAt), metadata,
			t.At.UnixMicro(), encodeContent(t), t.Hash[:]})
		for _, e := range t.Entries {
			entries.rows = append(entries.rows, []any{e.Account, t.Number, e.Amount, e.Held, e.BalanceAfter, e.HeldAfter})
		}
	}
	for _, p := range c.Ledger.Pending {
		pending.rows = append(pending.rows, []any{p.Number, p.Remaining, micros(p.ExpiresAt)})
	}
	for _, p := range c.Ledger.Settled {
		settled.rows = append(settled.rows, []any{p.Number, p.Remaining})
	}
	before := make(map[payments.Key]bool, len(l.Kept))
	for i := range l.Kept {
		before[l.Kept[i].Key] = true
	}
	for _, k := range c.Claimed {
		payment, outcome := encodeOutcome(k.Outcome)
		intent, err := encodeIntent(k.Outcome.Open)
		if err != nil {
			return nil, err
		}
		var of any
		if payment != 0 {
			of = payment
		}
		if before[k.Key] {
			resolved.rows = append(resolved.rows, []any{keyID(k.Key), of, outcome, intent})
		} else {
			claimed.rows = append(claimed.rows, []any{keyID(k.Key), k.Digest[:], k.At.UnixMicro(), of, outcome, intent})
		}
	}
	h := c.Head
	head.rows = [][]any{{int64(1), h.Version, h.Payments, h.Ledger.Accounts, h.Ledger.Transfers, h.Ledger.Hash[:]}}
	return []change{opened, moved, made, changed, entered, entries, pending, settled, claimed, resolved, head}, nil
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
