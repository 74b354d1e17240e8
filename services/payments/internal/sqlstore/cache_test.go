package sqlstore

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"

	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/kit/sqldb/postgrestest"
	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// move is an amount that goes from a customer, who has 1,000, to a merchant. Accounts are opened where there are none.
type move struct {
	key, from, to string
	amount        int64
}

func till(t *testing.T, s *Store, key string, from, to string, amount int64) error {
	t.Helper()
	_, err := s.Do(t.Context(), move{key, from, to, amount}.command(s))
	return err
}

// command is the move as the store gets it.
func (m move) command(s *Store) payments.Command {
	keys := []ledger.Key{{Owner: m.from, Kind: ledger.Customer, Currency: "EUR"}, {Owner: m.to, Kind: ledger.Merchant, Currency: "EUR"}}
	return payments.Command{
		Claim: payments.Claim{Key: payments.Key{Caller: "c", Method: "m", Key: m.key}, Digest: sha256.Sum256([]byte(m.key))},
		Needs: payments.Needs{Accounts: keys},
		Run: func(w *payments.Work) (payments.Outcome, error) {
			legs := make([]ledger.Leg, len(keys))
			for i, k := range keys {
				a := w.Book.Account(k)
				if a == nil {
					var err error
					if a, err = w.Book.Open(ledger.Account{
						ID: ledger.AccountID(s.newID()), Key: k, Limited: i == 0, Limit: 1000, CreatedAt: w.Now(),
					}); err != nil {
						return payments.Outcome{}, err
					}
				}
				legs[i] = ledger.Leg{Account: a.Number, Amount: m.amount * int64(2*i-1)}
			}
			if _, err := w.Book.Move(legs, ledger.Note{Reference: m.key, At: w.Now()}); err != nil {
				return payments.Outcome{}, err
			}
			p := payments.Payment{
				ID: payments.ID(m.key), Order: "o", Customer: payments.CustomerID(m.from), Amount: m.amount, Captured: m.amount, Currency: "EUR",
				State: payments.StateCaptured, CreatedAt: w.Now(),
			}
			return payments.Outcome{Payment: w.Put(p, payments.TransactionCharged, m.amount)}, nil
		},
	}
}

func wantSound(t *testing.T, s *Store, transfers int64) {
	t.Helper()
	proof, err := s.Verify(t.Context())
	if err := errors.Join(err, proof.Err()); err != nil || proof.Transfers != transfers {
		t.Errorf("%d transfers, want %d: %v", proof.Transfers, transfers, err)
	}
}

// replicas opens two stores of one database, and closes them after the test.
func replicas(t *testing.T) (a, b *Store) {
	t.Helper()
	url := sqldb.URL(postgrestest.Database(t))
	a, b = openWith(t, Options{URL: url}), openWith(t, Options{URL: url})
	t.Cleanup(func() {
		if err := errors.Join(a.Close(), b.Close()); err != nil {
			t.Error(err)
		}
	})
	return a, b
}

func TestReplicasKnowWhatTheOthersHaveMoved(t *testing.T) {
	t.Parallel()
	a, b := replicas(t)
	moved := int64(0)
	for i := range 60 { // by turns, and now and then some in a row
		s := a
		if i%3 == 1 || i%10 > 6 {
			s = b
		}
		if err := till(t, s, fmt.Sprint(i), fmt.Sprint("customer-", i%2), "merchant", 10); err != nil {
			t.Fatal(err)
		}
		moved++
	}
	wantSound(t, a, moved)
	// Each has 300 of 1,000, by either: 700 are left.
	if err := till(t, b, "most", "customer-0", "merchant", 700); err != nil {
		t.Fatal(err)
	}
	if err := till(t, a, "more", "customer-0", "merchant", 1); !errors.Is(err, ledger.ErrOverdrawn) {
		t.Errorf("more than there is: %v", err)
	}
	wantSound(t, b, moved+1)
}

