// Package payments measures the store of payments beside pgbench: charges a second, by group commit on both engines, with a tenth of the
// keys used twice, limits of accounts held, and every transfer bound to the one before by its hash.
package payments

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/concordat-dev/concordat/proof/internal/figure"
	"github.com/concordat-dev/concordat/proof/internal/postgres"
)

// Options say how much is measured.
type Options struct {
	// Root is the repository.
	Root string
	// Quick measures just enough to see that everything works.
	Quick bool
	// Detail gets what stands behind the figures.
	Detail io.Writer
}

// settings are those of PostgreSQL that differ from what the harnesses' server has by itself, for pgbench as for the store. What decides
// on durability is as it is.
var settings = []string{"shared_buffers=512MB", "max_wal_size=4GB"}

// benchVariable tells the benchmark which database to use.
const benchVariable = "CONCORDAT_BENCH_DATABASE_URL"

// contestant is a benchmark of the store, by its name there.
type contestant struct {
	name    string
	bench   string
	charges int // in one turn
}

func contestants(quick bool) []contestant {
	all := []contestant{
		{"postgres, 256 callers", "postgres/callers=256/merchants=1000/stores=1/", 100_000},
		{"postgres, 64 callers", "postgres/callers=64/merchants=1000/stores=1/", 60_000},
		{"postgres, one merchant", "postgres/callers=256/merchants=1/stores=1/", 100_000},
		{"postgres, two replicas", "postgres/callers=256/merchants=1000/stores=2/", 100_000},
		{"sqlite, 256 callers", "sqlite/callers=256/merchants=1000/stores=1/batch=512", 100_000},
		{"sqlite, a transaction for each", "sqlite/callers=256/merchants=1000/stores=1/batch=1$", 10_000},
	}
	if quick {
		for i := range all {
			all[i].charges /= 20
		}
	}
	return all
}

// rate is what one turn has shown.
type rate struct {
	perSecond float64
	p99       float64 // in milliseconds
}

// run is one run of the harness.
type run struct {
	opts   Options
	out    *figure.Detail
	server *postgres.Server
	binary string // the benchmarks of the store
	bench  string // the database of pgbench
}

// Measure returns all figures of the area.
func Measure(ctx context.Context, opts Options) (figures []figure.Figure, err error) {
	r := &run{opts: opts, out: figure.NewDetail(opts.Detail)}
	dir, err := os.MkdirTemp("", "proof-payments")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r.binary = filepath.Join(dir, "store.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-o", r.binary, "./services/payments/internal/sqlstore")
	build.Dir = opts.Root
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the benchmarks of the store: %w\n%s", err, out)
	}
	if r.server, err = postgres.Start(ctx, settings...); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.server.Close()) }()
	return r.store(ctx)
}

// store measures the store and pgbench turn by turn.
func (r *run) store(ctx context.Context) ([]figure.Figure, error) {
	clients, err := r.prepare(ctx)
	if err != nil {
		return nil, err
	}
	rounds := 5
	if r.opts.Quick {
		rounds = 1
	}
	all := contestants(r.opts.Quick)
	rates := make(map[string][]rate)
	var tpcb []float64
	for n := range rounds {
		order := slices.Clone(all)
		for i := range order { // another order in each round
			order[i] = all[(i+n)%len(all)]
		}
		tps, err := r.pgbench(ctx, clients)
		if err != nil {
			return nil, err
		}
		tpcb = append(tpcb, tps)
		for _, c := range order {
			measured, err := r.charge(ctx, c)
			if err != nil {
				return nil, err
			}
			rates[c.name] = append(rates[c.name], measured)
		}
	}
	r.show(clients, tpcb, all, rates)
	ratio := func(name string, a func(i int) float64, b func(i int) float64) figure.Figure {
		values := make([]float64, rounds)
		for i := range values {
			values[i] = a(i) / b(i)
		}
		return figure.Median(name, values)
	}
	of := func(name string) func(int) float64 { return func(i int) float64 { return rates[name][i].perSecond } }
	bench := func(i int) float64 { return tpcb[i] }
	p99 := make([]float64, rounds)
	for i, m := range rates["postgres, 256 callers"] {
		p99[i] = m.p99
	}
	return []figure.Figure{
		ratio("payments.postgres_256_vs_pgbench", of("postgres, 256 callers"), bench),
		ratio("payments.postgres_64_vs_pgbench", of("postgres, 64 callers"), bench),
		figure.Median("payments.postgres_p99", p99),
		ratio("payments.postgres_hot_vs_spread", of("postgres, one merchant"), of("postgres, 256 callers")),
		ratio("payments.postgres_two_replicas_vs_one", of("postgres, two replicas"), of("postgres, 256 callers")),
		ratio("payments.sqlite_256_vs_pgbench", of("sqlite, 256 callers"), bench),
		ratio("payments.sqlite_vs_transaction_each", of("sqlite, 256 callers"), of("sqlite, a transaction for each")),
	}, nil
}

