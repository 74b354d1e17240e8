package eventlog

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/sqldb"
)

const scope = "test/Watch"

// fixture is a log on a database of its own.
type fixture struct {
	t   *testing.T
	dir string
	db  *sqldb.DB
	log *Log
}

func options() Options { return Options{Clock: clock.System(), Rand: rand.Reader} }

// open opens the log in dir. It does not run yet.
func openLog(t *testing.T, dir string, opts Options) *fixture {
	t.Helper()
	db, err := sqldb.Open(t.Context(), sqldb.Options{Dir: dir, File: "log.db", Clock: opts.Clock, Migrations: []sqldb.Set{Migrations()}})
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
	return &fixture{t: t, dir: dir, db: db, log: log}
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
	now := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
	opts := options()
	opts.Clock = clocktest.New(now)
	f := openLog(t, t.TempDir(), opts)
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
}

func TestAnEventThatBreaksALimitIsRefusedWithItsTransaction(t *testing.T) {
	f := openLog(t, t.TempDir(), options())
	f.run()
	for name, e := range map[string]Event{
		"no type":            {},
		"a type too long":    {Type: strings.Repeat("t", MaxName+1)},
		"a subject too long": {Type: "T", Subject: strings.Repeat("s", MaxName+1)},
		"a payload too long": {Type: "T", Payload: make([]byte, MaxPayload+1)},
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
}

func TestWhatIsRolledBackIsNeverSeen(t *testing.T) {
	f := openLog(t, t.TempDir(), options())
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
}

func TestWithoutATokenAWatchBeginsNow(t *testing.T) {
	f := openLog(t, t.TempDir(), options())
	f.append("before the log runs")
	f.run()
	f.append("before the watch")
	s := f.subscribe("", nil)
	f.append("a", "b")
	f.append("c")
	wantNext(t, s, "a", "b", "c")
}

func TestATokenResumesRightAfterItsEvent(t *testing.T) {
	dir := t.TempDir()
	first := openLog(t, dir, options())
	stop := first.run()
	s := first.subscribe("", nil)
	first.append("a", "b", "c", "d")
	token := wantNext(t, s, "a", "b")

	t.Run("in the same process", func(t *testing.T) {
		s := first.subscribe(token, nil)
		wantNext(t, s, "c", "d")
		first.append("e")
		wantNext(t, s, "e")
	})
	t.Run("after a restart", func(t *testing.T) {
		stop()
		if err := first.db.Close(); err != nil {
			t.Fatal(err)
		}
		second := openLog(t, dir, options())
		second.run()
		s := second.subscribe(token, nil)
		second.append("f")
		wantNext(t, s, "c", "d", "e", "f")
	})
}

func TestAWatchCatchesUpThroughManyPagesAndGoesLive(t *testing.T) {
	f := openLog(t, t.TempDir(), options())
	start := f.subscribe("", nil).Position()
	const n = 3*pageEvents + 7
	f.fill(n)
	f.run()
	s := f.subscribe(start, func(e Event) bool { return len(e.Subject) < 3 || e.Subject == fmt.Sprint(n) || e.Subject == "live" })
	for i := range 99 {
		wantNext(t, s, fmt.Sprint(i+1))
	}
	wantNext(t, s, fmt.Sprint(n))
	f.append("live")
	wantNext(t, s, "live")
}

func TestPagesAreBoundedByTheirPayload(t *testing.T) {
	f := openLog(t, t.TempDir(), options())
	start := f.subscribe("", nil).Position()
	for i := range 5 {
		if err := f.write(Event{Subject: fmt.Sprint(i), Type: "T", Payload: make([]byte, pageBytes/2)}); err != nil {
			t.Fatal(err)
		}
	}
	p, err := f.log.readPage(t.Context(), 0)
	if err != nil || len(p.events) != 2 || p.through != 2 || p.atHead {
		t.Errorf("a page of %d events through %d, at head %v, %v", len(p.events), p.through, p.atHead, err)
	}
	wantNext(t, f.subscribe(start, nil), "0", "1", "2", "3", "4")
}

func TestThePositionMovesOnPastWhatDoesNotMatch(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := openLog(t, dir, options())
		f.run()
		s := f.subscribe("", only("wanted"))
		f.append("a", "wanted", "b", "wanted", "c")
		synctest.Wait()
		// Both are buffered and not yet told; what is before the first is.
		wantNext(t, f.subscribe(s.Position(), nil), "wanted", "b", "wanted", "c")
		wantNext(t, s, "wanted")
		wantNext(t, f.subscribe(s.Position(), nil), "wanted", "c")
		wantNext(t, s, "wanted")
		f.append("d")
		synctest.Wait()
		late := f.subscribe(s.Position(), nil)
		f.append("e")
		wantNext(t, late, "e")
	})
}

func TestThePositionIsRightWhileCatchingUp(t *testing.T) {
	f := openLog(t, t.TempDir(), options())
	start := f.subscribe("", nil).Position()
	f.append("a", "wanted", "b", "wanted", "c")
	s := f.subscribe(start, only("wanted"))
	if s.Position() != start {
		t.Error("the position moved before anything was read")
	}
	wantNext(t, s, "wanted")
	wantNext(t, f.subscribe(s.Position(), nil), "wanted", "c")
	wantNext(t, s, "wanted")
	late := f.subscribe(s.Position(), nil)
	f.run()
	f.append("d")
	wantNext(t, late, "d")
}

func TestWhatNobodyWantedIsNotReadForThoseWhoComeLater(t *testing.T) {
	f := openLog(t, t.TempDir(), options())
	f.run()
	f.subscribe("", nil).Close()
	f.fill(10)
	f.subscribe("", nil)
	f.log.mu.Lock()
	defer f.log.mu.Unlock()
	if f.log.last != 10 {
		t.Errorf("the log is read from %d on, want 10", f.log.last)
	}
}

