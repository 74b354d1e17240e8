package sqlstore

import (
	"context"

	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

const (
	// maxCached is how many accounts are remembered: about 40 MiB of them.
	maxCached = 100_000
	// maxMissed is how many transfers of others are read to learn what they changed. Beyond that the accounts that are
	// needed are read instead.
	maxMissed = 4 * maxBatch
)

// cache remembers accounts as they were when the ledger was last looked at from here. Of an account nothing changes but
// what it has and holds, which each transfer says: so what others did since is learnt from their transfers. Metadata is
// not in it: nothing is decided by that, and an erasure, which is no transfer, must not leave it in memory. It is for
// the writer alone, which brings it up to the ledger under the lock, and without the lock decides by it only what is
// written on condition that it is still true.
type cache struct {
	head     payments.Head    // until when it is true
	last     ledger.AccountID // of the account that was opened last until then
	alone    bool             // nobody else has written when it was looked last
	byKey    map[ledger.Key]*ledger.Account
	byNumber map[int64]*ledger.Account
}

// forget forgets all.
func (c *cache) forget() {
	c.alone = false
	c.byKey, c.byNumber = make(map[ledger.Key]*ledger.Account), make(map[int64]*ledger.Account)
}

// follow takes over what was done to the ledger up to head. then and now are the ids of the accounts that the database
// has at the last number that the cache knows, and at that of head. Where the history is another one than that of the
// cache, as after a failover to a server that had not seen the end of it, all is forgotten.
func (c *cache) follow(ctx context.Context, q sqldb.Querier, head payments.Head, then, now ledger.AccountID) error {
	known := c.head
	c.alone = head == known && then == c.last
	missed := head.Ledger.Transfers - known.Ledger.Transfers
	switch {
	case c.alone:
		return nil
	case then != c.last, missed < 0, missed > maxMissed, missed == 0 && head.Ledger.Hash != known.Ledger.Hash:
		c.forget()
	case missed > 0 && len(c.byKey) > 0:
		if same, err := c.replay(ctx, q, head.Ledger); err != nil || !same {
			c.forget() // some of it may be taken over
			if err != nil {
				return err
			}
		}
	}
	c.head, c.last = head, now
	return nil
}

// replay takes over the transfers up to head, and returns whether the one that the cache knows as the last is among them:
// it is bound to all before it by its hash.
func (c *cache) replay(ctx context.Context, q sqldb.Querier, head ledger.Head) (same bool, err error) {
	known := c.head.Ledger
	same = known.Transfers == 0
	err = rows(ctx, q, func(row scanner) error {
		var (
			number        int64
			content, hash []byte
		)
		if err := row.Scan(&number, &content, &hash); err != nil {
			return err
		}
		if number == known.Transfers {
			same = string(hash) == string(known.Hash[:])
			return nil
		}
		_, entries, err := decodeContent(content)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if a, ok := c.byNumber[e.Account]; ok {
				a.Balance, a.Held = e.BalanceAfter, e.HeldAfter
			}
		}
		return nil
	}, `SELECT number, content, hash FROM transfers WHERE number BETWEEN $1 AND $2 ORDER BY number`, known.Transfers, head.Transfers)
	return same, err
}

// committed takes over what was loaded and changed, once that is committed.
func (c *cache) committed(l *payments.Loaded, changes *payments.Changes) {
	if len(c.byKey) > maxCached {
		c.forget()
	}
	for i := range l.Accounts {
		c.put(&l.Accounts[i])
	}
	for _, moved := range [][]*ledger.Account{changes.Ledger.Opened, changes.Ledger.Moved} {
		for _, a := range moved {
			c.put(a)
		}
	}
	c.head = changes.Head
	if opened := changes.Ledger.Opened; len(opened) > 0 {
		c.last = opened[len(opened)-1].ID
	}
}

func (c *cache) put(a *ledger.Account) {
	if kept, ok := c.byNumber[a.Number]; ok {
		kept.Balance, kept.Held = a.Balance, a.Held
		return
	}
	kept := *a
	kept.Metadata = nil
	c.byKey[a.Key], c.byNumber[a.Number] = &kept, &kept
}
