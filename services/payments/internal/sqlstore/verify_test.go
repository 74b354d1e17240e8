package sqlstore

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/kit/sqldb/postgrestest"
	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
	"github.com/concordat-dev/concordat/services/payments/internal/simulator"
)

// Each row damages sound books in one way that the schema allows, and Verify must name the rule and the row.
func TestVerifyFindsWhatIsBroken(t *testing.T) {
	t.Parallel()
	for _, engine := range []sqldb.Engine{sqldb.SQLite, sqldb.PostgreSQL} {
		for name, c := range map[string]struct {
			damage string
			rule   string
			row    string // where it can be told; "" for any
		}{
			"a transfer that says another thing":      {`UPDATE transfers SET payment_id = 'p-2' WHERE number = 1`, "chain", "1"},
			"a hash that is another one":              {`UPDATE transfers SET hash = (SELECT hash FROM transfers WHERE number = 1) WHERE number = 3`, "chain", "3"},
			"a transfer that is gone":                 {`DELETE FROM transfers WHERE number = 2`, "chain", "3"},
			"the last transfer is gone":               {`DELETE FROM transfers WHERE number = 6`, "head", "transfers"},
			"a head of another history":               {`UPDATE head SET hash = (SELECT hash FROM transfers WHERE number = 1)`, "chain", "head"},
			"a time that was changed":                 {`UPDATE transfers SET at = at - 1 WHERE number = 4`, "chain", "4"},
			"an entry that was changed":               {`UPDATE entries SET amount = amount - 1 WHERE transfer = 1 AND amount < 0`, "entries by account", "1"},
			"an entry that is gone":                   {`DELETE FROM entries WHERE transfer = 1 AND amount < 0`, "entries by account", "1"},
			"an entry that was added":                 {`INSERT INTO entries SELECT account, 99, 0, 0, balance_after, held_after FROM entries WHERE transfer = 1`, "its transfer", "99"},
			"a balance that was changed":              {`UPDATE entries SET balance_after = balance_after + 1 WHERE account = 2 AND transfer = (SELECT max(transfer) FROM entries WHERE account = 2)`, "sum of the entries", ""},
			"a hold that was changed":                 {`UPDATE entries SET held_after = held_after + 1 WHERE account = 1 AND transfer = (SELECT max(transfer) FROM entries WHERE account = 1)`, "sum of the entries", ""},
			"an account that was made up":             {`INSERT INTO accounts SELECT 9, 'account-9', 'o', kind, currency, overdraft, metadata, created_at FROM accounts WHERE number = 1`, "end of what is numbered", "accounts"},
			"an account that is gone":                 {`DELETE FROM accounts WHERE number = 1`, "its account", ""},
			"what is left of a hold that was changed": {`UPDATE pending SET remaining = remaining - 1 WHERE remaining > 1`, "what is left", ""},
			"a hold that is forgotten":                {`DELETE FROM pending WHERE remaining > 0`, "pending transfer", ""},
			"a payment of another amount":             {`UPDATE payments SET captured = captured - 1 WHERE payment_id = 'p-1'`, "amounts are those", "p-1"},
			"a payment of someone else":               {`UPDATE payments SET customer_id = 'x' WHERE payment_id = 'p-1'`, "amounts are those", "p-1"},
			"a payment in another currency":           {`UPDATE payments SET currency = 'USD' WHERE payment_id = 'p-1'`, "amounts are those", "p-1"},
			"a state that does not follow":            {`UPDATE payments SET state = 'REFUNDED' WHERE payment_id = 'p-1'`, "state is that", "p-1"},
			"a decline of what was paid":              {`UPDATE payments SET decline = 'DECLINED' WHERE payment_id = 'p-1'`, "state is that", "p-1"},
			"a payment that is busy for nobody":       {`UPDATE payments SET busy = 1 WHERE payment_id = 'p-1'`, "busy", "p-1"},
			"a payment that is gone":                  {`DELETE FROM payments WHERE payment_id = 'p-1'`, "transfer of a payment has its payment", "1"},
			"a key without its payment":               {`UPDATE idempotency_keys SET payment = 99 WHERE payment = 1`, "key has its payment", "99"},
			"events that are gone":                    {`DELETE FROM event_log WHERE seq = 1`, "has an event", "p-1"},
			"an event of a payment that is not there": {`UPDATE event_log SET payload = REPLACED WHERE seq = 1`, "event is about", "1"},
		} {
			t.Run(string(engine)+"/"+name, func(t *testing.T) {
				t.Parallel()
				s := books(t, engine)
				if proof, err := s.Verify(t.Context()); err != nil || proof.Err() != nil || proof.Transfers != 6 {
					t.Fatalf("sound books: %+v, %v", proof, err)
				}
				damage(t, s, strings.Replace(c.damage, "REPLACED", engine.Pick(
					`CAST(replace(CAST(payload AS TEXT), 'p-1', 'p-9') AS BLOB)`, `convert_to(replace(convert_from(payload, 'UTF8'), 'p-1', 'p-9'), 'UTF8')`), 1))
				proof, err := s.Verify(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range proof.Findings {
					if strings.Contains(f.Rule, c.rule) && (c.row == "" || c.row == f.Row) {
						return
					}
				}
				t.Errorf("none names %q and %q: %+v", c.rule, c.row, proof.Findings)
			})
		}
	}
}

// directory knows every customer.
type directory struct{}

func (directory) Get(_ context.Context, id payments.CustomerID) (payments.Customer, error) {
	return payments.Customer{ID: id, Active: true, Role: payments.RoleMember}, nil
}

func openEngine(t *testing.T, engine sqldb.Engine) *Store {
	t.Helper()
	if engine == sqldb.PostgreSQL {
		return openWith(t, Options{URL: sqldb.URL(postgrestest.Database(t))})
	}
	return openDir(t, t.TempDir())
}

// books returns a store with six transfers of four payments: one charged and given back in part, one held and captured
// in part, one declined, and one held.
func books(t *testing.T, engine sqldb.Engine) *Store {
	t.Helper()
	s := openEngine(t, engine)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
		s.Close()
	})
	made := 0
	service, err := payments.NewService(payments.Deps{
		Store: s, Customers: directory{}, Processor: simulator.New(clock.System()), Clock: clock.System(), AuthorizationExpiry: time.Hour,
		NewID: func() string { made++; return fmt.Sprint("p-", made) },
	})
	if err != nil {
		t.Fatal(err)
	}
	must := func(o payments.Outcome, err error) payments.Payment {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return o.Payment
	}
	charge := payments.Charge{Order: "o", Customer: "c", Amount: 100, Currency: "EUR", Metadata: map[string]string{"k": "v"}}
	paid := must(service.Charge(t.Context(), "caller", "1", charge))
	must(service.Refund(t.Context(), "caller", "r", payments.Everyone(), paid.ID, 30))
	charge.AuthorizeOnly = true
	held := must(service.Charge(t.Context(), "caller", "2", charge))
	must(service.Capture(t.Context(), "caller", "c", payments.Everyone(), held.ID, 40, true))
	charge.Token = simulator.Declined
	must(service.Charge(t.Context(), "caller", "3", charge))
	charge.Token = ""
	must(service.Charge(t.Context(), "caller", "4", charge))
	// On PostgreSQL events get their numbers a moment later.
	numbered := false
	for end := time.Now().Add(10 * time.Second); !numbered && time.Now().Before(end); {
		var n int
		err := s.db.ReadOne(t.Context(), func(q sqldb.Querier) error {
			return q.QueryRowContext(t.Context(), `SELECT count(*) FROM event_log`).Scan(&n)
		})
		if err != nil {
			t.Fatal(err)
		}
		numbered = n == 6
	}
	if !numbered {
		t.Fatal("the events have no numbers")
	}
	return s
}