func TestNextEndsWithItsContextAndLosesNothing(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := openLog(t, dir, options())
		f.run()
		s := f.subscribe("", nil)
		for i := range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if _, _, err := s.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("Next returned %v", err)
			}
			cancel()
			f.append(fmt.Sprint(i))
			wantNext(t, s, fmt.Sprint(i))
		}
	})
}

func TestASlowConsumerIsCutAfterItsBufferAndResumes(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		opts := options()
		opts.BufferSize = 4
		f := openLog(t, dir, opts)
		f.run()
		slow := f.subscribe("", func(e Event) bool { return e.Subject != "odd" })
		picky := f.subscribe("", only("6"))
		f.append("1", "odd", "2", "3", "odd", "4", "odd", "5", "6")
		f.append("7")
		synctest.Wait()
		wantNext(t, slow, "1", "2", "3", "4")
		end := wantEnd(t, slow, ErrSlowConsumer)
		if end.Kind() != fault.ResourceExhausted || end.Metadata()[MetadataResumeToken] != slow.Position() {
			t.Errorf("%s %v, position %s", end.Kind(), end.Metadata(), slow.Position())
		}
		wantNext(t, picky, "6") // who keeps up is served
		f.append("8")
		resumed := f.subscribe(end.Metadata()[MetadataResumeToken], nil)
		wantNext(t, resumed, "5", "6", "7", "8")
	})
}

func TestSubscriptionsEndWithATokenWhenTheLogStops(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := openLog(t, dir, options())
		stop := f.run()
		start := f.subscribe("", nil).Position()
		buffered := f.subscribe("", nil)
		f.append("a", "b")
		synctest.Wait()
		catchingUp := f.subscribe(start, nil)
		waiting := f.subscribe("", nil)
		ended := make(chan error)
		go func() {
			_, _, err := waiting.Next(t.Context())
			ended <- err
		}()
		synctest.Wait()
		stop()
		if err := <-ended; !errors.Is(err, ErrStopped) {
			t.Errorf("Next returned %v", err)
		}
		wantNext(t, buffered, "a", "b")
		for _, s := range []*Subscription{buffered, catchingUp, waiting} {
			end := wantEnd(t, s, ErrStopped)
			if end.Kind() != fault.Unavailable || end.Metadata()[MetadataResumeToken] != s.Position() {
				t.Errorf("%s %v", end.Kind(), end.Metadata())
			}
		}
		_, err := f.log.Subscribe(t.Context(), Watch{Scope: scope, Token: start})
		end, _ := fault.As(err)
		if !errors.Is(err, ErrStopped) || end.Metadata()[MetadataResumeToken] != start {
			t.Errorf("Subscribe returned %v", err)
		}
		if err := f.log.Run(t.Context()); err == nil {
			t.Error("a log ran twice")
		}
	})
}

func TestALogThatCannotBeReadStops(t *testing.T) {
	f := openLog(t, t.TempDir(), options())
	s := f.subscribe("", nil)
	if err := f.db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.log.Run(t.Context()); !errors.Is(err, sqldb.ErrClosed) {
		t.Errorf("Run returned %v", err)
	}
	wantEnd(t, s, ErrStopped)
}

func TestAClosedSubscriptionEndsAndIsForgotten(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := openLog(t, dir, options())
		f.run()
		old := f.subscribe("", nil).Position()
		f.fill(2 * pageEvents)
		live, catchingUp := f.subscribe("", nil), f.subscribe(old, nil)
		wantNext(t, catchingUp, "1")
		ended := make(chan error)
		go func() {
			_, _, err := live.Next(t.Context())
			ended <- err
		}()
		synctest.Wait()
		live.Close()
		if err := <-ended; !errors.Is(err, ErrSubscriptionClosed) {
			t.Errorf("Next returned %v", err)
		}
		catchingUp.Close()
		for _, s := range []*Subscription{live, catchingUp} {
			s.Close()
			wantEnd(t, s, ErrSubscriptionClosed)
			s.atHead = true
			f.log.join(s) // as a Next that was under way would
		}
		if n := len(f.log.live); n != 0 {
			t.Errorf("%d subscriptions are still served", n)
		}
	})
}

func TestTheLogIsPolledWhenNothingWakesIt(t *testing.T) {
	manual := clocktest.New(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	opts := options()
	opts.Clock = manual
	opts.PollInterval = 10 * time.Second
	f := openLog(t, t.TempDir(), opts)
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
			_, err := tx.ExecContext(t.Context(), `INSERT INTO event_log (at, subject, type, payload) VALUES (0, $1, 'T', x'')`, fmt.Sprint(i))
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
}

func TestOpenNeedsWhatItNeeds(t *testing.T) {
	f := openLog(t, t.TempDir(), options())
	for name, change := range map[string]func(*Options){
		"a clock":            func(o *Options) { o.Clock = nil },
		"randomness":         func(o *Options) { o.Rand = nil },
		"a buffer":           func(o *Options) { o.BufferSize = -1 },
		"a polling interval": func(o *Options) { o.PollInterval = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			opts := options()
			change(&opts)
			if _, err := Open(t.Context(), f.db, opts); err == nil {
				t.Error("it was opened without")
			}
		})
	}
}

func TestAnEpochIsNotMadeOfTooLittleRandomness(t *testing.T) {
	db, err := sqldb.Open(t.Context(), sqldb.Options{Dir: t.TempDir(), File: "log.db", Clock: clock.System(), Migrations: []sqldb.Set{Migrations()}})
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
