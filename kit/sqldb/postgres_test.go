package sqldb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/sqldb/postgrestest"
)

// patience ends a test that hangs.
const patience = 30 * time.Second

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// openPG opens a new database, or that of the URL.
func openPG(t *testing.T, url URL) *DB {
	t.Helper()
	if url == "" {
		url = URL(postgrestest.Database(t))
	}
	return openDB(t, postgresOptions(url, notes()))
}

// execIn runs a statement in a transaction.
func execIn(ctx context.Context, tx *Tx, statement string, args ...any) error {
	_, err := tx.ExecContext(ctx, statement, args...)
	return err
}

func TestTwoWritersInDeadlockBothSucceed(t *testing.T) {
	t.Parallel()
	db := openPG(t, "")
	ctx := within(t, patience)
	for _, text := range []string{"a", "b"} {
		if err := add(ctx, db, text); err != nil {
			t.Fatal(err)
		}
	}
	// Each has one row before either wants the other's, the first time.
	var both sync.WaitGroup
	both.Add(2)
	var attempts, hooks atomic.Int32
	move := func(first, second int) error {
		arrived := sync.OnceFunc(func() { both.Done(); both.Wait() })
		return db.Write(ctx, func(tx *Tx) error {
			attempts.Add(1)
			tx.OnCommit(func() { hooks.Add(1) })
			if err := execIn(ctx, tx, `UPDATE notes SET text = text || 'x' WHERE id = $1`, first); err != nil {
				return err
			}
			arrived()
			return execIn(ctx, tx, `UPDATE notes SET text = text || 'x' WHERE id = $1`, second)
		})
	}
	other := make(chan error)
	go func() { other <- move(2, 1) }()
	if err := errors.Join(move(1, 2), <-other); err != nil {
		t.Error(err)
	}
	wantTexts(t, db, "axx", "bxx")
	if attempts.Load() < 3 || hooks.Load() != 2 { // on a busy machine they may meet again
		t.Errorf("%d attempts and %d commit hooks, want at least 3, and 2", attempts.Load(), hooks.Load())
	}
}

func TestATransactionThatCannotBeSerializedIsRunAgain(t *testing.T) {
	t.Parallel()
	db := openPG(t, "")
	ctx := within(t, patience)
	if err := add(ctx, db, "a"); err != nil {
		t.Fatal(err)
	}
	attempts := 0
	err := db.Write(ctx, func(tx *Tx) error {
		attempts++
		if err := execIn(ctx, tx, `SET TRANSACTION ISOLATION LEVEL REPEATABLE READ`); err != nil {
			return err
		}
		if _, err := readTexts(ctx, tx); err != nil {
			return err
		}
		if attempts == 1 {
			err := db.Write(ctx, func(tx *Tx) error { return execIn(ctx, tx, `UPDATE notes SET text = 'b'`) })
			if err != nil {
				return err
			}
		}
		// The error is swallowed: it is the server that says what became of the transaction.
		_ = execIn(ctx, tx, `UPDATE notes SET text = text || 'x'`)
		return nil
	})
	if err != nil || attempts != 2 {
		t.Errorf("%d attempts, %v", attempts, err)
	}
	wantTexts(t, db, "bx")
}

// hasty is a clock whose waits are over at once: what goes on for some time does so as often, and takes none.
type hasty struct{ clock.Clock }

func (h hasty) After(time.Duration) <-chan time.Time { return h.Clock.After(0) }

// openHasty opens a new database whose pauses between attempts take no time.
func openHasty(t *testing.T) *DB {
	t.Helper()
	opts := postgresOptions(URL(postgrestest.Database(t)), notes())
	opts.Clock = hasty{opts.Clock}
	return openDB(t, opts)
}

func TestAConflictThatDoesNotEndIsBusy(t *testing.T) {
	t.Parallel()
	db := openHasty(t)
	attempts := 0
	err := db.Write(t.Context(), func(tx *Tx) error {
		attempts++
		return execIn(t.Context(), tx, `DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END $$`)
	})
	if !errors.Is(err, ErrBusy) || fault.KindOf(err) != fault.Unavailable || attempts < 100 || attempts > 300 {
		t.Errorf("after %d attempts, whose pauses are 10 s: %v", attempts, err)
	}
}

