package sqlstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"time"

	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// claim is a claim that is there, and the user that it is on.
type claim struct {
	digest []byte // nil once the user is erased: then it equals every request
	user   users.ID
}

// requestOf returns what is kept of whose request made a user, and of its id. The index on it is filled in no order, so it is short,
// whatever callers are called; and nobody finds two requests of which it is the same.
func requestOf(c users.Claim) []byte {
	sum := sha256.Sum256([]byte(c.RequestID + "\x00" + c.Caller))
	return sum[:16]
}

// answers returns nil if the claim was made by a request with this digest, and else users.ErrRequestIDReused.
func (c claim) answers(d users.Digest) error {
	if c.digest == nil || bytes.Equal(c.digest, d[:]) {
		return nil
	}
	return users.ErrRequestIDReused
}

// take stores the claim of a change, and returns nil if it was free, or the claim that was there. On PostgreSQL a claim of a
// transaction in flight is waited for.
func take(ctx context.Context, tx *sqldb.Tx, c users.Claim, id users.ID) (*claim, error) {
	for range maxRounds {
		res, err := tx.ExecContext(ctx, `INSERT INTO requests (request_id, caller, digest, user_id, at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
			c.RequestID, c.Caller, c.Digest[:], string(id), c.At.UnixMicro())
		if err != nil {
			return nil, err
		}
		if n, err := res.RowsAffected(); err != nil || n == 1 {
			return nil, err
		}
		var there claim
		var user string
		err = tx.QueryRowContext(ctx, `SELECT digest, user_id FROM requests WHERE request_id = $1 AND caller = $2`, c.RequestID, c.Caller).
			Scan(&there.digest, &user)
		if err == nil {
			there.user = users.ID(user)
			return &there, nil
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return nil, err
		}
		// It was purged in between.
	}
	return nil, errUndecided
}

// forget removes the digests of the claims on a user.
func forget(ctx context.Context, tx *sqldb.Tx, id users.ID) error {
	for _, statement := range []string{
		`UPDATE users SET request_digest = NULL WHERE user_id = $1`,
		`UPDATE requests SET digest = NULL WHERE user_id = $1`,
	} {
		if _, err := tx.ExecContext(ctx, statement, string(id)); err != nil {
			return err
		}
	}
	return nil
}

// PurgeClaims removes old claims; see users.Store.
func (s *Store) PurgeClaims(ctx context.Context, before time.Time, limit int) (int, error) {
	var purged int64
	err := s.db.Write(ctx, func(tx *sqldb.Tx) error {
		// As a subquery of the DELETE it could run again for each row, skip what is deleted already, and find more than the limit.
		res, err := tx.ExecContext(ctx, `
WITH old AS MATERIALIZED (SELECT request_id, caller FROM requests WHERE at < $1 ORDER BY at LIMIT $2`+
			s.db.Engine().Pick("", " FOR UPDATE SKIP LOCKED")+`)
DELETE FROM requests WHERE (request_id, caller) IN (SELECT request_id, caller FROM old)`, before.UnixMicro(), limit)
		if err != nil {
			return err
		}
		purged, err = res.RowsAffected()
		return err
	})
	if err != nil {
		return 0, err
	}
	return int(purged), nil
}
