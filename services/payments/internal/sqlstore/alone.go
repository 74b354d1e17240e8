package sqlstore

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// writeAlone writes a command by one statement, in one round trip to PostgreSQL, and returns whether it did: where what
// it decides by is in the cache, and is still true when it is written, its key is new, and it adds rows and changes none.
// Whatever hinders it, also an outcome that is not known, is for the usual way to find out, which has its key.
func (s *Store) writeAlone(ctx context.Context, it *item) bool {
	needs := &it.command.Needs
	if s.db.Engine() != sqldb.PostgreSQL || !s.cache.alone || it.command.Claim.Key == (payments.Key{}) ||
		len(needs.Payments)+len(needs.Transfers)+len(needs.IDs) > 0 {
		return false
	}
	loaded := payments.Loaded{Head: s.cache.head, Reversed: make(map[int64]bool)}
	for _, key := range needs.Accounts {
		a, ok := s.cache.byKey[key]
		if !ok {
			return false
		}
		loaded.Accounts = append(loaded.Accounts, *a)
	}
	work := payments.NewWork(loaded, s.clock.Now(), s.newID)
	it.outcome, it.err = work.Do(it.command)
	changes := work.Changes()
	if len(changes.Claimed) != 1 || len(changes.Changed)+len(changes.Ledger.Opened)+len(changes.Ledger.Settled) > 0 {
		return false
	}
	events, err := encodeEvents(changes.Told)
	if err != nil {
		return false
	}
	with, args := statementOf(&loaded, &changes)
	if written, err := s.log.WriteOne(ctx, with, args, "head_moved", events); err != nil || !written {
		s.cache.alone = false
		return false
	}
	s.cache.committed(&loaded, &changes)
	return true
}

// statementOf returns the parts of a statement that adds the rows of changes if the head is still that of what was
// loaded: head_moved has a row then.
func statementOf(l *payments.Loaded, c *payments.Changes) (with string, args []any) {
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
		args = append(args, l.Head.Version, l.Head.Ledger.Hash[:])
		for i := range marks {
			marks[i] = names[i] + " = " + marks[i]
		}
		with = fmt.Sprintf("WITH head_moved AS (UPDATE head SET %s WHERE %s AND version = $%d AND hash = $%d RETURNING version)",
			strings.Join(marks[1:], ", "), marks[0], len(args)-1, len(args))
	}
	return with + b.String(), args
}
