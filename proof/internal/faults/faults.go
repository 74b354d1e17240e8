// Package faults breaks services on purpose and holds what they have afterwards against what they had acknowledged: kill -9 in the
// middle of the work and of a sync, a full disk, a disk that fails a sync or takes its time, a PostgreSQL that goes away and comes back,
// that dies and leaves its standby, or is left by it, and a cut of the power, after which a disk has only what was synced.
//
// A service is described by a Service and its Workload; the scenarios know nothing else of it. Each runs the built program, as it is
// shipped, with nothing in it for tests. The controls must lose, or the harness proves nothing: the cut of the power on a disk that says
// of each sync that it is done and does nothing, as with synchronous=OFF; and builds of a service with a mistake, such as an answer
// before the commit, under each of the faults.
package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/figure"
	"github.com/concordat-dev/concordat/proof/internal/postgres"
)

// Options say what is broken, and how often.
type Options struct {
	// Root is the repository.
	Root string
	// Service is the name of the one that is broken. Empty means each.
	Service string
	// Quick breaks less often.
	Quick bool
	// Kills is how often a service is killed on each engine. Zero means 100, or 10 with Quick.
	Kills int
	// Pace is how often PostgreSQL is restarted under a load that never ends. Zero means every 20 s, or every 5 s with
	// Quick.
	Pace time.Duration
	// Seed decides when. Zero means another one each time; it is printed, but what the machine does at that moment is not repeated.
	Seed uint64
	// Detail gets what stands behind the figures.
	Detail io.Writer

	effort *effort // of the tests
}

// effort is how much is done.
type effort struct {
	kills      int           // on each engine
	syncKills  int           // in the middle of a sync
	fills      int           // of the disk
	syncs      int           // failed
	slowSyncs  int           // times that syncs are slow
	restarts   int           // of PostgreSQL, each both ways
	paced      int           // of them under a load that never ends
	pace       time.Duration // of those
	failovers  int           // from a primary that is killed to its standby
	outages    int           // of a service that this one stands on, each short and long
	rounds     int           // of two replicas
	longOutage time.Duration // by the clock of the service
	alone      time.Duration // how long a primary is without its standby
	cuts       int           // of the power, each both ways
	controls   int           // in each of the two controls of the power
	mistakes   int           // builds with one, at most
	builds     int           // faults for each of them, at most
	recorded   time.Duration
	quiet      time.Duration // how long no call may be in trouble for PostgreSQL to count as back
	underFault time.Duration // how long the service is used while the disk is full
}

func (o Options) amount() effort {
	if o.effort != nil {
		return *o.effort
	}
	e := effort{
		kills: 100, syncKills: 25, fills: 6, syncs: 12, slowSyncs: 4, restarts: 2, paced: 6, pace: 20 * time.Second,
		failovers: 10, outages: 2, rounds: 6, longOutage: 10 * time.Minute, alone: outlasts, cuts: 50, controls: 5, mistakes: 100, builds: 100,
		recorded: 2 * time.Second, quiet: 2 * time.Second, underFault: time.Second,
	}
	if o.Quick {
		e = effort{
			kills: 10, syncKills: 3, fills: 2, syncs: 3, slowSyncs: 1, restarts: 1, paced: 2, pace: 5 * time.Second,
			failovers: 2, outages: 1, rounds: 2, longOutage: 10 * time.Minute, alone: outlasts, cuts: 10, controls: 2, mistakes: 100, builds: 100,
			recorded: time.Second, quiet: time.Second, underFault: 500 * time.Millisecond,
		}
	}
	if o.Kills > 0 {
		e.kills = o.Kills
	}
	if o.Pace > 0 {
		e.pace = o.Pace
	}
	return e
}

// control is how much is done to a build that is to fail.
func (e effort) control() effort {
	return effort{
		kills: 3, syncKills: 2, fills: 1, syncs: 2, slowSyncs: 1, restarts: 1, paced: 1, pace: time.Second,
		failovers: 1, outages: 1, rounds: 1, longOutage: 2 * time.Minute, alone: e.alone, cuts: 2, controls: 1,
		recorded: 500 * time.Millisecond, quiet: 500 * time.Millisecond, underFault: 300 * time.Millisecond,
	}
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

	total         Audit     // the controls left out
	kills, cuts   int       // so far
	syncKills     int       // so far
	controlLost   int       // on a disk that syncs nothing
	controlsSeen  int       // mistakes of other builds
	heal          []float64 // seconds, of each restart of PostgreSQL
	pacedRestarts int       // so far
	failover      []float64 // seconds, of each
	away          int       // times that the service it stands on was
	back          []float64 // seconds until all is well again, of each
	replicaRounds int       // of two replicas, so far
	told          int       // what was acknowledged while the standby was dead
	room          []float64 // seconds until something is written again once there is room
}

