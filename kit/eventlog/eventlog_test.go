package eventlog

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/kit/sqldb/postgrestest"
)

const scope = "test/Watch"

// place is where a database is.
type place struct {
	dir string
	url sqldb.URL
}

// options returns the options that open the database.
func (p place) options(c clock.Clock, sets ...sqldb.Set) sqldb.Options {
	return sqldb.Options{Dir: p.dir, File: "log.db", URL: p.url, Clock: c, Random: rand.Reader, Migrations: sets}
}

func freshSQLite(t testing.TB) place   { return place{dir: t.TempDir()} }
func freshPostgres(t testing.TB) place { return place{url: sqldb.URL(postgrestest.Database(t))} }

var engines = map[sqldb.Engine]func(testing.TB) place{sqldb.SQLite: freshSQLite, sqldb.PostgreSQL: freshPostgres}

// onEach runs a test on each engine; fresh makes an empty database.
func onEach(t *testing.T, test func(t *testing.T, fresh func(testing.TB) place)) {
	for name, fresh := range engines {
		t.Run(string(name), func(t *testing.T) { test(t, fresh) })
	}
}

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

// fixture is a log on a database of its own.
type fixture struct {
	t   testing.TB
	at  place
	db  *sqldb.DB
	log *Log
}

func options() Options { return Options{Clock: clock.System(), Rand: rand.Reader} }

// openLog opens the log of a database. It does not run yet.
func openLog(t testing.TB, at place, opts Options) *fixture {
	t.Helper()
	db, err := sqldb.Open(t.Context(), at.options(opts.Clock, Migrations(), ConsumerMigrations()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	log, err := Open(t.Context(), db, opts)
	if err != nil {
		t.Fatal(err)
	}
	return &fixture{t: t, at: at, db: db, log: log}
}

// run runs the log until the function that it returns is called, or the test ends.
func (f *fixture) run() (stop func()) {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.log.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			f.t.Errorf("Run returned %v", err)
		}
	}
	f.t.Cleanup(stop)
	return stop
}

// append writes events with these subjects in one transaction.
func (f *fixture) append(subjects ...string) {
	f.t.Helper()
	events := make([]Event, len(subjects))
	for i, s := range subjects {
		events[i] = Event{Subject: s, Type: "HAPPENED"}
	}
	if err := f.write(events...); err != nil {
		f.t.Fatal(err)
	}
	f.number()
}

// number gives the events their numbers, where a log that runs would do it in a moment.
func (f *fixture) number() {
	f.t.Helper()
	if f.log.inbox == nil {
		return
	}
	if err := f.log.inbox.order(context.Background()); err != nil {
		f.t.Fatal(err)
	}
}

// settle puts into the buffers all that is committed.
func (f *fixture) settle() {
	f.t.Helper()
	if err := f.log.serve(context.Background(), true); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) write(events ...Event) error {
	return f.db.Write(context.Background(), func(tx *sqldb.Tx) error {
		return f.log.Append(context.Background(), tx, events...)
	})
}

// fill writes n events whose subjects are "1", "2" and so on.
func (f *fixture) fill(n int) {
	f.t.Helper()
	subjects := make([]string, n)
	for i := range subjects {
		subjects[i] = fmt.Sprint(i + 1)
	}
	f.append(subjects...)
}

func (f *fixture) subscribe(token string, match func(Event) bool) *Subscription {
	f.t.Helper()
	s, err := f.log.Subscribe(f.t.Context(), Watch{Scope: scope, Token: token, Match: match})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(s.Close)
	return s
}

// next returns the subject of the next event and its token.
func next(t *testing.T, s *Subscription) (subject, token string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	e, token, err := s.Next(ctx)
	if err != nil {
		t.Fatalf("Next: %v", err)
	}
	return e.Subject, token
}

func wantNext(t *testing.T, s *Subscription, subjects ...string) (token string) {
	t.Helper()
	for _, want := range subjects {
		got, at := next(t, s)
		if got != want {
			t.Fatalf("the next event is of %q, want %q", got, want)
		}
		token = at
	}
	return token
}

// wantEnd checks that nothing comes any more, for this reason, and returns the fault.
func wantEnd(t *testing.T, s *Subscription, want *fault.Fault) *fault.Fault {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var got *fault.Fault
	for range 2 { // the end stays the end
		e, _, err := s.Next(ctx)
		if !errors.Is(err, want) {
			t.Fatalf("Next returned %v, %v, want %v", e, err, want)
		}
		got, _ = fault.As(err)
	}
	return got
}

func only(subject string) func(Event) bool { return func(e Event) bool { return e.Subject == subject } }

