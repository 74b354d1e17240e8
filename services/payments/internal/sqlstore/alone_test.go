package sqlstore

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync/atomic"
	"testing"

	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/kit/sqldb/postgrestest"
	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
)

func TestACommandThatComesAloneIsWrittenByOneStatement(t *testing.T) {
	t.Parallel()
	s, other := replicas(t)
	for _, key := range []string{"first", "second"} { // the accounts are there then, and nobody else has come in between
		if err := till(t, s, key, "customer", "merchant", 10); err != nil {
			t.Fatal(err)
		}
	}
	s.writer.close() // so that the test may do what the writer does
	transfers := int64(2)
	alone := func(m move) (it *item, written bool) {
		it = &item{command: m.command(s), done: make(chan struct{})}
		if written, _ = s.writeAlone(it); written {
			transfers++
		}
		wantSound(t, other, transfers)
		return it, written
	}
	usual := func(it *item) {
		t.Helper()
		if err := s.writeBatch([]*item{it}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		it, written := alone(move{fmt.Sprint("alone-", i), "customer", "merchant", 100})
		if !written || it.err != nil || it.outcome.Payment.Captured != 100 || it.outcome.Replayed {
			t.Fatalf("%t: %+v, %v", written, it.outcome, it.err)
		}
	}
	for name, c := range map[string]struct {
		move
		replayed bool
		want     error
	}{
		"a key that was used":              {move{"alone-0", "customer", "merchant", 100}, true, nil},
		"an account that is not there yet": {move{"new", "another", "merchant", 1}, false, nil},
		"more than there is":               {move{"much", "customer", "merchant", 900}, false, ledger.ErrOverdrawn},
	} {
		it, written := alone(c.move)
		if written {
			t.Errorf("%s: written by one statement", name)
		}
		usual(it)
		if !errors.Is(it.err, c.want) || it.outcome.Replayed != c.replayed {
			t.Errorf("%s: %+v, %v", name, it.outcome, it.err)
		}
		if name == "an account that is not there yet" {
			transfers++
		}
		wantSound(t, other, transfers)
	}
	// What another replica has written meanwhile is seen, and then it is alone again.
	if err := till(t, other, "others", "customer", "merchant", 680); err != nil {
		t.Fatal(err)
	}
	transfers++
	it, written := alone(move{"last", "customer", "merchant", 10})
	if written {
		t.Error("written although another replica has written")
	}
	if usual(it); !errors.Is(it.err, ledger.ErrOverdrawn) {
		t.Errorf("10 of nothing: %v", it.err)
	}
	usual(&item{command: move{"quiet", "another", "merchant", 1}.command(s)})
	transfers++
	if _, written := alone(move{"again", "another", "merchant", 1}); !written {
		t.Error("not written by one statement when it was alone again")
	}
	if _, found, err := s.Lookup(t.Context(), move{key: "again"}.command(s).Claim); err != nil || !found {
		t.Error(err)
	}
}

// deaf stands before a server. Once it is deaf what the server answers arrives no more, and nobody is let in.
type deaf struct {
	net.Listener
	on atomic.Bool
}

func newDeaf(t *testing.T, to string) *deaf {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	d := &deaf{Listener: l}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go d.join(client, to)
		}
	}()
	return d
}

func (d *deaf) join(client net.Conn, to string) {
	defer client.Close()
	if d.on.Load() {
		return
	}
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	go func() { _, _ = io.Copy(server, client) }()
	for b := make([]byte, 64<<10); ; {
		n, err := server.Read(b)
		if err != nil || d.on.Load() {
			return
		}
		if _, err := client.Write(b[:n]); err != nil {
			return
		}
	}
}

