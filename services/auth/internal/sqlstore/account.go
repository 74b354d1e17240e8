package sqlstore

import (
	"context"
	"database/sql"
	"time"

	"github.com/concordat-dev/concordat/services/auth/internal/auth"
)

const accountColumns = `user_id, coalesce(email, ''), password_hash, role, state, profile, profile_at, version, created_at, updated_at`

func scanAccount(row *sql.Row) (auth.Account, error) {
	var a auth.Account
	var created, updated, heard int64
	err := row.Scan(&a.ID, &a.Email, &a.PasswordHash, &a.Role, &a.State, &a.Profile, &heard, &a.Version, &created, &updated)
	if err != nil {
		return auth.Account{}, noRecord(err)
	}
	if heard != 0 {
		a.ProfileAt = time.UnixMicro(heard).UTC()
	}
	a.CreatedAt, a.UpdatedAt = time.UnixMicro(created).UTC(), time.UnixMicro(updated).UTC()
	return a, nil
}

// Account returns the account with this id; see auth.View.
func (v view) Account(ctx context.Context, id auth.UserID) (auth.Account, error) {
	return scanAccount(v.q.QueryRowContext(ctx, `SELECT `+accountColumns+` FROM accounts WHERE user_id = $1`, string(id)))
}

// AccountByEmail returns the account with this email; see auth.View.
func (v view) AccountByEmail(ctx context.Context, email string) (auth.Account, error) {
	return scanAccount(v.q.QueryRowContext(ctx, `SELECT `+accountColumns+` FROM accounts WHERE email = $1`, email))
}

// AddAccount adds an account; see auth.AccountTx.
func (t *txn) AddAccount(ctx context.Context, a auth.Account) error {
	n, err := t.exec(ctx, `
INSERT INTO accounts (user_id, email, password_hash, role, state, profile, profile_at, version, created_at, updated_at)
VALUES ($1, nullif($2, ''), $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT DO NOTHING`,
		string(a.ID), a.Email, a.PasswordHash, string(a.Role), string(a.State), string(a.Profile), heardAt(a), a.Version, a.CreatedAt.UnixMicro(), a.UpdatedAt.UnixMicro())
	if err != nil || n == 1 {
		return err
	}
	// The row in the way is still there: this transaction is the only one that writes.
	taken, err := t.exists(ctx, `SELECT 1 FROM accounts WHERE user_id = $1`, string(a.ID))
	if err != nil {
		return err
	}
	if taken {
		return auth.ErrUserIDTaken
	}
	return auth.ErrEmailTaken
}

// UpdateAccount replaces what can change of an account; see auth.AccountTx.
func (t *txn) UpdateAccount(ctx context.Context, a auth.Account) error {
	return t.execOne(ctx, `
UPDATE accounts SET password_hash = $1, role = $2, state = $3, profile = $4, profile_at = $5, version = $6, updated_at = $7 WHERE user_id = $8`,
		a.PasswordHash, string(a.Role), string(a.State), string(a.Profile), heardAt(a), a.Version, a.UpdatedAt.UnixMicro(), string(a.ID))
}

// heardAt returns the time of the profile as it is kept: 0 where nothing was heard.
func heardAt(a auth.Account) int64 {
	if a.ProfileAt.IsZero() {
		return 0
	}
	return a.ProfileAt.UnixMicro()
}

// SetEmail replaces the email of an account; see auth.AccountTx.
func (t *txn) SetEmail(ctx context.Context, id auth.UserID, email string) error {
	// Nothing is given that another has: this transaction is the only one that writes.
	taken, err := t.exists(ctx, `SELECT 1 FROM accounts WHERE email = $1 AND user_id <> $2`, email, string(id))
	switch {
	case err != nil:
		return err
	case taken:
		return auth.ErrEmailTaken
	}
	return t.execOne(ctx, `UPDATE accounts SET email = nullif($1, '') WHERE user_id = $2`, email, string(id))
}

// Accounts lists the ids of accounts; see auth.View.
func (v view) Accounts(ctx context.Context, behind auth.UserID, limit int) ([]auth.UserID, error) {
	rows, err := v.q.QueryContext(ctx, `SELECT user_id FROM accounts WHERE user_id > $1 ORDER BY user_id LIMIT $2`, string(behind), limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var page []auth.UserID
	for rows.Next() {
		var id auth.UserID
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		page = append(page, id)
	}
	return page, rows.Err()
}

// RemoveAccount removes an account and what belongs to it; see auth.AccountTx.
func (t *txn) RemoveAccount(ctx context.Context, id auth.UserID) error {
	return t.execOne(ctx, `DELETE FROM accounts WHERE user_id = $1`, string(id))
}

// Admins counts the administrators; see auth.AccountTx.
func (t *txn) Admins(ctx context.Context) (all, active int, err error) {
	err = t.tx.QueryRowContext(ctx, `SELECT count(*), count(*) FILTER (WHERE state = $1 AND profile = $2) FROM accounts WHERE role = 'ADMIN'`,
		string(auth.StateActive), string(auth.ProfileActive)).Scan(&all, &active)
	return all, active, err
}

// PasswordChange returns a change that was made; see auth.View.
func (v view) PasswordChange(ctx context.Context, id auth.UserID, requestID string) (auth.PasswordChange, error) {
	c := auth.PasswordChange{UserID: id, RequestID: requestID}
	var at int64
	err := v.q.QueryRowContext(ctx, `SELECT password_hash, changed_at FROM password_changes WHERE user_id = $1 AND request_id = $2`, string(id), requestID).Scan(&c.PasswordHash, &at)
	if err != nil {
		return auth.PasswordChange{}, noRecord(err)
	}
	c.At = time.UnixMicro(at).UTC()
	return c, nil
}

// AddPasswordChange remembers a change; see auth.AccountTx.
func (t *txn) AddPasswordChange(ctx context.Context, c auth.PasswordChange) error {
	n, err := t.exec(ctx, `INSERT INTO password_changes (user_id, request_id, password_hash, changed_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
		string(c.UserID), c.RequestID, c.PasswordHash, c.At.UnixMicro())
	if err == nil && n == 0 {
		return auth.ErrRequestIDTaken
	}
	return err
}
