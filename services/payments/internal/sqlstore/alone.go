package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// aloneTimeout bounds the one statement. It does not wait for the ledger, so what takes that long is a server that hangs,
// or a standby.
const aloneTimeout = batchTimeout / 2

// writeAlone writes a command by one statement, in one round trip to PostgreSQL, and returns whether it did: where what
// it decides by is in the cache, and is still true when it is written, its key is new, nobody holds the ledger, and it
// adds rows and changes none but the head. Otherwise it is to be written in the usual way, which sees its key if it was
// written all the same; unknown says that it may have been.
func (s *Store) writeAlone(it *item) (written, unknown bool) {
	ctx, cancel := context.WithTimeout(context.Background(), aloneTimeout)
	defer cancel()
	needs := &it.command.Needs
	if s.db.Engine() != sqldb.PostgreSQL || !s.cache.alone || it.command.Claim.Key == (payments.Key{}) ||
		len(needs.Payments)+len(needs.Transfers)+len(needs.IDs) > 0 {
		return false, false
	}
	loaded := payments.Loaded{Head: s.cache.head, Reversed: make(map[int64]bool)}
	for _, key := range needs.Accounts {
		a, ok := s.cache.byKey[key]
		if !ok {
			return false, false
		}
		loaded.Accounts = append(loaded.Accounts, *a)
	}
	work := payments.NewWork(loaded, s.clock.Now(), s.newID)
	it.outcome, it.err = work.Do(it.command)
	changes := work.Changes()
	if len(changes.Claimed) != 1 || len(changes.Changed)+len(changes.Ledger.Opened)+len(changes.Ledger.Settled) > 0 {
		return false, false
	}
	events, err := encodeEvents(changes.Told)
	if err != nil {
		return false, false
	}
	with, args := statementOf(&loaded, &changes, s.cache.last)
	if written, err = s.log.WriteOne(ctx, with, args, "head_moved", events); err != nil || !written {
		s.cache.alone = false
		return false, errors.Is(err, sqldb.ErrOutcomeUnknown)
	}
	s.cache.committed(&loaded, &changes)
	return true, false
}

// statementOf returns the parts of a statement that adds the rows of changes if the head is still that of what was
// loaded, last is the account that was opened last, and nobody holds the head: head_moved has a row then.
func statementOf(l *payments.Loaded, c *payments.Changes, last ledger.AccountID) (with string, args []any) {
	b := new(strings.Builder)
	for _, change := range changesOf(l, c) {
		if change.n == 0 {
			continue
		}
		names := change.names()
		marks := make([]string, len(names))
		var tuples []string
		for _, row := range change.values() {
			for i, value := range row {
				args = append(args, value)
				marks[i] = "$" + strconv.Itoa(len(args)) + "::" + string(change.columns[i].kind)
			}
			tuples = append(tuples, "("+strings.Join(marks, ", ")+")")
		}
		if change.table != "head" {
			list := strings.Join(names, ", ")
			fmt.Fprintf(b, ", %s_added AS (INSERT INTO %s (%s) SELECT r.* FROM head_moved, (VALUES %s) AS r)",
				change.table, change.table, list, strings.Join(tuples, ", "))
			continue
		}
		h, n := l.Head, len(args)
		args = append(args, h.Version, h.Payments, h.Ledger.Accounts, h.Ledger.Transfers, h.Ledger.Hash[:], string(last))
		for i := range marks {
			marks[i] = names[i] + " = " + marks[i]
		}
		with = fmt.Sprintf("WITH head_free AS (SELECT h.id FROM head h WHERE h.id = 1 AND h.version = $%d AND h.payments = $%d AND h.accounts = $%d"+
			" AND h.transfers = $%d AND h.hash = $%d AND coalesce((SELECT account_id FROM accounts WHERE number = $%d), '') = $%d FOR UPDATE SKIP LOCKED)"+
			", head_moved AS (UPDATE head SET %s FROM head_free WHERE head.%s AND head.id = head_free.id RETURNING head.version)",
			n+1, n+2, n+3, n+4, n+5, n+3, n+6, strings.Join(marks[1:], ", "), marks[0])
	}
	return with + b.String(), args
}
