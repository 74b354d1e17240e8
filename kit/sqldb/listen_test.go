package sqldb

import (
	"context"
	"errors"
	"testing"

	"github.com/concordat-dev/concordat/kit/sqldb/postgrestest"
)

// listening listens until the test ends; a value comes for each call.
func listening(t *testing.T, db *DB, channel string) <-chan struct{} {
	t.Helper()
	calls := make(chan struct{}, 1000)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- db.Listen(ctx, channel, func() { calls <- struct{}{} }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, ErrClosed) {
			t.Errorf("Listen returned %v", err)
		}
	})
	return calls
}

// settle waits until all that is told without a commit has been: at the beginning, and on PostgreSQL when the connection
// has begun to listen.
func settle(t *testing.T, db *DB, calls <-chan struct{}) {
	t.Helper()
	wantCall(t, calls)
	if db.Engine() == PostgreSQL {
		wantCall(t, calls)
	}
}

func wantCall(t *testing.T, calls <-chan struct{}) {
	t.Helper()
	select {
	case <-calls:
	case <-within(t, patience).Done():
		t.Fatal("nobody was told")
	}
}

func wantNoCall(t *testing.T, calls <-chan struct{}) {
	t.Helper()
	select {
	case <-calls:
		t.Error("somebody was told of nothing")
	default:
	}
}

func tell(t *testing.T, db *DB, fn func(tx *Tx) error) {
	t.Helper()
	err := db.Write(t.Context(), func(tx *Tx) error {
		tx.Notify("news")
		tx.Notify("news")
		return fn(tx)
	})
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		t.Fatal(err)
	}
}

func TestListenersAreToldOfCommitsAndOfNothingElse(t *testing.T) {
	onBoth(t, func(t *testing.T, fresh func(...Set) Options) {
		db := openDB(t, fresh(notes()))
		news, other := listening(t, db, "news"), listening(t, db, "other")
		settle(t, db, news)
		settle(t, db, other)
		tell(t, db, func(*Tx) error { return errors.ErrUnsupported }) // rolled back
		if err := add(t.Context(), db, "a"); err != nil {             // without Notify
			t.Fatal(err)
		}
		wantNoCall(t, news)
		tell(t, db, func(tx *Tx) error { return insert(t.Context(), tx, "b") })
		wantCall(t, news)
		wantNoCall(t, other)
	})
}

func TestListenEndsWithTheDatabase(t *testing.T) {
	onBoth(t, func(t *testing.T, fresh func(...Set) Options) {
		db, err := Open(t.Context(), fresh(notes()))
		if err != nil {
			t.Fatal(err)
		}
		begun := make(chan struct{}, 10)
		ended := make(chan error, 1)
		go func() { ended <- db.Listen(t.Context(), "news", func() { begun <- struct{}{} }) }()
		<-begun
		if err := db.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, ErrClosed) {
			t.Errorf("Listen returned %v", err)
		}
		if err := db.Listen(t.Context(), "news", func() {}); !errors.Is(err, ErrClosed) {
			t.Errorf("a Listen after that returned %v", err)
		}
	})
}

func TestAChannelThatIsNoNameIsRefused(t *testing.T) {
	onBoth(t, func(t *testing.T, fresh func(...Set) Options) {
		db := openDB(t, fresh(notes()))
		for _, name := range []string{"", "News", `a"; DROP TABLE notes`, "1a"} {
			if err := db.Listen(t.Context(), name, func() {}); err == nil {
				t.Errorf("%q was accepted", name)
			}
		}
	})
}

func TestListenersOfOtherProcessesAreTold(t *testing.T) {
	t.Parallel()
	url := URL(postgrestest.Database(t))
	here, there := openPG(t, url), openPG(t, url)
	calls := listening(t, there, "news")
	settle(t, there, calls)
	for range 3 {
		tell(t, here, func(*Tx) error { return nil })
		wantCall(t, calls)
	}
}

func TestAListenerThatMayHaveMissedSomethingIsTold(t *testing.T) {
	t.Parallel()
	url := URL(postgrestest.Database(t))
	here := openPG(t, url)
	p := newProxy(t, url)
	there := openPG(t, p.url)
	calls := listening(t, there, "news")
	settle(t, there, calls)
	p.cutAll()
	wantCall(t, calls) // it listens again
	tell(t, here, func(*Tx) error { return nil })
	wantCall(t, calls)
}
