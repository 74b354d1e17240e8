package sqlstore

import (
	"context"
	"database/sql"
	"time"

	"github.com/concordat-dev/concordat/services/auth/internal/auth"
)

// AddSession adds a session; see auth.SessionTx.
func (t *txn) AddSession(ctx context.Context, s auth.Session) error {
	_, err := t.exec(ctx, `INSERT INTO sessions (session_id, user_id, opened_at, closed_at) VALUES ($1, $2, $3, $4)`,
		string(s.ID), string(s.UserID), s.OpenedAt.UnixMicro(), optionalTime(s.ClosedAt))
	return err
}

// Session returns the session with this id; see auth.SessionTx.
func (t *txn) Session(ctx context.Context, id auth.SessionID) (auth.Session, error) {
	s := auth.Session{ID: id}
	var opened int64
	var closed sql.NullInt64
	err := t.tx.QueryRowContext(ctx, `SELECT user_id, opened_at, closed_at FROM sessions WHERE session_id = $1`, string(id)).Scan(&s.UserID, &opened, &closed)
	if err != nil {
		return auth.Session{}, noRecord(err)
	}
	s.OpenedAt, s.ClosedAt = time.UnixMicro(opened).UTC(), timeOf(closed)
	return s, nil
}

// CloseSession closes a session; see auth.SessionTx.
func (t *txn) CloseSession(ctx context.Context, id auth.SessionID, at time.Time) (bool, error) {
	n, err := t.exec(ctx, `UPDATE sessions SET closed_at = $1 WHERE session_id = $2 AND closed_at IS NULL`, at.UnixMicro(), string(id))
	return n == 1, err
}

// CloseSessions closes all sessions of a user but one; see auth.SessionTx.
func (t *txn) CloseSessions(ctx context.Context, id auth.UserID, but auth.SessionID, at time.Time) error {
	_, err := t.exec(ctx, `UPDATE sessions SET closed_at = $1 WHERE user_id = $2 AND session_id <> $3 AND closed_at IS NULL`,
		at.UnixMicro(), string(id), string(but))
	return err
}

// AddRefreshToken adds a token; see auth.SessionTx.
func (t *txn) AddRefreshToken(ctx context.Context, r auth.RefreshToken) error {
	_, err := t.exec(ctx, `INSERT INTO refresh_tokens (digest, session_id, expires_at, used_at) VALUES ($1, $2, $3, $4)`,
		r.Digest[:], string(r.SessionID), r.ExpiresAt.UnixMicro(), optionalTime(r.UsedAt))
	return err
}

// RefreshToken returns the token with this digest; see auth.SessionTx.
func (t *txn) RefreshToken(ctx context.Context, d auth.Digest) (auth.RefreshToken, error) {
	r := auth.RefreshToken{Digest: d}
	var expires int64
	var used sql.NullInt64
	err := t.tx.QueryRowContext(ctx, `SELECT session_id, expires_at, used_at FROM refresh_tokens WHERE digest = $1`, d[:]).Scan(&r.SessionID, &expires, &used)
	if err != nil {
		return auth.RefreshToken{}, noRecord(err)
	}
	r.ExpiresAt, r.UsedAt = time.UnixMicro(expires).UTC(), timeOf(used)
	return r, nil
}

// UseRefreshToken marks a token as used: the row decides who was first; see auth.SessionTx.
func (t *txn) UseRefreshToken(ctx context.Context, d auth.Digest, at time.Time) (bool, error) {
	n, err := t.exec(ctx, `UPDATE refresh_tokens SET used_at = $1 WHERE digest = $2 AND used_at IS NULL`, at.UnixMicro(), d[:])
	return n == 1, err
}

// CountMiss counts a sign-in for an email without an account; see auth.SessionTx.
func (t *txn) CountMiss(ctx context.Context) error {
	return t.execOne(ctx, `UPDATE sign_in_misses SET misses = misses + 1 WHERE id = 1`)
}
