package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/figure"
	"github.com/concordat-dev/concordat/proof/internal/load"
)

const (
	// excess is how many times what the server can do it is asked for.
	excess = 5
	// patience is the timeout of each call. A good answer after it is none.
	patience = 500 * time.Millisecond
	// peakCallers keep the server busy without a queue worth the name.
	peakCallers = 16
)

// shedding has the path turn away what it cannot do in time, which it does only when it is told to.
var shedding = "CONCORDAT_" + strings.ToUpper(serverName) + "_SHED_LOAD=true"

// overload measures what is left of a server's best when it is asked for five times as much, and how long those wait who
// are turned away. Every call costs processor time, so that there is a best.
func (r *run) overload(ctx context.Context) ([]figure.Figure, error) {
	var goodput, refusal []float64
	rows := [][]string{{"", "best /s", "asked for /s", "good /s", "of the best", "p99 ms of good", "refused", "p99 ms of refused", "most of those"}}
	for _, variant := range []string{path, bare} {
		for range r.overloads {
			peak, res, err := r.flood(ctx, variant)
			if err != nil {
				return nil, fmt.Errorf("%s: overload: %w", variant, err)
			}
			share, p99 := res.Rate()/peak, milliseconds(res.Refused.Quantile(0.99))
			most := load.Status{}
			for s, n := range res.Failed {
				if n > res.Failed[most] {
					most = s
				}
			}
			rows = append(rows, []string{
				variant, fmt.Sprintf("%.0f", peak), fmt.Sprintf("%.0f", excess*peak), fmt.Sprintf("%.0f", res.Rate()),
				fmt.Sprintf("%.2f", share), fmt.Sprintf("%.1f", milliseconds(res.Latency.Quantile(0.99))),
				fmt.Sprint(res.Refused.Count()), fmt.Sprintf("%.1f", p99), fmt.Sprintf("%d %.60s", most.Code, most.Message),
			})
			if variant == path {
				goodput, refusal = append(goodput, share), append(refusal, p99)
			}
		}
	}
	r.out.Table(fmt.Sprintf("%d × the load that the server can do, every call with a timeout of %s", excess, patience), rows)
	return []figure.Figure{figure.Median("rpc.overload_goodput", goodput), figure.Median("rpc.overload_refusal_p99", refusal)}, nil
}

// flood finds a new server's best rate, then asks for more.
func (r *run) flood(ctx context.Context, variant string) (peak float64, res *load.Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.warm+2*r.flooded+time.Minute)
	defer cancel()
	p, err := r.lab.start(ctx, variant, append(slices.Clone(r.tracing), shedding)...)
	if err != nil {
		return 0, nil, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	conns, closeAll, err := p.dial(ctx, r.asService, connections)
	if err != nil {
		return 0, nil, err
	}
	defer closeAll()
	request := &load.Request{Method: listUsers, Timeout: patience}
	if _, err := load.Closed(conns, request, peakCallers, r.warm); err != nil {
		return 0, nil, err
	}
	best, err := load.Closed(conns, request, peakCallers, r.during) // a server may refuse some already, and be at its best
	if err != nil {
		return 0, nil, err
	}
	if best.OK == 0 {
		return 0, nil, fmt.Errorf("no call ended well: %w", best.Err())
	}
	res, err = load.Open(conns, request, excess*best.Rate(), r.flooded)
	return best.Rate(), res, err
}