// damage runs a statement behind the back of what guards the ledger.
func damage(t *testing.T, s *Store, statement string) {
	t.Helper()
	on := s.db.Engine().Pick("", " ON transfers")
	err := s.db.Write(t.Context(), func(tx *sqldb.Tx) error {
		for _, q := range []string{
			`DROP TRIGGER transfers_are_not_changed` + on, `DROP TRIGGER transfers_are_not_removed` + on, statement,
		} {
			if _, err := tx.ExecContext(t.Context(), q); err != nil {
				return fmt.Errorf("%s: %w", q, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("damage: %v", err)
	}
}

func TestTransfersCannotBeChangedOrRemoved(t *testing.T) {
	t.Parallel()
	for _, engine := range []sqldb.Engine{sqldb.SQLite, sqldb.PostgreSQL} {
		s := books(t, engine)
		for name, statement := range map[string]string{
			"changed": `UPDATE transfers SET at = at + 1`,
			"removed": `DELETE FROM transfers`,
		} {
			err := s.db.Write(t.Context(), func(tx *sqldb.Tx) error {
				_, err := tx.ExecContext(t.Context(), statement)
				return err
			})
			if err == nil || !strings.Contains(err.Error(), "append-only") {
				t.Errorf("%s: a transfer can be %s: %v", engine, name, err)
			}
		}
	}
}

func TestVerifyAsksForNoEventsThatWereTrimmed(t *testing.T) {
	t.Parallel()
	s := books(t, sqldb.SQLite)
	if n, err := s.log.Trim(t.Context(), 3); n != 2 || err != nil {
		t.Fatalf("trim: %d, %v", n, err)
	}
	if proof, err := s.Verify(t.Context()); err != nil || proof.Err() != nil {
		t.Errorf("%+v, %v", proof, err)
	}
}

// What a customer's payments carry that is personal goes, also from the events; the books, and the keys with their
// outcomes, stay.
func TestAnErasureLeavesTheBooks(t *testing.T) {
	t.Parallel()
	for _, engine := range []sqldb.Engine{sqldb.SQLite, sqldb.PostgreSQL} {
		s := books(t, engine)
		other := payments.CustomerID("other")
		for _, customer := range []payments.CustomerID{"c", other} {
			key := payments.Key{Caller: "x", Method: "open", Key: string(customer)}
			account := ledger.Key{Owner: string(customer), Kind: ledger.General, Currency: "EUR"}
			_, err := s.Do(t.Context(), payments.Command{
				Claim: payments.Claim{Key: key, Digest: sha256.Sum256(nil)}, Needs: payments.Needs{Accounts: []ledger.Key{account}},
				Run: func(w *payments.Work) (payments.Outcome, error) {
					a, err := w.Book.Open(ledger.Account{
						ID: ledger.AccountID("a-" + customer), Key: account, Metadata: map[string]string{"name": "secret-" + string(customer)}, CreatedAt: w.Now(),
					})
					return payments.Outcome{Account: *a}, err
				},
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		move := func(key string, from, to ledger.AccountID, hold bool) {
			t.Helper()
			_, err := s.Do(t.Context(), payments.Command{
				Claim: payments.Claim{Key: payments.Key{Caller: "x", Method: "transfer", Key: key}},
				Needs: payments.Needs{IDs: []ledger.AccountID{from, to}},
				Run: func(w *payments.Work) (payments.Outcome, error) {
					legs := []ledger.Leg{{Account: w.Book.AccountByID(from).Number, Amount: -5}, {Account: w.Book.AccountByID(to).Number, Amount: 5}}
					note := ledger.Note{Metadata: map[string]string{"why": key}, At: w.Now()}
					if !hold {
						_, err := w.Book.Move(legs, note)
						return payments.Outcome{}, err
					}
					held, err := w.Book.Hold(legs, time.Time{}, note)
					if err == nil {
						_, err = w.Book.Post(held.Number, 0, note)
					}
					return payments.Outcome{}, err
				},
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		var others []ledger.AccountID
		for _, name := range []string{"fees", "bank"} {
			account := ledger.Key{Owner: name, Kind: ledger.General, Currency: "EUR"}
			_, err := s.Do(t.Context(), payments.Command{
				Claim: payments.Claim{Key: payments.Key{Caller: "x", Method: "open", Key: name}}, Needs: payments.Needs{Accounts: []ledger.Key{account}},
				Run: func(w *payments.Work) (payments.Outcome, error) {
					_, err := w.Book.Open(ledger.Account{ID: ledger.AccountID(name), Key: account, CreatedAt: w.Now()})
					return payments.Outcome{}, err
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			others = append(others, ledger.AccountID(name))
		}
		move("personal", "a-c", others[0], false)    // 7
		move("personal too", others[0], "a-c", true) // 8, 9
		move("of another", "a-other", others[0], false)
		move("of nobody", others[0], others[1], true)
		if page, err := s.customers(t.Context(), ""); err != nil || len(page) != 1 || page[0] != "c" {
			t.Errorf("%s: the customers are %v, %v", engine, page, err)
		}
		if err := s.db.Write(t.Context(), func(tx *sqldb.Tx) error { return s.erase(t.Context(), tx, "c") }); err != nil {
			t.Fatal(err)
		}
		if page, err := s.customers(t.Context(), "c"); err != nil || len(page) != 0 {
			t.Errorf("%s: the customers after the last are %v, %v", engine, page, err)
		}
		for number, want := range map[int64]string{7: "", 8: "", 9: "", 10: "of another", 11: "of nobody", 12: "of nobody"} {
			if got, _, err := s.Transfer(t.Context(), number); err != nil || got.Metadata["why"] != want {
				t.Errorf("%s: transfer %d says %v, %v", engine, number, got.Metadata, err)
			}
		}
		all, err := s.Payments(t.Context(), payments.Query{Limit: 10})
		if err != nil || len(all) != 4 {
			t.Fatalf("%s: %v, %v", engine, all, err)
		}
		for _, p := range all {
			if p.Metadata != nil || p.Order == "" {
				t.Errorf("%s: %+v", engine, p)
			}
		}
		accounts, err := s.Accounts(t.Context(), "", 0, 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range accounts {
			if a.Owner == "c" && a.Metadata != nil || a.Owner == string(other) && a.Metadata["name"] != "secret-other" {
				t.Errorf("%s: %+v", engine, a)
			}
		}
		var personal int
		err = s.db.ReadOne(t.Context(), func(q sqldb.Querier) error {
			return q.QueryRowContext(t.Context(), engine.Pick(`SELECT count(*) FROM event_log WHERE payload LIKE '%"k":"v"%'`,
				`SELECT count(*) FROM event_log WHERE convert_from(payload, 'UTF8') LIKE '%"k":"v"%'`)).Scan(&personal)
		})
		if err != nil || personal != 0 {
			t.Errorf("%s: %d events have it still, %v", engine, personal, err)
		}
		if proof, err := s.Verify(t.Context()); err != nil || proof.Err() != nil {
			t.Errorf("%s: %+v, %v", engine, proof, err)
		}
	}
}

// Two processes on one PostgreSQL: of equal charges one is made, whoever is asked, and the ledger is one.
func TestTwoStoresOnOneDatabaseAreOneLedger(t *testing.T) {
	t.Parallel()
	one, other := replicas(t)
	stores := []*Store{one, other}
	const calls = 1000
	fresh := make(chan payments.ID, calls)
	atOnce(calls, calls, func(i int) {
		s := stores[i%2]
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		command := benchCharge(s, "equal", i%10, 1) // ten charges, a hundred times each
		o, err := s.Do(ctx, command)
		if err != nil {
			t.Error(err)
		}
		if !o.Replayed {
			fresh <- o.Payment.ID
		}
	})
	if len(fresh) != 10 {
		t.Errorf("%d charges were made, want 10", len(fresh))
	}
	for _, s := range stores {
		if proof, err := s.Verify(t.Context()); err != nil || proof.Err() != nil || proof.Transfers != 10 {
			t.Errorf("%+v, %v", proof, err)
		}
	}
}
