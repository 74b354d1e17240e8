package sqldb

import (
	"bufio"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
)

// openCheckpointed opens a database whose log is copied after a few pages; each copy goes through the hook.
func openCheckpointed(t *testing.T, dir string, checkpoint func(run func() error) error) *DB {
	t.Helper()
	opts := options(dir, notes())
	opts.walPages = 20
	opts.wrap = func(c driver.Connector) driver.Connector {
		return commitHook{Connector: c, commit: checkpoint, query: "PRAGMA wal_checkpoint(PASSIVE)"}
	}
	return openDB(t, opts)
}

// long returns the text of the n-th of notes that fill a page each.
func long(n int) string { return fmt.Sprint(n, " ", strings.Repeat("x", 4000)) }

func TestTheLogIsCopiedAndBeginsAnew(t *testing.T) {
	copies := 0
	db := openCheckpointed(t, t.TempDir(), func(run func() error) error { copies++; return run() })
	for n := range 200 {
		if err := add(t.Context(), db, long(n)); err != nil {
			t.Fatal(err)
		}
		if err := db.Write(t.Context(), func(*Tx) error { return nil }); err != nil { // until the copy is over
			t.Fatal(err)
		}
		pages, _, err := db.engine.(*embedded).log("NOOP")
		if err != nil || pages > 40 {
			t.Fatalf("the log has %d pages, %v", pages, err)
		}
	}
	if copies < 10 {
		t.Errorf("it was copied %d times", copies)
	}
	if info, err := os.Stat(db.Path()); err != nil || info.Size() < 180*4096 {
		t.Errorf("the database is %v, %v", info, err)
	}
}

func TestACheckpointIsNotWaitedForByItsWriteButByTheNext(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		began := false
		db := openCheckpointed(t, dir, func(run func() error) error {
			began = true
			<-release
			return run()
		})
		n := 0
		for ; !began; n++ {
			if err := add(t.Context(), db, long(n)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		next := make(chan error, 1)
		go func() { next <- add(t.Context(), db, "next") }()
		synctest.Wait()
		if len(next) != 0 {
			t.Error("a write ran beside the checkpoint")
		}
		if got := texts(t, db); len(got) != n {
			t.Errorf("%d notes meanwhile, want %d", len(got), n)
		}
		close(release)
		if err := <-next; err != nil {
			t.Error(err)
		}
	})
}

func TestACheckpointThatFailsEndsWritingAndLosesNothing(t *testing.T) {
	broken := errors.New("input/output error")
	db := openCheckpointed(t, t.TempDir(), func(func() error) error { return broken })
	n := 0
	var err error
	for ; err == nil && n < 100; n++ {
		err = add(t.Context(), db, long(n))
	}
	if !errors.Is(err, ErrStorageFailed) || !errors.Is(err, broken) {
		t.Errorf("after %d writes: %v", n, err)
	}
	wantFailed(t, db)
	if got := texts(t, db); len(got) != n-1 {
		t.Errorf("%d notes are there, %d were acknowledged", len(got), n-1)
	}
}

func TestAnIOErrorOfTheSystemAtACheckpointIsNotOverlooked(t *testing.T) {
	dir := t.TempDir()
	cmd, out := child(t, "checkpoint-error", dir)
	acknowledged := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		acknowledged++
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("the child: %v", err)
	}
	if got := texts(t, openDB(t, options(dir, notes()))); len(got) != acknowledged || acknowledged == 0 {
		t.Errorf("%d notes are there, %d were acknowledged", len(got), acknowledged)
	}
}

// failAtCheckpoint writes until the system refuses to let the database grow, which is larger than the log, and prints a line for
// each note that was acknowledged.
func failAtCheckpoint(dir string) error {
	ctx := context.Background()
	opts := options(dir, notes())
	opts.walPages = 20
	db, err := Open(ctx, opts)
	if err != nil {
		return err
	}
	for n := range 100 {
		if err := add(ctx, db, long(n)); err != nil {
			return err
		}
		fmt.Println(n)
	}
	if err := db.Write(ctx, func(*Tx) error { return nil }); err != nil { // until the copy is over
		return err
	}
	info, err := os.Stat(filepath.Join(dir, opts.File))
	if err != nil {
		return err
	}
	signal.Ignore(syscall.SIGXFSZ)
	most := uint64(info.Size())
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: most, Max: most}); err != nil {
		return err
	}
	for n := range 100 {
		err := add(ctx, db, long(1000+n))
		if err == nil {
			fmt.Println(n)
			continue
		}
		if !errors.Is(err, ErrStorageFailed) || db.Healthy(ctx) == nil {
			return fmt.Errorf("write returned %w", err)
		}
		return nil
	}
	return errors.New("the limit did not show")
}
