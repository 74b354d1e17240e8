// Package sqlstore keeps accounts, sessions and their events in the database of the service: SQLite in the data directory,
// or PostgreSQL, where writes take turns as they do on SQLite.
//
// A transaction of auth.Store is one of the database: a change and its event are there together or not at all. Unique
// indexes and the number of rows that a statement has changed decide who gets an email, a request id or a refresh
// token; nothing is looked up first.
package sqlstore

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/auth/internal/auth"
)

//go:embed migrations
var migrations embed.FS

// file is the name of the database in the data directory.
const file = "auth.db"

// Options say which store to open.
type Options struct {
	// URL is that of a PostgreSQL database. Empty means SQLite in Dir.
	URL sqldb.URL
	// Connections is how many connections to PostgreSQL are open at once. Zero means the default of kit/sqldb.
	Connections int
	// Dir is the data directory of SQLite, which belongs to this process alone while the store is open. It is made if it is
	// missing.
	Dir string
	// Clock tells how long a write has been going on and paces the event log. Required.
	Clock clock.Clock
	// Random is where the keys of the event log come from when the store is made. Required.
	Random io.Reader
	// Retention is what is kept of the events. Zero keeps all of them.
	Retention eventlog.Retention
}

// Store keeps accounts. It is safe for concurrent use.
type Store struct {
	db    *sqldb.DB
	log   *eventlog.Log
	clock clock.Clock
}

var _ auth.Store = (*Store)(nil)

// Open opens the store, makes it if there is none, and brings its schema up to date. It returns what
// sqldb.Open does.
func Open(ctx context.Context, opts Options) (*Store, error) {
	db, err := sqldb.Open(ctx, sqldb.Options{
		URL:         opts.URL,
		Connections: opts.Connections,
		OneWriter:   true, // what a transaction has read stays true: the last administrator, the code for the first one
		Dir:         opts.Dir,
		File:        file,
		Clock:       opts.Clock,
		Random:      opts.Random,
		Migrations: []sqldb.Set{
			eventlog.Migrations(),
			eventlog.ConsumerMigrations(),
			{Name: "auth", FS: migrations, Dir: "migrations"},
		},
	})
	if err != nil {
		return nil, err
	}
	log, err := eventlog.Open(ctx, db, eventlog.Options{Clock: opts.Clock, Rand: opts.Random, Retention: opts.Retention})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &Store{db: db, log: log, clock: opts.Clock}, nil
}

// Log returns the events: the subject of each is a user id, the type an auth.EventType, and the payload the id of
// the session that it speaks of.
func (s *Store) Log() *eventlog.Log { return s.log }

// Healthy returns an error when the store cannot be read or written.
func (s *Store) Healthy(ctx context.Context) error { return s.db.Healthy(ctx) }

// Run serves the subscriptions until ctx ends; see eventlog.Log.Run. A store runs once.
func (s *Store) Run(ctx context.Context) error { return s.log.Run(ctx) }

// Metrics returns what tells Prometheus of the connections to the database and of the event log.
func (s *Store) Metrics() (*sqldb.Metrics, *eventlog.Metrics) { return s.db.Metrics(), s.log.Metrics() }

// Close waits for what is under way, closes the database and gives the data directory free. Closing twice is allowed.
func (s *Store) Close() error { return s.db.Close() }

// Read calls fn with a snapshot; see auth.Store.
func (s *Store) Read(ctx context.Context, fn func(auth.View) error) error {
	return s.db.Read(ctx, func(q sqldb.Querier) error { return fn(view{q}) })
}

// Write calls fn with the one write transaction; see auth.Store.
func (s *Store) Write(ctx context.Context, fn func(auth.Tx) error) error {
	return s.db.Write(ctx, func(tx *sqldb.Tx) error { return fn(&txn{view: view{tx}, tx: tx, log: s.log}) })
}

// view reads.
type view struct{ q sqldb.Querier }

