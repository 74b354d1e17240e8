package sqldb

import (
	"context"
	"errors"
	"net/url"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/sqldb/postgrestest"
)

// openBounded opens a database whose statements that are run by themselves are ended after 200 ms, on one connection for
// reads and writes.
func openBounded(t *testing.T, at URL) *DB {
	t.Helper()
	opts := postgresOptions(at, notes())
	opts.mostOne = 200 * time.Millisecond
	opts.Connections = 2
	return openDB(t, opts)
}

// Nobody tells the server that a call has ended, as when the network is gone: it ends the statement by itself.
func TestTheServerEndsAStatementThatIsRunByItself(t *testing.T) {
	t.Parallel()
	at := URL(postgrestest.Database(t))
	db, other := openBounded(t, at), openPG(t, at)
	ctx := within(t, patience)
	if err := add(ctx, db, "a"); err != nil {
		t.Fatal(err)
	}
	update := func(ctx context.Context) error {
		_, err := db.WriteOne(ctx, `UPDATE notes SET text = $1 WHERE text = $2`, []any{"b", "a"})
		return err
	}
	sleep := func(q Querier) error {
		var s string
		return q.QueryRowContext(t.Context(), `SELECT pg_sleep(300)::text`).Scan(&s)
	}
	before := backend(t, db)
	for name, call := range map[string]func() error{
		"ReadOne": func() error { return db.ReadOne(t.Context(), sleep) },
		"ReadRows": func() error {
			return db.ReadRows(t.Context(), func(Row) error { return nil }, `SELECT pg_sleep(300)::text`)
		},
		"WriteOne, at a lock": func() error {
			var ended error
			err := other.Write(ctx, func(tx *Tx) error {
				if err := execIn(ctx, tx, `SELECT 1 FROM notes WHERE text = 'a' FOR UPDATE`); err != nil {
					return err
				}
				ended = update(t.Context())
				return nil
			})
			return errors.Join(err, ended)
		},
	} {
		if err := call(); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("%s returned %v", name, err)
		}
	}
	if after := backend(t, db); after != before {
		t.Error("the connection was given up")
	}
	if err := update(ctx); err != nil {
		t.Errorf("a statement in time: %v", err)
	}
	// What is no statement by itself has as long as it may.
	for name, call := range map[string]func() error{
		"a Write": func() error {
			return db.Write(t.Context(), func(tx *Tx) error { return execIn(t.Context(), tx, `SELECT pg_sleep(0.4)`) })
		},
		"a Read with a deadline": func() error {
			return db.Read(ctx, func(q Querier) error {
				var s string
				return q.QueryRowContext(ctx, `SELECT pg_sleep(0.4)::text`).Scan(&s)
			})
		},
	} {
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestALimitThatIsConfiguredForTheServerIsLeftAlone(t *testing.T) {
	t.Parallel()
	at, err := url.Parse(postgrestest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	query := at.Query()
	query.Set("statement_timeout", "7000")
	at.RawQuery = query.Encode()
	db := openBounded(t, URL(at.String()))
	setting := func(read func(context.Context, func(Querier) error) error) (is string) {
		t.Helper()
		err := read(t.Context(), func(q Querier) error {
			return q.QueryRowContext(t.Context(), `SELECT current_setting('statement_timeout')`).Scan(&is)
		})
		if err != nil {
			t.Fatal(err)
		}
		return is
	}
	if one, whole := setting(db.ReadOne), setting(db.Read); one != "7s" || whole != "7s" {
		t.Errorf("the limits are %s and %s, want those of the URL", one, whole)
	}
}

// Where nobody says otherwise the server ends a statement that is run by itself after a minute, and only such a one.
func TestAStatementThatIsRunByItselfHasAMinute(t *testing.T) {
	t.Parallel()
	db := openPG(t, URL(postgrestest.Database(t)))
	const ask = `SELECT current_setting('statement_timeout')`
	var one, rows, whole string
	scan := func(is *string) func(q Querier) error {
		return func(q Querier) error { return q.QueryRowContext(t.Context(), ask).Scan(is) }
	}
	err := errors.Join(
		db.ReadOne(t.Context(), scan(&one)),
		db.ReadRows(t.Context(), func(r Row) error { return r.Scan(&rows) }, ask),
		db.Read(t.Context(), scan(&whole)),
	)
	if err != nil || one != "1min" || rows != "1min" || whole != "0" {
		t.Errorf("the limits are %q of a ReadOne, %q of a ReadRows and %q of a Read: %v", one, rows, whole, err)
	}
}
