package eventlog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/sqldb"
)

func TestWithoutATokenAWatchBeginsNow(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		f := openLog(t, fresh(t), options())
		f.append("before the log runs")
		f.run()
		f.append("before the watch")
		s := f.subscribe("", nil)
		f.append("a", "b")
		f.append("c")
		wantNext(t, s, "a", "b", "c")
	})
}

func TestATokenResumesRightAfterItsEvent(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		at := fresh(t)
		first := openLog(t, at, options())
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
			second := openLog(t, at, options())
			second.run()
			s := second.subscribe(token, nil)
			second.append("f")
			wantNext(t, s, "c", "d", "e", "f")
		})
	})
}

func TestAWatchCatchesUpThroughManyPagesAndGoesLive(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		f := openLog(t, fresh(t), options())
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
	})
}

func TestPagesAreBoundedByTheirPayload(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		f := openLog(t, fresh(t), options())
		start := f.subscribe("", nil).Position()
		for i := range 5 {
			if err := f.write(Event{Subject: fmt.Sprint(i), Type: "T", Payload: make([]byte, pageBytes/2)}); err != nil {
				t.Fatal(err)
			}
		}
		f.number()
		p, err := f.log.readPage(t.Context(), 0)
		if err != nil || len(p.events) != 2 || p.through != 2 || p.atHead {
			t.Errorf("a page of %d events through %d, at head %v, %v", len(p.events), p.through, p.atHead, err)
		}
		wantNext(t, f.subscribe(start, nil), "0", "1", "2", "3", "4")
	})
}

func TestThePositionMovesOnPastWhatDoesNotMatch(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		at := fresh(t)
		f := openLog(t, at, options())
		f.run()
		s := f.subscribe("", only("wanted"))
		f.append("a", "wanted", "b", "wanted", "c")
		f.settle()
		// Both are buffered and not yet told; what is before the first is.
		wantNext(t, f.subscribe(s.Position(), nil), "wanted", "b", "wanted", "c")
		wantNext(t, s, "wanted")
		wantNext(t, f.subscribe(s.Position(), nil), "wanted", "c")
		wantNext(t, s, "wanted")
		f.append("d")
		f.settle()
		late := f.subscribe(s.Position(), nil)
		f.append("e")
		wantNext(t, late, "e")
	})
}

func TestThePositionOfAClosedSubscriptionIsBeforeWhatItWasNotTold(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		at := fresh(t)
		f := openLog(t, at, options())
		f.run()
		s := f.subscribe("", nil)
		f.append("a", "b", "c")
		f.settle()
		wantNext(t, s, "a")
		s.Close()
		s.Close()
		wantNext(t, f.subscribe(s.Position(), nil), "b", "c")
	})
}

func TestThePositionIsRightWhileCatchingUp(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		f := openLog(t, fresh(t), options())
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
	})
}

func TestWhatNobodyWantedIsNotReadForThoseWhoComeLater(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		f := openLog(t, fresh(t), options())
		f.run()
		f.subscribe("", nil).Close()
		f.fill(10)
		f.subscribe("", nil)
		f.log.mu.Lock()
		defer f.log.mu.Unlock()
		if f.log.last != 10 {
			t.Errorf("the log is read from %d on, want 10", f.log.last)
		}
	})
}

func TestNextEndsWithItsContextAndLosesNothing(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		at := fresh(t)
		f := openLog(t, at, options())
		f.run()
		s := f.subscribe("", nil)
		for i := range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
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
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		at := fresh(t)
		opts := options()
		opts.BufferSize = 4
		f := openLog(t, at, opts)
		f.run()
		slow := f.subscribe("", func(e Event) bool { return e.Subject != "odd" })
		picky := f.subscribe("", only("6"))
		f.append("1", "odd", "2", "3", "odd", "4", "odd", "5", "6")
		f.append("7")
		f.settle()
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

func TestWhoIsHeldUpIsToldThatItIsCut(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		opts := options()
		opts.BufferSize = 2
		f := openLog(t, fresh(t), opts)
		f.run()
		slow, keepsUp := f.subscribe("", nil), f.subscribe("", only("1"))
		told := make(chan error, 3)
		tell := func(why error) { told <- why }
		slow.OnCut(tell)
		keepsUp.OnCut(func(error) { t.Error("who keeps up is cut") })
		f.append("1", "2")
		f.settle()
		select {
		case why := <-told:
			t.Fatalf("it was cut with %v while there was room", why)
		default:
		}
		f.append("3")
		if why := <-told; !errors.Is(why, ErrSlowConsumer) {
			t.Errorf("it was told %v", why)
		}
		slow.OnCut(tell) // who asks later is told as well
		if why := <-told; !errors.Is(why, ErrSlowConsumer) {
			t.Errorf("it was told %v", why)
		}
		slow.Close()
		if slow.queue.len() != 0 || slow.queue.events != nil {
			t.Error("what was buffered is kept")
		}
		if n := f.log.Subscribers(); n != 1 {
			t.Errorf("%d are subscribed", n)
		}
		wantNext(t, f.subscribe(slow.Position(), nil), "1", "2", "3")
		wantNext(t, keepsUp, "1")
	})
}

