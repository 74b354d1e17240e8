package sqlstore

import (
	"context"
	"io"

	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/auth/internal/auth"
)

// Profiles returns a consumer that calls follow with each change of a profile that source tells of, once, in one
// transaction with where it has come to. Where it has missed what source has told, it calls anew. report is told of
// what it goes on after.
func (s *Store) Profiles(
	source eventlog.Source[auth.ProfileChange], follow func(context.Context, auth.Tx, auth.ProfileChange) error, anew func(context.Context) error,
	random io.Reader, report func(error),
) (*eventlog.Consumer[auth.ProfileChange], error) {
	return eventlog.NewConsumer(eventlog.ConsumerOptions[auth.ProfileChange]{
		Name: "users.v1/profiles", DB: s.db, Source: source, Clock: s.clock, Rand: random, Report: report, Rebuild: anew,
		Apply: func(ctx context.Context, tx *sqldb.Tx, change *auth.ProfileChange) error {
			return follow(ctx, &txn{view: view{tx}, tx: tx, log: s.log}, *change)
		},
	})
}