// txn reads and writes.
type txn struct {
	view
	tx  *sqldb.Tx
	log *eventlog.Log
}

var (
	_ auth.View = view{}
	_ auth.Tx   = (*txn)(nil)
)

// exec runs a statement and returns how many rows it changed.
func (t *txn) exec(ctx context.Context, query string, args ...any) (int64, error) {
	res, err := t.tx.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// execOne runs a statement that changes one row, and returns auth.ErrNoRecord if it changes none.
func (t *txn) execOne(ctx context.Context, query string, args ...any) error {
	n, err := t.exec(ctx, query, args...)
	if err == nil && n == 0 {
		return auth.ErrNoRecord
	}
	return err
}

// exists says whether a query finds a row.
func (v view) exists(ctx context.Context, query string, args ...any) (bool, error) {
	var there bool
	err := v.q.QueryRowContext(ctx, `SELECT EXISTS (`+query+`)`, args...).Scan(&there)
	return there, err
}

// Append writes an event; see auth.Tx.
func (t *txn) Append(ctx context.Context, e auth.Event) error {
	return t.log.Append(ctx, t.tx, eventlog.Event{
		At: e.At, Subject: string(e.UserID), Type: string(e.Type), Payload: []byte(e.SessionID),
	})
}

// purges are what Purge runs, in this order, each with the time that it is given and the limit that is left. A session
// whose last token is gone cannot be used or closed any more.
var purges = []struct {
	statement string
	expiry    bool // takes expiredBefore, else doneBefore
}{
	{`DELETE FROM refresh_tokens WHERE digest IN (SELECT digest FROM refresh_tokens WHERE expires_at < $1 LIMIT $2)`, true},
	{`DELETE FROM sessions WHERE session_id IN (SELECT session_id FROM sessions s WHERE opened_at < $1
AND NOT EXISTS (SELECT 1 FROM refresh_tokens t WHERE t.session_id = s.session_id) LIMIT $2)`, true},
	{`DELETE FROM sign_ups WHERE request_id IN (SELECT request_id FROM sign_ups WHERE finished_at < $1 LIMIT $2)`, false},
	{`DELETE FROM password_changes WHERE (user_id, request_id) IN (SELECT user_id, request_id FROM password_changes WHERE changed_at < $1 LIMIT $2)`, false},
}

// Purge removes what nothing needs any more; see auth.Tx.
func (t *txn) Purge(ctx context.Context, expiredBefore, doneBefore time.Time, limit int) (int, error) {
	removed := 0
	for _, p := range purges {
		before := doneBefore
		if p.expiry {
			before = expiredBefore
		}
		n, err := t.exec(ctx, p.statement, before.UnixMicro(), limit-removed)
		if err != nil {
			return removed, err
		}
		removed += int(n)
	}
	return removed, nil
}

// noRecord turns the absence of a row into auth.ErrNoRecord.
func noRecord(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return auth.ErrNoRecord
	}
	return err
}

// optionalTime is a time that may be missing, which is the zero time.
func optionalTime(t time.Time) sql.NullInt64 {
	if t.IsZero() {
		return sql.NullInt64{}
	}
	return sql.NullInt64{Int64: t.UnixMicro(), Valid: true}
}

// timeOf is the other way of optionalTime.
func timeOf(n sql.NullInt64) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return time.UnixMicro(n.Int64).UTC()
}

// optionalDigest is a digest that may be missing, which is the zero digest.
func optionalDigest(d auth.Digest) []byte {
	if d == (auth.Digest{}) {
		return nil
	}
	return d[:]
}

// digestOf is the other way of optionalDigest.
func digestOf(raw []byte) (auth.Digest, error) {
	if raw == nil {
		return auth.Digest{}, nil
	}
	if len(raw) != len(auth.Digest{}) {
		return auth.Digest{}, fmt.Errorf("a digest of %d bytes", len(raw))
	}
	return auth.Digest(raw), nil
}