// fault is one that is caused: its name, the figure that has no value where it cannot be, and what causes it.
type fault struct {
	name, figure string
	run          func(context.Context) (Audit, string, error)
}

// The names of the faults.
const (
	killedOnSQLite    = "kill -9 on SQLite"
	killedOnPostgres  = "kill -9 on PostgreSQL"
	killedAtSync      = "kill -9 at a sync"
	diskFull          = "disk full"
	syncFails         = "a sync fails"
	syncsSlow         = "syncs are slow"
	postgresRestarted = "PostgreSQL restarted"
	restartedAtPace   = "PostgreSQL at a pace"
	primaryKilled     = "primary killed"
	standbyDead       = "standby dead"
	powerCut          = "power cut"
)

// faults returns all of them, in the order in which they are caused.
func (b *bench) faults() []fault {
	all := []fault{
		{killedOnSQLite, "kills", b.killSQLite},
		{killedOnPostgres, "kills", b.killPostgres},
		{killedAtSync, "sync_kills", b.killAtSyncs},
		{diskFull, "disk_full_seconds", b.diskFull},
		{syncFails, "failed_syncs", b.failedSyncs},
		{syncsSlow, "slow_syncs", b.slowSyncs},
		{postgresRestarted, "pg_heal_seconds", b.restartPostgres},
		{restartedAtPace, "paced_restarts", b.restartAtPace},
		{primaryKilled, "failover_seconds", b.killPrimaries},
		{standbyDead, "standby_acknowledged", b.killStandby},
		{powerCut, "power_cuts", b.powerCuts},
	}
	if b.lab != nil && b.service.Faults != nil {
		all = append(all, b.service.Faults(b)...)
	}
	return all
}

// Measure breaks each service in every way and returns the figures, whose names begin with "faults." and the name of the service.
// It fails where the harness cannot go on; whatever a service does is a figure.
func Measure(ctx context.Context, opts Options) ([]figure.Figure, error) {
	var figures []figure.Figure
	for _, service := range []Service{Users(), Payments()} {
		if opts.Service != "" && opts.Service != service.Name {
			continue
		}
		of, err := measure(ctx, opts, service)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", service.Name, err)
		}
		figures = append(figures, of...)
	}
	return figures, nil
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
	if service.Beside != nil {
		settings, end, err := service.Beside(ctx, b.pki)
		if err != nil {
			return nil, fmt.Errorf("start what %s needs beside it: %w", service.Name, err)
		}
		b.settings = settings
		defer func() { _ = end() }() // it has nothing to lose
	}
	b.server, err = postgres.Start(ctx, "max_connections=60")
	if err != nil && !errors.Is(err, postgres.ErrMissing) {
		return nil, err
	}
	if b.server != nil {
		defer func() { err = errors.Join(err, b.server.Close()) }()
	}
	b.heading(opts.Seed)
	missing := map[string]bool{}
	for _, f := range b.faults() {
		a, err := b.cause(ctx, f, missing)
		if err != nil {
			return nil, err
		}
		b.total.add(a)
	}
	controls := []fault{{"power cut, control", "control_lost", b.control}}
	if len(service.Controls) > 0 {
		controls = append(controls, fault{"builds with a mistake", "controls_seen", b.brokenBuilds})
	}
	for _, f := range controls {
		if _, err := b.cause(ctx, f, missing); err != nil {
			return nil, err
		}
	}
	return b.figures(missing), ctx.Err()
}

// cause causes a fault and notes what came out, or that it cannot be.
func (b *bench) cause(ctx context.Context, f fault, missing map[string]bool) (Audit, error) {
	begun := time.Now()
	a, note, err := f.run(ctx)
	if errors.Is(err, ErrCannot) || errors.Is(err, postgres.ErrMissing) {
		missing[f.figure] = true
		note = err.Error()
	} else if err != nil {
		return a, fmt.Errorf("%s: %w", f.name, err)
	}
	b.line(f.name, a, time.Since(begun), note)
	return a, nil
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

// order holds all that was answered on a store against one order.
func (b *bench) order(w Workload, a *Audit, when string) {
	ordered := w.Ordered()
	for i := range ordered.Wrong {
		ordered.Wrong[i] = when + ": " + ordered.Wrong[i]
	}
	a.add(ordered)
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
