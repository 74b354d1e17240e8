package payments

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"

	"github.com/concordat-dev/concordat/proof/internal/figure"
	"github.com/concordat-dev/concordat/proof/internal/service"
)

// What tells the benchmark of the store which database to use, and which directory.
const (
	urlVariable  = "CONCORDAT_BENCH_DATABASE_URL"
	dataVariable = "CONCORDAT_BENCH_DATA"
)

// contestant is a benchmark of the store.
type contestant struct {
	name    string
	bench   string // its name there
	charges int    // in one turn
}

func (r *run) contestants() []contestant {
	all := []contestant{
		{"postgres, 256 callers", "postgres/callers=256/merchants=1000/stores=1/batch=512", 100_000},
		{"postgres, 64 callers", "postgres/callers=64/merchants=1000/stores=1/batch=512", 60_000},
		{"postgres, one merchant", "postgres/callers=256/merchants=1/stores=1/batch=512", 100_000},
		{"postgres, two replicas", "postgres/callers=256/merchants=1000/stores=2/batch=512", 100_000},
		{"sqlite, 256 callers", "sqlite/callers=256/merchants=1000/stores=1/batch=512", 100_000},
		{"sqlite, a transaction for each", "sqlite/callers=256/merchants=1000/stores=1/batch=1", 10_000},
	}
	for i := range all {
		all[i].charges /= r.share
	}
	return all
}

// rate is what one turn has shown.
type rate struct {
	perSecond float64
	p99       float64 // in milliseconds
	resident  float64 // memory of the process afterwards, in MiB
}

// rates are those of all rounds.
type rates []rate

func (l rates) perSecond() []float64 { return l.each(func(r rate) float64 { return r.perSecond }) }
func (l rates) p99() []float64       { return l.each(func(r rate) float64 { return r.p99 }) }
func (l rates) resident() []float64  { return l.each(func(r rate) float64 { return r.resident }) }

func (l rates) each(of func(rate) float64) []float64 {
	values := make([]float64, len(l))
	for i, r := range l {
		values[i] = of(r)
	}
	return values
}

// store measures the store and pgbench turn by turn.
func (r *run) store(ctx context.Context) ([]figure.Figure, error) {
	all := r.contestants()
	measured := make(map[string]rates)
	var tpcb []float64
	for n := range r.rounds {
		tps, err := r.pgbench(ctx, r.clients)
		if err != nil {
			return nil, err
		}
		tpcb = append(tpcb, tps)
		for i := range all { // in another order in each round
			c := all[(i+n)%len(all)]
			data := service.Data{} // a directory of its own, which goes with it
			if strings.HasPrefix(c.bench, "postgres") {
				if data.URL, err = r.server.Database(ctx); err != nil {
					return nil, err
				}
			}
			turn, err := r.charge(ctx, c, data)
			if err != nil {
				return nil, err
			}
			measured[c.name] = append(measured[c.name], turn)
		}
	}
	rows := [][]string{{"", "per second", "p99"}, {fmt.Sprintf("pgbench, %d clients", r.clients), median("%.0f", tpcb)}}
	for _, c := range all {
		rows = append(rows, []string{c.name, median("%.0f", measured[c.name].perSecond()), median("%.1f ms", measured[c.name].p99())})
	}
	r.out.Table(fmt.Sprintf("charges of the store, medians of %d rounds", r.rounds), rows)
	of := func(name string) []float64 { return measured[name].perSecond() }
	return []figure.Figure{
		perRound("payments.postgres_256_vs_pgbench", of("postgres, 256 callers"), tpcb),
		perRound("payments.postgres_64_vs_pgbench", of("postgres, 64 callers"), tpcb),
		figure.Median("payments.postgres_p99", measured["postgres, 256 callers"].p99()),
		perRound("payments.postgres_hot_vs_spread", of("postgres, one merchant"), of("postgres, 256 callers")),
		perRound("payments.postgres_two_replicas_vs_one", of("postgres, two replicas"), of("postgres, 256 callers")),
		perRound("payments.sqlite_256_vs_pgbench", of("sqlite, 256 callers"), tpcb),
		perRound("payments.sqlite_vs_transaction_each", of("sqlite, 256 callers"), of("sqlite, a transaction for each")),
	}, nil
}

// benchLine is what a benchmark prints of itself.
var benchLine = regexp.MustCompile(`(?m)^BenchmarkCharges/\S+\s+\d+\s.*?([0-9.]+) charges/s\s+([0-9.]+) p99-ms\s+([0-9.]+) resident-MiB`)

// charge gives one contestant its turn, in a process of its own.
func (r *run) charge(ctx context.Context, c contestant, data service.Data) (rate, error) {
	pattern := "^BenchmarkCharges$/^" + strings.ReplaceAll(c.bench, "/", "$/^") + "$"
	cmd := exec.CommandContext(ctx, r.binary, "-test.run=^$", "-test.timeout=0", "-test.bench="+pattern,
		fmt.Sprintf("-test.benchtime=%dx", c.charges))
	cmd.Env = append(os.Environ(), urlVariable+"="+data.URL, dataVariable+"="+data.Dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return rate{}, fmt.Errorf("%s: %w\n%s", c.name, err, out)
	}
	m := benchLine.FindSubmatch(out)
	if m == nil {
		return rate{}, fmt.Errorf("%s prints no rate:\n%s", c.name, out)
	}
	var values [3]float64
	for i := range values {
		if values[i], err = strconv.ParseFloat(string(m[1+i]), 64); err != nil {
			return rate{}, err
		}
	}
	return rate{values[0], values[1], values[2]}, nil
}
