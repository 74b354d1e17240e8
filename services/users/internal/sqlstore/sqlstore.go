// Package sqlstore keeps users in the database of the service: SQLite in the data directory, or PostgreSQL.
//
// A user, the claim of the request that made it and the event USER_CREATED are written by one transaction, and so are a
// change, its claim and its event. The unique indexes decide who gets an id, an email and a request id; nothing is looked up
// before it is written. What clients filter by is compiled to SQL with arguments, and means what users.Matches says.
package sqlstore

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

//go:embed migrations
var migrations embed.FS

// file is the name of the database in the data directory.
const file = "users.db"

// pageKeySize is how many random bytes the key of the page tokens has.
const pageKeySize = 32

// Options say which store to open.
type Options struct {
	// URL is that of a PostgreSQL database. Empty means SQLite in Dir.
	URL sqldb.URL
	// Dir is the data directory of SQLite, which belongs to this process alone while the store is open. It is made if it
	// is missing.
	Dir string
	// Clock stamps events and tells how long a write has been going on. Required.
	Clock clock.Clock
	// Random is where keys come from when the store is made, and samples from. Required.
	Random io.Reader
	// Readers is how many reads run at once on SQLite, beside Snapshots. Zero means 16.
	Readers int
	// Connections is how many connections to PostgreSQL are open at once. Zero means 16.
	Connections int
	// Snapshots is how many snapshots are held at once. Zero means 4. On PostgreSQL they take no more than a quarter of the
	// Connections, and always one.
	Snapshots int
	// ReadOnly opens a store that is there and up to date to read it, beside a process that has it open; see
	// sqldb.Options.
	ReadOnly bool
	// Retention is how long events are kept. Zero means for ever.
	Retention eventlog.Retention
}

// Store keeps users. It is safe for concurrent use.
type Store struct {
	db        *sqldb.DB
	log       *eventlog.Log
	pageKey   []byte
	snapshots chan struct{} // holds a value for each that is held
	estimates *estimates
	scanning  chan struct{} // has room for one: a count that looks at all users
	events    *decoder
	points    *sqldb.Gather[users.ID, users.User] // of Get
}

var _ users.Store = (*Store)(nil)

const (
	defaultReaders     = 16
	defaultConnections = 16
)

// Open opens the store, makes it if there is none, and brings its schema up to date. It returns sqldb.ErrLocked when another
// process has the data directory open and sqldb.ErrNewerSchema when a newer program wrote it.
func Open(ctx context.Context, opts Options) (*Store, error) {
	if opts.Snapshots == 0 {
		opts.Snapshots = defaultSnapshots
	}
	if opts.Readers == 0 {
		opts.Readers = defaultReaders
	}
	if opts.Connections == 0 {
		opts.Connections = defaultConnections
	}
	if opts.URL != "" {
		opts.Snapshots = min(opts.Snapshots, max(1, opts.Connections/4))
	}
	db, err := sqldb.Open(ctx, sqldb.Options{
		URL:         opts.URL,
		Dir:         opts.Dir,
		File:        file,
		Clock:       opts.Clock,
		Random:      opts.Random,
		Readers:     opts.Readers + opts.Snapshots,
		Connections: opts.Connections,
		ReadOnly:    opts.ReadOnly,

		OrderedReads: true,
		Migrations: []sqldb.Set{
			eventlog.Migrations(),
			{Name: "users", FS: migrations, Dir: "migrations"},
		},
	})
	if err != nil {
		return nil, err
	}
	s := &Store{db: db, snapshots: make(chan struct{}, opts.Snapshots), events: &decoder{}, scanning: make(chan struct{}, 1)}
	s.points, err = sqldb.NewGather(sqldb.GatherOptions[users.ID, users.User]{Read: s.readPoints, Clock: opts.Clock})
	if err == nil {
		err = s.load(ctx, opts)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// load reads what the store needs beside its rows.
func (s *Store) load(ctx context.Context, opts Options) error {
	var err error
	s.log, err = eventlog.Open(ctx, s.db, eventlog.Options{Clock: opts.Clock, Rand: opts.Random, Retention: opts.Retention})
	if err != nil {
		return err
	}
	if !opts.ReadOnly { // else nobody is given a page token
		if s.pageKey, err = s.secret(ctx, "page_key", opts.Random); err != nil {
			return fmt.Errorf("key of the page tokens: %w", err)
		}
	}
	var seed [32]byte
	if _, err := io.ReadFull(opts.Random, seed[:]); err != nil {
		return fmt.Errorf("read randomness: %w", err)
	}
	s.estimates = newEstimates(func() time.Time { return opts.Clock.Now() }, seed)
	return nil
}

// secret returns random bytes that are made the first time and stay the same from then on.
func (s *Store) secret(ctx context.Context, name string, random io.Reader) ([]byte, error) {
	fresh := make([]byte, pageKeySize)
	if _, err := io.ReadFull(random, fresh); err != nil {
		return nil, fmt.Errorf("read randomness: %w", err)
	}
	var kept []byte
	err := s.db.Write(ctx, func(tx *sqldb.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING`, name, fresh); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, `SELECT value FROM meta WHERE name = $1`, name).Scan(&kept)
	})
	return kept, err
}

// PageKey returns the key with which page tokens are sealed: random, made with the store, the same after a restart and in every
// process on one PostgreSQL.
func (s *Store) PageKey() []byte { return append([]byte(nil), s.pageKey...) }

// Healthy returns an error when the store cannot be read or written.
func (s *Store) Healthy(ctx context.Context) error { return s.db.Healthy(ctx) }

// Run serves the event log until ctx ends; see eventlog.Log.Run. A store runs once.
func (s *Store) Run(ctx context.Context) error { return s.log.Run(ctx) }

// Metrics returns what tells Prometheus of the connections to the database and of the event log.
func (s *Store) Metrics() (*sqldb.Metrics, *eventlog.Metrics) { return s.db.Metrics(), s.log.Metrics() }

// Close waits for what is under way, closes the database and gives the data directory free. Closing twice is allowed.
func (s *Store) Close() error { return s.db.Close() }
