package sqlstore

import (
	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// maxCached is how many accounts are remembered: about 30 MiB of them.
const maxCached = 100_000

// cache remembers accounts as they were when the ledger was last changed from here. Whoever changes an account moves
// the version of the head on, so what it has is true where the version is. Metadata is not in it: nothing is decided
// by that, and an erasure, which moves no version, must not leave it in memory. It is for the writer alone.
type cache struct {
	version  int64
	accounts map[ledger.Key]ledger.Account
}

// known returns the accounts as they are at that version, none where somebody else has written.
func (c *cache) known(version int64) map[ledger.Key]ledger.Account {
	if c.version != version || c.accounts == nil {
		c.forget()
	}
	return c.accounts
}

// forget forgets all.
func (c *cache) forget() { c.version, c.accounts = -1, make(map[ledger.Key]ledger.Account) }

// committed takes over what was loaded and changed, once that is committed.
func (c *cache) committed(l *payments.Loaded, changes *payments.Changes) {
	if len(c.accounts) > maxCached {
		c.accounts = make(map[ledger.Key]ledger.Account)
	}
	for _, a := range l.Accounts {
		a.Metadata = nil
		c.accounts[a.Key] = a
	}
	for _, moved := range [][]*ledger.Account{changes.Ledger.Opened, changes.Ledger.Moved} {
		for _, a := range moved {
			account := *a
			account.Metadata = nil
			c.accounts[a.Key] = account
		}
	}
	c.version = changes.Head.Version
}