func TestAnEventArrivesAsItWasWritten(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		now := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
		opts := options()
		opts.Clock = clocktest.New(now)
		f := openLog(t, fresh(t), opts)
		f.run()
		s := f.subscribe("", nil)
		earlier := time.Date(1969, 1, 2, 3, 4, 5, 678000, time.FixedZone("", 3600))
		err := f.write(
			Event{Seq: 99, At: earlier, Subject: "a\x00ü", Type: "FIRST", Payload: []byte{0, 1, 255}},
			Event{Type: "SECOND"},
			Event{Type: strings.Repeat("t", MaxName), Subject: strings.Repeat("s", MaxName), Payload: make([]byte, MaxPayload)},
		)
		if err != nil {
			t.Fatal(err)
		}
		want := []Event{
			{Seq: 1, At: earlier.UTC(), Subject: "a\x00ü", Type: "FIRST", Payload: []byte{0, 1, 255}},
			{Seq: 2, At: now.Truncate(time.Microsecond), Type: "SECOND"},
			{Seq: 3, At: now.Truncate(time.Microsecond), Type: strings.Repeat("t", MaxName), Subject: strings.Repeat("s", MaxName), Payload: make([]byte, MaxPayload)},
		}
		for _, w := range want {
			e, _, err := s.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if e.Seq != w.Seq || e.At != w.At || e.Subject != w.Subject || e.Type != w.Type || string(e.Payload) != string(w.Payload) {
				t.Errorf("event %d at %s of %q is %q", e.Seq, e.At, e.Subject, e.Type)
			}
		}
	})
}

func TestAnEventThatBreaksALimitIsRefusedWithItsTransaction(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		f := openLog(t, fresh(t), options())
		f.run()
		for name, e := range map[string]Event{
			"no type":             {},
			"a type too long":     {Type: strings.Repeat("t", MaxName+1)},
			"a type with a NUL":   {Type: "T\x00"},
			"a type not in UTF-8": {Type: "T\xff"},
			"a subject too long":  {Type: "T", Subject: strings.Repeat("s", MaxName+1)},
			"a payload too long":  {Type: "T", Payload: make([]byte, MaxPayload+1)},
		} {
			t.Run(name, func(t *testing.T) {
				s := f.subscribe("", nil)
				if err := f.write(Event{Type: "GOOD"}, e); err == nil {
					t.Fatal("it was accepted")
				}
				f.append("after")
				wantNext(t, s, "after")
			})
		}
	})
}

func TestWhatIsRolledBackIsNeverSeen(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		f := openLog(t, fresh(t), options())
		f.run()
		s := f.subscribe("", nil)
		boom := errors.New("boom")
		err := f.db.Write(t.Context(), func(tx *sqldb.Tx) error {
			return errors.Join(f.log.Append(t.Context(), tx, Event{Subject: "lost", Type: "T"}), boom)
		})
		if !errors.Is(err, boom) {
			t.Fatal(err)
		}
		f.append("kept")
		wantNext(t, s, "kept")
	})
}

func TestTheLogIsPolledWhenNothingWakesIt(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		manual := clocktest.New(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
		opts := options()
		opts.Clock = manual
		opts.PollInterval = 10 * time.Second
		f := openLog(t, fresh(t), opts)
		f.run()
		for i := range 3 {
			s := f.subscribe("", nil)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			if _, _, err := s.Next(ctx); err == nil {
				t.Fatal("an event before any was written")
			}
			cancel()
			// As another process would, without a word to this one.
			err := f.db.Write(t.Context(), func(tx *sqldb.Tx) error {
				_, err := tx.ExecContext(t.Context(), f.db.Engine().Pick(
					`INSERT INTO event_log (at, subject, type, payload) VALUES (0, $1, 'T', x'')`,
					`INSERT INTO event_log_inbox (at, subject, type, payload) VALUES (0, $1, 'T', '')`), f.log.subject(fmt.Sprint(i)))
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := manual.WaitPending(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			manual.Advance(10 * time.Second)
			wantNext(t, s, fmt.Sprint(i))
		}
	})
}

func TestOpenNeedsWhatItNeeds(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		f := openLog(t, fresh(t), options())
		for name, change := range map[string]func(*Options){
			"a clock":            func(o *Options) { o.Clock = nil },
			"randomness":         func(o *Options) { o.Rand = nil },
			"a buffer":           func(o *Options) { o.BufferSize = -1 },
			"a polling interval": func(o *Options) { o.PollInterval = -1 },
			"an age to keep":     func(o *Options) { o.Retention.MaxAge = -1 },
			"a number to keep":   func(o *Options) { o.Retention.MaxEvents = -1 },
		} {
			t.Run(name, func(t *testing.T) {
				opts := options()
				change(&opts)
				if _, err := Open(t.Context(), f.db, opts); err == nil {
					t.Error("it was opened without")
				}
			})
		}
	})
}

func TestAnEpochIsNotMadeOfTooLittleRandomness(t *testing.T) {
	db, err := sqldb.Open(t.Context(), freshSQLite(t).options(clock.System(), Migrations()))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, r := range []io.Reader{strings.NewReader(""), strings.NewReader(strings.Repeat("x", epochSize+keySize-1)), iotest.ErrReader(errors.New("no entropy"))} {
		opts := options()
		opts.Rand = r
		if _, err := Open(t.Context(), db, opts); err == nil {
			t.Error("the log was opened")
		}
	}
	if _, err := Open(t.Context(), db, options()); err != nil {
		t.Errorf("after that: %v", err)
	}
}

func TestFaultsAreWellFormed(t *testing.T) {
	for _, f := range []*fault.Fault{ErrBadToken, ErrTooOld.With(MetadataOldestToken, "x"), ErrSlowConsumer.With(MetadataResumeToken, "x"), ErrStopped, ErrSubscriptionClosed} {
		if err := f.Valid(); err != nil {
			t.Errorf("%s: %v", f.Reason(), err)
		}
	}
}
