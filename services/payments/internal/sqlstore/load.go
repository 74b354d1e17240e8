package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// loader reads what commands need, in the transaction that writes what they do.
type loader struct {
	ctx    context.Context
	tx     *sqldb.Tx
	loaded payments.Loaded

	accounts map[int64]bool // that are loaded, by number
}

// load locks the ledger and reads what the commands need. Accounts that are named by what they are are not read again
// where the cache has them.
func (s *Store) load(ctx context.Context, tx *sqldb.Tx, commands []payments.Command) (payments.Loaded, error) {
	l := &loader{ctx: ctx, tx: tx, accounts: make(map[int64]bool)}
	l.loaded.Reversed = make(map[int64]bool)
	for _, step := range []func() error{
		func() error { return l.head(&s.cache) },
		func() error { return l.kept(commands) },
		func() error { return l.payments(commands) },
		func() error { return l.transfers(commands) },
		func() error { return l.byKey(s.cache.byKey, commands) },
		func() error { return l.byID(commands) },
	} {
		if err := step(); err != nil {
			return payments.Loaded{}, fmt.Errorf("load: %w", err)
		}
	}
	return l.loaded, nil
}

// head locks the ledger until the transaction ends, so that the transactions of all processes take turns, and brings the
// cache up to it.
func (l *loader) head(c *cache) (err error) {
	var then, now sql.NullString
	l.loaded.Head, err = scanHead(l.tx.QueryRowContext(l.ctx, `SELECT h.version, h.payments, h.accounts, h.transfers, h.hash,
		(SELECT account_id FROM accounts WHERE number = $1), (SELECT account_id FROM accounts WHERE number = h.accounts)
		FROM head h WHERE h.id = 1`+l.tx.Engine().ForUpdate(), c.head.Ledger.Accounts), &then, &now)
	if err != nil {
		return err
	}
	return c.follow(l.ctx, l.tx, l.loaded.Head, ledger.AccountID(then.String), ledger.AccountID(now.String))
}

func readHead(ctx context.Context, q sqldb.Querier, lock string) (payments.Head, error) {
	return scanHead(q.QueryRowContext(ctx, `SELECT version, payments, accounts, transfers, hash FROM head WHERE id = 1`+lock))
}

func scanHead(row scanner, more ...any) (h payments.Head, err error) {
	var hash []byte
	err = row.Scan(append([]any{&h.Version, &h.Payments, &h.Ledger.Accounts, &h.Ledger.Transfers, &hash}, more...)...)
	if err != nil {
		return payments.Head{}, err
	}
	if len(hash) != len(h.Ledger.Hash) {
		return payments.Head{}, fmt.Errorf("the hash of the head has %d bytes", len(hash))
	}
	copy(h.Ledger.Hash[:], hash)
	return h, nil
}

// list is values that rows are looked for by, as an argument and as what stands for it in a statement: a table r with
// a column v. It is the same text however many there are.
func list[T any](engine sqldb.Engine, kind kind, values []T) (from string, arg any, err error) {
	if engine == sqldb.PostgreSQL {
		return "unnest($1::" + string(kind) + "[]) AS r (v)", values, nil
	}
	var encoded any = values
	if all, ok := any(values).([][]byte); ok { // JSON has no bytes
		hexes := make([]string, len(all))
		for i, b := range all {
			hexes[i] = fmt.Sprintf("%x", b)
		}
		encoded = hexes
	}
	text, err := json.Marshal(encoded)
	value := "value"
	if kind == bytes {
		value = "unhex(value)"
	}
	return "(SELECT " + value + " AS v FROM json_each($1)) AS r", string(text), err
}

// rows runs a statement and gives each row to scan.
func rows(ctx context.Context, q sqldb.Querier, scan func(scanner) error, query string, args ...any) error {
	found, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer found.Close()
	for found.Next() {
		if err := scan(found); err != nil {
			return err
		}
	}
	return found.Err()
}

// each runs a statement over a list of values. query has the table r as its %s.
func each[T any](
	ctx context.Context, q sqldb.Querier, engine sqldb.Engine, kind kind, values []T, query string, scan func(scanner) error,
) error {
	if len(values) == 0 {
		return nil
	}
	from, arg, err := list(engine, kind, values)
	if err != nil {
		return err
	}
	return rows(ctx, q, scan, strings.Replace(query, "%s", from, 1), arg)
}

