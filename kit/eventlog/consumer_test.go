package eventlog

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/sqldb"
)

func TestAConsumerGoesOnWhereItWas(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		f := newFollower(t, fresh(t), newFeed())
		f.feed.add("before")
		_, stop := f.following()
		f.feed.add("a", "b")
		f.wantEffects("a", "b")
		if err := stop(); err != nil {
			t.Errorf("Run returned %v", err)
		}
		f.feed.add("c")
		c, _ := f.start()
		f.feed.add("d")
		f.wantEffects("a", "b", "c", "d")
		if s := settled(t, c, 2); !s.Connected || s.Applied != 2 || s.Rebuilds != 0 || s.LastEvent.IsZero() || s.LastContact.IsZero() {
			t.Errorf("the status is %+v", s)
		}
	})
}

var errKilled = errors.New("killed")

// The effect is there and the cursor has not moved, or the other way round: neither must be seen after a crash.
func TestAnEffectThatWasRolledBackComesOnce(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		f := newFollower(t, fresh(t), newFeed())
		failures := 0
		f.opts.Apply = func(ctx context.Context, tx *sqldb.Tx, event *string) error {
			if err := insertEffect(ctx, tx, event); err != nil {
				return err
			}
			if *event == "b" && failures < 3 {
				failures++
				return errKilled
			}
			return nil
		}
		c, _ := f.following()
		f.feed.add("a", "b", "c")
		f.wantEffects("a", "b", "c")
		if s := settled(t, c, 3); s.Breaks != 3 || s.Applied != 3 {
			t.Errorf("the status is %+v", s)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.errors) != 3 || !errors.Is(f.errors[0], errKilled) {
			t.Errorf("reported: %v", f.errors)
		}
	})
}

func TestAConsumerThatDiesInATransactionHasItsEffectOnce(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		f := newFollower(t, fresh(t), newFeed())
		inside, die := make(chan struct{}), make(chan struct{})
		f.opts.Apply = func(ctx context.Context, tx *sqldb.Tx, event *string) error {
			if err := insertEffect(ctx, tx, event); err != nil {
				return err
			}
			if *event == "b" {
				close(inside)
				<-die
			}
			return nil
		}
		_, stop := f.following()
		f.feed.add("a")
		f.wantEffects("a")
		f.feed.add("b")
		<-inside
		stopped := make(chan error)
		go func() { stopped <- stop() }()
		f.opts.Apply = insertEffect
		until(t, "the end of the context", func() bool {
			select {
			case die <- struct{}{}:
				return true
			default:
				return false
			}
		})
		if err := <-stopped; err != nil {
			t.Errorf("Run returned %v", err)
		}
		f.start()
		f.feed.add("c")
		f.wantEffects("a", "b", "c")
	})
}

func TestAConsumerOutlivesBreaksOfItsSource(t *testing.T) {
	f := newFollower(t, freshSQLite(t), newFeed())
	c, _ := f.following()
	var want []string
	for i := range 10 {
		want = append(want, fmt.Sprint(i))
		f.feed.add(fmt.Sprint(i))
		if i%2 == 0 {
			f.feed.change(func() { f.feed.broken = errors.New("the line is cut") })
		}
		f.wantEffects(want...)
	}
	until(t, "all breaks", func() bool { return c.Status().Breaks == 5 })
}

func TestASourceThatRepeatsItsLastEventHasOneEffectOfIt(t *testing.T) {
	f := newFollower(t, freshSQLite(t), newFeed())
	f.feed.again = 1
	f.following()
	f.feed.add("a", "b")
	f.wantEffects("a", "b")
	f.feed.change(func() { f.feed.broken = errors.New("the line is cut") })
	f.feed.add("c")
	f.wantEffects("a", "b", "c")
}

