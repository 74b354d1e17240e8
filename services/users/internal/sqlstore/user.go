package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// scanPage is how many users a Scan reads at once: what it holds in memory, and how long it holds a snapshot.
const scanPage = 500

// userColumns are what a user is read from, in the order of scanUser.
const userColumns = `user_id, email, display_name, first_name, last_name, state, revision, created_at, updated_at`

// The queries of pages. Both walk the index users_position and read no row outside of the page.
const (
	listQuery = `
SELECT ` + userColumns + ` FROM users WHERE (created_at, user_id) > ($1, $2)
ORDER BY created_at, user_id LIMIT $3`
	scanQuery = `
SELECT ` + userColumns + ` FROM users
WHERE (created_at, user_id) > ($1, $2) AND (created_at, user_id) <= ($3, $4) AND seq <= $5
ORDER BY created_at, user_id LIMIT $6`
)

// Get returns a user; see users.Store.
func (s *Store) Get(ctx context.Context, id users.ID) (users.User, error) {
	var u users.User
	err := s.db.Read(ctx, func(q sqldb.Querier) (err error) {
		u, err = scanUser(q.QueryRowContext(ctx, `SELECT `+userColumns+` FROM users WHERE user_id = $1`, string(id)))
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		return users.User{}, users.ErrNotFound.With("user_id", string(id))
	}
	return u, err
}

// List returns a page of users; see users.Store.
func (s *Store) List(ctx context.Context, after users.Position, limit int) (users.Page, error) {
	var page users.Page
	err := s.db.Read(ctx, func(q sqldb.Querier) (err error) {
		// One more than asked for says whether there are more.
		page.Users, err = readUsers(ctx, q, listQuery, after.CreatedAt.UnixMicro(), string(after.ID), limit+1)
		if err != nil {
			return err
		}
		return q.QueryRowContext(ctx, `SELECT total FROM user_total WHERE id = 1`).Scan(&page.Total)
	})
	if err != nil {
		return users.Page{}, err
	}
	if len(page.Users) > limit {
		page.Users, page.More = page.Users[:limit], true
	}
	return page, nil
}

// bound is what a Scan goes up to: the last user in the order of positions, and the last one in the order of commits.
// Whoever is committed later has a greater seq; the position only spares reading all of those at the end.
type bound struct {
	last users.Position
	seq  int64
}

// Scan yields every user who was there when it began; see users.Store.
//
// It does not hold one snapshot, because yield runs at the pace of a client, and a snapshot that is held keeps the write-ahead log
// from being recycled and a reader from others. It reads pages, each by a snapshot of its own, up to the bound that it took at its
// beginning. That shows what one snapshot would show, because a user who was made does not change and does not go away:
// whatever makes users change has to keep what a Scan that is under way would have seen.
func (s *Store) Scan(ctx context.Context, yield func(users.User) error) error {
	end, err := s.bound(ctx)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("begin scan: %w", err)
	}
	var after users.Position
	for {
		page, err := s.scanPage(ctx, after, end)
		if err != nil {
			return fmt.Errorf("scan users: %w", err)
		}
		for _, u := range page {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := yield(u); err != nil {
				return err
			}
		}
		if len(page) < scanPage {
			return nil
		}
		after = page[len(page)-1].Position()
	}
}

// bound returns the end of a Scan that begins now, or sql.ErrNoRows if there is no user.
func (s *Store) bound(ctx context.Context) (bound, error) {
	var b bound
	err := s.db.Read(ctx, func(q sqldb.Querier) error {
		var createdAt int64
		var id string
		err := q.QueryRowContext(ctx, `
SELECT created_at, user_id, (SELECT max(seq) FROM users) FROM users
ORDER BY created_at DESC, user_id DESC LIMIT 1`).Scan(&createdAt, &id, &b.seq)
		b.last = users.Position{CreatedAt: time.UnixMicro(createdAt).UTC(), ID: users.ID(id)}
		return err
	})
	return b, err
}

func (s *Store) scanPage(ctx context.Context, after users.Position, end bound) ([]users.User, error) {
	var page []users.User
	err := s.db.Read(ctx, func(q sqldb.Querier) (err error) {
		page, err = readUsers(ctx, q, scanQuery,
			after.CreatedAt.UnixMicro(), string(after.ID), end.last.CreatedAt.UnixMicro(), string(end.last.ID), end.seq, scanPage)
		return err
	})
	return page, err
}

func readUsers(ctx context.Context, q sqldb.Querier, query string, args ...any) ([]users.User, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []users.User
	for rows.Next() {
		u, err := scanUser(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, u)
	}
	return all, rows.Err()
}

// scanUser reads userColumns, and what stands after them into more.
func scanUser(row interface{ Scan(...any) error }, more ...any) (users.User, error) {
	var u users.User
	var createdAt, updatedAt int64
	dest := append([]any{&u.ID, &u.Email, &u.DisplayName, &u.FirstName, &u.LastName, &u.State, &u.Revision, &createdAt, &updatedAt}, more...)
	if err := row.Scan(dest...); err != nil {
		return users.User{}, err
	}
	u.CreatedAt, u.UpdatedAt = time.UnixMicro(createdAt).UTC(), time.UnixMicro(updatedAt).UTC()
	return u, nil
}
