package rpc

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/proto"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/proof/internal/figure"
	"github.com/concordat-dev/concordat/proof/internal/load"
)

// How the unary figures are loaded. The more callers share a connection, the more calls a server reads and answers at
// once, and our client wastes no such chance: 16 connections of it with four callers each cost the server as much a call as
// four connections of grpc-go's client with 16 callers each.
const (
	connections  = 16
	manyCallers  = 64
	someCallers  = 16
	unaryTimeout = 2 * time.Second
)

// sample is one round of one variant.
type sample struct {
	rate     float64       // calls in a second of the server's processor
	rateSeen float64       // calls in a second of the clock
	busy     float64       // share of the time in which the server had its processor
	allocs   float64       // objects a call
	logged   float64       // bytes a call
	many     time.Duration // 99th percentile of the time of a call with manyCallers
	some     time.Duration // with someCallers
}

// contestant is a variant that takes part.
type contestant struct {
	label, variant string
	env            []string
	process        *process
	samples        []sample
}

// unary compares the path with bare grpc-go, with bare grpc-go under the path's own settings of the garbage collector, and
// with the stock chain.
func (r *run) unary(ctx context.Context) (figures []figure.Figure, err error) {
	request, err := r.getUser()
	if err != nil {
		return nil, err
	}
	all := []*contestant{
		{label: "path", variant: path, env: r.tracing},
		{label: "bare", variant: bare},
		{label: "bare, GC of the path", variant: bare},
		{label: "stock chain", variant: stock},
	}
	defer func() {
		for _, c := range all {
			if c.process != nil {
				err = errors.Join(err, c.process.stop())
			}
		}
	}()
	for i, c := range all {
		if i == 2 {
			c.env = collectorOf(all[0].process.report)
		}
		if c.process, err = r.lab.start(ctx, c.variant, c.env...); err != nil {
			return nil, err
		}
	}
	for round := range r.rounds {
		for i := range all {
			c := all[(round+i)%len(all)] // each is first, and last, as often as the others
			s, err := r.round(ctx, c, request, round == r.rounds-1)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.label, err)
			}
			c.samples = append(c.samples, s)
		}
	}
	r.printUnary(all)
	path, bare, equal, chain := all[0].samples, all[1].samples, all[2].samples, all[3].samples
	rate := func(s sample) float64 { return s.rate }
	return []figure.Figure{
		figure.Median("rpc.path_vs_bare", ratios(path, bare, rate)),
		figure.Median("rpc.path_vs_bare_equal_gc", ratios(path, equal, rate)),
		figure.Median("rpc.path_vs_stock_chain", ratios(path, chain, rate)),
		figure.Median("rpc.p99_vs_bare_16", ratios(path, bare, func(s sample) float64 { return milliseconds(s.some) })),
		figure.Median("rpc.allocs_over_bare", differences(path, bare, func(s sample) float64 { return s.allocs })),
	}, nil
}

// getUser is the call of the unary figures.
func (r *run) getUser() (*load.Request, error) {
	message, err := proto.Marshal(&usersv1.GetUserRequest{UserId: theUser})
	return &load.Request{Method: getUser, Message: message, Token: r.token, Timeout: unaryTimeout}, err
}

// busy returns the share of the time between two reports in which the server had its processor.
func busy(before, after report) float64 {
	return (after.CPU - before.CPU).Seconds() / (float64(after.At-before.At) / 1e9)
}

// collectorOf returns the environment that gives a server the settings of the garbage collector that another one has.
func collectorOf(r report) []string {
	env := []string{fmt.Sprintf("GOGC=%d", r.GOGC)}
	if r.GOGC == math.MaxUint64 {
		env = []string{"GOGC=off"}
	}
	if r.MemoryLimit != math.MaxInt64 {
		env = append(env, fmt.Sprintf("GOMEMLIMIT=%d", r.MemoryLimit))
	}
	return env
}