func TestACommandThatMayHaveBeenWrittenAloneIsUnknownWhereNobodyCanTell(t *testing.T) {
	t.Parallel()
	direct := postgrestest.Database(t)
	at, err := url.Parse(direct)
	if err != nil {
		t.Fatal(err)
	}
	d := newDeaf(t, at.Host)
	at.Host = d.Addr().String()
	s, other := openWith(t, Options{URL: sqldb.URL(at.String())}), openWith(t, Options{URL: sqldb.URL(direct)})
	defer other.Close()
	defer s.Close()
	for _, key := range []string{"first", "second"} {
		if err := till(t, s, key, "customer", "merchant", 10); err != nil {
			t.Fatal(err)
		}
	}
	d.on.Store(true)
	third := move{"third", "customer", "merchant", 10}.command(s)
	if _, err := s.Do(t.Context(), third); !errors.Is(err, sqldb.ErrOutcomeUnknown) {
		t.Errorf("nobody can tell: %v", err)
	}
	if _, found, err := other.Lookup(t.Context(), third.Claim); err != nil || !found {
		t.Errorf("it was not written, so this shows nothing: %v", err)
	}
	d.on.Store(false)
	if again, err := s.Do(t.Context(), third); err != nil || !again.Replayed {
		t.Errorf("the key tells %+v, %v", again, err)
	}
	wantSound(t, other, 3)
}

// stopped returns two replicas, of which the first has charged twice and does nothing more by itself: the test may do what its
// writer does.
func stopped(t *testing.T) (s, other *Store) {
	t.Helper()
	s, other = replicas(t)
	for _, key := range []string{"first", "second"} {
		if err := till(t, s, key, "customer", "merchant", 10); err != nil {
			t.Fatal(err)
		}
	}
	s.writer.close()
	return s, other
}

func TestACommandThatComesAloneDoesNotWaitForTheLedger(t *testing.T) {
	t.Parallel()
	s, other := stopped(t)
	it := &item{command: move{"third", "customer", "merchant", 10}.command(s), done: make(chan struct{})}
	err := other.db.Write(t.Context(), func(tx *sqldb.Tx) error {
		if _, err := readHead(t.Context(), tx, " FOR UPDATE"); err != nil {
			return err
		}
		if written, unknown := s.writeAlone(it); written || unknown {
			t.Errorf("while another has the ledger: written %t, unknown %t", written, unknown)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wantSound(t, other, 2)
}

// TestACommandThatComesAloneIsWrittenOnlyAfterWhatWasDecidedBy has the server hold another history than the one that is remembered,
// as one that took over and had not seen the end of it: it differs in one thing at a time, whatever else it has in common.
func TestACommandThatComesAloneIsWrittenOnlyAfterWhatWasDecidedBy(t *testing.T) {
	t.Parallel()
	s, other := stopped(t)
	change := func(statement string) {
		t.Helper()
		err := other.db.Write(t.Context(), func(tx *sqldb.Tx) error {
			_, err := tx.ExecContext(t.Context(), statement)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	written := func(key string) bool {
		t.Helper()
		s.cache.alone = true // as after each look at the ledger at which nobody else had written
		it := &item{command: move{key, "customer", "merchant", 10}.command(s), done: make(chan struct{})}
		written, unknown := s.writeAlone(it)
		if unknown {
			t.Errorf("%s: nobody can tell", key)
		}
		return written
	}
	for _, row := range []struct{ name, differs, again string }{
		{"how often it was changed", `UPDATE head SET version = version + 1`, `UPDATE head SET version = version - 1`},
		{"how many payments there are", `UPDATE head SET payments = payments + 1`, `UPDATE head SET payments = payments - 1`},
		{"how many accounts there are", `UPDATE head SET accounts = accounts + 1`, `UPDATE head SET accounts = accounts - 1`},
		{"how many transfers there are", `UPDATE head SET transfers = transfers + 1`, `UPDATE head SET transfers = transfers - 1`},
		{"the last transfer", `UPDATE head SET hash = decode(repeat('07', 32), 'hex')`,
			`UPDATE head SET hash = (SELECT hash FROM transfers ORDER BY number DESC LIMIT 1)`},
		{"the account that was opened last", `UPDATE accounts SET account_id = account_id || '-' WHERE number = 2`,
			`UPDATE accounts SET account_id = rtrim(account_id, '-') WHERE number = 2`},
	} {
		change(row.differs)
		if written(row.name) {
			t.Errorf("written although %s differs", row.name)
		}
		change(row.again)
	}
	wantSound(t, other, 2)
	if !written("as it is remembered") {
		t.Error("not written where nothing differs")
	}
	wantSound(t, other, 3)
}