// prepare fills the database of pgbench, and returns with how many clients it is best.
func (r *run) prepare(ctx context.Context) (int, error) {
	url, err := r.server.Database(ctx)
	if err != nil {
		return 0, err
	}
	r.bench = url[strings.LastIndex(url, "/")+1:]
	r.bench, _, _ = strings.Cut(r.bench, "?")
	scale := "20"
	if r.opts.Quick {
		scale = "2"
	}
	fill := append(r.server.Flags(), "--initialize", "--quiet", "--scale="+scale, r.bench)
	if out, err := r.server.Command(ctx, "pgbench", fill...).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("pgbench --initialize: %w\n%s", err, out)
	}
	best, clients := 0.0, 0
	for _, n := range []int{8, 16, 32, 64} {
		tps, err := r.pgbench(ctx, n)
		if err != nil {
			return 0, err
		}
		r.out.Line("pgbench with %d clients: %.0f transactions/s", n, tps)
		if tps > best {
			best, clients = tps, n
		}
	}
	return clients, nil
}

// rateLine is where pgbench prints its rate.
var rateLine = regexp.MustCompile(`(?m)^tps = ([0-9.]+) \(without initial connection time\)`)

// pgbench returns the transactions a second of its standard load, which is that of TPC-B.
func (r *run) pgbench(ctx context.Context, clients int) (float64, error) {
	seconds := 5
	if r.opts.Quick {
		seconds = 1
	}
	args := append(r.server.Flags(), "--no-vacuum", "--protocol=prepared", fmt.Sprintf("--client=%d", clients), "--jobs=2",
		fmt.Sprintf("--time=%d", seconds), r.bench)
	out, err := r.server.Command(ctx, "pgbench", args...).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("pgbench: %w\n%s", err, out)
	}
	m := rateLine.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("pgbench prints no rate:\n%s", out)
	}
	return strconv.ParseFloat(string(m[1]), 64)
}

// benchLine is what a benchmark prints of itself.
var benchLine = regexp.MustCompile(`(?m)^BenchmarkCharges/\S+\s+\d+\s.*?([0-9.]+) charges/s\s+([0-9.]+) p99-ms`)

// charge gives one contestant its turn, on a database of its own.
func (r *run) charge(ctx context.Context, c contestant) (rate, error) {
	url, err := r.server.Database(ctx)
	if err != nil {
		return rate{}, err
	}
	pattern := "^BenchmarkCharges$/" + strings.ReplaceAll(strings.TrimSuffix(c.bench, "/"), "/", "$/^")
	pattern = strings.Replace(pattern, "BenchmarkCharges$/", "BenchmarkCharges$/^", 1)
	cmd := exec.CommandContext(ctx, r.binary, "-test.run=^$", "-test.bench="+pattern, fmt.Sprintf("-test.benchtime=%dx", c.charges))
	cmd.Env = append(os.Environ(), benchVariable+"="+url)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return rate{}, fmt.Errorf("%s: %w\n%s", c.name, err, out)
	}
	m := benchLine.FindSubmatch(out)
	if m == nil {
		return rate{}, fmt.Errorf("%s prints no rate:\n%s", c.name, out)
	}
	perSecond, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		return rate{}, err
	}
	p99, err := strconv.ParseFloat(string(m[2]), 64)
	return rate{perSecond, p99}, err
}

// show prints what stands behind the figures.
func (r *run) show(clients int, tpcb []float64, all []contestant, rates map[string][]rate) {
	median := func(values []float64) float64 {
		slices.Sort(values)
		return values[len(values)/2]
	}
	rows := [][]string{{"", "per second", "p99"}, {fmt.Sprintf("pgbench, %d clients", clients), fmt.Sprintf("%.0f", median(slices.Clone(tpcb))), ""}}
	for _, c := range all {
		var per, p99 []float64
		for _, m := range rates[c.name] {
			per, p99 = append(per, m.perSecond), append(p99, m.p99)
		}
		rows = append(rows, []string{c.name, fmt.Sprintf("%.0f", median(per)), fmt.Sprintf("%.1f ms", median(p99))})
	}
	r.out.Table("charges, medians", rows)
}