func TestABufferIsBoundedInBytesToo(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		const large = MaxPayload / 2
		opts := options()
		opts.BufferBytes = 3 * large
		f := openLog(t, fresh(t), opts)
		f.run()
		write := func(subject string, size int) {
			t.Helper()
			if err := f.write(Event{Subject: subject, Type: "T", Payload: make([]byte, size)}); err != nil {
				t.Fatal(err)
			}
			f.settle()
		}
		s, keepsUp := f.subscribe("", nil), f.subscribe("", nil)
		for _, name := range []string{"1", "2", "3"} {
			write(name, large-MaxName) // which leaves room for the names
			wantNext(t, keepsUp, name)
		}
		if s.queue.bytes > opts.BufferBytes || s.ended() != nil {
			t.Fatalf("%d bytes, %v", s.queue.bytes, s.ended())
		}
		wantNext(t, s, "1")
		write("4", large-MaxName) // what was taken has made room
		write("5", large)
		wantNext(t, s, "2", "3", "4")
		if end := wantEnd(t, s, ErrSlowConsumer); end.Metadata()[MetadataResumeToken] != s.Position() {
			t.Errorf("%v, position %s", end.Metadata(), s.Position())
		}
		wantNext(t, f.subscribe(s.Position(), nil), "5")
		wantNext(t, keepsUp, "4", "5") // who takes what there is has room again
	})
}

func TestAnEventThatIsLargerThanTheBufferIsGivenToWhoKeepsUp(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		opts := options()
		opts.BufferBytes = 1
		f := openLog(t, fresh(t), opts)
		f.run()
		s := f.subscribe("", nil)
		for _, name := range []string{"1", "2"} {
			f.append(name)
			wantNext(t, s, name)
		}
	})
}

// TestTheLargestReadCutsNobody has a subscriber that has taken all there was: what one read of the log brings fits, twice, into the
// buffer that is meant by zero.
func TestTheLargestReadCutsNobody(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		f := openLog(t, fresh(t), options())
		s := f.subscribe("", nil)
		f.log.join(s)
		for _, size := range []int{pageBytes - 1, MaxPayload, pageBytes - 1, MaxPayload, MaxPayload} {
			if err := f.write(Event{Subject: strconv.Itoa(size), Type: "T", Payload: make([]byte, size)}); err != nil {
				t.Fatal(err)
			}
		}
		f.number()
		after := int64(0)
		for _, fits := range []bool{true, true, false} {
			p, err := f.log.readPage(t.Context(), after)
			if err != nil {
				t.Fatal(err)
			}
			if after = p.through; s.offer(p) != fits {
				t.Fatalf("through %d: it fits is not %v, with %d bytes in the buffer", after, fits, s.queue.bytes)
			}
		}
	})
}

func TestSubscriptionsEndWithATokenWhenTheLogStops(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		at := fresh(t)
		f := openLog(t, at, options())
		stop := f.run()
		start := f.subscribe("", nil).Position()
		buffered := f.subscribe("", nil)
		f.append("a", "b")
		f.settle()
		catchingUp := f.subscribe(start, nil)
		waiting := f.subscribe("", nil)
		ended := make(chan error)
		go func() {
			_, _, err := waiting.Next(t.Context())
			ended <- err
		}()
		f.settle()
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
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		f := openLog(t, fresh(t), options())
		s := f.subscribe("", nil)
		if err := f.db.Close(); err != nil {
			t.Fatal(err)
		}
		if err := f.log.Run(t.Context()); !errors.Is(err, sqldb.ErrClosed) {
			t.Errorf("Run returned %v", err)
		}
		wantEnd(t, s, ErrStopped)
	})
}

func TestAClosedSubscriptionEndsAndIsForgotten(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		at := fresh(t)
		f := openLog(t, at, options())
		f.run()
		first := f.subscribe("", nil)
		old := first.Position()
		first.Close()
		f.fill(2 * pageEvents)
		live, catchingUp := f.subscribe("", nil), f.subscribe(old, nil)
		wantNext(t, catchingUp, "1")
		ended := make(chan error)
		go func() {
			_, _, err := live.Next(t.Context())
			ended <- err
		}()
		f.settle()
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

func TestASubscriptionClosedWhileItCatchesUpTellsNothingMore(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		f := openLog(t, fresh(t), options())
		start := f.subscribe("", nil).Position()
		f.append("1", "2")
		var s *Subscription
		s = f.subscribe(start, func(Event) bool { s.Close(); return true })
		wantEnd(t, s, ErrSubscriptionClosed)
	})
}
