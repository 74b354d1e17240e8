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

// turn is what others met in one turn: without slow clients, beside those that hold their connections, and beside those that are
// cut and come again.
type turn struct{ alone, held, cut waits }

// waits are what calls took, and how busy the server was.
type waits struct {
	one, some time.Duration // 99th percentile with one caller, and with someCallers
	busy      float64       // share of the time in which the server had its processor
}

// slowClients measures how long calls take while clients hold connections on which they say a byte at a time, and while the server
// cuts them and they come again, against how long calls take without them, turn by turn.
func (r *run) slowClients(ctx context.Context) ([]figure.Figure, error) {
	request, err := r.getUser()
	if err != nil {
		return nil, err
	}
	var turns []turn
	var crowd string
	for range r.rounds {
		var t turn
		if t, crowd, err = r.beside(ctx, request); err != nil {
			return nil, fmt.Errorf("calls beside slow clients: %w", err)
		}
		turns = append(turns, t)
	}
	alone, held, cut := func(t turn) waits { return t.alone }, func(t turn) waits { return t.held }, func(t turn) waits { return t.cut }
	one, some := func(w waits) time.Duration { return w.one }, func(w waits) time.Duration { return w.some }
	row := func(label string, of func(turn) waits) []string {
		p99 := func(number func(waits) time.Duration) string {
			return fmt.Sprintf("%.2f", median(turns, func(t turn) float64 { return milliseconds(number(of(t))) }))
		}
		return []string{label, p99(one), p99(some), fmt.Sprintf("%.0f %%", median(turns, func(t turn) float64 { return 100 * of(t).busy }))}
	}
	r.out.Table(fmt.Sprintf("calls beside %d slow clients, each of whom says a byte in %s; in the last round %s", r.slow, dribble, crowd), [][]string{
		{"", "p99 ms at 1", fmt.Sprintf("p99 ms at %d", someCallers), "busy"},
		row("without them", alone), row("while they hold their connections", held), row("while they are cut and come again", cut),
	})
	worse := func(name string, of func(turn) waits) figure.Figure {
		against := func(number func(waits) time.Duration) figure.Figure {
			var list []float64
			for _, t := range turns {
				list = append(list, float64(number(of(t)))/float64(number(t.alone)))
			}
			return figure.Median(name, list)
		}
		a, b := against(one), against(some)
		if a.Value > b.Value {
			return a
		}
		return b
	}
	return []figure.Figure{worse("rpc.p99_beside_slow", held), worse("rpc.p99_beside_slow_cut", cut)}, nil
}

// beside measures calls to a new server without slow clients, while such hold their connections, and from when the first were cut and
// have come again. It returns what they had come to, too.
func (r *run) beside(ctx context.Context, request *load.Request) (t turn, crowd string, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.warm+6*r.during+time.Minute)
	defer cancel()
	p, err := r.lab.start(ctx, path, r.tracing...)
	if err != nil {
		return t, "", err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	conns, closeAll, err := p.dial(ctx, r.asEdge, connections)
	if err != nil {
		return t, "", err
	}
	defer closeAll()
	if _, err := load.Closed(conns, request, someCallers, r.warm); err != nil {
		return t, "", err
	}
	if t.alone, err = r.waits(p, conns, request); err != nil {
		return t, "", err
	}
	slow, err := load.Dribble(ctx, p.Address, r.asEdge, request, r.slow, dribble)
	if err != nil {
		return t, "", err
	}
	defer slow.Close()
	if t.held, err = r.waits(p, conns, request); err != nil {
		return t, "", err
	}
	select {
	case <-slow.Again:
	case <-ctx.Done():
		return t, "", fmt.Errorf("no slow client was cut: %w", context.Cause(ctx))
	}
	if t.cut, err = r.waits(p, conns, request); err != nil {
		return t, "", err
	}
	held := slow.Held.Load()
	if held < int64(r.slow)*9/10 {
		return t, "", fmt.Errorf("of %d slow clients %d hold a connection", r.slow, held)
	}
	return t, fmt.Sprintf("%d held a connection in the end, %d had been opened, and %d times somebody said something",
		held, slow.Opened.Load(), slow.Said.Load()), nil
}

// waits measures calls of one caller, then of some.
func (r *run) waits(p *process, conns []*load.Conn, request *load.Request) (w waits, err error) {
	before, err := p.query(askUsage)
	if err != nil {
		return w, err
	}
	for _, of := range []struct {
		conns   []*load.Conn
		callers int
		p99     *time.Duration
	}{{conns[:1], 1, &w.one}, {conns, someCallers, &w.some}} {
		res, err := load.Closed(of.conns, request, of.callers, r.during)
		if err = errors.Join(err, res.Err()); err != nil {
			return w, err
		}
		*of.p99 = res.Latency.Quantile(0.99)
	}
	after, err := p.query(askUsage)
	if err != nil {
		return w, err
	}
	w.busy = busy(before, after)
	return w, nil
}
