// Package rpc measures what a call through the kit's request path costs, beside what it costs in stock grpc-go: in one run,
// turn by turn, each server a process of its own on one processor and the client on another.
package rpc

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/figure"
	"github.com/concordat-dev/concordat/proof/internal/machine"
)

// Options say how much is measured.
type Options struct {
	// Root is the repository, of which the users service is built.
	Root string
	// Quick measures just enough to see that everything works.
	Quick bool
	// Profile is a directory for profiles of the path under load, "" for none.
	Profile string
	// Detail gets what stands behind the figures.
	Detail io.Writer
}

// plan is how much of each is measured.
type plan struct {
	rounds, starts    int
	warm, during      time.Duration // of each variant, in each round
	subscribers       int
	events            int // of each round of the fan-out
	flooded           time.Duration
	overloads, fanout int // rounds
	slow              int // clients, at once
}

func (o Options) plan() plan {
	if o.Quick {
		return plan{
			rounds: 2, starts: 2, warm: 30 * time.Millisecond, during: 100 * time.Millisecond,
			subscribers: 200, events: 2, flooded: 300 * time.Millisecond, overloads: 1, fanout: 1, slow: 50,
		}
	}
	return plan{
		rounds: 7, starts: 9, warm: 250 * time.Millisecond, during: 1500 * time.Millisecond,
		subscribers: 10_000, events: 5, flooded: 4 * time.Second, overloads: 5, fanout: 5, slow: 500,
	}
}

// run is one run of the harness.
type run struct {
	*lab
	plan
	opts    Options
	out     *figure.Detail
	tracing []string // the environment that makes the path send spans
}

// Measure returns all figures of the area.
func Measure(ctx context.Context, opts Options) (figures []figure.Figure, err error) {
	server, client, err := machine.Two()
	if err != nil {
		return nil, err
	}
	undo, err := machine.StayOn(client)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, undo()) }()
	dir, err := os.MkdirTemp("", "concordat-rpc-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	l, err := newLab(ctx, dir, server)
	if err != nil {
		return nil, err
	}
	spans, err := newCollector()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, spans.close(ctx)) }()
	r := &run{lab: l, plan: opts.plan(), opts: opts, out: figure.NewDetail(opts.Detail), tracing: spans.environment()}
	r.out.Line("%s, %s, servers on processor %d, client on %d, load average %s", runtime.Version(), machine.Processor(), server, client, machine.LoadAverage())
	for _, measure := range []func(context.Context) ([]figure.Figure, error){r.unary, r.slowClients, r.stream, r.fanOut, r.overload, r.start} {
		some, err := measure(ctx)
		if err != nil {
			return nil, err
		}
		figures = append(figures, some...)
	}
	r.out.Line("\nspans came in %d exports; load average at the end: %s", spans.exports.Load(), machine.LoadAverage())
	return figures, nil
}