// kept reads the claims of the commands that were made before.
func (l *loader) kept(commands []payments.Command) error {
	claims := make(map[string]payments.Claim, len(commands))
	ids := make([][]byte, 0, len(commands))
	for _, c := range commands {
		if c.Claim.Key == (payments.Key{}) {
			continue
		}
		id := keyID(c.Claim.Key)
		if _, ok := claims[string(id)]; !ok {
			claims[string(id)] = c.Claim
			ids = append(ids, id)
		}
	}
	kept, err := readKept(l.ctx, l.tx, l.tx.Engine(), ids)
	if err != nil {
		return err
	}
	for id, k := range kept {
		k.Key = claims[id].Key
		l.loaded.Kept = append(l.loaded.Kept, k)
	}
	return nil
}

// readKept returns claims by their ids, without their keys.
func readKept(ctx context.Context, q sqldb.Querier, engine sqldb.Engine, ids [][]byte) (map[string]payments.Kept, error) {
	found := make(map[string]payments.Kept)
	outcomes := make(map[string]outcome)
	err := each(ctx, q, engine, bytes, ids, `SELECT k.id, k.digest, k.at, k.outcome, k.intent, `+paymentColumns+`
		FROM %s CROSS JOIN idempotency_keys k LEFT JOIN payments p ON p.number = k.payment WHERE k.id = r.v`, func(row scanner) error {
		var (
			id, digest []byte
			at         sql.NullInt64
			text       string
			open       sql.NullString
			p          paymentRow
			o          outcome
			k          payments.Kept
		)
		if err := row.Scan(append([]any{&id, &digest, &at, &text, &open}, p.dest()...)...); err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(text), &o); err != nil {
			return fmt.Errorf("outcome of the key %x: %w", id, err)
		}
		var err error
		if k.Digest, err = digestOf(digest); err != nil {
			return fmt.Errorf("the key %x: %w", id, err)
		}
		k.At = timeOf(at)
		if p.number.Valid {
			if k.Outcome.Payment, err = p.payment(); err != nil {
				return err
			}
			k.Outcome.Payment = o.was(k.Outcome.Payment)
		}
		if open.Valid {
			if k.Outcome.Open, err = decodeIntent(open.String, k.Digest); err != nil {
				return fmt.Errorf("the key %x: %w", id, err)
			}
		}
		found[string(id)], outcomes[string(id)] = k, o
		return nil
	})
	if err != nil {
		return nil, err
	}
	for id, o := range outcomes { // what few outcomes have
		k := found[id]
		if o.Account != 0 {
			if k.Outcome.Account, err = readAccount(ctx, q, o.Account); err != nil {
				return nil, err
			}
			k.Outcome.Account.Balance, k.Outcome.Account.Held = 0, 0
		}
		if o.Count > 0 {
			k.Outcome.Transfers, err = readTransfers(ctx, q, o.First, o.First+o.Count-1)
			if err != nil {
				return nil, err
			}
		}
		found[id] = k
	}
	return found, nil
}

func readAccount(ctx context.Context, q sqldb.Querier, number int64) (ledger.Account, error) {
	return scanAccount(q.QueryRowContext(ctx, `SELECT `+accountColumns+` FROM accounts a WHERE a.number = $1`, number))
}

// readTransfers returns the transfers from first to last.
func readTransfers(ctx context.Context, q sqldb.Querier, first, last int64) (found []ledger.Transfer, err error) {
	err = rows(ctx, q, func(row scanner) error {
		t, err := scanTransfer(row)
		found = append(found, t)
		return err
	}, `SELECT `+transferColumns+` FROM transfers t WHERE t.number BETWEEN $1 AND $2 ORDER BY t.number`, first, last)
	return found, err
}

// payments reads the payments that the commands change.
func (l *loader) payments(commands []payments.Command) error {
	seen := make(map[payments.ID]bool)
	var ids []string
	for _, c := range commands {
		for _, id := range c.Needs.Payments {
			if !seen[id] {
				seen[id] = true
				ids = append(ids, string(id))
			}
		}
	}
	return each(l.ctx, l.tx, l.tx.Engine(), text, ids, `SELECT `+paymentColumns+` FROM %s CROSS JOIN payments p WHERE p.payment_id = r.v`,
		func(row scanner) error {
			p, err := scanPayment(row)
			l.loaded.Payments = append(l.loaded.Payments, p)
			return err
		})
}

