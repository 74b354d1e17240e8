package sqlstore

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/id"
	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/kit/sqldb/postgrestest"
	"github.com/concordat-dev/concordat/services/payments/internal/ledger"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

const (
	benchCustomers = 10_000
	benchMerchants = 1_000
)

// BenchmarkCharges charges customers whose accounts have limits, by so many callers at once, a tenth of them with a key that was used
// just before. It reports charges a second and the 99th percentile of the time of one.
func BenchmarkCharges(b *testing.B) {
	for _, engine := range []sqldb.Engine{sqldb.SQLite, sqldb.PostgreSQL} {
		for _, callers := range []int{1, 64, 256} {
			for _, merchants := range []int{1, benchMerchants} {
				b.Run(fmt.Sprintf("%s/callers=%d/merchants=%d", engine, callers, merchants), func(b *testing.B) {
					s := benchStore(b, engine)
					benchCharges(b, s, callers, merchants)
				})
			}
		}
	}
}

func benchStore(b *testing.B, engine sqldb.Engine) *Store {
	opts := Options{Clock: clock.System(), Random: rand.Reader, NewID: id.Generator(clock.System(), rand.Reader)}
	if engine == sqldb.PostgreSQL {
		opts.URL = sqldb.URL(postgrestest.Database(b))
	} else {
		opts.Dir = b.TempDir()
	}
	s, err := Open(b.Context(), opts)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		<-ended
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	atOnce(256, benchCustomers+benchMerchants, func(i int) {
		key := benchAccount(i)
		_, err := s.Do(b.Context(), payments.Command{Needs: payments.Needs{Accounts: []ledger.Key{key}}, Run: func(w *payments.Work) (payments.Outcome, error) {
			_, err := w.Book.Open(ledger.Account{
				ID: ledger.AccountID(s.newID()), Key: key, Limited: i < benchCustomers, Limit: 1 << 60, CreatedAt: w.Now(),
			})
			return payments.Outcome{}, err
		}})
		if err != nil {
			b.Error(err)
		}
	})
	return s
}

func benchAccount(i int) ledger.Key {
	if i < benchCustomers {
		return payments.CustomerAccount(payments.CustomerID(fmt.Sprintf("0197a000-0000-7000-8000-%012x", i)), "EUR")
	}
	return ledger.Key{Owner: fmt.Sprint("merchant-", i-benchCustomers), Kind: ledger.Merchant, Currency: "EUR"}
}

// atOnce calls f with 0 to n-1, by so many goroutines.
func atOnce(callers, n int, f func(i int)) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				f(i)
			}
		})
	}
	all.Wait()
}

func benchCharges(b *testing.B, s *Store, callers, merchants int) {
	took := make([]time.Duration, b.N)
	b.ResetTimer()
	atOnce(callers, b.N, func(i int) {
		n := i
		if i%10 == 9 {
			n-- // the key of the one before
		}
		began := time.Now()
		if _, err := s.Do(b.Context(), benchCharge(s, n, merchants)); err != nil {
			b.Error(err)
		}
		took[i] = time.Since(began)
	})
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "charges/s")
	b.ReportMetric(float64(took[b.N*99/100].Microseconds())/1e3, "p99-ms")
}

// benchCharge returns the n-th charge, as the domain makes it.
func benchCharge(s *Store, n, merchants int) payments.Command {
	from, to := benchAccount(n*7919%benchCustomers), benchAccount(benchCustomers+n*31%merchants)
	p := payments.Payment{
		ID: payments.ID(s.newID()), Order: payments.OrderID(fmt.Sprint("order-", n)), Customer: payments.CustomerID(from.Owner),
		Amount: 150, Currency: "EUR",
	}
	key := fmt.Sprintf("key-%d-%d", n, merchants)
	return payments.Command{
		Claim: payments.Claim{
			Key: payments.Key{Caller: "service:orders", Method: "charge", Key: key}, Digest: sha256.Sum256([]byte(key)),
		},
		Needs: payments.Needs{Accounts: []ledger.Key{from, to}},
		Run: func(w *payments.Work) (payments.Outcome, error) {
			legs := []ledger.Leg{{Account: w.Account(from).Number, Amount: -150}, {Account: w.Account(to).Number, Amount: 150}}
			if _, err := w.Book.Move(legs, ledger.Note{Reference: string(p.ID), At: w.Now()}); err != nil {
				return payments.Outcome{}, err
			}
			p := p
			p.State, p.Captured = payments.StateCaptured, 150
			return payments.Outcome{Payment: w.Put(p, payments.TransactionCharged, 150)}, nil
		},
	}
}
