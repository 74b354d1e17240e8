// Package faults breaks services on purpose and holds what they have afterwards against what they had acknowledged: kill -9 in the
// middle of the work, a full disk, a disk that fails a sync, a PostgreSQL that goes away and comes back, and a cut of the power,
// after which a disk has only what was synced.
//
// A service is described by a Service and its Workload; the scenarios know nothing else of it. Each runs the built program, as it is
// shipped, with nothing in it for tests. The cut of the power has a control: the same program on a disk that says of each
// sync that it is done and does nothing, as with synchronous=OFF. It must lose, or the harness proves nothing.
package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/figure"
	"github.com/concordat-dev/concordat/proof/internal/postgres"
)

// Options say what is broken, and how often.
type Options struct {
	// Root is the repository.
	Root string
	// Quick breaks less often.
	Quick bool
	// Kills is how often the service is killed on each engine. Zero means 100, or 10 with Quick.
	Kills int
	// Seed decides when. Zero means another one each time; it is printed, but what the machine does at that moment is not repeated.
	Seed uint64
	// Detail gets what stands behind the figures.
	Detail io.Writer

	effort *effort // of the tests
}

// effort is how much is done.
type effort struct {
	kills      int // on each engine
	fills      int // of the disk
	syncs      int // failed
	restarts   int // of PostgreSQL, each both ways
	cuts       int // of the power, each both ways
	controls   int // in each of the two controls
	recorded   time.Duration
	quiet      time.Duration // how long no call may be in trouble for PostgreSQL to count as back
	underFault time.Duration // how long the service is used while the disk is full
}

func (o Options) amount() effort {
	if o.effort != nil {
		return *o.effort
	}
	e := effort{kills: 100, fills: 6, syncs: 12, restarts: 2, cuts: 50, controls: 5, recorded: 2 * time.Second, quiet: 2 * time.Second, underFault: time.Second}
	if o.Quick {
		e = effort{kills: 10, fills: 2, syncs: 3, restarts: 1, cuts: 10, controls: 2, recorded: time.Second, quiet: time.Second, underFault: 500 * time.Millisecond}
	}
	if o.Kills > 0 {
		e.kills = o.Kills
	}
	return e
}

// ErrCannot: this machine does not allow what a scenario needs. The figure has no value then, and misses its goal.
var ErrCannot = errors.New("cannot be run here")

// bench is what the scenarios add up.
type bench struct {
	*lab
	effort
	random *mathrand.Rand
	server *postgres.Server // nil where there is none
	detail io.Writer

	total       Audit // the control left out
	scenario    []scenario
	kills, cuts int // so far
	controlLost int
	heal        []float64 // seconds, of each restart of PostgreSQL
	room        []float64 // seconds until something is written again once there is room
}

// scenario is one line of the table.
type scenario struct {
	name  string
	audit Audit
	note  string
	took  time.Duration
}

// Measure breaks a service in every way and returns the figures, whose names begin with "faults." and the name of the service,
// where they are about what it acknowledged. It fails where the harness cannot go on; whatever the service does is a figure.
func Measure(ctx context.Context, opts Options) ([]figure.Figure, error) {
	return measure(ctx, opts, Users())
}

