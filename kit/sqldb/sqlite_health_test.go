package sqldb

import (
	"errors"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/clock/clocktest"
)

func TestHealthyDoesNotWaitForAWriterUntilItHasStalled(t *testing.T) {
	clock := clocktest.New(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	opts := options(t.TempDir(), notes())
	opts.Clock = clock
	db := openDB(t, opts)
	if err := db.Healthy(t.Context()); err != nil {
		t.Errorf("idle: %v", err)
	}
	err := db.Write(t.Context(), func(tx *Tx) error {
		if err := insert(t.Context(), tx, "a"); err != nil {
			return err
		}
		if err := db.Healthy(t.Context()); err != nil {
			t.Errorf("at work: %v", err)
		}
		clock.Advance(writerStall)
		if err := db.Healthy(t.Context()); err != nil {
			t.Errorf("at work for as long as is allowed: %v", err)
		}
		clock.Advance(time.Second)
		if err := db.Healthy(t.Context()); err == nil {
			t.Error("a stalled writer passes for healthy")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Healthy(t.Context()); err != nil {
		t.Errorf("after the writer: %v", err)
	}
}

func TestAClosedDatabaseIsNotHealthy(t *testing.T) {
	db, err := Open(t.Context(), options(t.TempDir(), notes()))
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := db.Healthy(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("Healthy returned %v", err)
	}
}
