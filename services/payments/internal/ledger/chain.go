package ledger

import (
	"crypto/sha256"
	"encoding/binary"
)

// Hash is a SHA-256.
type Hash [sha256.Size]byte

// chain makes the hashes of transfers. It is for one goroutine.
type chain struct{ buf []byte }

// Chain returns the hash of a transfer whose predecessor has the hash before; that of the first transfer is zero.
//
// It is SHA-256 over the hash before and, in this order: the number, the kind, the transfer that it is of, the
// reference, when it expires, when it was written, its legs and its entries. Numbers are 8 bytes, the most significant
// first, times microseconds since 1970 in UTC with 0 for none, texts and lists have their length before them, accounts
// are named by their ids, which ids returns for their numbers. The form never changes: it is as old as the first
// transfer.
func Chain(before Hash, t *Transfer, ids func(number int64) AccountID) Hash {
	var c chain
	return c.next(before, t, ids)
}

func (c *chain) next(before Hash, t *Transfer, ids func(number int64) AccountID) Hash {
	c.buf = append(c.buf[:0], before[:]...)
	c.number(t.Number)
	c.text(string(t.Kind))
	c.number(t.Of)
	c.text(t.Reference)
	if t.ExpiresAt.IsZero() {
		c.number(0)
	} else {
		c.number(t.ExpiresAt.UnixMicro())
	}
	c.number(t.At.UnixMicro())
	c.number(int64(len(t.Legs)))
	for _, l := range t.Legs {
		c.text(string(ids(l.Account)))
		c.number(l.Amount)
	}
	c.number(int64(len(t.Entries)))
	for _, e := range t.Entries {
		c.text(string(ids(e.Account)))
		c.number(e.Amount)
		c.number(e.Held)
		c.number(e.BalanceAfter)
		c.number(e.HeldAfter)
	}
	return sha256.Sum256(c.buf)
}

func (c *chain) number(n int64) { c.buf = binary.BigEndian.AppendUint64(c.buf, uint64(n)) }

func (c *chain) text(s string) {
	c.number(int64(len(s)))
	c.buf = append(c.buf, s...)
}
