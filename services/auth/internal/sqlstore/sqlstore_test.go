package sqlstore_test

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/kit/sqldb/postgrestest"
	"github.com/concordat-dev/concordat/services/auth/internal/auth"
	"github.com/concordat-dev/concordat/services/auth/internal/sqlstore"
	"github.com/concordat-dev/concordat/services/auth/internal/storetest"
)

func open(t *testing.T, dir string) *sqlstore.Store { return openWith(t, sqlstore.Options{Dir: dir}) }

func openWith(t *testing.T, opts sqlstore.Options) *sqlstore.Store {
	t.Helper()
	opts.Clock, opts.Random = clock.System(), rand.Reader
	s, err := sqlstore.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// events reads what a log has behind a token.
func events(ctx context.Context, log *eventlog.Log, from string) ([]auth.Event, error) {
	sub, err := log.Subscribe(ctx, eventlog.Watch{Scope: scope, Token: from})
	if err != nil {
		return nil, err
	}
	defer sub.Close()
	head, err := log.Subscribe(ctx, eventlog.Watch{Scope: scope})
	if err != nil {
		return nil, err
	}
	defer head.Close()
	var all []auth.Event
	for sub.Position() != head.Position() {
		e, _, err := sub.Next(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, auth.Event{
			UserID: auth.UserID(e.Subject), Type: auth.EventType(e.Type), At: e.At, SessionID: auth.SessionID(e.Payload),
		})
	}
	return all, nil
}

const scope = "test"

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

func TestStore(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		conform(t, func(t *testing.T) sqlstore.Options { return sqlstore.Options{Dir: t.TempDir()} })
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		conform(t, func(t *testing.T) sqlstore.Options {
			return sqlstore.Options{URL: sqldb.URL(postgrestest.Database(t))}
		})
	})
}

// serve runs a store until stop is called, or the test ends.
func serve(t *testing.T, s *sqlstore.Store) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// conform runs the suite on new databases.
func conform(t *testing.T, fresh func(t *testing.T) sqlstore.Options) {
	storetest.Run(t, func(t *testing.T) storetest.Backend {
		opts := fresh(t)
		s := openWith(t, opts)
		stop := serve(t, s)
		sub, err := s.Log().Subscribe(t.Context(), eventlog.Watch{Scope: scope})
		if err != nil {
			t.Fatal(err)
		}
		begin := sub.Position()
		sub.Close()
		return storetest.Backend{
			Store:  s,
			Events: func(ctx context.Context) ([]auth.Event, error) { return events(ctx, s.Log(), begin) },
			Reopen: func(t *testing.T) auth.Store {
				stop()
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = openWith(t, opts)
				stop = serve(t, s)
				return s
			},
		}
	})
}

func TestADataDirectoryBelongsToOneProcess(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	_, err := sqlstore.Open(t.Context(), sqlstore.Options{Dir: dir, Clock: clock.System(), Random: rand.Reader})
	if !errors.Is(err, sqldb.ErrLocked) {
		t.Errorf("got %v", err)
	}
}

func TestAnEventKeepsItsTimeToTheMicrosecond(t *testing.T) {
	s := open(t, t.TempDir())
	sub, err := s.Log().Subscribe(t.Context(), eventlog.Watch{Scope: scope})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	at := time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)
	err = s.Write(t.Context(), func(tx auth.Tx) error {
		return tx.Append(t.Context(), auth.Event{UserID: "u", Type: auth.EventLogin, At: at})
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := events(t.Context(), s.Log(), sub.Position())
	if err != nil || len(got) != 1 || !got[0].At.Equal(at) {
		t.Errorf("got %v, %v", got, err)
	}
}
