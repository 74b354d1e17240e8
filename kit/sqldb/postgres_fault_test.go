package sqldb

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/sqldb/postgrestest"
)

// openBehind opens a database through a proxy, and directly.
func openBehind(t *testing.T) (p *proxy, behind, direct *DB) {
	t.Helper()
	url := URL(postgrestest.Database(t))
	direct = openPG(t, url)
	p = newProxy(t, url)
	return p, openPG(t, p.url), direct
}

func TestACommitWithoutAnAnswerHasAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		becomes verdict
		want    []string
	}{
		"the server never got it":                    {cut, nil},
		"it was done and the connection broke":       {cutAfter, []string{"a"}},
		"it was done and the server crashed":         {fatal, []string{"a"}},
		"it was done and the answer is not coming":   {swallow, []string{"a"}},
		"it was done, and nobody waits for the call": {swallow, []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, db, direct := openBehind(t)
			ctx, cancel := context.WithCancel(promise(t, 2*time.Second)) // for which the commit is waited for
			defer cancel()
			committing := false
			p.watch(func(m message) verdict {
				if committing || m.text != "commit" {
					return pass
				}
				committing = true
				if strings.HasSuffix(name, "call") {
					cancel()
				}
				return test.becomes
			})
			attempts := 0
			err := db.Write(ctx, func(tx *Tx) error {
				attempts++
				tx.OnCommit(func() { t.Error("the commit hook ran") })
				return insert(ctx, tx, "a")
			})
			if !errors.Is(err, ErrOutcomeUnknown) || fault.KindOf(err) != fault.Unavailable || attempts != 1 {
				t.Errorf("after %d attempts Write returned %v", attempts, err)
			}
			wantTexts(t, direct, test.want...)
			if err := add(t.Context(), db, "next"); err != nil {
				t.Errorf("the next write: %v", err)
			}
			select {
			case <-db.Failed():
				t.Error("it counts as failed for good")
			default:
			}
		})
	}
}

// A statement that is run by itself is committed with its answer.
func TestAWriteOneWithoutAnAnswerHasAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		becomes verdict
		want    []string
	}{
		"the server never got all of it":           {cut, nil},
		"it was done and the connection broke":     {cutAfter, []string{"a"}},
		"it was done and the server crashed":       {fatal, []string{"a"}},
		"it was done and the answer is not coming": {swallow, []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, db, direct := openBehind(t)
			bound, done := false, false
			p.watch(func(m message) verdict {
				bound = bound || m.text == "bind"
				if done || !bound || m.kind != 'S' {
					return pass
				}
				done = true
				return test.becomes
			})
			_, err := db.WriteOne(promise(t, 2*time.Second), `INSERT INTO notes (text) VALUES ($1)`, []any{"a"})
			p.watch(nil) // so that the test may look at what it has seen
			if !errors.Is(err, ErrOutcomeUnknown) || fault.KindOf(err) != fault.Unavailable || !done {
				t.Errorf("WriteOne returned %v", err)
			}
			wantTexts(t, direct, test.want...)
			if err := add(t.Context(), db, "next"); err != nil {
				t.Errorf("the next write: %v", err)
			}
		})
	}
}

func TestACommitIsWaitedForThoughTheCallIsCancelled(t *testing.T) {
	t.Parallel()
	p, db, _ := openBehind(t)
	ctx, cancel := context.WithCancel(t.Context())
	p.watch(func(m message) verdict {
		if m.text == "commit" {
			cancel()
		}
		return pass
	})
	if err := db.Write(ctx, func(tx *Tx) error { return insert(ctx, tx, "a") }); err != nil || ctx.Err() == nil {
		t.Errorf("Write returned %v, context %v", err, ctx.Err())
	}
	wantTexts(t, db, "a")
}

func TestAConnectionThatIsLostBeforeTheCommitIsReplaced(t *testing.T) {
	t.Parallel()
	for name, where := range map[string]func(m message, n int) bool{
		"at the begin":            func(m message, _ int) bool { return strings.HasPrefix(m.text, "begin") },
		"at the first statement":  func(m message, n int) bool { return m.kind == 'S' && n == 1 },
		"at the second statement": func(m message, n int) bool { return m.kind == 'S' && n == 2 },
		"at the last statement":   func(m message, n int) bool { return m.kind == 'S' && n == 3 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, db, _ := openBehind(t)
			cuts, binds := 0, 0
			p.watch(func(m message) verdict {
				if m.text == "bind" {
					binds++
				}
				if cuts > 0 || !where(m, binds) {
					return pass
				}
				cuts++
				return cutAfter
			})
			ctx := within(t, patience)
			err := db.Write(ctx, func(tx *Tx) error {
				return errors.Join(insert(ctx, tx, "a"), insert(ctx, tx, "b"), insert(ctx, tx, "c"))
			})
			if err != nil || cuts != 1 {
				t.Errorf("%d connections were cut, Write returned %v", cuts, err)
			}
			wantTexts(t, db, "a", "b", "c")
		})
	}
}

