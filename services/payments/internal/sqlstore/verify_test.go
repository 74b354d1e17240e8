package sqlstore

import (
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// Each row damages sound books in one way that the schema allows, and Verify must name the rule and the row.
func TestVerifyFindsWhatIsBroken(t *testing.T) {
	t.Parallel()
	const first, second = "0197b000-0001-7000-8000-000000000001", "0197b000-0002-7000-8000-000000000002"
	for name, c := range map[string]struct {
		damage string
		rule   string
		id     string
	}{
		"an entry that was added":                  {`INSERT INTO entries SELECT payment, 3, account, 1 FROM entries WHERE payment = 1 AND leg = 1`, "two entries", first},
		"an entry that is gone":                    {`DELETE FROM entries WHERE payment = 2 AND leg = 2`, "two entries", second},
		"an entry that was changed":                {`UPDATE entries SET amount = amount - 1 WHERE payment = 1 AND leg = 1`, "takes the amount", first},
		"entries that move another amount":         {`UPDATE payments SET amount = 1 WHERE seq = 2`, "gives the amount", second},
		"entries on the account of someone else":   {`UPDATE payments SET customer_id = 'x' WHERE seq = 1`, "takes the amount", first},
		"entries in another currency":              {`UPDATE payments SET currency = 'USD' WHERE seq = 1`, "gives the amount", first},
		"a balance that was changed":               {`UPDATE accounts SET balance = balance + 1 WHERE seq = 2`, "a balance is", "account-2"},
		"an account that was made up":              {`INSERT INTO accounts VALUES (9, 'account-9', 'o', 'MERCHANT', 'EUR', 5, 0)`, "a balance is", "account-9"},
		"entries without their payment":            {`DELETE FROM payments WHERE seq = 1`, "an entry has", "1"},
		"entries without their account":            {`DELETE FROM accounts WHERE seq = 1`, "an entry has", "1"},
		"a key that is gone":                       {`DELETE FROM idempotency_keys WHERE key = 'k2'`, "made with a key", second},
		"two keys for one payment":                 {`UPDATE idempotency_keys SET payment_id = '` + first + `'`, "made with a key", first},
		"a key without its payment":                {`UPDATE idempotency_keys SET payment_id = 'x' WHERE key = 'k1'`, "a key has its payment", "x"},
		"an event that is gone":                    {`DELETE FROM event_log WHERE seq = 2`, "one event", second},
		"an event that was written twice":          {`INSERT INTO event_log (at, subject, type, payload) SELECT at, subject, type, payload FROM event_log WHERE seq = 1`, "one event", first},
		"an event of a payment that is not there":  {`UPDATE event_log SET subject = 'a/b' WHERE seq = 1`, "an event is about", "1"},
		"an event of a payment of another account": {`UPDATE event_log SET subject = 'x/` + first + `' WHERE seq = 1`, "an event is about", "1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := books(t, first, second)
			if err := s.Verify(t.Context()); err != nil {
				t.Fatalf("sound books: %v", err)
			}
			damage(t, s, c.damage)
			err := s.Verify(t.Context())
			if err == nil {
				t.Fatal("nothing was found")
			}
			for line := range strings.Lines(err.Error()) {
				if strings.Contains(line, c.rule) && strings.Contains(line, `"`+c.id+`"`) {
					return
				}
			}
			t.Errorf("no line names %q and %s:\n%v", c.rule, c.id, err)
		})
	}
}

// books returns a store with two payments of one customer.
func books(t *testing.T, ids ...payments.ID) *Store {
	t.Helper()
	s := openDir(t, t.TempDir())
	t.Cleanup(func() { s.Close() })
	accounts := 0
	s.newID = func() string {
		accounts++
		return "account-" + string(rune('0'+accounts))
	}
	for i, id := range ids {
		p := payments.Payment{
			ID: id, Order: "o", Customer: "c", Amount: int64(100 + i), Currency: "EUR", State: payments.StateCaptured,
			CreatedAt: time.UnixMicro(0).UTC(),
		}
		claim := payments.Claim{Caller: "c", Method: "charge", Key: "k" + string(rune('1'+i)), Digest: sha256.Sum256([]byte(id))}
		posting := payments.Posting{Payment: p, Entries: []payments.Entry{
			{Account: payments.CustomerAccount(p.Customer, p.Currency), Amount: -p.Amount},
			{Account: payments.MerchantAccount(p.Currency), Amount: p.Amount},
		}}
		if _, err := s.Capture(t.Context(), claim, posting); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// damage runs a statement behind the back of what guards the ledger.
func damage(t *testing.T, s *Store, statement string) {
	t.Helper()
	err := s.db.Write(t.Context(), func(tx *sqldb.Tx) error {
		for _, q := range []string{
			`PRAGMA defer_foreign_keys = 1`,
			`DROP TRIGGER entries_are_not_changed`,
			`DROP TRIGGER entries_are_not_removed`,
			`CREATE TABLE unbound AS SELECT * FROM entries`,
			`DROP TABLE entries`,
			`ALTER TABLE unbound RENAME TO entries`,
			statement,
		} {
			if _, err := tx.ExecContext(t.Context(), q); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("damage: %v", err)
	}
}

func TestEntriesCannotBeChangedOrRemoved(t *testing.T) {
	t.Parallel()
	s := books(t, "0197b000-0001-7000-8000-000000000001")
	for name, statement := range map[string]string{
		"changed": `UPDATE entries SET amount = amount + 1`,
		"removed": `DELETE FROM entries`,
	} {
		err := s.db.Write(t.Context(), func(tx *sqldb.Tx) error {
			_, err := tx.ExecContext(t.Context(), statement)
			return err
		})
		if err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("an entry can be %s: %v", name, err)
		}
	}
	if err := s.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}

// A payment that could be made twice by two ids must be impossible for the database itself.
func TestAKeyCannotBeClaimedTwice(t *testing.T) {
	t.Parallel()
	s := books(t, "0197b000-0001-7000-8000-000000000001")
	err := s.db.Write(t.Context(), func(tx *sqldb.Tx) error {
		_, err := tx.ExecContext(t.Context(), `INSERT INTO idempotency_keys
			SELECT caller, method, key, digest, 'other', created_at FROM idempotency_keys`)
		return err
	})
	if !sqldb.IsUnique(err, "idempotency_keys.caller, idempotency_keys.method, idempotency_keys.key") {
		t.Errorf("claim twice: %v", err)
	}
}

func TestVerifyAsksForNoEventsThatWereTrimmed(t *testing.T) {
	t.Parallel()
	s := books(t, "0197b000-0001-7000-8000-000000000001", "0197b000-0002-7000-8000-000000000002")
	if n, err := s.log.Trim(t.Context(), 2); n != 1 || err != nil {
		t.Fatalf("trim: %d, %v", n, err)
	}
	if err := s.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}