func TestAnotherAttemptIsMadeOnlyIfThereIsTimeForIt(t *testing.T) {
	t.Parallel()
	s := &server{clock: hasty{clock.System()}}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for name, test := range map[string]struct {
		ctx              context.Context
		pause, took, all time.Duration
		want             bool
	}{
		"there is":                        {within(t, time.Hour), time.Minute, time.Minute, time.Hour, true},
		"the pause takes it":              {within(t, time.Hour), time.Hour, 0, time.Hour, false},
		"the attempt would":               {within(t, time.Hour), time.Minute, 30 * time.Minute, time.Hour, false},
		"no deadline, and not yet 10 s":   {t.Context(), time.Second, time.Hour, 10 * time.Second, true},
		"no deadline, and more than that": {t.Context(), time.Second, 0, 10*time.Second + 1, false},
	} {
		if got := s.pause(test.ctx, test.pause, test.took, test.all); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	s.clock = clocktest.New(time.Time{}) // it stands still
	if s.pause(over, time.Second, 0, time.Second) {
		t.Error("a call that is over goes on")
	}
}

func TestErrorsOfTheServerMeanWhatTheySay(t *testing.T) {
	t.Parallel()
	db := openHasty(t)
	for code, want := range map[string]error{
		"53100": ErrStorageFull, "55P03": ErrBusy, "40P01": ErrBusy, "53300": ErrUnavailable, "08006": ErrUnavailable, "57P03": ErrUnavailable,
		"25006": ErrUnavailable, "57014": ErrUnavailable,
	} {
		t.Run(code, func(t *testing.T) {
			say := func(ctx context.Context) error {
				return db.Write(ctx, func(tx *Tx) error {
					return execIn(ctx, tx, fmt.Sprintf(`DO $$ BEGIN RAISE EXCEPTION 'said so' USING ERRCODE = '%s'; END $$`, code))
				})
			}
			if err := say(t.Context()); !errors.Is(err, want) {
				t.Errorf("got %v, want %v", err, want)
			}
			if code == pgCanceled { // with a deadline it is the limit of that
				if err := say(within(t, patience)); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("with a deadline: %v", err)
				}
			}
		})
	}
	if err := add(t.Context(), db, "next"); err != nil {
		t.Error(err)
	}
}

// promised is a context that says when it will end, and does not: what ends before that has not been ended by it.
type promised struct {
	context.Context
	at time.Time
}

func (p promised) Deadline() (time.Time, bool) { return p.at, true }

func promise(t *testing.T, d time.Duration) context.Context {
	return promised{t.Context(), time.Now().Add(d)}
}

