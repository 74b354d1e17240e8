package eventlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/kit/sqldb"
)

// texts returns the events of the log as text.
func (f *fixture) texts(t *testing.T) []string {
	t.Helper()
	all, err := f.log.readAll(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, e := range all {
		texts = append(texts, fmt.Sprintf("%d %s %s", e.Seq, e.Subject, e.Payload))
	}
	return texts
}

func erased(e Event) ([]byte, error) { return []byte("erased " + e.Type), nil }

func (f *fixture) redact(subject string, fn func(Event) ([]byte, error)) error {
	return f.db.Write(context.Background(), func(tx *sqldb.Tx) error {
		if err := f.log.Append(context.Background(), tx, Event{Subject: subject, Type: "GONE", Payload: []byte("name")}); err != nil {
			return err
		}
		return f.log.Redact(context.Background(), tx, subject, fn)
	})
}

func TestAnErasureRewritesAllOfASubjectAndNothingElse(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		f := openLog(t, fresh(t), options())
		start := f.subscribe("", nil).Position()
		write := func(subject string) {
			if err := f.write(Event{Subject: subject, Type: "MADE", Payload: []byte("name of " + subject)}); err != nil {
				t.Fatal(err)
			}
		}
		write("ann")
		write("bob")
		f.number()
		write("ann") // has no number yet on PostgreSQL
		if err := f.redact("ann", erased); err != nil {
			t.Fatal(err)
		}
		f.number()
		want := []string{"1 ann erased MADE", "2 bob name of bob", "3 ann erased MADE", "4 ann erased GONE"}
		if got := f.texts(t); !slices.Equal(got, want) {
			t.Errorf("the log has %q, want %q", got, want)
		}
		wantNext(t, f.subscribe(start, nil), "ann", "bob", "ann", "ann") // tokens stay good
	})
}

func TestAnErasureGoesThroughManyEvents(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		f := openLog(t, fresh(t), options())
		const n = 2*redactBatch + 1
		f.append(slices.Repeat([]string{"ann", "bob"}, n)...)
		if err := f.redact("ann", erased); err != nil {
			t.Fatal(err)
		}
		f.number()
		left := 0
		for _, text := range f.texts(t) {
			if strings.Contains(text, "ann") && !strings.Contains(text, "erased") {
				left++
			}
		}
		if left > 0 {
			t.Errorf("%d events still have their payload", left)
		}
	})
}

func TestAnErasureThatFailsChangesNothing(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		f := openLog(t, fresh(t), options())
		if err := f.write(Event{Subject: "ann", Type: "MADE", Payload: []byte("name")}); err != nil {
			t.Fatal(err)
		}
		f.number()
		for name, fn := range map[string]func(Event) ([]byte, error){
			"an error":           func(e Event) ([]byte, error) { return nil, errChangedMind },
			"a payload too long": func(e Event) ([]byte, error) { return make([]byte, MaxPayload+1), nil },
		} {
			err := f.redact("ann", fn)
			if err == nil || name == "an error" && !errors.Is(err, errChangedMind) {
				t.Errorf("%s: %v", name, err)
			}
		}
		f.number()
		if got, want := f.texts(t), []string{"1 ann name"}; !slices.Equal(got, want) {
			t.Errorf("the log has %q, want %q", got, want)
		}
	})
}

// What is numbered while its payload is being rewritten must not keep the old one.
func TestAnErasureIsNotOvertakenByTheNumbering(t *testing.T) {
	f := openLog(t, freshPostgres(t), options())
	if err := f.write(Event{Subject: "ann", Type: "MADE", Payload: []byte("name")}); err != nil {
		t.Fatal(err)
	}
	end := f.inFlight(func(tx *sqldb.Tx) error { return f.log.Redact(context.Background(), tx, "ann", erased) })
	numbered := make(chan error, 1)
	go func() { numbered <- f.log.inbox.order(context.Background()) }()
	select {
	case err := <-numbered:
		t.Errorf("the events were numbered beside the erasure: %v", err)
		numbered <- nil
	case <-f.waitsForLock():
	}
	end(nil)
	if err := <-numbered; err != nil {
		t.Fatal(err)
	}
	if got, want := f.texts(t), []string{"1 ann erased MADE"}; !slices.Equal(got, want) {
		t.Errorf("the log has %q, want %q", got, want)
	}
}

// waitsForLock returns a channel that is closed when somebody waits for the lock of the inbox.
func (f *fixture) waitsForLock() <-chan struct{} {
	waits := make(chan struct{})
	go func() {
		defer close(waits)
		for n := 0; n == 0; {
			err := f.db.ReadOne(context.Background(), func(q sqldb.Querier) error {
				return q.QueryRowContext(context.Background(), `
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`).Scan(&n)
			})
			if err != nil {
				f.t.Error(err)
				return
			}
		}
	}()
	return waits
}

func TestTheHistoryOfASubjectIsInOrderAndInPages(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		f := openLog(t, fresh(t), options())
		f.append("ann", "bob", "ann", "a\x00nn", "ann", "ann")
		f.trim(2)
		var got []int64
		for after := int64(0); ; {
			var page []Event
			err := f.db.Read(t.Context(), func(q sqldb.Querier) (err error) {
				page, err = f.log.History(t.Context(), q, "ann", after, 2)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			for _, e := range page {
				if e.Subject != "ann" || e.Type != "HAPPENED" || e.At.IsZero() {
					t.Errorf("event %+v", e)
				}
				got, after = append(got, e.Seq), e.Seq
			}
		}
		if want := []int64{3, 5, 6}; !slices.Equal(got, want) {
			t.Errorf("the history has the events %d, want %d", got, want)
		}
	})
}

func TestTheEventsOfASubjectAreFoundByAnIndex(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		f := openLog(t, fresh(t), options())
		f.fill(2000)
		err := f.db.Write(t.Context(), func(tx *sqldb.Tx) error {
			if f.db.Engine() == sqldb.PostgreSQL {
				if _, err := tx.ExecContext(t.Context(), `ANALYZE event_log`); err != nil {
					return err
				}
			}
			rows, err := tx.QueryContext(t.Context(), f.db.Engine().Pick("EXPLAIN QUERY PLAN ", "EXPLAIN ")+
				`SELECT seq, at, type, payload FROM event_log WHERE subject = '7' AND seq > 3 ORDER BY seq LIMIT 5`)
			if err != nil {
				return err
			}
			defer rows.Close()
			columns, err := rows.Columns()
			if err != nil {
				return err
			}
			var plan strings.Builder
			for rows.Next() {
				values, places := make([]any, len(columns)), make([]any, len(columns))
				for i := range values {
					places[i] = &values[i]
				}
				if err := rows.Scan(places...); err != nil {
					return err
				}
				fmt.Fprintln(&plan, values...)
			}
			if !strings.Contains(plan.String(), "event_log_subject") {
				t.Errorf("the plan is %s", plan.String())
			}
			return rows.Err()
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
