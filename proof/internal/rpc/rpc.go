// Package rpc measures what a call through the kit's request path costs, beside what it costs in stock grpc-go: in one run,
// turn by turn, each server a process of its own on one processor and the client on another.
package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/figure"
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
}

func (o Options) plan() plan {
	if o.Quick {
		return plan{
			rounds: 2, starts: 2, warm: 30 * time.Millisecond, during: 100 * time.Millisecond,
			subscribers: 200, events: 2, flooded: 300 * time.Millisecond, overloads: 1, fanout: 1,
		}
	}
	return plan{
		rounds: 7, starts: 9, warm: 250 * time.Millisecond, during: 1500 * time.Millisecond,
		subscribers: 10_000, events: 5, flooded: 4 * time.Second, overloads: 5, fanout: 5,
	}
}

// run is one run of the harness.
type run struct {
	*lab
	plan
	opts    Options
	out     *detail
	tracing []string // the environment that makes the path send spans
}

// Measure returns all figures of the area.
func Measure(ctx context.Context, opts Options) (figures []figure.Figure, err error) {
	server, client, err := cores()
	if err != nil {
		return nil, err
	}
	undo, err := stayOn(client)
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
	r := &run{lab: l, plan: opts.plan(), opts: opts, out: newDetail(opts.Detail), tracing: spans.environment()}
	r.out.line("%s, %s, servers on processor %d, client on %d, load average %s", runtime.Version(), processor(), server, client, loadAverage())
	for _, measure := range []func(context.Context) ([]figure.Figure, error){r.unary, r.stream, r.fanOut, r.overload, r.start} {
		some, err := measure(ctx)
		if err != nil {
			return nil, err
		}
		figures = append(figures, some...)
	}
	r.out.line("\nspans came in %d exports; load average at the end: %s", spans.exports.Load(), loadAverage())
	return figures, nil
}

// detail prints what stands behind the figures. What cannot be printed is not worth ending a run for.
type detail struct{ w io.Writer }

func newDetail(w io.Writer) *detail { return &detail{w} }

func (d *detail) line(format string, args ...any) { fmt.Fprintf(d.w, format+"\n", args...) }

// table prints rows in columns, below a title.
func (d *detail) table(title string, rows [][]string) {
	fmt.Fprintf(d.w, "\n%s\n", title)
	tw := tabwriter.NewWriter(d.w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(tw, "  "+strings.Join(row, "\t"))
	}
	_ = tw.Flush()
}

// processor returns what the machine calls its processors.
func processor() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return fmt.Sprintf("%d × %s", runtime.NumCPU(), strings.TrimSpace(value))
		}
	}
	return fmt.Sprintf("%d processors", runtime.NumCPU())
}

// loadAverage returns how busy the machine was in the last minute.
func loadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg")
	one, _, _ := strings.Cut(string(text), " ")
	return one
}