func TestAConsumerThatIsTooLateRebuilds(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		f := newFollower(t, fresh(t), newFeed())
		rebuilds, failed := 0, false
		f.opts.Rebuild = func(ctx context.Context) error {
			if rebuilds++; rebuilds == 2 {
				failed = true
				return errors.New("the snapshot broke off")
			}
			f.write(`DELETE FROM effect`)
			f.write(`INSERT INTO effect (what) VALUES ($1)`, fmt.Sprintf("snapshot %d", rebuilds))
			return nil
		}
		c, stop := f.following()
		f.feed.add("a")
		f.wantEffects("snapshot 1", "a")
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		f.feed.add("b", "c")
		f.feed.change(func() { f.feed.oldest = 3 })
		c, _ = f.start()
		until(t, "another rebuild", func() bool { at, err := c.cursor(t.Context()); return err == nil && at.token == "3" })
		f.feed.add("d")
		f.wantEffects("snapshot 3", "d")
		if s := settled(t, c, 1); !failed || s.Rebuilds != 2 || s.Applied != 1 {
			t.Errorf("failed %v, the status is %+v", failed, s)
		}
	})
}

func TestAConsumerThatCannotRebuildSaysThatItIsTooLate(t *testing.T) {
	f := newFollower(t, freshSQLite(t), newFeed())
	_, stop := f.following()
	_ = stop()
	f.feed.add("a")
	f.feed.change(func() { f.feed.oldest = 1 })
	c, err := NewConsumer(f.opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Run(t.Context()); !errors.Is(err, ErrTooOld) {
		t.Errorf("Run returned %v", err)
	}
}

func TestOfTwoProcessesOneHasTheEffects(t *testing.T) {
	at, source := freshPostgres(t), newFeed()
	f, other := newFollower(t, at, source), newFollower(t, at, source)
	first, stop := f.following()
	second, _ := other.start()
	until(t, "both streams", func() bool { return len(source.opens()) == 2 })
	var want []string
	for i := range 300 {
		want = append(want, fmt.Sprint(i))
		source.add(fmt.Sprint(i))
		if i%50 == 0 {
			f.wantEffects(want...)
		}
	}
	f.wantEffects(want...)
	until(t, "all effects in the statuses", func() bool { return first.Status().Applied+second.Status().Applied >= 300 })
	if a, b := first.Status(), second.Status(); a.Applied+b.Applied != 300 || a.Breaks+b.Breaks != 0 {
		t.Errorf("the status is %+v and %+v", a, b)
	}
	_ = stop()
	source.add("end") // the one that is left takes over
	f.wantEffects(append(want, "end")...)
}

func TestAConsumerFollowsALog(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		opts := options()
		opts.BufferSize = 4
		f := openLog(t, fresh(t), opts)
		f.run()
		followed := newFollower(t, fresh(t), nil)
		c, err := NewConsumer(ConsumerOptions[Event]{
			Name: "log", DB: followed.db, Source: f.log.Source(Watch{Scope: scope, Match: func(e Event) bool { return e.Subject != "no" }}),
			Clock: hasty{clock.System()}, Rand: rand.Reader, At: func(e *Event) time.Time { return e.At },
			Apply: func(ctx context.Context, tx *sqldb.Tx, e *Event) error { return insertEffect(ctx, tx, &e.Subject) },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		until(t, "a cursor", func() bool { at, err := c.cursor(ctx); return err == nil && at.version > 0 })
		var want []string
		for i := range 40 {
			want = append(want, fmt.Sprint(i))
		}
		f.append(append(want, "no")...) // more than a buffer holds
		followed.wantEffects(want...)
		if s := settled(t, c, 40); s.Applied != 40 || s.LastEvent.IsZero() {
			t.Errorf("the status is %+v", s)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v", err)
		}
		until(t, "the end of the subscription", func() bool { return f.log.Subscribers() == 0 })
	})
}

func TestAQuietLogTellsWhereItStands(t *testing.T) {
	manual := still()
	opts := options()
	opts.Clock = manual
	f := openLog(t, freshSQLite(t), opts)
	stream, err := f.log.Source(Watch{Scope: scope, Match: only("none")}).Open(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	event, first, err := stream.Next(t.Context())
	if err != nil || event != nil {
		t.Fatalf("at first: %v, %v", event, err)
	}
	f.append("a")
	f.settle()
	go func() {
		if manual.WaitPending(t.Context(), 1) == nil {
			manual.Advance(sourceHeartbeat)
		}
	}()
	event, second, err := stream.Next(t.Context())
	if err != nil || event != nil || second == first || len(second) != TokenLength {
		t.Fatalf("after a while: %v at %q, %v", event, second, err)
	}
	wantNoneAfter(t, f, second)
}

// wantNoneAfter checks that there is nothing after a token.
func wantNoneAfter(t *testing.T, f *fixture, token string) {
	t.Helper()
	s := f.subscribe(token, nil)
	f.append("last")
	f.settle()
	wantNext(t, s, "last")
}

func TestAConsumerTellsHowFarBehindItIs(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	manual := still()
	f := newFollower(t, freshSQLite(t), newFeed())
	f.opts.Clock = manual
	f.opts.At = func(*string) time.Time { return start.Add(-time.Hour) }
	inside, goOn := make(chan struct{}), make(chan struct{})
	f.opts.Apply = func(ctx context.Context, tx *sqldb.Tx, event *string) error {
		inside <- struct{}{}
		<-goOn
		return insertEffect(ctx, tx, event)
	}
	c, _ := f.following()
	if s := c.Status(); s.Lag != 0 || !s.Connected || s.LastContact != start {
		t.Errorf("in step: %+v", s)
	}
	f.feed.add("a")
	<-inside
	if s := c.Status(); s.Lag != time.Hour {
		t.Errorf("with an event of an hour ago in hand: %+v", s)
	}
	goOn <- struct{}{}
	f.wantEffects("a")
	until(t, "nothing to wait", func() bool { return c.Status().Lag == 0 })
	if s := c.Status(); s.LastEvent != start.Add(-time.Hour) {
		t.Errorf("after it: %+v", s)
	}
	f.feed.change(func() { f.feed.broken = errors.New("the line is cut") })
	if err := manual.WaitPending(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	manual.Advance(40 * time.Millisecond)
	if s := c.Status(); s.Connected || s.Breaks != 1 || s.Lag != 40*time.Millisecond {
		t.Errorf("after a break: %+v", s)
	}
}

func TestPausesGrowAndDiffer(t *testing.T) {
	seen := make(map[time.Duration]bool)
	for range 100 {
		d := jittered(rand.Reader, time.Second)
		if d <= time.Second/2 || d > time.Second {
			t.Errorf("a pause of %s", d)
		}
		seen[d] = true
	}
	if len(seen) < 50 {
		t.Errorf("only %d different pauses of 100", len(seen))
	}
	manual := still()
	f := newFollower(t, freshSQLite(t), newFeed())
	f.opts.Clock = manual
	f.opts.Source = sourceFunc(func() error { return fault.New(fault.Unavailable, "AWAY", "away") })
	c, _ := f.start()
	for n, most := range []time.Duration{firstPause, 2 * firstPause, 4 * firstPause, 8 * firstPause} {
		if err := manual.WaitPending(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		if got := c.Status().Breaks; got != int64(n+1) {
			t.Errorf("%d attempts failed, want %d", got, n+1)
		}
		manual.Advance(most / 2)
		if manual.Pending() != 1 {
			t.Errorf("pause %d is at most half as long as it may be", n+1)
		}
		manual.Advance(most / 2)
	}
}

// sourceFunc is a source that cannot be opened.
type sourceFunc func() error

func (f sourceFunc) Open(context.Context, string) (Stream[string], error) { return nil, f() }

func TestAConsumerNeedsWhatItNeeds(t *testing.T) {
	f := newFollower(t, freshSQLite(t), newFeed())
	for name, change := range map[string]func(*ConsumerOptions[string]){
		"a name":     func(o *ConsumerOptions[string]) { o.Name = "" },
		"a database": func(o *ConsumerOptions[string]) { o.DB = nil },
		"a source":   func(o *ConsumerOptions[string]) { o.Source = nil },
		"an effect":  func(o *ConsumerOptions[string]) { o.Apply = nil },
		"a clock":    func(o *ConsumerOptions[string]) { o.Clock = nil },
		"randomness": func(o *ConsumerOptions[string]) { o.Rand = nil },
	} {
		t.Run(name, func(t *testing.T) {
			opts := f.opts
			change(&opts)
			if _, err := NewConsumer(opts); err == nil {
				t.Error("it was made without")
			}
		})
	}
}
