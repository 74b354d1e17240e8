package sqlstore

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

const (
	// defaultSnapshots is how many snapshots are held at once. Each has a reader of its own.
	defaultSnapshots = 4
	// snapshotPage is how many users of a snapshot are in memory.
	snapshotPage = 1000
	// snapshotRetry is when to come back when too many are held.
	snapshotRetry = 5 * time.Second
)

// Snapshot yields the users of a selection; see users.Store.
//
// It holds one read transaction for as long as yield takes: on SQLite the write-ahead log is not recycled meanwhile and grows
// by what is written, on PostgreSQL nothing that was deleted since is cleaned up. So few are held at once, beside the readers of
// everybody else. It reads pages, so that no statement lasts as long as the slowest client.
func (s *Store) Snapshot(ctx context.Context, sel users.Selection, yield func(users.User) error) error {
	select {
	case s.snapshots <- struct{}{}:
		defer func() { <-s.snapshots }()
	default:
		return users.ErrTooManySnapshots.WithRetryAfter(snapshotRetry)
	}
	return s.db.Read(ctx, func(q sqldb.Querier) error {
		p, err := s.pager(ctx, q, sel, users.Order{By: users.ByCreatedAt})
		if err != nil {
			return err
		}
		var after users.Position
		for {
			page, err := p.page(ctx, after, snapshotPage, math.MaxInt)
			if err != nil {
				return fmt.Errorf("read a snapshot: %w", err)
			}
			for _, u := range page.Users {
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := yield(u); err != nil {
					return err
				}
			}
			if after = page.Next; after.Zero() {
				return nil
			}
		}
	})
}
