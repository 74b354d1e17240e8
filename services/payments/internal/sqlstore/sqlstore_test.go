package sqlstore

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"sync"
	"testing"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/id"
	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/kit/sqldb/postgrestest"
	"github.com/concordat-dev/concordat/services/payments/internal/storetest"
)

func TestStore(t *testing.T) {
	t.Parallel()
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		storetest.Run(t, func(t *testing.T) storetest.Database { return database{Dir: t.TempDir()} })
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		storetest.Run(t, func(t *testing.T) storetest.Database {
			return database{URL: sqldb.URL(postgrestest.Database(t))}
		})
	})
}

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

// database is where a test keeps its data.
type database Options

func (d database) Open(t *testing.T) storetest.Store {
	t.Helper()
	s := openWith(t, Options(d))
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Store: s, cancel: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- s.Run(ctx) }()
	return r
}

func openDir(t *testing.T, dir string) *Store { return openWith(t, Options{Dir: dir}) }

func openWith(t *testing.T, opts Options) *Store {
	t.Helper()
	opts.Clock, opts.Random, opts.NewID = clock.System(), rand.Reader, id.Generator(clock.System(), rand.Reader)
	s, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return s
}

// running is a store whose log is served.
type running struct {
	*Store
	cancel func()
	ended  chan error
	once   sync.Once
	err    error
}

func (r *running) Close() error {
	r.once.Do(func() {
		r.cancel()
		r.err = errors.Join(<-r.ended, r.Store.Close())
	})
	return r.err
}

func TestOpenRefusesADirectoryThatIsInUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openDir(t, dir)
	defer s.Close()
	_, err := Open(t.Context(), Options{
		Dir: dir, Clock: clock.System(), Random: rand.Reader, NewID: id.Generator(clock.System(), rand.Reader),
	})
	if !errors.Is(err, sqldb.ErrLocked) {
		t.Errorf("open: %v", err)
	}
}

func TestOpenWantsRandomnessAndIDs(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]Options{
		"no randomness": {Dir: t.TempDir(), Clock: clock.System(), NewID: func() string { return "" }},
		"no ids":        {Dir: t.TempDir(), Clock: clock.System(), Random: rand.Reader},
		"no clock":      {Dir: t.TempDir(), Random: rand.Reader, NewID: func() string { return "" }},
	} {
		if s, err := Open(t.Context(), opts); err == nil {
			t.Errorf("%s, and it was opened", name)
			s.Close()
		}
	}
}

func TestHealthyFailsOnceTheStoreIsClosed(t *testing.T) {
	t.Parallel()
	s := openDir(t, t.TempDir())
	if err := s.Healthy(t.Context()); err != nil {
		t.Errorf("an open store: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Healthy(t.Context()); err == nil {
		t.Error("a closed store is healthy")
	}
}
