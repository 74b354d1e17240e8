package eventlog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/sqldb"
)

// Writers commit and roll back at random, readers leave and resume at random, and some are cut because their buffers are
// small: each of them must get exactly what matches, in order.
func TestNoReaderMissesAnEventOrGetsOneTwice(t *testing.T) {
	const writers, transactions, readers, subjects = 8, 150, 20, 4
	opts := options()
	opts.BufferSize = 8
	f := openLog(t, t.TempDir(), opts)
	f.run()
	start := f.subscribe("", nil).Position()

	var writing, reading sync.WaitGroup
	got := make([][]int64, readers)
	for r := range readers {
		reading.Go(func() { got[r] = f.readAtRandom(rand.New(rand.NewPCG(1, uint64(r))), start, wanted(r, subjects)) })
	}
	for w := range writers {
		writing.Go(func() {
			random := rand.New(rand.NewPCG(2, uint64(w)))
			for range transactions {
				if err := f.writeAtRandom(random, subjects); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writing.Wait()
	f.append("end")
	reading.Wait()

	all, err := f.log.readAll(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < writers*transactions/2 {
		t.Fatalf("only %d events were written", len(all))
	}
	for r := range readers {
		var want []int64
		for _, e := range all {
			if match := wanted(r, subjects); match == nil || match(e) {
				want = append(want, e.Seq)
			}
		}
		if !slices.Equal(got[r], want) {
			t.Errorf("reader %d got %d events, want %d", r, len(got[r]), len(want))
		}
	}
}

// wanted is what a reader wants: everything, or one subject.
func wanted(reader, subjects int) func(Event) bool {
	if reader%2 == 0 {
		return nil
	}
	subject := fmt.Sprint(reader % subjects)
	return func(e Event) bool { return e.Subject == subject || e.Subject == "end" }
}

var errChangedMind = errors.New("changed my mind")

func (f *fixture) writeAtRandom(random *rand.Rand, subjects int) error {
	err := f.db.Write(context.Background(), func(tx *sqldb.Tx) error {
		for range 1 + random.IntN(3) {
			if err := f.log.Append(context.Background(), tx, Event{Subject: fmt.Sprint(random.IntN(subjects)), Type: "T"}); err != nil {
				return err
			}
		}
		if random.IntN(4) == 0 {
			return errChangedMind
		}
		return nil
	})
	if errors.Is(err, errChangedMind) {
		return nil
	}
	return err
}

// readAtRandom reads until the event "end", and resumes again and again with the token of an event or of a position.
func (f *fixture) readAtRandom(random *rand.Rand, token string, match func(Event) bool) []int64 {
	var got []int64
	for {
		s, err := f.log.Subscribe(context.Background(), Watch{Scope: scope, Token: token, Match: match})
		if err != nil {
			f.t.Error(err)
			return nil
		}
		for range random.IntN(100) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(random.IntN(20))*time.Millisecond)
			e, after, err := s.Next(ctx)
			cancel()
			switch {
			case errors.Is(err, context.DeadlineExceeded):
				token = s.Position()
				continue
			case errors.Is(err, ErrSlowConsumer):
				end, _ := fault.As(err)
				token = end.Metadata()[MetadataResumeToken]
			case err != nil:
				f.t.Error(err)
				return nil
			default:
				got, token = append(got, e.Seq), after
				if e.Subject == "end" {
					s.Close()
					return got
				}
			}
			if err != nil {
				break
			}
			if random.IntN(3) == 0 {
				token = s.Position()
			}
		}
		s.Close()
	}
}

// readAll returns the whole log.
func (l *Log) readAll(ctx context.Context) ([]Event, error) {
	var all []Event
	for after := int64(0); ; {
		p, err := l.readPage(ctx, after)
		if err != nil {
			return nil, err
		}
		all = append(all, p.events...)
		if p.atHead {
			return all, nil
		}
		after = p.through
	}
}

func BenchmarkEventToAThousandWatchers(b *testing.B) {
	f := &fixture{}
	db, err := sqldb.Open(b.Context(), sqldb.Options{Dir: b.TempDir(), File: "log.db", Clock: options().Clock, Migrations: []sqldb.Set{Migrations()}})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	log, err := Open(b.Context(), db, options())
	if err != nil {
		b.Fatal(err)
	}
	f.db, f.log = db, log
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error)
	go func() { done <- log.Run(ctx) }()
	subs := make([]*Subscription, 1000)
	for i := range subs {
		if subs[i], err = log.Subscribe(ctx, Watch{Scope: scope}); err != nil {
			b.Fatal(err)
		}
		defer subs[i].Close()
	}
	for b.Loop() {
		if err := f.write(Event{Subject: "s", Type: "T"}); err != nil {
			b.Fatal(err)
		}
		for _, s := range subs {
			if _, _, err := s.Next(ctx); err != nil {
				b.Fatal(err)
			}
		}
	}
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}