func measure(ctx context.Context, opts Options, service Service) (_ []figure.Figure, err error) {
	dir, err := os.MkdirTemp("", "concordat-faults-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	if opts.Seed == 0 {
		opts.Seed = mathrand.Uint64()
	}
	b := &bench{effort: opts.amount(), random: mathrand.New(mathrand.NewPCG(opts.Seed, 1)), detail: opts.Detail}
	if b.lab, err = newLab(ctx, opts.Root, dir, service); err != nil {
		return nil, err
	}
	b.server, err = postgres.Start(ctx, "max_connections=60")
	if err != nil && !errors.Is(err, postgres.ErrMissing) {
		return nil, err
	}
	if b.server != nil {
		defer func() { err = errors.Join(err, b.server.Close()) }()
	}
	fmt.Fprintf(b.detail, "faults of %s, seed %d\n", service.Name, opts.Seed)
	missing := map[string]bool{}
	for _, s := range []struct {
		name, figure string
		run          func(context.Context) (Audit, string, error)
	}{
		{"kill -9 on SQLite", "kills", b.killSQLite},
		{"kill -9 on PostgreSQL", "kills", b.killPostgres},
		{"disk full", "disk_full_seconds", b.diskFull},
		{"a sync fails", "failed_syncs", b.failedSyncs},
		{"PostgreSQL restarted", "pg_heal_seconds", b.restartPostgres},
		{"power cut", "power_cuts", b.powerCuts},
		{"power cut, control", "control_lost", b.control},
	} {
		begun := time.Now()
		a, note, err := s.run(ctx)
		if errors.Is(err, ErrCannot) || errors.Is(err, postgres.ErrMissing) {
			missing[s.figure] = true
			note = err.Error()
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		b.scenario = append(b.scenario, scenario{s.name, a, note, time.Since(begun)})
		if s.figure != "control_lost" {
			b.total.add(a)
		}
	}
	b.report()
	return b.figures(missing), ctx.Err()
}

// report prints the table.
func (b *bench) report() {
	tw := tabwriter.NewWriter(b.detail, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "fault\tacknowledged\tlost\tdoubled\telse wrong\tseconds\t")
	for _, s := range b.scenario {
		fmt.Fprintf(tw, "%s\t%d\t%d\t%d\t%d\t%.1f\t%s\n", s.name, s.audit.Acknowledged, s.audit.Lost, s.audit.Doubled, len(s.audit.Wrong), s.took.Seconds(), s.note)
	}
	_ = tw.Flush() // as far as it goes
	for _, s := range b.scenario {
		for i, w := range s.audit.Wrong {
			if i == 20 {
				fmt.Fprintf(b.detail, "%s: and %d more\n", s.name, len(s.audit.Wrong)-i)
				break
			}
			fmt.Fprintf(b.detail, "%s: %s\n", s.name, strings.ReplaceAll(w, "\n", "\n\t"))
		}
	}
}

func (b *bench) figures(missing map[string]bool) []figure.Figure {
	of := func(name string, value float64, runs int) figure.Figure {
		if missing[name] {
			value, runs = math.NaN(), 0
		}
		return figure.Figure{Name: "faults." + name, Value: value, Runs: runs}
	}
	worst := func(values []float64) float64 {
		value := math.NaN()
		for i, v := range values {
			if i == 0 || v > value {
				value = v
			}
		}
		return value
	}
	points := b.kills + b.cuts + len(b.heal) + len(b.room) + b.syncs
	return []figure.Figure{
		of(b.service.Name+"_lost_acknowledged", float64(b.total.Lost), points),
		of(b.service.Name+"_doubled", float64(b.total.Doubled), points),
		of(b.service.Name+"_else_wrong", float64(len(b.total.Wrong)), points),
		of("kills", float64(b.kills), 1),
		of("disk_full_seconds", worst(b.room), len(b.room)),
		of("failed_syncs", float64(b.syncs), 1),
		of("pg_heal_seconds", worst(b.heal), len(b.heal)),
		of("power_cuts", float64(b.cuts), 1),
		of("control_lost", float64(b.controlLost), b.controls),
	}
}

// book returns a new book. Calls may be nil.
func (b *bench) book(calls Calls) Workload {
	if calls == nil {
		calls = func() func(error) { return func(error) {} }
	}
	return b.service.New(b.random.Uint64(), calls)
}

// audit audits a service that runs; an error of the service is part of what came out.
func (b *bench) audit(ctx context.Context, p *process, w Workload, by time.Time, cursor *Cursor, when string) Audit {
	a, err := w.Audit(ctx, p.conn, by, cursor)
	if err != nil && ctx.Err() == nil {
		a.wrong("%s: audit: %v\n%s", when, err, p.log)
	}
	for i := range a.Wrong {
		a.Wrong[i] = when + ": " + a.Wrong[i]
	}
	return a
}

// settle sends again what has no answer; what fails is part of what came out.
func (b *bench) settle(ctx context.Context, p *process, w Workload, a *Audit, when string) {
	if err := w.Settle(ctx, p.conn); err != nil && ctx.Err() == nil {
		a.wrong("%s: settle: %v", when, err)
	}
}

// inspect stops a service cleanly and runs its own check.
func (b *bench) inspect(ctx context.Context, p *process, s store, a *Audit, when string, prefix ...string) {
	if err := p.stop(); err != nil {
		a.wrong("%s: %v", when, err)
	}
	if err := b.verify(ctx, s, prefix...); err != nil && ctx.Err() == nil {
		a.wrong("%s: %v", when, err)
	}
}

// under loads a service while something is done to it, and returns when both have ended.
func under(ctx context.Context, w Workload, p *process, do func(context.Context) error) error {
	loaded, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Load(loaded, p.conn)
	}()
	err := do(ctx)
	cancel()
	<-done
	return err
}

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// always is later than all that happens.
func always() time.Time { return time.Unix(1<<40, 0) }