func TestAReplicaForgetsWhatAFailoverHasLost(t *testing.T) {
	t.Parallel()
	for _, others := range []int{0, 1, 2} { // transfers after it: then there are fewer than the replica knows, as many, or more
		t.Run(fmt.Sprint(others), func(t *testing.T) {
			t.Parallel()
			a, b := replicas(t)
			for i := range 3 {
				if err := till(t, a, fmt.Sprint(i), "customer", "merchant", 10); err != nil {
					t.Fatal(err)
				}
			}
			// The server that takes over has not seen the third.
			damage(t, b, `DELETE FROM transfers WHERE number = 3`)
			err := b.db.Write(t.Context(), func(tx *sqldb.Tx) error {
				for _, q := range []string{
					`DELETE FROM entries WHERE transfer = 3`, `DELETE FROM payments WHERE number = 3`,
					`DELETE FROM event_log WHERE seq = 3`, `DELETE FROM idempotency_keys WHERE payment = 3`,
					`UPDATE head SET payments = 2, transfers = 2, version = version - 1, hash = (SELECT hash FROM transfers WHERE number = 2)`,
				} {
					if _, err := tx.ExecContext(t.Context(), q); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for i := range others {
				from, to := "customer", "merchant"
				if i > 0 { // what comes after the last that the replica knows says nothing of the accounts that it knows
					from, to = "another", "shop"
				}
				if err := till(t, b, fmt.Sprint("b", i), from, to, 100); err != nil {
					t.Fatal(err)
				}
			}
			if err := till(t, a, "a", "customer", "merchant", 1); err != nil {
				t.Fatal(err)
			}
			wantSound(t, a, int64(3+others))
		})
	}
}

func TestAReplicaForgetsAnAccountThatAFailoverHasLost(t *testing.T) {
	t.Parallel()
	a, b := replicas(t)
	for i := range 2 {
		if err := till(t, a, fmt.Sprint(i), "customer", "merchant", 10); err != nil {
			t.Fatal(err)
		}
	}
	open := func(s *Store, owner string) {
		t.Helper()
		key := ledger.Key{Owner: owner, Kind: ledger.Customer, Currency: "EUR"}
		_, err := s.Do(t.Context(), payments.Command{
			Claim: payments.Claim{Key: payments.Key{Caller: "c", Method: "open", Key: owner}},
			Needs: payments.Needs{Accounts: []ledger.Key{key}},
			Run: func(w *payments.Work) (payments.Outcome, error) {
				opened, err := w.Book.Open(ledger.Account{ID: ledger.AccountID(s.newID()), Key: key, Limited: true, Limit: 1000, CreatedAt: w.Now()})
				if err != nil {
					return payments.Outcome{}, err
				}
				return payments.Outcome{Account: *opened}, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	open(a, "lost")
	// The server that takes over has not seen it opened, and gives its number to another.
	err := b.db.Write(t.Context(), func(tx *sqldb.Tx) error {
		for _, q := range []string{
			`DELETE FROM idempotency_keys WHERE payment IS NULL`, `DELETE FROM accounts WHERE number = 3`,
			`UPDATE head SET accounts = 2, version = version - 1`,
		} {
			if _, err := tx.ExecContext(t.Context(), q); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	open(b, "stranger")
	if err := till(t, a, "after", "lost", "merchant", 100); err != nil {
		t.Fatal(err)
	}
	wantSound(t, b, 3)
	found, err := b.Accounts(t.Context(), "stranger", 0, 10)
	if err != nil || len(found) != 1 || found[0].Balance != 0 {
		t.Errorf("the stranger has %+v, %v", found, err)
	}
}

func TestWhatWasFollowedInPartIsForgotten(t *testing.T) {
	t.Parallel()
	a, b := replicas(t)
	for i := range 4 {
		s := a
		if i > 1 {
			s = b
		}
		if err := till(t, s, fmt.Sprint(i), "customer", "merchant", 10); err != nil {
			t.Fatal(err)
		}
	}
	a.writer.close()                                                       // so that the test may do what the writer does
	damage(t, b, `UPDATE transfers SET content = '\x00' WHERE number = 4`) // as where the connection ends there
	known := a.cache.head
	err := a.db.Write(t.Context(), func(tx *sqldb.Tx) error {
		_, err := a.load(t.Context(), tx, nil)
		return err
	})
	if err == nil {
		t.Fatal("what cannot be read was followed")
	}
	if a.cache.head != known || len(a.cache.byKey) > 0 || len(a.cache.byNumber) > 0 {
		t.Errorf("%d accounts are remembered at %+v", len(a.cache.byKey), a.cache.head)
	}
}

// What callers wrote on an account may be personal, and must not outlive an erasure in memory.
func TestWhatCallersWroteOnAnAccountIsNotRemembered(t *testing.T) {
	t.Parallel()
	s, _ := replicas(t)
	key := ledger.Key{Owner: "customer", Kind: ledger.Customer, Currency: "EUR"}
	_, err := s.Do(t.Context(), payments.Command{
		Claim: payments.Claim{Key: payments.Key{Caller: "c", Method: "open", Key: "k"}},
		Needs: payments.Needs{Accounts: []ledger.Key{key}},
		Run: func(w *payments.Work) (payments.Outcome, error) {
			opened, err := w.Book.Open(ledger.Account{
				ID: ledger.AccountID(s.newID()), Key: key, Metadata: map[string]string{"name": "Ann"}, CreatedAt: w.Now(),
			})
			if err != nil {
				return payments.Outcome{}, err
			}
			return payments.Outcome{Account: *opened}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.writer.close() // so that the test may look at what the writer has
	if kept := s.cache.byKey[key]; kept == nil || kept.Metadata != nil {
		t.Errorf("remembered is %+v", kept)
	}
	if found, err := s.Accounts(t.Context(), "customer", 0, 1); err != nil || len(found) != 1 || found[0].Metadata["name"] != "Ann" {
		t.Errorf("written is %+v, %v", found, err)
	}
}
