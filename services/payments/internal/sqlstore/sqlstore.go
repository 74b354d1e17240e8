// Package sqlstore keeps payments in the database of the service: SQLite in the data directory, or PostgreSQL.
// Commands that wait at the same time are written by one transaction, and the transactions of all processes take
// turns, by a lock on the head of the ledger. One that comes alone may be written by one statement, which adds its rows
// only if the head is still the one that was decided by.
//
// What is promised: the payments, transfers, entries, keys and events of a command are committed together, and are on
// the disk when Do returns nil. What a command decides by was read under the lock, or is remembered and brought up to
// the head under it, so it is true when it is written. What two commands can never both have, such as a number or a
// key, and how a payment's amounts are to each other, the constraints of the schema say once more; of balances and
// limits of accounts they know nothing, and Verify proves the balances. A transfer cannot be changed or removed, but for
// its metadata: the database refuses it.
package sqlstore

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// File is the name of the database in the data directory.
const File = "payments.db"

// pageKeySize is the size of the key of page tokens, in bytes.
const pageKeySize = 32

//go:embed migrations
var migrations embed.FS

// Options say which store to open. All fields are required, except that URL and Dir stand for each other and
// Connections and Retention may be zero.
type Options struct {
	// URL is that of a PostgreSQL database. Empty means SQLite in Dir.
	URL sqldb.URL
	// Connections is how many connections to PostgreSQL are open at once. Zero means the default of kit/sqldb.
	Connections int
	// Dir is the data directory of SQLite. It is made if it does not exist, and belongs to one process.
	Dir string
	// Clock stamps what is written and paces the event log.
	Clock clock.Clock
	// Random is where keys of tokens come from. It is read when the store is made.
	Random io.Reader
	// NewID returns a new UUIDv7 in its canonical form, for accounts. It is safe for concurrent use.
	NewID func() string
	// ReadOnly opens a store that is there and up to date to read it, beside a process that has it open; see
	// sqldb.Options.
	ReadOnly bool
	// Retention is what is kept of the events. Zero keeps all of them.
	Retention eventlog.Retention
}

// Store keeps payments. It is safe for concurrent use.
type Store struct {
	db      *sqldb.DB
	log     *eventlog.Log
	clock   clock.Clock
	newID   func() string
	pageKey []byte
	writer  *writer
	cache   cache // of the writer
	metrics *metrics
}

var _ payments.Store = (*Store)(nil)

// Open opens the store, making it if need be. It returns sqldb.ErrLocked if another process has it, and
// sqldb.ErrNewerSchema if a newer program wrote it.
func Open(ctx context.Context, opts Options) (*Store, error) {
	if opts.Random == nil || opts.NewID == nil {
		return nil, errors.New("a source of randomness and of ids is required")
	}
	db, err := sqldb.Open(ctx, sqldb.Options{
		URL:           opts.URL,
		Connections:   opts.Connections,
		Dir:           opts.Dir,
		IndexedWrites: true,
		File:          File,
		Clock:         opts.Clock,
		Random:        opts.Random,
		ReadOnly:      opts.ReadOnly,
		Migrations: []sqldb.Set{
			eventlog.Migrations(),
			eventlog.ConsumerMigrations(),
			{Name: "payments", FS: migrations, Dir: "migrations"},
		},
	})
	if err != nil {
		return nil, err
	}
	s := &Store{db: db, clock: opts.Clock, newID: opts.NewID, metrics: newMetrics()}
	if err := s.prepare(ctx, opts); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s.cache.forget()
	s.writer = newWriter(s)
	return s, nil
}

func (s *Store) prepare(ctx context.Context, opts Options) (err error) {
	if s.log, err = eventlog.Open(ctx, s.db, eventlog.Options{
		Clock: s.clock, Rand: opts.Random, Retention: opts.Retention, OneAppender: true, // whoever appends has locked the head, or moves it by the same statement
	}); err != nil {
		return err
	}
	if opts.ReadOnly {
		return nil // nobody is given a page token
	}
	if s.pageKey, err = s.loadPageKey(ctx, opts.Random); err != nil {
		return fmt.Errorf("key of page tokens: %w", err)
	}
	return nil
}

// loadPageKey reads the key of page tokens, and makes it if there is none.
func (s *Store) loadPageKey(ctx context.Context, random io.Reader) ([]byte, error) {
	var key []byte
	read := func(q sqldb.Querier) error {
		return q.QueryRowContext(ctx, `SELECT page_key FROM payments_meta WHERE id = 1`).Scan(&key)
	}
	err := s.db.Read(ctx, read)
	if !errors.Is(err, sql.ErrNoRows) {
		return key, err
	}
	made := make([]byte, pageKeySize)
	if _, err := io.ReadFull(random, made); err != nil {
		return nil, err
	}
	err = s.db.Write(ctx, func(tx *sqldb.Tx) error {
		const insert = `INSERT INTO payments_meta (id, page_key) VALUES (1, $1) ON CONFLICT DO NOTHING`
		if _, err := tx.ExecContext(ctx, insert, made); err != nil {
			return err
		}
		return read(tx)
	})
	return key, err
}

// PageKey returns the key of page tokens, the same for as long as the database lives.
func (s *Store) PageKey() []byte { return append([]byte(nil), s.pageKey...) }

// Run serves the subscriptions until ctx ends; see eventlog.Log.Run. A store runs once.
func (s *Store) Run(ctx context.Context) error { return s.log.Run(ctx) }

// Healthy returns an error when the store cannot be read or written.
func (s *Store) Healthy(ctx context.Context) error { return s.db.Healthy(ctx) }

// Metrics returns what tells Prometheus of the connections to the database, of the event log, and of how commands are
// gathered.
func (s *Store) Metrics() []prometheus.Collector {
	return append(s.metrics.collectors(), s.db.Metrics(), s.log.Metrics())
}

// Close writes the commands that wait, waits for the calls under way, and closes the store. End Run first. Closing
// twice is allowed.
func (s *Store) Close() error {
	s.writer.close()
	return s.db.Close()
}
