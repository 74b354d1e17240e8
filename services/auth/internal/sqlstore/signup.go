package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/concordat-dev/concordat/services/auth/internal/auth"
)

const signUpColumns = `request_id, user_id, email, display_name, content, password_hash, admin_code, began_at, finished_at`

func scanSignUp(row interface{ Scan(...any) error }) (auth.SignUp, error) {
	var s auth.SignUp
	var content, code []byte
	var began int64
	var finished sql.NullInt64
	err := row.Scan(&s.RequestID, &s.UserID, &s.Email, &s.DisplayName, &content, &s.PasswordHash, &code, &began, &finished)
	if err != nil {
		return auth.SignUp{}, noRecord(err)
	}
	if s.Content, err = digestOf(content); err != nil {
		return auth.SignUp{}, err
	}
	if s.AdminCode, err = digestOf(code); err != nil {
		return auth.SignUp{}, err
	}
	s.BeganAt, s.FinishedAt = time.UnixMicro(began).UTC(), timeOf(finished)
	return s, nil
}

// SignUp returns the sign-up with this request id; see auth.View.
func (v view) SignUp(ctx context.Context, requestID string) (auth.SignUp, error) {
	return scanSignUp(v.q.QueryRowContext(ctx, `SELECT `+signUpColumns+` FROM sign_ups WHERE request_id = $1`, requestID))
}

// UnfinishedSignUps lists the sign-ups that were begun and not finished; see auth.View.
func (v view) UnfinishedSignUps(ctx context.Context, before time.Time, behind auth.UserID, limit int) ([]auth.SignUp, error) {
	rows, err := v.q.QueryContext(ctx, `
SELECT `+signUpColumns+` FROM sign_ups WHERE finished_at IS NULL AND user_id > $1 AND began_at < $2 ORDER BY user_id LIMIT $3`,
		string(behind), before.UnixMicro(), limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var page []auth.SignUp
	for rows.Next() {
		s, err := scanSignUp(rows)
		if err != nil {
			return nil, err
		}
		page = append(page, s)
	}
	return page, rows.Err()
}

// AddSignUp adds a sign-up; see auth.SignUpTx.
func (t *txn) AddSignUp(ctx context.Context, s auth.SignUp) error {
	n, err := t.exec(ctx, `
INSERT INTO sign_ups (`+signUpColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING`,
		s.RequestID, string(s.UserID), s.Email, s.DisplayName, s.Content[:], s.PasswordHash, optionalDigest(s.AdminCode), s.BeganAt.UnixMicro(), optionalTime(s.FinishedAt))
	if err != nil || n == 1 {
		return err
	}
	for _, way := range []struct {
		query string
		value any
		taken error
	}{
		{`SELECT 1 FROM sign_ups WHERE request_id = $1`, s.RequestID, auth.ErrRequestIDTaken},
		{`SELECT 1 FROM sign_ups WHERE admin_code = $1 AND finished_at IS NULL`, optionalDigest(s.AdminCode), auth.ErrAdminCodeTaken},
	} {
		taken, err := t.exists(ctx, way.query, way.value)
		if err != nil {
			return err
		}
		if taken {
			return way.taken
		}
	}
	return fmt.Errorf("user %s has another sign-up", s.UserID)
}

// UpdateSignUp replaces what can change of a sign-up; see auth.SignUpTx.
func (t *txn) UpdateSignUp(ctx context.Context, s auth.SignUp) error {
	code := optionalDigest(s.AdminCode)
	n, err := t.exec(ctx, `
UPDATE sign_ups SET admin_code = $1, finished_at = $2 WHERE request_id = $3
AND NOT EXISTS (SELECT 1 FROM sign_ups WHERE admin_code = $4 AND finished_at IS NULL AND request_id <> $5)`,
		code, optionalTime(s.FinishedAt), s.RequestID, code, s.RequestID)
	if err != nil || n == 1 {
		return err
	}
	there, err := t.exists(ctx, `SELECT 1 FROM sign_ups WHERE request_id = $1`, s.RequestID)
	if err != nil {
		return err
	}
	if there {
		return auth.ErrAdminCodeTaken
	}
	return auth.ErrNoRecord
}

// AdminCode returns the code for the first administrator; see auth.SignUpTx.
func (t *txn) AdminCode(ctx context.Context) (auth.Digest, error) {
	var raw []byte
	if err := t.tx.QueryRowContext(ctx, `SELECT digest FROM admin_code WHERE id = 1`).Scan(&raw); err != nil {
		return auth.Digest{}, noRecord(err)
	}
	return digestOf(raw)
}

// SetAdminCode replaces or removes the code; see auth.SignUpTx.
func (t *txn) SetAdminCode(ctx context.Context, d auth.Digest) error {
	raw := optionalDigest(d)
	if raw == nil {
		_, err := t.exec(ctx, `DELETE FROM admin_code WHERE id = 1`)
		return err
	}
	_, err := t.exec(ctx, `INSERT INTO admin_code (id, digest) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET digest = excluded.digest`, raw)
	return err
}
