package sqldb

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestCommitHooksRunInOrderAfterTheCommitAndBeforeTheNextWrite(t *testing.T) {
	db := openDB(t, options(t.TempDir(), notes()))
	var mu sync.Mutex
	var log []string
	say := func(s string) {
		mu.Lock()
		defer mu.Unlock()
		log = append(log, s)
	}
	next := make(chan error)
	err := db.Write(t.Context(), func(tx *Tx) error {
		go func() {
			next <- db.Write(t.Context(), func(*Tx) error { say("next write"); return nil })
		}()
		tx.OnCommit(func() { say(fmt.Sprint("first ", texts(t, db))) })
		tx.OnCommit(func() { say("second") })
		return insert(t.Context(), tx, "a")
	})
	if err := errors.Join(err, <-next); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(log), "[first [a] second next write]"; got != want {
		t.Errorf("order %s, want %s", got, want)
	}
}

func TestWritersTakeTurnsInTheOrderInWhichTheyCame(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		db := openDB(t, options(dir, notes()))
		const n = 20
		var group sync.WaitGroup
		var order []int
		err := db.Write(t.Context(), func(*Tx) error {
			for i := range n {
				group.Go(func() {
					err := db.Write(t.Context(), func(*Tx) error { order = append(order, i); return nil })
					if err != nil {
						t.Error(err)
					}
				})
				synctest.Wait() // it stands in the queue
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		group.Wait()
		for i, got := range order {
			if got != i {
				t.Fatalf("the turns were %v", order)
			}
		}
		if len(order) != n {
			t.Errorf("%d writes, want %d", len(order), n)
		}
	})
}

func TestAWriterLeavesTheQueueWhenItsContextEnds(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		db := openDB(t, options(dir, notes()))
		err := db.Write(t.Context(), func(tx *Tx) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := add(ctx, db, "late"); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrOutcomeUnknown) {
				t.Errorf("the waiting write returned %v", err)
			}
			return insert(t.Context(), tx, "a")
		})
		if err != nil {
			t.Fatal(err)
		}
		wantTexts(t, db, "a")
	})
}

func TestCloseWaitsForWhatIsUnderWayAndRefusesTheRest(t *testing.T) {
	opts := options(t.TempDir(), notes())
	synctest.Test(t, func(t *testing.T) {
		db, err := Open(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			err := db.Write(t.Context(), func(tx *Tx) error {
				time.Sleep(time.Second)
				return insert(t.Context(), tx, "a")
			})
			if err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		closed := make(chan error)
		go func() { closed <- db.Close() }()
		synctest.Wait()
		select {
		case <-closed:
			t.Fatal("Close did not wait")
		default:
		}
		if err := add(t.Context(), db, "b"); !errors.Is(err, ErrClosed) {
			t.Errorf("Write returned %v", err)
		}
		if err := db.Read(t.Context(), func(Querier) error { return nil }); !errors.Is(err, ErrClosed) {
			t.Errorf("Read returned %v", err)
		}
		if err := errors.Join(<-closed, db.Close()); err != nil {
			t.Error(err)
		}
	})
	wantTexts(t, openDB(t, opts), "a")
}
