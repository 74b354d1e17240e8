package eventlog

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/kit/sqldb/postgrestest"
)

// inFlight begins a transaction that stays open until the function that it returns is called with how it is to end.
func (f *fixture) inFlight(fn func(tx *sqldb.Tx) error) (end func(error)) {
	f.t.Helper()
	begun, goOn, done := make(chan error, 1), make(chan error), make(chan error, 1)
	go func() {
		done <- f.db.Write(context.Background(), func(tx *sqldb.Tx) error {
			err := fn(tx)
			begun <- err
			if err != nil {
				return err
			}
			return <-goOn
		})
	}()
	if err := <-begun; err != nil {
		f.t.Fatal(err)
	}
	return func(how error) {
		f.t.Helper()
		goOn <- how
		if err := <-done; !errors.Is(err, how) {
			f.t.Errorf("the transaction ended with %v, want %v", err, how)
		}
	}
}

func (f *fixture) appendInFlight(subject string) (end func(error)) {
	f.t.Helper()
	return f.inFlight(func(tx *sqldb.Tx) error {
		return f.log.Append(context.Background(), tx, Event{Subject: subject, Type: "T"})
	})
}

func TestATransactionInFlightHoldsUpNobodyAndIsNotPassed(t *testing.T) {
	f := openLog(t, freshPostgres(t), options())
	f.run()
	s := f.subscribe("", nil)
	late, lost := f.appendInFlight("late"), f.appendInFlight("lost")
	f.append("a", "b")
	token := wantNext(t, s, "a", "b")
	late(nil)
	lost(errChangedMind)
	f.append("c")
	wantNext(t, s, "late")
	wantNext(t, s, "c")
	wantNext(t, f.subscribe(token, nil), "late", "c") // who has come so far misses nothing
}

func TestAForgottenTransactionAnywhereOnTheServerHoldsUpNobody(t *testing.T) {
	f, other := openLog(t, freshPostgres(t), options()), openLog(t, freshPostgres(t), options())
	f.run()
	s := f.subscribe("", nil)
	end := other.inFlight(func(tx *sqldb.Tx) error {
		_, err := tx.ExecContext(context.Background(), `SELECT pg_current_xact_id()`)
		return err
	})
	for i := range 3 {
		f.append(fmt.Sprint(i))
		wantNext(t, s, fmt.Sprint(i))
	}
	end(nil)
}

// Two who change the same thing: the one that began earlier, and has the smaller transaction id, comes second.
func TestEventsOfOneThingAreInTheOrderInWhichItWasChanged(t *testing.T) {
	f := openLog(t, freshPostgres(t), options())
	ctx := t.Context()
	early := make(chan error, 1)
	begun, changed := make(chan struct{}), make(chan struct{})
	go func() {
		early <- f.db.Write(ctx, func(tx *sqldb.Tx) error {
			if _, err := tx.ExecContext(ctx, `SELECT pg_current_xact_id()`); err != nil {
				return err
			}
			close(begun)
			<-changed
			return f.log.Append(ctx, tx, Event{Subject: "second", Type: "T"})
		})
	}()
	<-begun
	if err := f.write(Event{Subject: "first", Type: "T"}); err != nil {
		t.Fatal(err)
	}
	close(changed)
	if err := <-early; err != nil {
		t.Fatal(err)
	}
	f.number()
	all, err := f.log.readAll(ctx)
	if err != nil || len(all) != 2 || all[0].Subject != "first" || all[1].Subject != "second" {
		t.Errorf("the log has %v, %v", all, err)
	}
}

// still is a clock that never moves, so that nothing is polled.
func still() *clocktest.Manual { return clocktest.New(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)) }

