package sqlstore

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// Create stores drafts in one transaction; see users.Store.
func (s *Store) Create(ctx context.Context, drafts []users.Draft) ([]users.Outcome, error) {
	outcomes := make([]users.Outcome, len(drafts))
	err := s.db.Write(ctx, func(tx *sqldb.Tx) error {
		var events []eventlog.Event
		for i, d := range drafts {
			made, err := insert(ctx, tx, d)
			if err != nil {
				return fmt.Errorf("insert user %s: %w", d.User.ID, err)
			}
			if !made {
				if outcomes[i], err = clash(ctx, tx, d); err != nil {
					return fmt.Errorf("find what user %s clashes with: %w", d.User.ID, err)
				}
				continue
			}
			outcomes[i] = users.Outcome{User: d.User}
			e, err := created(d.User)
			if err != nil {
				return err
			}
			events = append(events, e)
		}
		if len(events) == 0 {
			return nil
		}
		if _, err := tx.ExecContext(ctx, `UPDATE user_total SET total = total + $1 WHERE id = 1`, len(events)); err != nil {
			return fmt.Errorf("add to the total: %w", err)
		}
		return s.log.Append(ctx, tx, events...)
	})
	if err != nil {
		return nil, err
	}
	return outcomes, nil
}

// insert adds the user and the claim, unless something of them is taken.
func insert(ctx context.Context, tx *sqldb.Tx, d users.Draft) (made bool, err error) {
	u := d.User
	res, err := tx.ExecContext(ctx, `
INSERT INTO users (`+userColumns+`, email_key, created_by, request_id, request_digest)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
ON CONFLICT DO NOTHING`,
		string(u.ID), u.Email, u.DisplayName, u.FirstName, u.LastName, string(u.State), u.Revision, u.CreatedAt.UnixMicro(), u.UpdatedAt.UnixMicro(),
		d.EmailKey, d.Claim.Caller, d.Claim.RequestID, d.Claim.Digest[:])
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n == 1, err
}

// clash says why a draft was not inserted. The row in its way is committed or of this transaction, and this
// transaction has the write lock, so the row is still there.
func clash(ctx context.Context, tx *sqldb.Tx, d users.Draft) (users.Outcome, error) {
	u, digest, err := claimed(ctx, tx, d.Claim)
	switch {
	case err == nil && bytes.Equal(digest, d.Claim.Digest[:]):
		return users.Outcome{User: u}, nil
	case err == nil:
		return users.Outcome{Err: users.ErrRequestIDReused}, nil
	case !errors.Is(err, sql.ErrNoRows):
		return users.Outcome{}, err
	}
	for _, way := range []struct {
		column, value string
		taken         error
	}{
		{"user_id", string(d.User.ID), users.ErrIDTaken.With("user_id", string(d.User.ID))},
		{"email_key", d.EmailKey, users.ErrEmailTaken},
	} {
		var there bool
		err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM users WHERE `+way.column+` = $1)`, way.value).Scan(&there)
		if err != nil {
			return users.Outcome{}, err
		}
		if there {
			return users.Outcome{Err: way.taken}, nil
		}
	}
	return users.Outcome{}, errors.New("the insert found a conflict and nothing is in its way")
}

// claimed returns the user that a claim has made, and the digest of the request that made it.
func claimed(ctx context.Context, q sqldb.Querier, c users.Claim) (users.User, []byte, error) {
	var digest []byte
	u, err := scanUser(q.QueryRowContext(ctx, `SELECT `+userColumns+`, request_digest FROM users WHERE created_by = $1 AND request_id = $2`, c.Caller, c.RequestID), &digest)
	return u, digest, err
}