func TestTheWaitForALockEndsBeforeTheCallDoes(t *testing.T) {
	t.Parallel()
	db := openPG(t, "")
	if err := add(t.Context(), db, "a"); err != nil {
		t.Fatal(err)
	}
	update := func(ctx context.Context, tx *Tx) error { return execIn(ctx, tx, `UPDATE notes SET text = text || 'x'`) }
	err := db.Write(t.Context(), func(tx *Tx) error {
		if err := update(t.Context(), tx); err != nil {
			return err
		}
		ctx := promise(t, 2*time.Second)
		err := db.Write(ctx, func(tx *Tx) error { return update(ctx, tx) })
		if !errors.Is(err, ErrBusy) || !IsBusy(err) {
			t.Errorf("Write returned %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestTheServerEndsAStatementBeforeTheCallDoesAndTheConnectionStays(t *testing.T) {
	t.Parallel()
	db := openPG(t, "")
	before := backend(t, db)
	ctx := promise(t, 200*time.Millisecond)
	err := db.Write(ctx, func(tx *Tx) error { return execIn(ctx, tx, `SELECT pg_sleep(30)`) })
	if fault.KindOf(err) != fault.DeadlineExceeded {
		t.Errorf("Write returned %v", err)
	}
	if after := backend(t, db); after != before {
		t.Error("the connection was given up")
	}
}

// backend returns the number of the server's process for the connection that comes next.
func backend(t *testing.T, db *DB) (pid int) {
	t.Helper()
	err := db.ReadOne(t.Context(), func(q Querier) error {
		return q.QueryRowContext(t.Context(), `SELECT pg_backend_pid()`).Scan(&pid)
	})
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func TestACallThatIsCancelledCancelsItsStatement(t *testing.T) {
	t.Parallel()
	db := openPG(t, "")
	running := func() (n int) {
		err := db.ReadOne(t.Context(), func(q Querier) error {
			return q.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_sleep(30)%'
AND state = 'active' AND pid <> pg_backend_pid()`).Scan(&n)
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for name, call := range map[string]func(ctx context.Context) error{
		"Write": func(ctx context.Context) error {
			return db.Write(ctx, func(tx *Tx) error { return execIn(ctx, tx, `SELECT pg_sleep(30)`) })
		},
		"ReadOne": func(ctx context.Context) error {
			return db.ReadOne(ctx, func(q Querier) error {
				var s string
				return q.QueryRowContext(ctx, `SELECT pg_sleep(30)::text`).Scan(&s)
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- call(ctx) }()
			eventually(t, "the statement runs", func() bool { return running() == 1 })
			cancel()
			if err := <-ended; fault.KindOf(err) != fault.Canceled {
				t.Errorf("got %v", err)
			}
			eventually(t, "the statement is cancelled", func() bool { return running() == 0 })
		})
	}
}

// eventually waits for what the server does by itself and tells nobody.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never became true that %s", what)
		}
	}
}

func TestSlicesAreArgumentsOnPostgreSQL(t *testing.T) {
	t.Parallel()
	db := openPG(t, "")
	ids, names, blobs := []int64{7, 8}, []string{"a'b", `c",{}\`}, [][]byte{{0, 255}, {}}
	err := db.Write(t.Context(), func(tx *Tx) error {
		return execIn(t.Context(), tx, `INSERT INTO notes (id, text) SELECT i, n || length(b) FROM unnest($1::bigint[], $2::text[], $3::bytea[]) AS r (i, n, b)`, ids, names, blobs)
	})
	if err != nil {
		t.Fatal(err)
	}
	wantTexts(t, db, "a'b2", `c",{}\0`)
}

func TestNeitherReadsNorWritesTakeAllConnections(t *testing.T) {
	t.Parallel()
	opts := postgresOptions(URL(postgrestest.Database(t)), notes())
	opts.Connections = 4
	db := openDB(t, opts)
	ctx := within(t, patience)
	full := func(deep func(next func() error) error, last func() error) {
		var down func(n int) error
		down = func(n int) error {
			if n == 0 {
				return last()
			}
			return deep(func() error { return down(n - 1) })
		}
		if err := down(3); err != nil {
			t.Error(err)
		}
	}
	read := func(next func() error) error { return db.Read(ctx, func(Querier) error { return next() }) }
	write := func(next func() error) error { return db.Write(ctx, func(*Tx) error { return next() }) }
	full(read, func() error { return add(ctx, db, "a") })
	full(write, func() error { return read(func() error { return nil }) })
	full(read, func() error {
		short := within(t, 20*time.Millisecond)
		if err := db.Read(short, func(Querier) error { return nil }); fault.KindOf(err) != fault.DeadlineExceeded {
			t.Errorf("one read more: %v", err)
		}
		return db.Healthy(ctx)
	})
}

func TestWithOneWriterThePlainSumOfTwoProcessesIsRight(t *testing.T) {
	t.Parallel()
	opts := postgresOptions(URL(postgrestest.Database(t)), set("sums", `CREATE TABLE sums (n BIGINT NOT NULL); INSERT INTO sums VALUES (0);`))
	opts.OneWriter = true
	const each = 50
	ctx := within(t, patience)
	dbs := []*DB{openDB(t, opts), openDB(t, opts)}
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			for range each {
				err := dbs[i%2].Write(ctx, func(tx *Tx) error {
					var n int
					if err := tx.QueryRowContext(ctx, `SELECT n FROM sums`).Scan(&n); err != nil {
						return err
					}
					return execIn(ctx, tx, `UPDATE sums SET n = $1`, n+1)
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	var n int
	err := dbs[0].ReadOne(ctx, func(q Querier) error { return q.QueryRowContext(ctx, `SELECT n FROM sums`).Scan(&n) })
	if err != nil || n != 4*each {
		t.Errorf("the sum is %d, %v; want %d", n, err, 4*each)
	}
}

func TestOrderedReadsPreferAnIndexAndOthersAskThePlanner(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		opts := postgresOptions(URL(postgrestest.Database(t)), notes())
		opts.OrderedReads = ordered
		db := openDB(t, opts)
		settings := func(q Querier) (got string, err error) {
			err = q.QueryRowContext(t.Context(), `SELECT current_setting('enable_seqscan') || ' ' || current_setting('enable_sort')`).Scan(&got)
			return got, err
		}
		var read, written string
		err := errors.Join(
			db.Read(t.Context(), func(q Querier) (err error) { read, err = settings(q); return err }),
			db.Write(t.Context(), func(tx *Tx) (err error) { written, err = settings(tx); return err }))
		want := map[bool]string{false: "on on", true: "off off"}[ordered]
		if err != nil || read != want || written != "on on" {
			t.Errorf("ordered %t: a read has %q and a write %q, %v; want %q and the default", ordered, read, written, err, want)
		}
	}
}

func TestAWriteIsOnTheDiskWhateverTheServerDoesForOthers(t *testing.T) {
	t.Parallel()
	url := URL(postgrestest.Database(t))
	if err := openPG(t, url).Write(t.Context(), func(tx *Tx) error {
		return execIn(t.Context(), tx, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database()); END $$`)
	}); err != nil {
		t.Fatal(err)
	}
	db := openPG(t, url)
	var durable, guard string
	err := db.Write(t.Context(), func(tx *Tx) error {
		return tx.QueryRowContext(t.Context(), `SELECT current_setting('synchronous_commit'), current_setting('idle_in_transaction_session_timeout')`).Scan(&durable, &guard)
	})
	if err != nil || !slices.Equal([]string{durable, guard}, []string{"on", "1min"}) {
		t.Errorf("synchronous_commit is %s, the guard against idle transactions %s, %v", durable, guard, err)
	}
}

func TestADialThatTheDeadlineEndsIsOneOfTheCallsTime(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // it is connected to, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		address, parameters string
		ctx                 func() context.Context
		want                error
	}{
		"nobody answers before the deadline": {silent.Addr().String(), "", func() context.Context { return within(t, 20*time.Millisecond) }, context.DeadlineExceeded},
		"the call is cancelled": {silent.Addr().String(), "", func() context.Context {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Millisecond, cancel)
			return ctx
		}, context.Canceled},
		"nobody answers in the time of a host": {silent.Addr().String(), "&connect_timeout=1", func() context.Context { return promise(t, 3*time.Second) }, ErrUnavailable},
		"the host refuses":                     {closed.Addr().String(), "", func() context.Context { return t.Context() }, ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := 1
			if test.want == context.DeadlineExceeded {
				n = 20 // whether the network or the context notices first is a race
			}
			for range n {
				opts := postgresOptions(URL("postgres://u:secret@"+test.address+"/d?sslmode=disable"+test.parameters), notes())
				opts.Clock = hasty{opts.Clock}
				_, err := Open(test.ctx(), opts)
				wantLine(t, err, test.address)
				if !errors.Is(err, test.want) || errors.Is(err, ErrUnavailable) != (test.want == ErrUnavailable) {
					t.Errorf("got %v, want %v", err, test.want)
				}
			}
		})
	}
}
