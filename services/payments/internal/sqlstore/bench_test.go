package sqlstore

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
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

// Where the benchmark finds its data, which stays there for the next run. Without them it uses a new directory, and the
// server of the tests.
const (
	// benchURL names the variable with the URL of a database of PostgreSQL, for a server that keeps what it commits: that
	// of the tests does not.
	benchURL = "CONCORDAT_BENCH_DATABASE_URL"
	// benchData names the variable with the data directory of SQLite.
	benchData = "CONCORDAT_BENCH_DATA"
)

// fillBatch is a batch that fills a database quickly.
const fillBatch = 4096

// BenchmarkCharges charges customers whose accounts have limits, by so many callers at once, a tenth of them with a
// key that was used just before. It reports charges a second, the 99th percentile of the time of one, and the resident
// memory of the process afterwards. `go run ./proof payments` runs it beside pgbench, and on databases that it has filled.
func BenchmarkCharges(b *testing.B) {
	for _, c := range []struct {
		engine    sqldb.Engine
		callers   int
		merchants int
		stores    int
		batch     int
	}{
		{sqldb.SQLite, 1, benchMerchants, 1, maxBatch},
		{sqldb.SQLite, 256, benchMerchants, 1, 1}, // a transaction for each
		{sqldb.SQLite, 64, benchMerchants, 1, maxBatch},
		{sqldb.SQLite, 256, benchMerchants, 1, maxBatch},
		{sqldb.SQLite, fillBatch, benchMerchants, 1, fillBatch},
		{sqldb.PostgreSQL, 1, benchMerchants, 1, maxBatch},
		{sqldb.PostgreSQL, 64, benchMerchants, 1, maxBatch},
		{sqldb.PostgreSQL, 256, benchMerchants, 1, maxBatch},
		{sqldb.PostgreSQL, 256, 1, 1, maxBatch},
		{sqldb.PostgreSQL, 256, benchMerchants, 2, maxBatch},
		{sqldb.PostgreSQL, fillBatch, benchMerchants, 1, fillBatch},
	} {
		b.Run(fmt.Sprintf("%s/callers=%d/merchants=%d/stores=%d/batch=%d", c.engine, c.callers, c.merchants, c.stores, c.batch), func(b *testing.B) {
			opts := Options{Clock: clock.System(), Random: rand.Reader, NewID: id.Generator(clock.System(), rand.Reader)}
			switch url, dir := os.Getenv(benchURL), os.Getenv(benchData); {
			case c.engine == sqldb.SQLite && dir != "":
				opts.Dir = dir
			case c.engine == sqldb.SQLite:
				opts.Dir = b.TempDir()
			case url != "":
				opts.URL = sqldb.URL(url)
			default:
				opts.URL = sqldb.URL(postgrestest.Database(b))
			}
			stores := make([]*Store, c.stores)
			for i := range stores {
				stores[i] = benchStore(b, opts)
				stores[i].writer.most = c.batch
			}
			benchAccounts(b, stores[0])
			benchCharges(b, stores, c.callers, c.merchants)
		})
	}
}

// benchStore opens a store that serves until the benchmark ends.
func benchStore(b *testing.B, opts Options) *Store {
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
	return s
}

// benchAccounts opens the accounts that are not there yet.
func benchAccounts(b *testing.B, s *Store) {
	atOnce(256, benchCustomers+benchMerchants, func(i int) {
		key := benchAccount(i)
		_, err := s.Do(b.Context(), payments.Command{Needs: payments.Needs{Accounts: []ledger.Key{key}}, Run: func(w *payments.Work) (payments.Outcome, error) {
			_, err := w.Book.Open(ledger.Account{
				ID: ledger.AccountID(s.newID()), Key: key, Limited: i < benchCustomers, Limit: 1 << 60, CreatedAt: w.Now(),
			})
			return payments.Outcome{}, err
		}})
		if err != nil && !errors.Is(err, ledger.ErrAccountExists) {
			b.Error(err)
		}
	})
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

func benchCharges(b *testing.B, stores []*Store, callers, merchants int) {
	run := stores[0].newID() // its keys are no other run's
	took := make([]time.Duration, b.N)
	b.ResetTimer()
	atOnce(callers, b.N, func(i int) {
		n := i
		if i%10 == 9 {
			n-- // the key of the one before
		}
		began := time.Now()
		if _, err := stores[i%len(stores)].Do(b.Context(), benchCharge(stores[0], run, n, merchants)); err != nil {
			b.Error(err)
		}
		took[i] = time.Since(began)
	})
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "charges/s")
	b.ReportMetric(float64(took[b.N*99/100].Microseconds())/1e3, "p99-ms")
	debug.FreeOSMemory() // what the collector has not got to yet is chance
	if text, err := os.ReadFile("/proc/self/statm"); err == nil {
		var size, resident int
		if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(resident*os.Getpagesize())/(1<<20), "resident-MiB")
	}
}

// benchCharge returns the n-th charge, as the domain makes it.
func benchCharge(s *Store, run string, n, merchants int) payments.Command {
	from, to := benchAccount(n*7919%benchCustomers), benchAccount(benchCustomers+n*31%merchants)
	p := payments.Payment{
		ID: payments.ID(s.newID()), Order: payments.OrderID(fmt.Sprint("order-", n)), Customer: payments.CustomerID(from.Owner),
		Amount: 150, Currency: "EUR",
	}
	key := fmt.Sprint(run, "-", n)
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