// round loads one variant: first to warm it, then with many callers, then with some.
func (r *run) round(ctx context.Context, c *contestant, request *load.Request, last bool) (s sample, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.warm+2*r.during+time.Minute)
	defer cancel()
	conns, closeAll, err := c.process.dial(ctx, r.asEdge, connections)
	if err != nil {
		return s, err
	}
	defer closeAll()
	if _, err := load.Closed(conns, request, manyCallers, r.warm); err != nil {
		return s, err
	}
	if err := os.Truncate(c.process.log, 0); err != nil {
		return s, err
	}
	profiled := last && r.opts.Profile != "" && c.variant == path
	if profiled {
		if _, err := c.process.query(askProfile + " " + filepath.Join(r.opts.Profile, "path.cpu")); err != nil {
			return s, err
		}
	}
	before, err := c.process.query(askUsage)
	if err != nil {
		return s, err
	}
	many, err := load.Closed(conns, request, manyCallers, r.during)
	if err = errors.Join(err, many.Err()); err != nil {
		return s, err
	}
	after, err := c.process.query(askUsage)
	if err != nil {
		return s, err
	}
	if profiled {
		if _, err := c.process.query(askWritten); err != nil {
			return s, err
		}
	}
	written, err := os.Stat(c.process.log)
	if err != nil {
		return s, err
	}
	some, err := load.Closed(conns, request, someCallers, r.during)
	if err = errors.Join(err, some.Err()); err != nil {
		return s, err
	}
	calls, cpu := float64(many.OK), (after.CPU - before.CPU).Seconds()
	return sample{
		rate: calls / cpu, rateSeen: many.Rate(), busy: busy(before, after),
		allocs: float64(after.Mallocs-before.Mallocs) / calls, logged: float64(written.Size()) / calls,
		many: many.Latency.Quantile(0.99), some: some.Latency.Quantile(0.99),
	}, nil
}

func (r *run) printUnary(all []*contestant) {
	rows := [][]string{{
		"", "calls per s of processor", "× bare", "µs per call", "calls per s of clock", "busy", "objects per call", "logged B per call",
		fmt.Sprintf("p99 ms at %d", manyCallers), fmt.Sprintf("p99 ms at %d", someCallers), "GOGC",
	}}
	rate := func(s sample) float64 { return s.rate }
	for _, c := range all {
		m := func(of func(sample) float64) float64 { return median(c.samples, of) }
		rows = append(rows, []string{
			c.label, fmt.Sprintf("%.0f", m(rate)),
			fmt.Sprintf("%.2f", figure.Median("", ratios(c.samples, all[1].samples, rate)).Value),
			fmt.Sprintf("%.1f", 1e6/m(rate)),
			fmt.Sprintf("%.0f", m(func(s sample) float64 { return s.rateSeen })),
			fmt.Sprintf("%.0f %%", 100*m(func(s sample) float64 { return s.busy })),
			fmt.Sprintf("%.1f", m(func(s sample) float64 { return s.allocs })),
			fmt.Sprintf("%.0f", m(func(s sample) float64 { return s.logged })),
			fmt.Sprintf("%.2f", m(func(s sample) float64 { return milliseconds(s.many) })),
			fmt.Sprintf("%.2f", m(func(s sample) float64 { return milliseconds(s.some) })),
			fmt.Sprint(int64(c.process.GOGC)),
		})
	}
	r.out.Table(fmt.Sprintf("unary calls, %d callers on %d connections, medians of %d rounds", manyCallers, connections, r.rounds), rows)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// ratios returns a over b, round by round: the rounds of one turn met the same machine.
func ratios(a, b []sample, of func(sample) float64) []float64 {
	var list []float64
	for i := range a {
		list = append(list, of(a[i])/of(b[i]))
	}
	return list
}

// differences returns a less b, round by round.
func differences(a, b []sample, of func(sample) float64) []float64 {
	var list []float64
	for i := range a {
		list = append(list, of(a[i])-of(b[i]))
	}
	return list
}

func median[T any](samples []T, of func(T) float64) float64 {
	var list []float64
	for _, s := range samples {
		list = append(list, of(s))
	}
	return figure.Median("", list).Value
}
