package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// errCheckOnly rolls a transaction back that was only to say what it would do.
var errCheckOnly = errors.New("only checked")

// write runs a transaction, and rolls it back at its end where it is only to check.
func (s *Store) write(ctx context.Context, mode users.Mode, fn func(tx *sqldb.Tx) error) error {
	err := s.db.Write(ctx, func(tx *sqldb.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		if mode == users.CheckOnly {
			return errCheckOnly
		}
		return nil
	})
	if errors.Is(err, errCheckOnly) {
		return nil
	}
	return err
}

// Change changes a user; see users.Store.
func (s *Store) Change(ctx context.Context, c users.Change) (users.User, error) {
	var after users.User
	err := s.write(ctx, c.Mode, func(tx *sqldb.Tx) (err error) {
		after, err = s.change(ctx, tx, c)
		return err
	})
	if err != nil {
		return users.User{}, err
	}
	return after, nil
}

func (s *Store) change(ctx context.Context, tx *sqldb.Tx, c users.Change) (users.User, error) {
	if !c.Claim.Zero() {
		there, err := take(ctx, tx, c.Claim, c.ID)
		if err != nil {
			return users.User{}, fmt.Errorf("claim request: %w", err)
		}
		if there != nil {
			if err := there.answers(c.Claim.Digest); err != nil {
				return users.User{}, err
			}
			if err := tx.Confirm(ctx); err != nil {
				return users.User{}, err
			}
			return s.find(ctx, tx, there.user, "")
		}
	}
	before, err := s.find(ctx, tx, c.ID, s.db.Engine().ForUpdate())
	if err != nil {
		return users.User{}, err
	}
	after, what, err := c.Apply(before)
	if err != nil {
		return users.User{}, err
	}
	if after.Equal(before) {
		return after, nil
	}
	if err := s.update(ctx, tx, before, after); err != nil {
		return users.User{}, err
	}
	return after, s.tell(ctx, tx, before, after, what)
}

// find reads a user, and locks its row where the end of the statement says so.
func (s *Store) find(ctx context.Context, tx *sqldb.Tx, id users.ID, lock string) (users.User, error) {
	u, err := scanUser(tx.QueryRowContext(ctx, `SELECT `+userColumns+` FROM users u WHERE u.user_id = $1`+lock, string(id)))
	if errors.Is(err, sql.ErrNoRows) {
		return users.User{}, notFound(id)
	}
	return u, err
}

// update writes the row and the labels of a user.
func (s *Store) update(ctx context.Context, tx *sqldb.Tx, before, after users.User) error {
	all, err := values(after)
	if err != nil {
		return err
	}
	st := s.statement().write("UPDATE users SET ")
	for i, c := range writtenColumns[1:] {
		if i > 0 {
			st.write(", ")
		}
		st.write(c.name, " = ").arg(all[i+1])
	}
	st.write(" WHERE user_id = ").arg(all[0])
	if _, err := tx.ExecContext(ctx, st.String(), st.args...); err != nil {
		if sqldb.IsUnique(err, "users.email_key") {
			return users.ErrEmailTaken.Because(err)
		}
		return fmt.Errorf("update user: %w", err)
	}
	if err := relabel(ctx, tx, s.db.Engine(), before, after); err != nil {
		return fmt.Errorf("update labels: %w", err)
	}
	return nil
}

// tell appends the event of a change, and forgets what was personal where the change erased the user.
func (s *Store) tell(ctx context.Context, tx *sqldb.Tx, before, after users.User, what users.EventType) error {
	e, err := changed(before, after, what)
	if err != nil {
		return err
	}
	if err := s.log.Append(ctx, tx, e); err != nil {
		return err
	}
	if !after.Erased() || before.Erased() {
		return nil
	}
	if err := forget(ctx, tx, after.ID); err != nil {
		return fmt.Errorf("forget claims: %w", err)
	}
	if err := s.log.Redact(ctx, tx, string(after.ID), redact); err != nil {
		return fmt.Errorf("redact events: %w", err)
	}
	return nil
}
