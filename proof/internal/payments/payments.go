// Package payments measures payments beside pgbench: charges a second of the store, by group commit on both engines, with a tenth of the
// keys used twice, limits of accounts held, and every transfer bound to the one before by its hash; those of the program as it is built,
// over mutual TLS; and what becomes of the store's as its tables grow.
package payments

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/figure"
	"github.com/concordat-dev/concordat/proof/internal/machine"
	"github.com/concordat-dev/concordat/proof/internal/postgres"
	"github.com/concordat-dev/concordat/proof/internal/service"
)

// Options say how much is measured.
type Options struct {
	// Root is the repository.
	Root string
	// Quick measures just enough to see that everything works.
	Quick bool
	// Growth is how many payments the large tables have. Zero means 1,000,000, or 10,000 with Quick.
	Growth int
	// Detail gets what stands behind the figures.
	Detail io.Writer
}

// plan is how much of each is measured.
type plan struct {
	rounds       int
	segments     int   // of the write-ahead log, made before the first round
	scale        int   // of pgbench, in 100,000 accounts
	benches      []int // with how many clients it is tried
	bench        int   // seconds of each turn of pgbench
	share        int   // of the charges of a turn of the store, one in so many
	warm, during time.Duration
	small, large int // payments
	turn         int // charges on each of those tables
}

func (o Options) plan() plan {
	p := plan{
		rounds: 5, segments: 160, scale: 20, benches: []int{8, 16, 32, 64}, bench: 5, share: 1, warm: 500 * time.Millisecond, during: 4 * time.Second,
		small: 10_000, large: 1_000_000, turn: 40_000,
	}
	if o.Quick {
		p = plan{
			rounds: 1, segments: 4, scale: 2, benches: []int{8}, bench: 1, share: 20, warm: 100 * time.Millisecond, during: 500 * time.Millisecond,
			small: 1_000, large: 10_000, turn: 2_000,
		}
	}
	if o.Growth > 0 {
		p.large = o.Growth
	}
	return p
}

// settings are those of PostgreSQL that differ from what the harnesses' server has by itself, for pgbench as for the store. What decides
// on durability is as it is. The log keeps the segments that it has; prepare makes them.
var settings = []string{"shared_buffers=512MB", "max_wal_size=4GB", "min_wal_size=4GB"}

// Who we are to the service, and who it is.
const (
	caller     = "orders"
	serverName = "payments"
)

// run is one run of the harness.
type run struct {
	plan
	out     *figure.Detail
	dir     string
	program *service.Program // payments
	binary  string           // the benchmarks of the store
	server  *postgres.Server
	tpcb    *postgres.Database // of pgbench
	clients int                // with which pgbench is at its best
}

// Measure returns all figures of the area.
func Measure(ctx context.Context, opts Options) (figures []figure.Figure, err error) {
	first, second, err := machine.Two()
	if err != nil {
		return nil, err
	}
	undo, err := machine.StayOn(first, second)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, undo()) }()
	dir, err := os.MkdirTemp("", "concordat-payments-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r := &run{plan: opts.plan(), out: figure.NewDetail(opts.Detail), dir: dir, binary: filepath.Join(dir, "store.test")}
	if r.server, err = postgres.Start(ctx, settings...); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.server.Close()) }()
	build := exec.CommandContext(ctx, "go", "test", "-c", "-o", r.binary, "./services/payments/internal/sqlstore")
	build.Dir = opts.Root
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the benchmarks of the store: %w\n%s", err, out)
	}
	if r.program, err = service.Build(ctx, opts.Root, dir, serverName, caller); err != nil {
		return nil, err
	}
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	version, err := r.tpcb.Query(ctx, "SHOW server_version")
	if err != nil {
		return nil, err
	}
	r.out.Line("%s, %s, PostgreSQL %s; all on processors %d and %d; load average %s",
		runtime.Version(), machine.Processor(), version, first, second, machine.LoadAverage())
	for _, measure := range []func(context.Context) ([]figure.Figure, error){r.store, r.calls, r.growth} {
		began := time.Now()
		some, err := measure(ctx)
		if err != nil {
			return nil, err
		}
		figures = append(figures, some...)
		r.out.Line("  (%s; load average %s)", time.Since(began).Round(100*time.Millisecond), machine.LoadAverage())
	}
	return figures, nil
}

// prepare makes the log's segments and the tables of pgbench, and finds out with how many clients that is best.
func (r *run) prepare(ctx context.Context) (err error) {
	if r.tpcb, err = r.server.Create(ctx); err != nil {
		return err
	}
	if err := r.tpcb.MakeSegments(ctx, r.segments); err != nil {
		return err
	}
	if _, err := r.tpcb.Run(ctx, "pgbench", "--initialize", "--quiet", fmt.Sprintf("--scale=%d", r.scale)); err != nil {
		return err
	}
	if err := r.tpcb.Vacuum(ctx); err != nil {
		return err
	}
	best := 0.0
	for _, n := range r.benches {
		tps, err := r.pgbench(ctx, n)
		if err != nil {
			return err
		}
		r.out.Line("pgbench with %d clients: %.0f transactions/s", n, tps)
		if tps > best {
			best, r.clients = tps, n
		}
	}
	return nil
}

// pgbench returns the transactions a second of its standard load, which is that of TPC-B.
func (r *run) pgbench(ctx context.Context, clients int) (float64, error) {
	return r.tpcb.Bench(ctx, "--no-vacuum", "--protocol=prepared", fmt.Sprintf("--client=%d", clients), "--jobs=2",
		fmt.Sprintf("--time=%d", r.bench))
}

// perRound returns a ratio within each round: the rounds of one turn met the same machine.
func perRound(name string, a, b []float64) figure.Figure { return figure.Median(name, ratios(a, b)) }

// perRoundText returns the ratios of all rounds, as a text.
func perRoundText(a, b []float64) string { return fmt.Sprintf("%.2f", ratios(a, b)) }

func ratios(a, b []float64) []float64 {
	values := make([]float64, len(a))
	for i := range values {
		values[i] = a[i] / b[i]
	}
	return values
}

// median returns the median of values, as a cell.
func median(format string, values []float64) string {
	return fmt.Sprintf(format, figure.Median("", slices.Clone(values)).Value)
}
