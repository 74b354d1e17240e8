package sqlstore

import (
	"errors"
	"fmt"
	"testing"

	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/kit/sqldb/postgrestest"
	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
)

func TestACommandThatComesAloneIsWrittenByOneStatement(t *testing.T) {
	t.Parallel()
	url := sqldb.URL(postgrestest.Database(t))
	s, other := openWith(t, Options{URL: url}), openWith(t, Options{URL: url})
	defer s.Close()
	defer other.Close()
	for _, key := range []string{"first", "second"} { // the accounts are there then, and nobody else has come in between
		if err := till(t, s, key, "customer", "merchant", 10); err != nil {
			t.Fatal(err)
		}
	}
	s.writer.close() // so that the test may do what the writer does
	transfers := int64(2)
	alone := func(m move) (it *item, written bool) {
		it = &item{command: m.command(s), done: make(chan struct{})}
		if written = s.writeAlone(t.Context(), it); written {
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
