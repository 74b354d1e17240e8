package sqlstore

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// What only holds money, or releases it, has no entry on the account that the money was to come to, and is found by an
// erasure all the same: what was there at one before, what has come since, and more than is read at once.
func TestAnErasureFindsWhatWasHeldForTheCustomer(t *testing.T) {
	t.Parallel()
	for _, engine := range []sqldb.Engine{sqldb.SQLite, sqldb.PostgreSQL} {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			s := books(t, engine)
			account := func(name string) ledger.Key {
				return ledger.Key{Owner: name, Kind: ledger.General, Currency: "EUR"}
			}
			var last int64
			do := func(run func(w *payments.Work, note func(why string) ledger.Note) error, pending ...int64) {
				t.Helper()
				_, err := s.Do(t.Context(), payments.Command{
					Needs: payments.Needs{Accounts: []ledger.Key{account("ann"), account("bob"), account("fees")}, Transfers: pending},
					Run: func(w *payments.Work) (payments.Outcome, error) {
						err := run(w, func(why string) ledger.Note {
							return ledger.Note{Metadata: map[string]string{"why": why}, At: w.Now()}
						})
						last = w.Changes().Head.Ledger.Transfers
						return payments.Outcome{}, err
					},
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			// hold holds 5 for each of some and returns the number of the pending transfer.
			hold := func(why string, from string, to ...string) int64 {
				t.Helper()
				do(func(w *payments.Work, note func(string) ledger.Note) error {
					legs := []ledger.Leg{{Account: w.Account(account(from)).Number, Amount: -5 * int64(len(to))}}
					for _, name := range to {
						legs = append(legs, ledger.Leg{Account: w.Account(account(name)).Number, Amount: 5})
					}
					_, err := w.Book.Hold(legs, time.Time{}, note(why))
					return err
				})
				return last
			}
			void := func(why string, pending int64) int64 {
				t.Helper()
				do(func(w *payments.Work, note func(string) ledger.Note) error {
					_, err := w.Book.Void(pending, note(why))
					return err
				}, pending)
				return last
			}
			erase := func(customer payments.CustomerID) {
				t.Helper()
				if err := s.db.Write(t.Context(), func(tx *sqldb.Tx) error { return s.erase(t.Context(), tx, customer) }); err != nil {
					t.Fatal(err)
				}
			}
			says := func(want map[int64]string) {
				t.Helper()
				for number, why := range want {
					if got, _, err := s.Transfer(t.Context(), number); err != nil || got.Metadata["why"] != why {
						t.Errorf("transfer %d says %v, want %q: %v", number, got.Metadata, why, err)
					}
				}
			}
			forAnn := hold("for ann", "fees", "ann")
			voided := hold("given up", "fees", "ann")
			released := void("ann asked for it", voided)
			forBoth := hold("for both", "fees", "bob", "ann")
			forBob := hold("for bob", "fees", "bob")
			ofBob := hold("of bob", "bob", "fees")
			erase("c") // of whom none of it is
			says(map[int64]string{forAnn: "for ann", released: "ann asked for it", forBoth: "for both", forBob: "for bob"})
			since := hold("since then", "fees", "ann")
			releasedSince := void("released since", forAnn)
			var first int64
			do(func(w *payments.Work, note func(string) ledger.Note) error {
				for i := range mentionPage + 1 {
					held, err := w.Book.Hold([]ledger.Leg{
						{Account: w.Account(account("fees")).Number, Amount: -1}, {Account: w.Account(account("bob")).Number, Amount: 1},
					}, time.Time{}, note(fmt.Sprint("one of many ", i)))
					if err != nil {
						return err
					}
					if i == 0 {
						first = held.Number
					}
				}
				return nil
			})
			behind := hold("behind many", "fees", "ann")
			before, err := s.TrialBalance(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			erase("ann")
			says(map[int64]string{
				forAnn: "", voided: "", released: "", forBoth: "", since: "", releasedSince: "", behind: "",
				forBob: "for bob", ofBob: "of bob", first: "one of many 0",
			})
			erase("bob")
			says(map[int64]string{forBob: "", ofBob: "", first: "", first + mentionPage: ""})
			if after, err := s.TrialBalance(t.Context()); err != nil || after.Head != before.Head {
				t.Errorf("the ledger ends at %v, and ended at %v: %v", after.Head, before.Head, err)
			}
			if proof, err := s.Verify(t.Context()); err != nil || proof.Err() != nil {
				t.Errorf("the books: %v, %v", proof.Err(), err)
			}
		})
	}
}

// An erasure finds what holds money by an index, which a charge has no row in.
func TestWhatAnErasureGoesThroughIsFoundByItsIndex(t *testing.T) {
	t.Parallel()
	s := openDir(t, t.TempDir())
	defer func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}()
	err := s.db.Read(t.Context(), func(q sqldb.Querier) error {
		var plan []string
		err := rows(t.Context(), q, func(row scanner) error {
			var id, parent, unused int
			var step string
			err := row.Scan(&id, &parent, &unused, &step)
			plan = append(plan, step)
			return err
		}, `EXPLAIN QUERY PLAN `+mentioning, 0, 10, mentionPage)
		if err == nil && !strings.Contains(strings.Join(plan, "\n"), "transfers_said") {
			t.Errorf("it is read by %v", plan)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// While a customer is erased nothing is written that could have been decided before: an event would keep what it was told.
func TestAnErasureHasTheLedgerUntilItIsOver(t *testing.T) {
	t.Parallel()
	s, other := stopped(t)
	alone := func(key string) bool {
		t.Helper()
		s.cache.alone = true
		written, unknown := s.writeAlone(&item{command: move{key, "customer", "merchant", 10}.command(s), done: make(chan struct{})})
		if unknown {
			t.Errorf("%s: nobody can tell", key)
		}
		return written
	}
	err := other.db.Write(t.Context(), func(tx *sqldb.Tx) error {
		if err := other.erase(t.Context(), tx, "customer"); err != nil {
			return err
		}
		if alone("meanwhile") {
			t.Error("a charge was written during the erasure")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !alone("afterwards") {
		t.Error("a charge was not written after the erasure")
	}
	wantSound(t, other, 3)
}
