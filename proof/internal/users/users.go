// Package users measures the users service on both of its stores: the program as it is built, over mutual TLS, filled through
// its own import. The service, its database and the clients share two processors.
package users

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/figure"
	"github.com/concordat-dev/concordat/proof/internal/machine"
	"github.com/concordat-dev/concordat/proof/internal/postgres"
	"github.com/concordat-dev/concordat/proof/internal/service"
)

// Options say how much is measured.
type Options struct {
	// Root is the repository, of which the users service is built.
	Root string
	// Quick measures just enough to see that everything works.
	Quick bool
	// Profile is a directory for processor profiles of the service, "" for none.
	Profile string
	// Detail gets what stands behind the figures.
	Detail io.Writer
}

// plan is how much of each is measured.
type plan struct {
	small, large int // users
	rounds       int
	warm, during time.Duration // of each contestant, in each round
	walks        int           // of each query, in each round
	streams      int
	watchers     int
	watches      int // rounds
	events       int // of each round
	acknowledged int // calls before a replica is killed, and after
}

func (o Options) plan() plan {
	if o.Quick {
		return plan{
			small: 1_000, large: 10_000, rounds: 1, warm: 100 * time.Millisecond, during: 500 * time.Millisecond, walks: 2, streams: 1,
			watchers: 100, watches: 1, events: 50, acknowledged: 200,
		}
	}
	return plan{
		small: 10_000, large: 1_000_000, rounds: 5, warm: 250 * time.Millisecond, during: 2 * time.Second, walks: 15, streams: 3,
		watchers: 1_000, watches: 3, events: 400, acknowledged: 4_000,
	}
}

// Who we are to the service, and who it is.
const (
	caller     = "payments"
	serverName = "users"
)

// run is one run of the harness.
type run struct {
	plan
	opts    Options
	out     *figure.Detail
	dir     string
	program *service.Program
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
	dir, err := os.MkdirTemp("", "concordat-users-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	r := &run{plan: opts.plan(), opts: opts, out: figure.NewDetail(opts.Detail), dir: dir}
	if r.program, err = service.Build(ctx, opts.Root, dir, serverName, caller); err != nil {
		return nil, err
	}
	server, err := postgres.Start(ctx, settings...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	bench, err := server.Create(ctx)
	if err != nil {
		return nil, err
	}
	version, err := bench.Query(ctx, "SHOW server_version")
	if err != nil {
		return nil, err
	}
	size := ""
	if opts.Quick {
		size = " (--quick: not the 1,000,000 that the goals speak of)"
	}
	r.out.Line("%s, %s, PostgreSQL %s; %d users%s; all on processors %d and %d; load average %s",
		runtime.Version(), machine.Processor(), version, r.large, size, first, second, machine.LoadAverage())
	for _, measure := range []func(context.Context) ([]figure.Figure, error){
		func(ctx context.Context) ([]figure.Figure, error) { return r.engine(ctx, "sqlite", nil, nil) },
		func(ctx context.Context) ([]figure.Figure, error) { return r.engine(ctx, "postgres", server, bench) },
		func(ctx context.Context) ([]figure.Figure, error) { return r.replicas(ctx, server) },
	} {
		some, err := measure(ctx)
		if err != nil {
			return nil, err
		}
		figures = append(figures, some...)
	}
	r.out.Line("\nload average at the end: %s", machine.LoadAverage())
	return figures, nil
}

// pair is the service twice on one engine: with few users, and with many.
type pair struct {
	engine       string
	server       *postgres.Server     // nil for SQLite
	bench        *postgres.Database   // of pgbench
	databases    []*postgres.Database // of the service
	small, large *service.Process
	profiled     *profiles
}

// engine measures the service on one engine. On PostgreSQL it is given a server, and a database for pgbench.
func (r *run) engine(ctx context.Context, engine string, server *postgres.Server, bench *postgres.Database) (figures []figure.Figure, err error) {
	p := &pair{engine: engine, server: server, bench: bench, profiled: &profiles{dir: r.opts.Profile}}
	for name, s := range map[string]**service.Process{"small": &p.small, "large": &p.large} {
		var data *postgres.Database
		if server != nil {
			if data, err = server.Create(ctx); err != nil {
				return nil, err
			}
			p.databases = append(p.databases, data)
		}
		if *s, err = r.start(ctx, engine+"-"+name, data); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, (*s).Stop()) }()
	}
	for _, measure := range []func(context.Context, *pair) ([]figure.Figure, error){r.fill, r.list, r.get, r.stream, r.watch} {
		began := time.Now()
		some, err := measure(ctx, p)
		if err == nil {
			err = p.profiled.wait()
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", engine, err)
		}
		figures = append(figures, some...)
		r.out.Line("  (%s)", time.Since(began).Round(100*time.Millisecond))
	}
	return figures, nil
}

// profiles takes processor profiles of a service while it is measured.
type profiles struct {
	dir    string
	result chan error
}

// begin profiles the service for a while, if that was asked for.
func (p *profiles) begin(ctx context.Context, s *service.Process, name string, during time.Duration) {
	if p.dir == "" || p.result != nil {
		return
	}
	p.result = make(chan error, 1)
	go func() {
		url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", s.Admin, max(1, int(during.Seconds())))
		p.result <- fetch(ctx, url, filepath.Join(p.dir, s.Name+"."+name+".cpu"))
	}()
}

// wait waits until the profile is written.
func (p *profiles) wait() error {
	if p.result == nil {
		return nil
	}
	defer func() { p.result = nil }()
	if err := <-p.result; err != nil {
		return fmt.Errorf("take a profile: %w", err)
	}
	return nil
}

// fetch writes what is at the URL to a file.
func fetch(ctx context.Context, url, file string) (err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.Copy(f, resp.Body)
	return err
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// mebibytes is the unit of memory in the figures.
const mebibytes = 1 << 20