// transfers reads the transfers that the commands settle or reverse, those that hold the money of their payments, and
// the accounts of their legs.
func (l *loader) transfers(commands []payments.Command) error {
	seen := make(map[int64]bool)
	var numbers []int64
	add := func(n int64) {
		if n != 0 && !seen[n] {
			seen[n] = true
			numbers = append(numbers, n)
		}
	}
	for _, c := range commands {
		for _, n := range c.Needs.Transfers {
			add(n)
		}
	}
	for _, p := range l.loaded.Payments {
		add(p.Hold)
	}
	err := each(l.ctx, l.tx, l.tx.Engine(), number, numbers, `SELECT `+transferColumns+`, coalesce(w.remaining, 0),
		CASE WHEN EXISTS (SELECT 1 FROM transfers b WHERE b.of = t.number AND b.kind = 'REVERSAL') THEN 1 ELSE 0 END
		FROM %s CROSS JOIN transfers t LEFT JOIN pending w ON w.transfer = t.number WHERE t.number = r.v`, func(row scanner) error {
		var remaining, reversed int64
		t, err := scanTransfer(row, &remaining, &reversed)
		if err != nil {
			return err
		}
		if t.Kind == ledger.Pending {
			l.loaded.Pending = append(l.loaded.Pending, ledger.Outstanding{Transfer: t, Remaining: remaining})
			return nil
		}
		l.loaded.Transfers = append(l.loaded.Transfers, t)
		l.loaded.Reversed[t.Number] = reversed != 0
		return nil
	})
	if err != nil {
		return err
	}
	var accounts []int64
	for _, p := range l.loaded.Pending {
		for _, leg := range p.Legs {
			accounts = append(accounts, leg.Account)
		}
	}
	for _, t := range l.loaded.Transfers {
		for _, leg := range t.Legs {
			accounts = append(accounts, leg.Account)
		}
	}
	return each(l.ctx, l.tx, l.tx.Engine(), number, accounts,
		`SELECT `+accountColumns+` FROM %s CROSS JOIN accounts a WHERE a.number = r.v`, l.account)
}

// account adds an account.
func (l *loader) account(row scanner) error {
	a, err := scanAccount(row)
	if err == nil {
		l.add(a)
	}
	return err
}

func (l *loader) add(a ledger.Account) {
	if !l.accounts[a.Number] {
		l.accounts[a.Number] = true
		l.loaded.Accounts = append(l.loaded.Accounts, a)
	}
}

// byKey reads the accounts that the commands name by what they are, and those of their payments.
func (l *loader) byKey(known map[ledger.Key]*ledger.Account, commands []payments.Command) error {
	seen := make(map[ledger.Key]bool)
	var owners, kinds, currencies []string
	add := func(k ledger.Key) {
		if seen[k] {
			return
		}
		seen[k] = true
		if a, ok := known[k]; ok {
			l.add(*a)
			return
		}
		owners, kinds, currencies = append(owners, k.Owner), append(kinds, string(k.Kind)), append(currencies, k.Currency)
	}
	for _, c := range commands {
		for _, k := range c.Needs.Accounts {
			add(k)
		}
	}
	for i := range l.loaded.Payments {
		add(l.loaded.Payments[i].CustomerAccount())
		add(l.loaded.Payments[i].MerchantAccount())
	}
	if len(owners) == 0 {
		return nil
	}
	if l.tx.Engine() == sqldb.PostgreSQL {
		return rows(l.ctx, l.tx, l.account, `SELECT `+accountColumns+` FROM unnest($1::text[], $2::text[], $3::text[]) AS r (o, k, c)
			JOIN accounts a ON a.owner = r.o AND a.kind = r.k AND a.currency = r.c`, owners, kinds, currencies)
	}
	for i := range owners {
		err := rows(l.ctx, l.tx, l.account, `SELECT `+accountColumns+` FROM accounts a WHERE a.owner = ? AND a.kind = ? AND a.currency = ?`,
			owners[i], kinds[i], currencies[i])
		if err != nil {
			return err
		}
	}
	return nil
}

// byID reads the accounts that the commands name by their ids.
func (l *loader) byID(commands []payments.Command) error {
	var ids []string
	for _, c := range commands {
		for _, id := range c.Needs.IDs {
			ids = append(ids, string(id))
		}
	}
	return each(l.ctx, l.tx, l.tx.Engine(), text, ids, `SELECT `+accountColumns+` FROM %s CROSS JOIN accounts a WHERE a.account_id = r.v`, l.account)
}
