package rpc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/figure"
	"github.com/concordat-dev/concordat/proof/internal/load"
)

// dribble is how often a slow client says a byte.
const dribble = 100 * time.Millisecond

// turn is what others met in one turn, beside slow clients or without.
type turn struct {
	one, some time.Duration // 99th percentile of the time of a call with one caller, and with someCallers
	busy      float64       // share of the time in which the server had its processor
	crowd     string        // what the slow clients had come to
}

// slowClients measures how long calls take while clients hold connections on which they say a byte at a time, against how
// long they take without those, turn by turn.
func (r *run) slowClients(ctx context.Context) ([]figure.Figure, error) {
	request, err := r.getUser()
	if err != nil {
		return nil, err
	}
	var alone, beside []turn
	for round := range r.rounds {
		for _, crowded := range []bool{round%2 == 0, round%2 != 0} { // now the one first, now the other
			t, err := r.beside(ctx, request, crowded)
			if err != nil {
				return nil, fmt.Errorf("calls with slow clients beside them (%v): %w", crowded, err)
			}
			if crowded {
				beside = append(beside, t)
			} else {
				alone = append(alone, t)
			}
		}
	}
	one := func(t turn) float64 { return milliseconds(t.one) }
	some := func(t turn) float64 { return milliseconds(t.some) }
	percent := func(t turn) float64 { return 100 * t.busy }
	row := func(label string, turns []turn) []string {
		return []string{
			label, fmt.Sprintf("%.2f", median(turns, one)), fmt.Sprintf("%.2f", median(turns, some)), fmt.Sprintf("%.0f %%", median(turns, percent)),
		}
	}
	r.out.Table(
		fmt.Sprintf("calls beside %d slow clients, each of whom says a byte in %s; in the last round %s", r.slow, dribble, beside[len(beside)-1].crowd),
		[][]string{{"", "p99 ms at 1", fmt.Sprintf("p99 ms at %d", someCallers), "busy"}, row("without them", alone), row("beside them", beside)},
	)
	worse := figure.Median("rpc.p99_beside_slow", ratios(beside, alone, one))
	if f := figure.Median("rpc.p99_beside_slow", ratios(beside, alone, some)); f.Value > worse.Value {
		worse = f
	}
	return []figure.Figure{worse}, nil
}

// beside measures calls of one caller and of some to a new server, beside slow clients or without. When it begins to, the first
// of these have been cut and have come again, so that what that costs is in it.
func (r *run) beside(ctx context.Context, request *load.Request, crowded bool) (t turn, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.warm+2*r.during+time.Minute)
	defer cancel()
	p, err := r.lab.start(ctx, path, r.tracing...)
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	conns, closeAll, err := p.dial(ctx, r.asEdge, connections)
	if err != nil {
		return t, err
	}
	defer closeAll()
	var slow *load.Slow
	if crowded {
		if slow, err = load.Dribble(ctx, p.Address, r.asEdge, request, r.slow, dribble); err != nil {
			return t, err
		}
		defer slow.Close()
		if !r.opts.Quick {
			select {
			case <-slow.Again:
			case <-ctx.Done():
				return t, fmt.Errorf("no slow client was cut: %w", context.Cause(ctx))
			}
		}
	}
	if _, err := load.Closed(conns, request, someCallers, r.warm); err != nil {
		return t, err
	}
	before, err := p.query(askUsage)
	if err != nil {
		return t, err
	}
	for _, of := range []struct {
		conns   []*load.Conn
		callers int
		p99     *time.Duration
	}{{conns[:1], 1, &t.one}, {conns, someCallers, &t.some}} {
		res, err := load.Closed(of.conns, request, of.callers, r.during)
		if err = errors.Join(err, onlyOverloaded(res)); err != nil {
			return t, err
		}
		*of.p99 = res.Latency.Quantile(0.99)
	}
	after, err := p.query(askUsage)
	if err != nil {
		return t, err
	}
	t.busy = busy(before, after)
	if crowded {
		held := slow.Held.Load()
		if held < int64(r.slow)*9/10 {
			return t, fmt.Errorf("of %d slow clients %d hold a connection", r.slow, held)
		}
		t.crowd = fmt.Sprintf("%d held a connection in the end, %d had been opened, and %d times somebody said something", held, slow.Opened.Load(), slow.Said.Load())
	}
	return t, nil
}
