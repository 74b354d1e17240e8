package sqlstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/concordat-dev/concordat/kit/sqldb"
)

// maxFindings is how many rows one check names before it stops.
const maxFindings = 10

// check is a statement that returns the id of each row that breaks a rule.
type check struct{ rule, query string }

// events returns the table of the log with the text of its subjects, in the same snapshot as the rest: the log offers no
// other view of what is past. On PostgreSQL an event is in the inbox until it has its number.
func events(engine sqldb.Engine) string {
	return engine.Pick(`event_log`, `(SELECT seq, convert_from(subject, 'UTF8') AS subject, type FROM event_log
		UNION ALL SELECT 0, convert_from(subject, 'UTF8'), type FROM event_log_inbox)`)
}

// checks are the rules of the books. Every figure in accounts and entries follows from the payments.
func checks(engine sqldb.Engine) []check {
	find := engine.Pick("instr", "strpos")
	return []check{
		{"a payment has two entries that sum to zero", `
			SELECT p.payment_id FROM payments p LEFT JOIN entries e ON e.payment = p.seq
			GROUP BY p.seq HAVING count(e.leg) <> 2 OR sum(e.amount) <> 0`},
		{"the first entry takes the amount from the customer's account in the currency", `
			SELECT p.payment_id FROM payments p LEFT JOIN entries e ON e.payment = p.seq AND e.leg = 1
				LEFT JOIN accounts a ON a.seq = e.account
			WHERE (e.amount = -p.amount AND a.kind = 'CUSTOMER' AND a.owner = p.customer_id AND a.currency = p.currency)
				IS NOT TRUE`},
		{"the second entry gives the amount to the merchant's account in the currency", `
			SELECT p.payment_id FROM payments p LEFT JOIN entries e ON e.payment = p.seq AND e.leg = 2
				LEFT JOIN accounts a ON a.seq = e.account
			WHERE (e.amount = p.amount AND a.kind = 'MERCHANT' AND a.currency = p.currency) IS NOT TRUE`},
		{"an entry has its payment and its account", `
			SELECT e.payment FROM entries e LEFT JOIN payments p ON p.seq = e.payment LEFT JOIN accounts a ON a.seq = e.account
			WHERE p.seq IS NULL OR a.seq IS NULL`},
		{"a balance is the sum of the entries", `
			SELECT a.account_id FROM accounts a LEFT JOIN entries e ON e.account = a.seq
			GROUP BY a.seq HAVING a.balance <> coalesce(sum(e.amount), 0)`},
		{"a payment was made with a key", `
			SELECT p.payment_id FROM payments p LEFT JOIN idempotency_keys k ON k.payment_id = p.payment_id
			GROUP BY p.seq HAVING count(k.key) <> 1`},
		{"a key has its payment", `
			SELECT k.payment_id FROM idempotency_keys k LEFT JOIN payments p ON p.payment_id = k.payment_id
			WHERE p.seq IS NULL`},
		// Once events have been trimmed their absence says nothing.
		{"a payment has one event that says it was charged", `
			SELECT p.payment_id FROM payments p
				LEFT JOIN ` + events(engine) + ` e ON e.subject = p.customer_id || '/' || p.payment_id AND e.type = 'CHARGED'
			WHERE (SELECT trimmed FROM event_log_meta WHERE id = 1) = 0
			GROUP BY p.seq HAVING count(e.seq) <> 1`},
		{"an event is about a payment of its customer", `
			SELECT e.seq FROM ` + events(engine) + ` e
				LEFT JOIN payments p ON p.payment_id = substr(e.subject, ` + find + `(e.subject, '/') + 1)
			WHERE (e.subject = p.customer_id || '/' || p.payment_id) IS NOT TRUE`},
	}
}

// Verify proves the books from one snapshot: the entries of each payment sum to zero and move its amount between the
// accounts that it is about, balances are the sums of the entries, and every payment has its entries, its key and its
// event. It returns an error that names each broken rule with the ids of up to ten rows. It reads everything: the
// time it takes grows with the store.
func (s *Store) Verify(ctx context.Context) error {
	var broken []error
	err := s.db.Read(ctx, func(q sqldb.Querier) error {
		for _, c := range checks(s.db.Engine()) {
			ids, err := c.run(ctx, q)
			if err != nil {
				return fmt.Errorf("check that %s: %w", c.rule, err)
			}
			if len(ids) > 0 {
				broken = append(broken, fmt.Errorf("broken: %s: %q", c.rule, ids))
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	return errors.Join(broken...)
}

func (c check) run(ctx context.Context, q sqldb.Querier) ([]string, error) {
	rows, err := q.QueryContext(ctx, c.query+fmt.Sprintf(" LIMIT %d", maxFindings))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var ids []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}