func TestAReadBeginsAnewOnlyWhileItHasShownNothing(t *testing.T) {
	t.Parallel()
	p, db, _ := openBehind(t)
	ctx := within(t, patience)
	if err := add(ctx, db, "a"); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		cutAt    int // the statement that is cut
		attempts int
		fails    bool
		read     func(context.Context, func(Querier) error) error
	}{
		"Read, the first statement":  {1, 2, false, db.Read},
		"Read, the second statement": {2, 1, true, db.Read},
		"ReadOne":                    {1, 2, false, db.ReadOne},
	} {
		t.Run(name, func(t *testing.T) {
			binds, attempts := 0, 0
			p.watch(func(m message) verdict {
				if m.text == "bind" {
					binds++
					if binds == test.cutAt {
						return cut
					}
				}
				return pass
			})
			var all []string
			err := test.read(ctx, func(q Querier) error {
				attempts++
				for range test.cutAt {
					more, err := readTexts(ctx, q)
					if err != nil {
						return err
					}
					all = append(all, more...)
				}
				return nil
			})
			if attempts != test.attempts || (err != nil) != test.fails || err != nil && !errors.Is(err, ErrUnavailable) {
				t.Errorf("%d attempts, %v", attempts, err)
			}
			if fmt.Sprint(all) != "[a]" {
				t.Errorf("read %v", all)
			}
		})
	}
	for name, test := range map[string]struct {
		cut   func(m message) bool
		shown int
		fails bool
	}{
		"ReadRows before a row":  {func(m message) bool { return m.text == "bind" }, 1, false},
		"ReadRows after the row": {func(message) bool { return false }, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			cuts, shown := 0, 0
			p.watch(func(m message) verdict {
				if cuts == 0 && test.cut(m) {
					cuts++
					return cut
				}
				return pass
			})
			// More than the buffers between hold, so that the connection can end while rows are read.
			err := db.ReadRows(ctx, func(row Row) error {
				var text string
				if err := row.Scan(&text); err != nil {
					return err
				}
				if text == "a" {
					shown++
				}
				if test.fails && cuts == 0 {
					cuts++
					p.cutAll()
				}
				return nil
			}, `SELECT text FROM notes UNION ALL SELECT repeat('x', 100000) FROM generate_series(1, $1)`, 1000)
			if cuts != 1 || shown != test.shown || (err != nil) != test.fails || err != nil && !errors.Is(err, ErrUnavailable) {
				t.Errorf("%d cuts, the row was shown %d times, %v", cuts, shown, err)
			}
		})
	}
}

func TestRoundTrips(t *testing.T) {
	t.Parallel()
	p, db, _ := openBehind(t)
	ctx := within(t, patience)
	one := func(read func(context.Context, func(Querier) error) error) func() error {
		return func() error {
			return read(ctx, func(q Querier) error {
				var n int
				return q.QueryRowContext(ctx, `SELECT count(*) FROM notes`).Scan(&n)
			})
		}
	}
	n := 0
	for name, test := range map[string]struct {
		call func() error
		want int
	}{
		"ReadOne":                {one(db.ReadOne), 1},
		"ReadRows":               {func() error { return db.ReadRows(ctx, func(Row) error { return nil }, `SELECT text FROM notes`) }, 1},
		"Read of one statement":  {one(db.Read), 3},
		"Write of one statement": {func() error { n++; return add(ctx, db, fmt.Sprint(n)) }, 3},
		"Write of one that is told of": {func() error {
			return db.Write(ctx, func(tx *Tx) error { tx.Notify("a"); n++; return insert(ctx, tx, fmt.Sprint(n)) })
		}, 4},
		"Write of nothing, rolled back":  {func() error { db.Write(ctx, func(*Tx) error { return errors.New("no") }); return nil }, 2},
		"Write without a limit of time":  {func() error { return db.Write(t.Context(), func(tx *Tx) error { return nil }) }, 2},
		"Write that is not begun at all": {func() error { over, end := context.WithCancel(ctx); end(); db.Write(over, nil); return nil }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // the first time statements are prepared
				p.count()
				if err := test.call(); err != nil {
					t.Fatal(err)
				}
				db.engine.(*server).notices.wait()
			}
			if got := p.count(); got != test.want {
				t.Errorf("%d round trips, want %d", got, test.want)
			}
		})
	}
}

