package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// Lookup implements payments.Store.
func (s *Store) Lookup(ctx context.Context, claim payments.Claim) (payments.Outcome, bool, error) {
	var kept payments.Kept
	found := false
	err := s.db.Read(ctx, func(q sqldb.Querier) error {
		id := keyID(claim.Key)
		all, err := readKept(ctx, q, s.db.Engine(), [][]byte{id})
		kept, found = all[string(id)]
		return err
	})
	switch {
	case err != nil:
		return payments.Outcome{}, false, fmt.Errorf("look up idempotency key: %w", err)
	case !found:
		return payments.Outcome{}, false, nil
	case kept.Digest != claim.Digest:
		return payments.Outcome{}, false, payments.ErrIdempotencyKeyReused
	case kept.Outcome.Open != nil:
		return payments.Outcome{}, false, payments.ErrInFlight
	}
	if s.db.Engine() == sqldb.PostgreSQL {
		if err := s.db.Write(ctx, func(tx *sqldb.Tx) error { return tx.Confirm(ctx) }); err != nil {
			return payments.Outcome{}, false, err
		}
	}
	return kept.Outcome, true, nil
}

// Payment implements payments.Store.
func (s *Store) Payment(ctx context.Context, id payments.ID) (p payments.Payment, err error) {
	err = s.db.ReadOne(ctx, func(q sqldb.Querier) error {
		p, err = scanPayment(q.QueryRowContext(ctx, `SELECT `+paymentColumns+` FROM payments p WHERE p.payment_id = $1`, string(id)))
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		return payments.Payment{}, payments.ErrPaymentNotFound
	}
	if err != nil {
		return payments.Payment{}, fmt.Errorf("get payment: %w", err)
	}
	return p, nil
}

// Payments implements payments.Store.
func (s *Store) Payments(ctx context.Context, query payments.Query) (found []payments.Payment, err error) {
	where, args, err := conditions(query)
	if err != nil {
		return nil, fmt.Errorf("list payments: %w", err)
	}
	text := `SELECT ` + paymentColumns + ` FROM payments p` + where + fmt.Sprintf(` ORDER BY p.number DESC LIMIT $%d`, len(args)+1)
	err = s.db.ReadOne(ctx, func(q sqldb.Querier) error {
		found = nil
		return rows(ctx, q, func(row scanner) error {
			p, err := scanPayment(row)
			found = append(found, p)
			return err
		}, text, append(args, query.Limit)...)
	})
	if err != nil {
		return nil, fmt.Errorf("list payments: %w", err)
	}
	return found, nil
}

// conditions returns what stands behind FROM, and its arguments.
func conditions(query payments.Query) (string, []any, error) {
	var (
		all  []string
		args []any
	)
	add := func(column string, op payments.Operator, value any) {
		args = append(args, value)
		all = append(all, fmt.Sprintf("%s %s $%d", column, op, len(args)))
	}
	if query.Customer != "" {
		add("p.customer_id", payments.Equal, string(query.Customer))
	}
	if query.Before != 0 {
		add("p.number", payments.Less, query.Before)
	}
	for _, c := range query.Where {
		column, ok := map[payments.Field]string{
			payments.FieldState: "p.state", payments.FieldCurrency: "p.currency", payments.FieldOrder: "p.order_id",
			payments.FieldAmount: "p.amount", payments.FieldCreatedAt: "p.created_at",
		}[c.Field]
		if !ok {
			return "", nil, fmt.Errorf("a condition on %q", c.Field)
		}
		op, ok := map[payments.Operator]payments.Operator{
			payments.Equal: "=", payments.NotEqual: "<>", payments.Less: "<", payments.LessOrEqual: "<=", payments.Greater: ">",
			payments.GreaterOrEqual: ">=",
		}[c.Operator]
		if !ok {
			return "", nil, fmt.Errorf("a condition with the operator %q", c.Operator)
		}
		switch v := c.Value.(type) {
		case payments.State:
			add(column, op, string(v))
		case payments.Currency:
			add(column, op, string(v))
		case payments.OrderID:
			add(column, op, string(v))
		case int64:
			add(column, op, v)
		case time.Time:
			add(column, op, v.UnixMicro())
		default:
			return "", nil, fmt.Errorf("a condition with a %T", v)
		}
	}
	if len(all) == 0 {
		return "", nil, nil
	}
	return " WHERE " + strings.Join(all, " AND "), args, nil
}

// Account implements payments.Store.
func (s *Store) Account(ctx context.Context, id ledger.AccountID, at time.Time) (a ledger.Account, err error) {
	err = s.db.Read(ctx, func(q sqldb.Querier) error {
		a, err = scanAccount(q.QueryRowContext(ctx, `SELECT `+accountColumns+` FROM accounts a WHERE a.account_id = $1`, string(id)))
		if err != nil || at.IsZero() {
			return err
		}
		if a.CreatedAt.After(at) {
			return sql.ErrNoRows
		}
		a.Balance, a.Held, err = balanceAt(ctx, q, a.Number, at)
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		return ledger.Account{}, ledger.ErrAccountNotFound
	}
	if err != nil {
		return ledger.Account{}, fmt.Errorf("get account: %w", err)
	}
	return a, nil
}

// balanceAt returns what an account had and held at a moment: what its last entry until then says. Times grow with the
// numbers of transfers, but for clocks that are set back: then there may be several places at which the moment was
// passed, and it is the last entry before one of them.
func balanceAt(ctx context.Context, q sqldb.Querier, account int64, at time.Time) (balance, held int64, err error) {
	var last sql.NullInt64
	if err := q.QueryRowContext(ctx, `SELECT max(number) FROM transfers`).Scan(&last); err != nil {
		return 0, 0, err
	}
	// The transfers are looked through by halves: the numbers have no gaps, and there is no index of times to keep.
	low, high := int64(0), last.Int64 // low was written until then, or is none; high is the last that may have been
	for low < high {
		middle := low + (high-low+1)/2
		var written int64
		if err := q.QueryRowContext(ctx, `SELECT at FROM transfers WHERE number = $1`, middle).Scan(&written); err != nil {
			return 0, 0, err
		}
		if written > at.UnixMicro() {
			high = middle - 1
		} else {
			low = middle
		}
	}
	err = q.QueryRowContext(ctx, `SELECT balance_after, held_after FROM entries WHERE account = $1 AND transfer <= $2
		ORDER BY transfer DESC LIMIT 1`, account, low).Scan(&balance, &held)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, 0, nil
	}
	return balance, held, err
}

// Accounts implements payments.Store.
func (s *Store) Accounts(ctx context.Context, owner string, after int64, limit int) (found []ledger.Account, err error) {
	text, args := `WHERE a.number > $1 ORDER BY a.number LIMIT $2`, []any{after, limit}
	if owner != "" {
		text, args = `WHERE a.number > $1 AND a.owner = $3 ORDER BY a.number LIMIT $2`, append(args, owner)
	}
	err = s.db.ReadOne(ctx, func(q sqldb.Querier) error {
		found = nil
		return rows(ctx, q, func(row scanner) error {
			a, err := scanAccount(row)
			found = append(found, a)
			return err
		}, `SELECT `+accountColumns+` FROM accounts a `+text, args...)
	})
	if err != nil {
		return nil, fmt.Errorf("list accounts: %w", err)
	}
	return found, nil
}

// Entries implements payments.Store.
func (s *Store) Entries(ctx context.Context, id ledger.AccountID, before int64, limit int) (found []payments.AccountEntry, err error) {
	if before == 0 {
		before = 1<<63 - 1
	}
	err = s.db.ReadOne(ctx, func(q sqldb.Querier) error {
		found = nil
		return rows(ctx, q, func(row scanner) error {
			var (
				e  payments.AccountEntry
				at int64
			)
			err := row.Scan(&e.Account, &e.Transfer, &e.Amount, &e.Held, &e.BalanceAfter, &e.HeldAfter, &e.Kind, &e.Reference, &at)
			e.At = time.UnixMicro(at).UTC()
			found = append(found, e)
			return err
		}, `SELECT e.account, e.transfer, e.amount, e.held, e.balance_after, e.held_after, t.kind, t.payment_id, t.at
			FROM entries e JOIN transfers t ON t.number = e.transfer
			WHERE e.account = (SELECT number FROM accounts WHERE account_id = $1) AND e.transfer < $2
			ORDER BY e.transfer DESC LIMIT $3`, string(id), before, limit)
	})
	if err != nil {
		return nil, fmt.Errorf("list entries: %w", err)
	}
	return found, nil
}

// Transfer implements payments.Store.
func (s *Store) Transfer(ctx context.Context, number int64) (t ledger.Transfer, ids map[int64]ledger.AccountID, err error) {
	err = s.db.Read(ctx, func(q sqldb.Querier) error {
		t, err = scanTransfer(q.QueryRowContext(ctx, `SELECT `+transferColumns+` FROM transfers t WHERE t.number = $1`, number))
		if err != nil {
			return err
		}
		accounts := make([]int64, len(t.Legs))
		for i, l := range t.Legs {
			accounts[i] = l.Account
		}
		ids, err = accountIDs(ctx, q, s.db.Engine(), accounts)
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		return ledger.Transfer{}, nil, ledger.ErrTransferNotFound
	}
	if err != nil {
		return ledger.Transfer{}, nil, fmt.Errorf("get transfer: %w", err)
	}
	return t, ids, nil
}

// AccountIDs implements payments.Store.
func (s *Store) AccountIDs(ctx context.Context, numbers []int64) (ids map[int64]ledger.AccountID, err error) {
	if len(numbers) == 0 {
		return nil, nil
	}
	err = s.db.ReadOne(ctx, func(q sqldb.Querier) error {
		ids, err = accountIDs(ctx, q, s.db.Engine(), numbers)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("get the ids of accounts: %w", err)
	}
	return ids, nil
}

func accountIDs(ctx context.Context, q sqldb.Querier, engine sqldb.Engine, numbers []int64) (map[int64]ledger.AccountID, error) {
	ids := make(map[int64]ledger.AccountID, len(numbers))
	err := each(ctx, q, engine, number, numbers, `SELECT a.number, a.account_id FROM %s CROSS JOIN accounts a WHERE a.number = r.v`,
		func(row scanner) error {
			var (
				n  int64
				id ledger.AccountID
			)
			err := row.Scan(&n, &id)
			ids[n] = id
			return err
		})
	return ids, err
}

// TrialBalance implements payments.Store.
func (s *Store) TrialBalance(ctx context.Context) (b payments.TrialBalance, err error) {
	err = s.db.Read(ctx, func(q sqldb.Querier) error {
		head, err := readHead(ctx, q, "")
		if err != nil {
			return err
		}
		b = payments.TrialBalance{Head: head.Ledger}
		return rows(ctx, q, func(row scanner) error {
			var (
				r      payments.TrialBalanceRow
				halves [4]int64
			)
			if err := row.Scan(&r.Currency, &r.Accounts, &halves[0], &halves[1], &halves[2], &halves[3]); err != nil {
				return err
			}
			r.Credit, r.Debit = together(halves[0], halves[1]), together(halves[2], halves[3])
			b.Rows = append(b.Rows, r)
			return nil
		}, trialBalance)
	})
	if err != nil {
		return payments.TrialBalance{}, fmt.Errorf("trial balance: %w", err)
	}
	return b, nil
}

// trialBalance sums what is above 10^9 of each balance and what is below for themselves: a sum of balances may pass an
// int64, and SQLite has no greater numbers.
const trialBalance = `SELECT currency, count(*),
	CAST(sum(CASE WHEN balance > 0 THEN balance / 1000000000 ELSE 0 END) AS BIGINT),
	CAST(sum(CASE WHEN balance > 0 THEN balance % 1000000000 ELSE 0 END) AS BIGINT),
	CAST(sum(CASE WHEN balance < 0 THEN -(balance / 1000000000) ELSE 0 END) AS BIGINT),
	CAST(sum(CASE WHEN balance < 0 THEN -(balance % 1000000000) ELSE 0 END) AS BIGINT)
	FROM (SELECT a.currency, ` + accountBalance + ` AS balance FROM accounts a) b GROUP BY currency ORDER BY currency`

// together returns the decimal number of the sums of the halves.
func together(above, below int64) string {
	n := new(big.Int).Mul(big.NewInt(above), big.NewInt(1_000_000_000))
	return n.Add(n, big.NewInt(below)).String()
}
