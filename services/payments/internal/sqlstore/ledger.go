package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// post adds an entry of a payment and moves the balance of its account by it. The account is made if there is none.
func (s *Store) post(ctx context.Context, tx *sqldb.Tx, payment int64, leg int, e payments.Entry, at time.Time) error {
	account, balance, err := s.account(ctx, tx, e.Account, at)
	if err != nil {
		return fmt.Errorf("account of entry %d: %w", leg, err)
	}
	// The sum is made here and not in SQL, where an overflow would go on as a floating-point number.
	if balance, err = payments.Post(balance, e.Amount); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE accounts SET balance = $1 WHERE seq = $2`, balance, account); err != nil {
		return fmt.Errorf("balance of entry %d: %w", leg, err)
	}
	const insert = `INSERT INTO entries (payment, leg, account, amount) VALUES ($1, $2, $3, $4)`
	if _, err := tx.ExecContext(ctx, insert, payment, leg, account, e.Amount); err != nil {
		return fmt.Errorf("add entry %d: %w", leg, err)
	}
	return nil
}

// account returns the number and the balance of an account.
func (s *Store) account(
	ctx context.Context, tx *sqldb.Tx, key payments.AccountKey, at time.Time,
) (seq, balance int64, err error) {
	const find = `SELECT seq, balance FROM accounts WHERE owner = $1 AND kind = $2 AND currency = $3`
	err = tx.QueryRowContext(ctx, find, key.Owner, string(key.Kind), string(key.Currency)).Scan(&seq, &balance)
	if !errors.Is(err, sql.ErrNoRows) {
		return seq, balance, err
	}
	const insert = `INSERT INTO accounts (account_id, owner, kind, currency, balance, created_at)
		VALUES ($1, $2, $3, $4, 0, $5) RETURNING seq`
	err = tx.QueryRowContext(ctx, insert, s.newID(), key.Owner, string(key.Kind), string(key.Currency), at.UnixMicro()).
		Scan(&seq)
	return seq, 0, err
}
