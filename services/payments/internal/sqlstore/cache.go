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

// cache remembers accounts as they were when the ledger was last changed from here. Of an account nothing changes but
// what it has and holds, which each transfer says: so what others did since is learnt from their transfers. Metadata is
// not in it: nothing is decided by that, and an erasure, which is no transfer, must not leave it in memory. It is for
// the writer alone, under the lock of the ledger.
type cache struct {
	head     payments.Head // until when it is true
	alone    bool          // nobody else has written when it was looked last
	byKey    map[ledger.Key]*ledger.Account
	byNumber map[int64]*ledger.Account
}

// forget forgets all.
func (c *cache) forget() {
	c.alone = false
	c.byKey, c.byNumber = make(map[ledger.Key]*ledger.Account), make(map[int64]*ledger.Account)
}

// follow takes over what was done to the ledger up to head. Where that has another history than the cache, as after a
// failover to a server that had not seen the end of it, all is forgotten. The cache is of no use after an error.
func (c *cache) follow(ctx context.Context, q sqldb.Querier, head payments.Head) error {
	known, now := c.head.Ledger, head.Ledger
	missed := now.Transfers - known.Transfers
	c.alone = head.Version == c.head.Version && now.Hash == known.Hash
	switch {
	case now.Hash == known.Hash:
	case missed <= 0 || missed > maxMissed || len(c.byKey) == 0:
		c.forget()
	default:
		same := known.Transfers == 0 // a transfer is bound to all before it by its hash
		err := rows(ctx, q, func(row scanner) error {
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
		}, `SELECT number, content, hash FROM transfers WHERE number BETWEEN $1 AND $2 ORDER BY number`, known.Transfers, now.Transfers)
		if err != nil {
			return err
		}
		if !same {
			c.forget()
		}
	}
	c.head = head
	return nil
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
