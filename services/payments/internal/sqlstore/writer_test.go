package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// errNothing ends a command that was only there to hold up the writer.
var errNothing = errors.New("nothing was to be done")

// holdUp has the writer of s wait in the middle of a transaction, in which is only this, until goOn is called.
func holdUp(t *testing.T, s *Store) (goOn func()) {
	t.Helper()
	inside, open, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := s.Do(context.Background(), payments.Command{
			Claim: payments.Claim{Key: payments.Key{Caller: "c", Method: "hold up", Key: "k"}},
			Run: func(*payments.Work) (payments.Outcome, error) {
				close(inside)
				<-open
				return payments.Outcome{}, errNothing
			},
		})
		ended <- err
	}()
	<-inside
	goOn = sync.OnceFunc(func() {
		close(open)
		if err := <-ended; err == nil { // errNothing, or that it took too long
			t.Error("what held the writer up was written")
		}
	})
	t.Cleanup(goOn)
	return goOn
}

// waiting returns once n commands wait for the writer of s.
func waiting(t *testing.T, s *Store, n int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); len(s.writer.queue) != n; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d commands wait, want %d", len(s.writer.queue), n)
		}
	}
}

// eachEngine runs a test on a new store of each engine.
func eachEngine(t *testing.T, test func(t *testing.T, s *Store)) {
	t.Parallel()
	for _, engine := range []sqldb.Engine{sqldb.SQLite, sqldb.PostgreSQL} {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			s := openEngine(t, engine)
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
			test(t, s)
		})
	}
}

func TestACommandThatFindsTheQueueFullIsRefusedAtOnceAndTheOthersAreWritten(t *testing.T) {
	eachEngine(t, func(t *testing.T, s *Store) {
		goOn := holdUp(t, s)
		const every = 128 // of them one moves something: a transaction of thousands of rows takes seconds
		errs := make(chan error, maxWaiting)
		for i := range maxWaiting {
			c := move{fmt.Sprint(i), fmt.Sprint("customer-", i%4), "merchant", 1}.command(s)
			if i%every != 0 {
				c.Run = func(*payments.Work) (payments.Outcome, error) { return payments.Outcome{}, errNothing }
			}
			go func() {
				_, err := s.Do(context.Background(), c)
				errs <- err
			}()
		}
		waiting(t, s, maxWaiting)
		late := move{"late", "customer-0", "merchant", 1}.command(s)
		refused := make(chan error, 1)
		go func() {
			_, err := s.Do(context.Background(), late)
			refused <- err
		}()
		var err error
		select {
		case err = <-refused:
		case <-time.After(10 * time.Second):
			err = errors.New("it waits")
		}
		if f, ok := fault.As(err); !ok || !errors.Is(err, payments.ErrOverloaded) || f.Kind() != fault.ResourceExhausted || f.RetryAfter() <= 0 {
			t.Errorf("with %d waiting: %v", maxWaiting, err)
		}
		goOn()
		moved := 0
		for range maxWaiting {
			switch err := <-errs; {
			case err == nil:
				moved++
			case !errors.Is(err, errNothing):
				t.Fatal(err)
			}
		}
		// The refusal has taken no key.
		if o, err := s.Do(t.Context(), late); err != nil || o.Replayed {
			t.Errorf("once there is room: %+v, %v", o, err)
		}
		if moved != maxWaiting/every {
			t.Errorf("%d of those that waited were written, want %d", moved, maxWaiting/every)
		}
		wantSound(t, s, int64(moved+1))
	})
}

func TestWhoGoesAwayWhileTheirCommandWaitsHasLeftNothing(t *testing.T) {
	eachEngine(t, func(t *testing.T, s *Store) {
		goOn := holdUp(t, s)
		why := errors.New("the caller has hung up")
		ctx, leave := context.WithCancelCause(t.Context())
		first := move{"k", "customer", "merchant", 10}.command(s)
		ended := make(chan error, 1)
		go func() {
			_, err := s.Do(ctx, first)
			ended <- err
		}()
		waiting(t, s, 1)
		leave(why)
		if err := <-ended; !errors.Is(err, why) { // and at once: the writer is held up still
			t.Errorf("it ended with %v", err)
		}
		goOn()
		if err := till(t, s, "behind it", "customer", "merchant", 10); err != nil {
			t.Fatal(err)
		}
		if _, found, err := s.Lookup(t.Context(), first.Claim); found || err != nil {
			t.Errorf("the key: found %t, %v", found, err)
		}
		if o, err := s.Do(t.Context(), first); err != nil || o.Replayed {
			t.Errorf("the key is free, and with it came %+v, %v", o, err)
		}
		wantSound(t, s, 2)
	})
}

func TestWhoGoesAwayWhileTheirCommandIsWrittenLearnsByTheKeyWhatCameOfIt(t *testing.T) {
	eachEngine(t, func(t *testing.T, s *Store) {
		inside, open := make(chan struct{}), make(chan struct{})
		goOn := sync.OnceFunc(func() { close(open) })
		defer goOn()
		m := move{"k", "customer", "merchant", 10}.command(s)
		held, once := m, sync.Once{}
		held.Run = func(w *payments.Work) (payments.Outcome, error) {
			once.Do(func() {
				close(inside)
				<-open
			})
			return m.Run(w)
		}
		ctx, leave := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			_, err := s.Do(ctx, held)
			ended <- err
		}()
		<-inside
		leave()
		// Neither done nor not done: it is being written, and nobody can tell yet.
		if err := <-ended; !errors.Is(err, sqldb.ErrOutcomeUnknown) {
			t.Errorf("it ended with %v", err)
		}
		goOn()
		if o, err := s.Do(t.Context(), m); err != nil || !o.Replayed || o.Payment.Captured != 10 {
			t.Errorf("the key tells %+v, %v", o, err)
		}
		wantSound(t, s, 1)
	})
}
