package sqlstore

import (
	"crypto/sha256"
	"database/sql"
	"fmt"
	"slices"
	"testing"

	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// An event is found by its subject to erase what is personal in it. What has nothing of that is not in the index, and
// reaches who watches the customer all the same.
func TestOnlyEventsWithMetadataHaveASubject(t *testing.T) {
	t.Parallel()
	for _, engine := range []sqldb.Engine{sqldb.SQLite, sqldb.PostgreSQL} {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			s := books(t, engine)
			const ann, bob = "0199a3c0-0000-7000-8000-00000000000a", "0199a3c0-0000-7000-8000-00000000000b"
			feeds := make(map[payments.CustomerID]payments.Feed)
			for _, customer := range []payments.CustomerID{ann, bob, ""} {
				feed, err := s.Watch(t.Context(), customer, "")
				if err != nil {
					t.Fatal(err)
				}
				defer feed.Close()
				feeds[customer] = feed
			}
			want := make(map[payments.CustomerID][]payments.ID)
			for i := range 6 {
				p := payments.Payment{
					ID: payments.ID(fmt.Sprint("made-", i)), Order: "o", Customer: ann, Amount: 150, Currency: "EUR", State: payments.StateFailed,
					Decline: payments.InsufficientFunds,
				}
				if i%2 == 1 {
					p.Customer = bob
				}
				if i < 2 {
					p.Metadata = map[string]string{"note": `{"customer":"` + ann + `",`}
				}
				key := string(p.ID)
				_, err := s.Do(t.Context(), payments.Command{
					Claim: payments.Claim{Key: payments.Key{Caller: "c", Method: "m", Key: key}, Digest: sha256.Sum256([]byte(key))},
					Run: func(w *payments.Work) (payments.Outcome, error) {
						return payments.Outcome{Payment: w.Put(p, payments.TransactionFailed, p.Amount)}, nil
					},
				})
				if err != nil {
					t.Fatal(err)
				}
				want[p.Customer], want[""] = append(want[p.Customer], p.ID), append(want[""], p.ID)
			}
			for customer, feed := range feeds {
				var got []payments.ID
				for range want[customer] {
					told, _, err := feed.Next(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, told.Payment.ID)
				}
				if !slices.Equal(got, want[customer]) {
					t.Errorf("customer %q is told of %v, not %v", customer, got, want[customer])
				}
			}
			var with, without sql.NullInt64
			err := s.db.ReadOne(t.Context(), func(q sqldb.Querier) error {
				return q.QueryRowContext(t.Context(), `SELECT count(CASE WHEN subject <> $1 THEN 1 END), count(CASE WHEN subject = $1 THEN 1 END)
					FROM event_log WHERE seq > (SELECT max(seq) - 6 FROM event_log)`, engine.Pick("", "\\x")).Scan(&with, &without)
			})
			if err != nil || with.Int64 != 2 || without.Int64 != 4 {
				t.Errorf("%d with a subject and %d without, want 2 and 4: %v", with.Int64, without.Int64, err)
			}
		})
	}
}
