package sqlstore

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

const (
	// erasurePage is how many customers are asked about at once.
	erasurePage = 100
	// mentionPage is how many transfers are read at once to learn whom they mention.
	mentionPage = 1000
	// mentioning is what reads them, by an index of these alone.
	mentioning = `SELECT number, content FROM transfers WHERE number > $1 AND number <= $2
		AND metadata IS NOT NULL AND kind IN ('PENDING', 'VOID') ORDER BY number LIMIT $3`
)

// Erasures returns a consumer that erases the customers that source tells of. Where it has missed what source has
// told, it goes through all customers that there are: gone returns which of some were erased. report is told of what
// it goes on after.
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
				page, err := s.customers(ctx, after)
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

// customers returns up to erasurePage customers after one, in the order of their ids: who has a payment or an account.
// Each half is read by an index in its order, so that all pages together read each of its entries once.
func (s *Store) customers(ctx context.Context, after payments.CustomerID) (page []payments.CustomerID, err error) {
	err = s.db.ReadOne(ctx, func(q sqldb.Querier) error {
		page = nil
		return rows(ctx, q, func(row scanner) error {
			var id payments.CustomerID
			err := row.Scan(&id)
			page = append(page, id)
			return err
		}, `SELECT id FROM (SELECT DISTINCT customer_id AS id FROM payments WHERE customer_id > $1 ORDER BY customer_id LIMIT $2) p
			UNION SELECT id FROM (SELECT DISTINCT owner AS id FROM accounts WHERE owner > $1 AND kind = 'CUSTOMER' ORDER BY owner LIMIT $2) a
			ORDER BY id LIMIT $2`, string(after), erasurePage)
	})
	return page, err
}

// erase removes what the service has of a customer's personal data: the metadata that callers wrote on payments, on
// accounts, on transfers that name one of these accounts, and of the events that are kept. The books stay. All of it is
// in the transaction.
func (s *Store) erase(ctx context.Context, tx *sqldb.Tx, customer payments.CustomerID) error {
	// Most of it before the ledger is locked, so that charges do not wait for it.
	if err := s.mention(ctx, tx, ""); err != nil {
		return fmt.Errorf("erase customer: %w", err)
	}
	// A batch under way may have read a payment, and would write an event with what is erased here.
	if err := s.mention(ctx, tx, tx.Engine().ForUpdate()); err != nil {
		return fmt.Errorf("erase customer: %w", err)
	}
	for _, statement := range []string{
		`UPDATE payments SET metadata = NULL WHERE customer_id = $1 AND metadata IS NOT NULL`,
		`UPDATE accounts SET metadata = NULL WHERE owner = $1 AND metadata IS NOT NULL`,
		`UPDATE transfers SET metadata = NULL WHERE metadata IS NOT NULL AND number IN (
			SELECT e.transfer FROM accounts a JOIN entries e ON e.account = a.number WHERE a.owner = $1
			UNION SELECT m.transfer FROM accounts a JOIN mentions m ON m.account = a.number WHERE a.owner = $1)`,
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

// mention writes down which accounts are mentioned by transfers that have no entry on them, and still say something: a
// pending transfer and its release name whom the money was to come to. It goes on where it ended last, up to the end of
// the ledger, which lock may lock.
func (s *Store) mention(ctx context.Context, tx *sqldb.Tx, lock string) error {
	var done int64 // one erasure at a time goes on
	err := tx.QueryRowContext(ctx, `SELECT mentioned FROM payments_meta WHERE id = 1`+tx.Engine().ForUpdate()).Scan(&done)
	if err != nil {
		return err
	}
	head, err := readHead(ctx, tx, lock)
	if err != nil {
		return err
	}
	for after, read := done, mentionPage; read == mentionPage; {
		var accounts, transfers []int64
		read = 0
		err := rows(ctx, tx, func(row scanner) error {
			var content []byte
			if err := row.Scan(&after, &content); err != nil {
				return err
			}
			legs, entries, err := decodeContent(content)
			if err != nil {
				return fmt.Errorf("transfer %d: %w", after, err)
			}
			for _, l := range legs {
				if !slices.ContainsFunc(entries, func(e ledger.Entry) bool { return e.Account == l.Account }) {
					accounts, transfers = append(accounts, l.Account), append(transfers, after)
				}
			}
			read++
			return nil
		}, mentioning, after, head.Ledger.Transfers, mentionPage)
		if err != nil {
			return err
		}
		err = tx.Insert(ctx, "mentions", []string{"account", "transfer"}, len(accounts), func(i int, row []any) {
			set(row, accounts[i], transfers[i])
		})
		if err != nil {
			return err
		}
	}
	if head.Ledger.Transfers == done {
		return nil
	}
	_, err = tx.ExecContext(ctx, `UPDATE payments_meta SET mentioned = $1 WHERE id = 1`, head.Ledger.Transfers)
	return err
}
