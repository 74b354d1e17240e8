package sqlstore

import (
	"context"
	"fmt"
	"time"

	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// Expired implements payments.Store.
func (s *Store) Expired(
	ctx context.Context, now time.Time, after *ledger.Outstanding, limit int,
) (found []ledger.Outstanding, err error) {
	var since, last int64
	if after != nil {
		since, last = after.ExpiresAt.UnixMicro(), after.Number
	}
	err = s.db.ReadOne(ctx, func(q sqldb.Querier) error {
		found = nil
		return rows(ctx, q, func(row scanner) error {
			var remaining int64
			t, err := scanTransfer(row, &remaining)
			found = append(found, ledger.Outstanding{Transfer: t, Remaining: remaining})
			return err
		}, `SELECT `+transferColumns+`, w.remaining FROM pending w JOIN transfers t ON t.number = w.transfer
			WHERE w.remaining > 0 AND w.expires_at IS NOT NULL AND w.expires_at <= $1
				AND w.expires_at >= $3 AND (w.expires_at > $3 OR w.transfer > $4)
			ORDER BY w.expires_at, w.transfer LIMIT $2`, now.UnixMicro(), limit, since, last)
	})
	if err != nil {
		return nil, fmt.Errorf("find pending transfers whose time is over: %w", err)
	}
	return found, nil
}

// Intents implements payments.Store.
func (s *Store) Intents(
	ctx context.Context, before time.Time, after *payments.Intent, limit int,
) (found []payments.Intent, err error) {
	since, last := int64(0), []byte{}
	if after != nil {
		since, last = after.At.UnixMicro(), keyID(after.Claim.Key)
	}
	err = s.db.ReadOne(ctx, func(q sqldb.Querier) error {
		found = nil
		return rows(ctx, q, func(row scanner) error {
			var (
				text   string
				digest []byte
			)
			if err := row.Scan(&text, &digest); err != nil {
				return err
			}
			d, err := digestOf(digest)
			if err != nil {
				return err
			}
			intent, err := decodeIntent(text, d)
			if err != nil {
				return err
			}
			found = append(found, *intent)
			return nil
		}, `SELECT intent, digest FROM idempotency_keys WHERE intent IS NOT NULL AND at < $1 AND at >= $3 AND (at > $3 OR id > $4)
			ORDER BY at, id LIMIT $2`, before.UnixMicro(), limit, since, last)
	})
	if err != nil {
		return nil, fmt.Errorf("find intents: %w", err)
	}
	return found, nil
}

// Forget implements payments.Store. It takes no turn of the writer: keys that are as old decide nothing any more.
func (s *Store) Forget(ctx context.Context, before time.Time, limit int) (removed int, err error) {
	err = s.db.Write(ctx, func(tx *sqldb.Tx) error {
		var ids [][]byte
		err := rows(ctx, tx, func(row scanner) error {
			var id []byte
			err := row.Scan(&id)
			ids = append(ids, id)
			return err
		}, `SELECT id FROM idempotency_keys WHERE at < $1 AND intent IS NULL ORDER BY at LIMIT $2`+tx.Engine().ForUpdate(), before.UnixMicro(), limit)
		removed = len(ids)
		if err != nil || removed == 0 {
			return err
		}
		from, arg, err := list(tx.Engine(), bytes, ids)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM idempotency_keys WHERE id IN (SELECT v FROM `+from+`)`, arg)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("forget idempotency keys: %w", err)
	}
	return removed, nil
}
