package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

const paymentColumns = `p.payment_id, p.order_id, p.customer_id, p.amount, p.currency, p.state, p.metadata, p.created_at`

// Lookup returns the payment that was made with the key of the claim, and whether there is one.
func (s *Store) Lookup(ctx context.Context, claim payments.Claim) (p payments.Payment, found bool, err error) {
	err = s.db.Read(ctx, func(q sqldb.Querier) error {
		p, found, err = claimed(ctx, q, claim)
		return err
	})
	if err != nil {
		return payments.Payment{}, false, fmt.Errorf("look up idempotency key: %w", err)
	}
	return p, found, nil
}

// Capture claims the key and writes the posting and its event in one transaction.
func (s *Store) Capture(ctx context.Context, claim payments.Claim, posting payments.Posting) (payments.Receipt, error) {
	if err := posting.Check(); err != nil {
		return payments.Receipt{}, err
	}
	receipt := payments.Receipt{Payment: posting.Payment}
	err := s.db.Write(ctx, func(tx *sqldb.Tx) error {
		first, err := s.claim(ctx, tx, claim, posting.Payment)
		if err != nil {
			return err
		}
		if first != nil {
			receipt = payments.Receipt{Payment: *first, Replayed: true}
			return nil
		}
		return s.write(ctx, tx, posting)
	})
	if err != nil {
		return payments.Receipt{}, fmt.Errorf("capture payment: %w", err)
	}
	return receipt, nil
}

// claim takes the key for p and returns nil, or the payment that has it already.
func (s *Store) claim(
	ctx context.Context, tx *sqldb.Tx, c payments.Claim, p payments.Payment,
) (*payments.Payment, error) {
	const insert = `INSERT INTO idempotency_keys (caller, method, key, digest, payment_id, created_at)
		VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (caller, method, key) DO NOTHING`
	res, err := tx.ExecContext(ctx, insert, c.Caller, c.Method, c.Key, c.Digest[:], string(p.ID), p.CreatedAt.UnixMicro())
	if err != nil {
		return nil, fmt.Errorf("claim key: %w", err)
	}
	n, err := res.RowsAffected()
	if err != nil {
		return nil, fmt.Errorf("claim key: %w", err)
	}
	if n == 1 {
		return nil, nil
	}
	first, found, err := claimed(ctx, tx, c)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, errors.New("claim key: it is taken, and there is no payment")
	}
	return &first, nil
}

// claimed returns the payment that has the key of the claim.
func claimed(ctx context.Context, q sqldb.Querier, c payments.Claim) (payments.Payment, bool, error) {
	var digest []byte
	p, err := scanPayment(q.QueryRowContext(ctx, `SELECT `+paymentColumns+`, k.digest
		FROM idempotency_keys k JOIN payments p ON p.payment_id = k.payment_id
		WHERE k.caller = $1 AND k.method = $2 AND k.key = $3`, c.Caller, c.Method, c.Key), &digest)
	if errors.Is(err, sql.ErrNoRows) {
		return payments.Payment{}, false, nil
	}
	if err != nil {
		return payments.Payment{}, false, err
	}
	if len(digest) != len(payments.Digest{}) {
		return payments.Payment{}, false, fmt.Errorf("the digest of payment %s has %d bytes", p.ID, len(digest))
	}
	if err := c.Check(payments.Digest(digest)); err != nil {
		return payments.Payment{}, false, err
	}
	return p, true, nil
}

// write adds the payment, its entries and its event.
func (s *Store) write(ctx context.Context, tx *sqldb.Tx, posting payments.Posting) error {
	p := posting.Payment
	metadata, err := encodeMetadata(p.Metadata)
	if err != nil {
		return err
	}
	const insert = `INSERT INTO payments (payment_id, order_id, customer_id, amount, currency, state, metadata, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING seq`
	var seq int64
	err = tx.QueryRowContext(ctx, insert, string(p.ID), string(p.Order), string(p.Customer), p.Amount, string(p.Currency),
		string(p.State), metadata, p.CreatedAt.UnixMicro()).Scan(&seq)
	if err != nil {
		return fmt.Errorf("add payment: %w", err)
	}
	for i, e := range posting.Entries {
		if err := s.post(ctx, tx, seq, i+1, e, p.CreatedAt); err != nil {
			return err
		}
	}
	return s.announce(ctx, tx, payments.Transaction{Type: payments.TransactionCharged, Payment: p, At: p.CreatedAt})
}

// Get returns a payment.
func (s *Store) Get(ctx context.Context, id payments.ID) (p payments.Payment, err error) {
	err = s.db.Read(ctx, func(q sqldb.Querier) error {
		p, err = scanPayment(q.QueryRowContext(ctx, `SELECT `+paymentColumns+`
			FROM payments p WHERE p.payment_id = $1`, string(id)))
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

// List returns the payments that match, newest first.
func (s *Store) List(ctx context.Context, query payments.Query) (found []payments.Payment, err error) {
	err = s.db.Read(ctx, func(q sqldb.Querier) error {
		found, err = list(ctx, q, query)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list payments: %w", err)
	}
	return found, nil
}

func list(ctx context.Context, q sqldb.Querier, query payments.Query) ([]payments.Payment, error) {
	before := int64(math.MaxInt64)
	if query.After != "" {
		const place = `SELECT seq FROM payments WHERE payment_id = $1`
		err := q.QueryRowContext(ctx, place, string(query.After)).Scan(&before)
		if errors.Is(err, sql.ErrNoRows) {
			return nil, payments.ErrPageTokenInvalid
		}
		if err != nil {
			return nil, err
		}
	}
	// Two statements, because each has an index of its own to walk along.
	text := `SELECT ` + paymentColumns + ` FROM payments p WHERE p.seq < $1 ORDER BY p.seq DESC LIMIT $2`
	args := []any{before, query.Limit}
	if query.Customer != "" {
		text = `SELECT ` + paymentColumns + ` FROM payments p
			WHERE p.customer_id = $1 AND p.seq < $2 ORDER BY p.seq DESC LIMIT $3`
		args = []any{string(query.Customer), before, query.Limit}
	}
	rows, err := q.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []payments.Payment
	for rows.Next() {
		p, err := scanPayment(rows)
		if err != nil {
			return nil, err
		}
		found = append(found, p)
	}
	return found, rows.Err()
}

// scanner is a row.
type scanner interface{ Scan(dest ...any) error }

// scanPayment reads paymentColumns, and what the row has after them.
func scanPayment(row scanner, more ...any) (payments.Payment, error) {
	var (
		p         payments.Payment
		metadata  string
		createdAt int64
	)
	err := row.Scan(append([]any{&p.ID, &p.Order, &p.Customer, &p.Amount, &p.Currency, &p.State, &metadata,
		&createdAt}, more...)...)
	if err != nil {
		return payments.Payment{}, err
	}
	if err := json.Unmarshal([]byte(metadata), &p.Metadata); err != nil {
		return payments.Payment{}, fmt.Errorf("metadata of payment %s: %w", p.ID, err)
	}
	if len(p.Metadata) == 0 {
		p.Metadata = nil
	}
	p.CreatedAt = time.UnixMicro(createdAt).UTC()
	return p, nil
}

func encodeMetadata(m map[string]string) (string, error) {
	if len(m) == 0 {
		return "{}", nil
	}
	text, err := json.Marshal(m)
	if err != nil {
		return "", fmt.Errorf("encode metadata: %w", err)
	}
	return string(text), nil
}