func TestAWatcherOfAnotherProcessIsWoken(t *testing.T) {
	opts := options()
	opts.Clock = still()
	at := freshPostgres(t)
	f, other := openLog(t, at, opts), openLog(t, at, opts)
	f.run()
	other.run()
	here, there := f.subscribe("", nil), other.subscribe("", nil)
	for i := range 20 {
		if err := f.write(Event{Subject: fmt.Sprint(i), Type: "T"}); err != nil {
			t.Fatal(err)
		}
		wantNext(t, there, fmt.Sprint(i))
		wantNext(t, here, fmt.Sprint(i))
	}
}

func TestReplicasAcceptEachOthersTokens(t *testing.T) {
	at := freshPostgres(t)
	f, other := openLog(t, at, options()), openLog(t, at, options())
	f.run()
	s := f.subscribe("", nil)
	f.append("a", "b")
	token := wantNext(t, s, "a")
	other.run()
	s = other.subscribe(token, nil)
	wantNext(t, s, "b")
	f.append("c")
	wantNext(t, s, "c")
}

func TestTheDeathOfWhoeverNumbersEventsHoldsUpNobody(t *testing.T) {
	at := freshPostgres(t)
	f, holder := openLog(t, at, options()), openLog(t, at, options())
	f.run()
	s := f.subscribe("", nil)
	var pid int
	holds, dead := make(chan error, 1), make(chan struct{})
	tries := 0
	done := make(chan error, 1)
	go func() {
		done <- holder.db.Write(context.Background(), func(tx *sqldb.Tx) error {
			if tries++; tries > 1 {
				return errChangedMind
			}
			err := tx.QueryRowContext(context.Background(), `SELECT pg_backend_pid() FROM event_log_lock()`).Scan(&pid)
			holds <- err
			<-dead
			return err
		})
	}()
	if err := <-holds; err != nil {
		t.Fatal(err)
	}
	if err := f.write(Event{Subject: "a", Type: "T"}); err != nil { // appending does not wait
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if e, _, err := s.Next(ctx); err == nil {
		t.Errorf("event %d was numbered beside the holder of the lock", e.Seq)
	}
	postgrestest.Shared(t).Exec(t, fmt.Sprintf(`SELECT pg_terminate_backend(%d)`, pid))
	wantNext(t, s, "a")
	close(dead)
	if err := <-done; err == nil {
		t.Error("a transaction whose backend was ended was committed")
	}
}

func TestEventsOfAProcessThatDiedAreNumberedByAnother(t *testing.T) {
	at := freshPostgres(t)
	dead, f := openLog(t, at, options()), openLog(t, at, options())
	if err := dead.write(Event{Subject: "a", Type: "T"}); err != nil { // its log does not run
		t.Fatal(err)
	}
	f.run()
	all, err := f.log.readAll(t.Context())
	for deadline := time.Now().Add(time.Minute); err == nil && len(all) == 0 && time.Now().Before(deadline); {
		all, err = f.log.readAll(t.Context())
	}
	if err != nil || len(all) != 1 || all[0].Subject != "a" {
		t.Errorf("the log has %v, %v", all, err)
	}
}

// exec runs a statement in a transaction of its own.
func (f *fixture) exec(statement string, args ...any) {
	f.t.Helper()
	err := f.db.Write(context.Background(), func(tx *sqldb.Tx) error {
		_, err := tx.ExecContext(context.Background(), statement, args...)
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

func TestADatabaseThatWasRestoredOnAnotherServerGoesOn(t *testing.T) {
	opts := options()
	opts.Clock = still() // no sweep comes by itself
	f := openLog(t, freshPostgres(t), opts)
	f.append("a")
	f.exec(`INSERT INTO event_log_move (seen) VALUES ('9000000000:9000000007:9000000000,9000000003')`)
	f.append("b")
	f.append("c")
	all, err := f.log.readAll(t.Context())
	if err != nil || len(all) != 3 {
		t.Errorf("the log has %v, %v", all, err)
	}

	// What is not of this server is gone before it can be mistaken, also if there was nothing to move.
	f.exec(`INSERT INTO event_log_move (seen) VALUES ('9000000000:9000000007:9000000000,9000000003')`)
	again := openLog(t, f.at, opts)
	var here bool
	err = again.db.ReadOne(t.Context(), func(q sqldb.Querier) error {
		return q.QueryRowContext(t.Context(), `
SELECT pg_snapshot_xmax(seen) <= pg_snapshot_xmax(pg_current_snapshot()) FROM event_log_move ORDER BY move DESC LIMIT 1`).Scan(&here)
	})
	if err != nil || !here {
		t.Errorf("the newest move is of this server: %v, %v", here, err)
	}
}

func TestASweepFindsWhatTheShortCutDoesNot(t *testing.T) {
	manual := still()
	opts := options()
	opts.Clock = manual
	f := openLog(t, freshPostgres(t), opts)
	f.append("a")
	f.exec(`INSERT INTO event_log_inbox (xid, at, subject, type, payload) VALUES ('3', 0, 'b', 'T', '')`) // as of long ago
	f.append("c")
	for _, want := range []int{2, 3} {
		all, err := f.log.readAll(t.Context())
		if err != nil || len(all) != want {
			t.Errorf("the log has %v, %v, want %d events", all, err, want)
		}
		manual.Advance(sweepInterval)
		f.number()
	}
	var moves int
	err := f.db.ReadOne(t.Context(), func(q sqldb.Querier) error {
		return q.QueryRowContext(t.Context(), `SELECT count(*) FROM event_log_move`).Scan(&moves)
	})
	if err != nil || moves != 1 {
		t.Errorf("after a sweep %d moves are kept, %v, want 1", moves, err)
	}
}

func TestABacklogIsNumberedPieceByPiece(t *testing.T) {
	f := openLog(t, freshPostgres(t), options())
	events := make([]Event, moveMost+moveMost/2)
	for i := range events {
		events[i] = Event{Type: "T", Subject: fmt.Sprint(i)}
	}
	late := f.appendInFlight("late")
	if err := f.write(events...); err != nil {
		t.Fatal(err)
	}
	more, err := f.log.inbox.move(t.Context(), false)
	if err != nil || !more {
		t.Fatalf("after the first piece: %v, %v", more, err)
	}
	late(nil)
	f.append("end")
	all, err := f.log.readAll(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	places := make(map[string]int64)
	for i, e := range all {
		if e.Seq != int64(i+1) {
			t.Fatalf("event %d has the number %d", i+1, e.Seq)
		}
		places[e.Subject] = e.Seq
	}
	if len(places) != len(events)+2 || places["late"] == 0 || places["end"] != int64(len(all)) {
		t.Errorf("%d events, late is %d, end is %d", len(places), places["late"], places["end"])
	}
	for i := 1; i < len(events); i++ {
		if places[fmt.Sprint(i)] <= places[fmt.Sprint(i-1)] {
			t.Fatalf("event %d has the number %d, the one before it %d", i, places[fmt.Sprint(i)], places[fmt.Sprint(i-1)])
		}
	}
}

func TestALogOutlivesTheRestartOfItsServer(t *testing.T) {
	server := postgrestest.Start(t, postgrestest.Options{})
	f := openLog(t, place{url: sqldb.URL(server.Database(t))}, options())
	f.run()
	s := f.subscribe("", nil)
	f.append("before")
	wantNext(t, s, "before")
	server.Kill(t)
	server.Restart(t)
	f.append("after")
	wantNext(t, s, "after")
}

func TestATrimDoesNotHoldUpWhoAppends(t *testing.T) {
	f := openLog(t, freshPostgres(t), options())
	f.run()
	f.fill(10)
	s := f.subscribe("", nil)
	end := f.inFlight(func(tx *sqldb.Tx) error { // all that a trim locks
		_, err := tx.ExecContext(context.Background(), `UPDATE event_log_meta SET trimmed = 5 WHERE id = 1`)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(context.Background(), `DELETE FROM event_log WHERE seq <= 5`)
		return err
	})
	f.append("a")
	wantNext(t, s, "a")
	end(nil)
}