func TestAWriteIsNotAcknowledgedWhenTheServerDidNotWaitForItsStandby(t *testing.T) {
	t.Parallel()
	s := postgrestest.Start(t, postgrestest.Options{Settings: map[string]string{
		"synchronous_standby_names": "absent", "synchronous_commit": "local", // for all but the one below
	}})
	for name, write := range map[string]func(ctx context.Context, db *DB) error{
		"Write": func(ctx context.Context, db *DB) error {
			return db.Write(ctx, func(tx *Tx) error {
				tx.OnCommit(func() { t.Error("the commit hook ran") })
				return errors.Join(execIn(ctx, tx, `SET LOCAL synchronous_commit = on`), insert(ctx, tx, "a"))
			})
		},
		"WriteOne": func(ctx context.Context, db *DB) error {
			_, err := db.WriteOne(ctx, `INSERT INTO notes (text) SELECT $1::text WHERE set_config('synchronous_commit', 'on', true) = 'on'`, []any{"a"})
			return err
		},
	} {
		db := openPG(t, URL(s.Database(t)))
		ended := make(chan error, 1)
		go func() { ended <- write(within(t, patience), db) }()
		var err error
		eventually(t, "the commit ends", func() bool {
			s.Exec(t, `SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`)
			select {
			case err = <-ended:
				return true
			default:
				return false
			}
		})
		if !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, errNotReplicated) {
			t.Errorf("%s returned %v", name, err)
		}
		wantTexts(t, db, "a")
	}
}

func TestWhenTheServerComesBackSoDoesTheDatabase(t *testing.T) {
	t.Parallel()
	s := postgrestest.Start(t, postgrestest.Options{Durable: true})
	db := openPG(t, URL(s.Database(t)))
	for name, end := range map[string]func(testing.TB){"stopped": s.Stop, "killed": s.Kill} {
		t.Run(name, func(t *testing.T) {
			stop := make(chan struct{})
			var group sync.WaitGroup
			var mu sync.Mutex
			acknowledged, unknown := map[string]bool{}, map[string]bool{}
			for w := range 8 {
				group.Go(func() {
					for i := 0; ; i++ {
						select {
						case <-stop:
							return
						default:
						}
						text := fmt.Sprint(name, " ", w, " ", i)
						ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
						err := add(ctx, db, text)
						cancel()
						mu.Lock()
						switch {
						case err == nil:
							acknowledged[text] = true
						case errors.Is(err, ErrOutcomeUnknown):
							unknown[text] = true
						case fault.KindOf(err) != fault.Unavailable && fault.KindOf(err) != fault.DeadlineExceeded:
							t.Errorf("Write returned %v", err)
						}
						mu.Unlock()
					}
				})
			}
			written := func() int {
				mu.Lock()
				defer mu.Unlock()
				return len(acknowledged)
			}
			eventually(t, "it writes", func() bool { return written() > 100 })
			end(t)
			if err := db.Healthy(within(t, 100*time.Millisecond)); err == nil {
				t.Error("healthy without a server")
			}
			s.Restart(t)
			back, before := time.Now(), written()
			eventually(t, "it writes again", func() bool { return written() > before })
			if took := time.Since(back); took > 5*time.Second {
				t.Errorf("the first write came %s after the server", took)
			}
			close(stop)
			group.Wait()
			if err := db.Healthy(within(t, patience)); err != nil {
				t.Error(err)
			}
			there := map[string]bool{}
			for _, text := range texts(t, db) {
				there[text] = true
			}
			for text := range acknowledged {
				if !there[text] {
					t.Errorf("%q was acknowledged and is lost", text)
				}
			}
			for text := range there {
				if strings.HasPrefix(text, name) && !acknowledged[text] && !unknown[text] {
					t.Errorf("%q is there and was called not done", text)
				}
			}
		})
	}
}

func TestTheLastConnectionOfAServerIsWaitedFor(t *testing.T) {
	t.Parallel()
	s := postgrestest.Shared(t)
	url := s.Database(t)
	openPG(t, URL(url))
	s.Exec(t, `CREATE ROLE narrow LOGIN PASSWORD 'narrow' CONNECTION LIMIT 0`)
	t.Cleanup(func() { s.Exec(t, `DROP ROLE narrow`) })
	narrow := URL(strings.Replace(url, "tests:"+s.Password(), "narrow:narrow", 1))
	_, err := Open(within(t, time.Second), postgresOptions(narrow))
	wantLine(t, err, "too many connections")
	if kind := fault.KindOf(err); kind != fault.Unavailable && kind != fault.DeadlineExceeded {
		t.Errorf("Open returned %v", err)
	}
	opened := make(chan error)
	go func() {
		db, err := Open(within(t, patience), postgresOptions(narrow, notes()))
		if err == nil {
			err = db.Close()
		}
		opened <- err
	}()
	s.Exec(t, `ALTER ROLE narrow CONNECTION LIMIT 10`)
	// It may not make tables, so that is what it gets to hear once it is connected.
	if err := <-opened; err != nil && !strings.Contains(err.Error(), "schema") {
		t.Error(err)
	}
}
