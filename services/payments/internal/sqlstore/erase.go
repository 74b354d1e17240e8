package sqlstore

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// erasurePage is how many customers are asked about at once.
const erasurePage = 100

// Erasures returns a consumer that erases the customers that source tells of. Where it has missed what source has told, it goes
// through all customers of whom anything personal is kept: gone returns which of some were erased. report is told of what it goes
// on after.
func (s *Store) Erasures(
	source eventlog.Source[payments.CustomerID], gone func(context.Context, []payments.CustomerID) ([]payments.CustomerID, error),
	random io.Reader, report func(error),
) (*eventlog.Consumer[payments.CustomerID], error) {
	return eventlog.NewConsumer(eventlog.ConsumerOptions[payments.CustomerID]{
		Name: "users.v1/erasures", DB: s.db, Source: source, Clock: s.clock, Rand: random, Report: report,
		Apply: func(ctx context.Context, tx *sqldb.Tx, customer *payments.CustomerID) error {
			return s.erase(ctx, tx, *customer)
		},
		Rebuild: func(ctx context.Context) error {
			for after := payments.CustomerID(""); ; {
				page, err := s.remembered(ctx, after)
				if err != nil || len(page) == 0 {
					return err
				}
				after = page[len(page)-1]
				erased, err := gone(ctx, page)
				if err != nil {
					return err
				}
				for _, customer := range erased {
					if err := s.db.Write(ctx, func(tx *sqldb.Tx) error { return s.erase(ctx, tx, customer) }); err != nil {
						return err
					}
				}
			}
		},
	})
}

// remembered returns the customers after one of whom anything personal is kept, in the order of their ids.
func (s *Store) remembered(ctx context.Context, after payments.CustomerID) (page []payments.CustomerID, err error) {
	err = s.db.ReadOne(ctx, func(q sqldb.Querier) error {
		page = nil
		return rows(ctx, q, func(row scanner) error {
			var id payments.CustomerID
			err := row.Scan(&id)
			page = append(page, id)
			return err
		}, `SELECT id FROM (SELECT customer_id AS id FROM payments WHERE metadata IS NOT NULL
			UNION SELECT owner FROM accounts WHERE metadata IS NOT NULL AND kind = 'CUSTOMER') c
			WHERE id > $1 ORDER BY id LIMIT $2`, string(after), erasurePage)
	})
	return page, err
}

// erase removes what a customer's payments and accounts have of personal data: the metadata that callers wrote on them, also of
// the events that are kept. The books stay. All of it is in the transaction.
func (s *Store) erase(ctx context.Context, tx *sqldb.Tx, customer payments.CustomerID) error {
	for _, statement := range []string{
		`UPDATE payments SET metadata = NULL WHERE customer_id = $1 AND metadata IS NOT NULL`,
		`UPDATE accounts SET metadata = NULL WHERE owner = $1 AND metadata IS NOT NULL`,
	} {
		if _, err := tx.ExecContext(ctx, statement, string(customer)); err != nil {
			return fmt.Errorf("erase customer: %w", err)
		}
	}
	return s.log.Redact(ctx, tx, string(customer), func(e eventlog.Event) ([]byte, error) {
		var told event
		if err := json.Unmarshal(e.Payload, &told); err != nil {
			return nil, err
		}
		told.Metadata = nil
		return json.Marshal(told)
	})
}
