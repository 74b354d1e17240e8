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

// Writers append, wait, commit and roll back at random, in two processes where the engine allows it; readers leave and resume at
// random, in either process, and some are cut because their buffers are small. Each of them must get exactly what matches, in
// the one order that there is.
func TestNoReaderMissesAnEventOrGetsOneTwice(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) { noReaderMisses(t, fresh, options()) })
}

// With one appender at a time events have their numbers as they are appended, on PostgreSQL too.
func TestNoReaderMissesAnEventOfWritersWhoTakeTurns(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		opts := options()
		opts.OneAppender = true
		noReaderMisses(t, fresh, opts)
	})
}

func noReaderMisses(t *testing.T, fresh func(testing.TB) place, opts Options) {
	const writers, readers, subjects = 8, 20, 4
	total := 100_000
	if testing.Short() {
		total = 6_000
	}
	at := fresh(t)
	opts.BufferSize = 64
	opts.PollInterval = 20 * time.Millisecond
	logs := []*fixture{openLog(t, at, opts)}
	if at.url != "" {
		logs = append(logs, openLog(t, at, opts))
	}
	for _, f := range logs {
		f.run()
	}
	start := logs[0].subscribe("", nil).Position()

	var writing, reading sync.WaitGroup
	got := make([][]Event, readers)
	for r := range readers {
		reading.Go(func() {
			got[r] = readAtRandom(t, logs, rand.New(rand.NewPCG(1, uint64(r))), start, total/50, wanted(r, subjects))
		})
	}
	written := make([][]string, writers)
	for w := range writers {
		writing.Go(func() {
			log := logs[w%len(logs)]
			random := rand.New(rand.NewPCG(2, uint64(w)))
			for len(written[w]) < total/writers {
				names, err := log.writeAtRandom(random, fmt.Sprintf("%d/%d", w, len(written[w])), subjects)
				if err != nil {
					t.Error(err)
					return
				}
				written[w] = append(written[w], names...)
			}
		})
	}
	writing.Wait()
	logs[0].append("end")
	reading.Wait()

	all, err := logs[0].log.readAll(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantAllOnceInTheirOrder(t, all, written)
	for r := range readers {
		wantEvents(t, r, got[r], all, wanted(r, subjects))
	}
}

// wantAllOnceInTheirOrder checks that the log has what was committed, and what was rolled back not; the events of each writer in
// the order in which they were written; and, as these engines do it, numbers without gaps.
func wantAllOnceInTheirOrder(t *testing.T, all []Event, written [][]string) {
	t.Helper()
	kept := make([][]string, len(written))
	for i, e := range all {
		if e.Seq != int64(i+1) {
			t.Fatalf("event %d has the number %d", i+1, e.Seq)
		}
		if e.Subject == "end" {
			continue
		}
		var w int
		if _, err := fmt.Sscanf(string(e.Payload), "%d/", &w); err != nil {
			t.Fatal(err)
		}
		kept[w] = append(kept[w], string(e.Payload))
	}
	for w := range written {
		if !slices.Equal(kept[w], written[w]) {
			t.Errorf("the log has %d events of writer %d, who wrote %d, or in another order", len(kept[w]), w, len(written[w]))
		}
	}
}

// wantEvents checks that a reader got what matches, in the order of the log.
func wantEvents(t *testing.T, reader int, got, all []Event, match func(Event) bool) {
	t.Helper()
	n := 0
	for _, e := range all {
		if match != nil && !match(e) {
			continue
		}
		if n == len(got) || got[n].Seq != e.Seq || string(got[n].Payload) != string(e.Payload) {
			t.Errorf("reader %d has %d events right of %d, and not event %d", reader, n, len(got), e.Seq)
			return
		}
		n++
	}
	if n != len(got) {
		t.Errorf("reader %d got %d events, want %d", reader, len(got), n)
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

// writeAtRandom writes a transaction, and returns what is in it if it was committed. On PostgreSQL it dawdles.
func (f *fixture) writeAtRandom(random *rand.Rand, name string, subjects int) ([]string, error) {
	events := make([]Event, 1+random.IntN(30))
	var names []string
	for i := range events {
		names = append(names, fmt.Sprintf("%s.%d", name, i))
		events[i] = Event{Subject: fmt.Sprint(random.IntN(subjects)), Type: "T", Payload: []byte(names[i])}
	}
	half, before, after, changeMind := random.IntN(len(events)+1), delay(random), delay(random), random.IntN(4) == 0
	err := f.db.Write(context.Background(), func(tx *sqldb.Tx) error {
		if f.log.shared && f.log.inbox == nil { // they take turns, as they have promised
			if _, err := tx.ExecContext(context.Background(), `SELECT pg_advisory_xact_lock(42)`); err != nil {
				return err
			}
		}
		if err := f.log.Append(context.Background(), tx, events[:half]...); err != nil {
			return err
		}
		f.dawdle(before)
		if err := f.log.Append(context.Background(), tx, events[half:]...); err != nil {
			return err
		}
		f.dawdle(after)
		if changeMind {
			return errChangedMind
		}
		return nil
	})
	if errors.Is(err, errChangedMind) {
		return nil, nil
	}
	return names, err
}

// delay is mostly short.
func delay(random *rand.Rand) time.Duration {
	switch random.IntN(20) {
	case 0:
		return time.Duration(random.IntN(50)) * time.Millisecond
	case 1, 2, 3, 4, 5:
		return time.Duration(random.IntN(2000)) * time.Microsecond
	default:
		return 0
	}
}

func (f *fixture) dawdle(d time.Duration) {
	if f.log.inbox != nil && d > 0 { // SQLite has one writer, and nothing to get wrong here
		<-time.After(d)
	}
}

// readAtRandom reads until the event "end", and resumes again and again, after at most that many events, with the token of an
// event or of a position.
func readAtRandom(t *testing.T, logs []*fixture, random *rand.Rand, token string, most int, match func(Event) bool) []Event {
	var got []Event
	for {
		s, err := logs[random.IntN(len(logs))].log.Subscribe(context.Background(), Watch{Scope: scope, Token: token, Match: match})
		if err != nil {
			t.Error(err)
			return nil
		}
		for range random.IntN(most) {
			patience := time.Minute
			if random.IntN(10) == 0 {
				patience = time.Duration(random.IntN(20)) * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(context.Background(), patience)
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
				t.Error(err)
				return nil
			default:
				got, token = append(got, e), after
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

func BenchmarkAppend(b *testing.B) {
	for name, fresh := range engines {
		for _, n := range []int{1, 100} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				f := openLog(b, fresh(b), options())
				f.run()
				events := make([]Event, n)
				for i := range events {
					events[i] = Event{Subject: "0197a000-0000-7000-8000-00000000000a", Type: "HAPPENED", Payload: make([]byte, 300)}
				}
				for b.Loop() {
					if err := f.write(events...); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "µs/event")
			})
		}
	}
}

// BenchmarkTransaction is what BenchmarkAppend does with one event, into a table without an event log.
func BenchmarkTransaction(b *testing.B) {
	for name, fresh := range engines {
		b.Run(string(name), func(b *testing.B) {
			f := openLog(b, fresh(b), options())
			payload := make([]byte, 300)
			err := f.db.Write(b.Context(), func(tx *sqldb.Tx) error {
				_, err := tx.ExecContext(b.Context(), f.db.Engine().Pick(`CREATE TABLE plain (payload BLOB)`, `CREATE TABLE plain (payload BYTEA)`))
				return err
			})
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				err := f.db.Write(b.Context(), func(tx *sqldb.Tx) error {
					_, err := tx.ExecContext(b.Context(), `INSERT INTO plain (payload) VALUES ($1)`, payload)
					return err
				})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEventToWatchers(b *testing.B) {
	for name, fresh := range engines {
		for _, n := range []int{1, 1000} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) { eventToWatchers(b, fresh(b), n) })
		}
	}
}

// eventToWatchers measures from the return of the commit to the last watcher.
func eventToWatchers(b *testing.B, at place, watchers int) {
	f := openLog(b, at, options())
	f.run()
	subs := make([]*Subscription, watchers)
	for i := range subs {
		subs[i] = f.subscribe("", nil)
	}
	var took []time.Duration
	for b.Loop() {
		if err := f.write(Event{Subject: "s", Type: "T"}); err != nil {
			b.Fatal(err)
		}
		committed := time.Now()
		for _, s := range subs {
			if _, _, err := s.Next(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		took = append(took, time.Since(committed))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}
