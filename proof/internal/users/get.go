package users

import (
	"context"
	"fmt"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/proof/internal/figure"
	"github.com/concordat-dev/concordat/proof/internal/load"
	"github.com/concordat-dev/concordat/proof/internal/service"
)

// How the unary calls are loaded, as those of the area rpc are.
const (
	connections = 16
	callers     = 64
	unaryTime   = 2 * time.Second
)

// get compares GetUser of a random user with what bounds it: a call of the same service that touches no store, and on
// PostgreSQL what pgbench reads from it.
func (r *run) get(ctx context.Context, p *pair) ([]figure.Figure, error) {
	choose, err := anyone(r.large)
	if err != nil {
		return nil, err
	}
	bench, err := r.benchmark(ctx, p)
	if err != nil {
		return nil, err
	}
	requests := []*load.Request{
		{Method: usersv1.UserService_GetUser_FullMethodName, Choose: choose, Timeout: unaryTime},
		{Method: healthpb.Health_Check_FullMethodName, Timeout: unaryTime},
	}
	var gets, storeless, selects, p99 []float64
	for round := range r.rounds {
		rates := make([]float64, 2)
		for i := range requests {
			i = (round + i) % 2 // each is first as often as the other
			if i == 0 && round == r.rounds-1 {
				p.profiled.begin(ctx, p.large, "get", r.during)
			}
			res, err := r.closed(ctx, p.large, requests[i])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", requests[i].Method, err)
			}
			rates[i] = res.Rate()
			if i == 0 {
				p99 = append(p99, milliseconds(res.Latency.Quantile(0.99)))
			}
		}
		gets, storeless = append(gets, rates[0]), append(storeless, rates[1])
		if bench > 0 {
			rate, err := selectRate(ctx, p.bench, bench, r.during)
			if err != nil {
				return nil, err
			}
			selects = append(selects, rate)
		}
	}
	median := func(values []float64) string { return fmt.Sprintf("%.0f", figure.Median("", values).Value) }
	rows := [][]string{
		{"GetUser of a random one", median(gets), fmt.Sprintf("p99 %.1f ms", figure.Median("", p99).Value)},
		{"health Check, which touches no store", median(storeless), fmt.Sprintf("GetUser is %.2f of it", ratio(gets, storeless))},
	}
	if bench > 0 {
		rows = append(rows, []string{fmt.Sprintf("pgbench -S, %d clients", bench), median(selects), fmt.Sprintf("GetUser is %.2f of it", ratio(gets, selects))})
	}
	r.out.Table(fmt.Sprintf("%s: calls a second, %d callers on %d connections, medians of %d rounds", p.engine, callers, connections, r.rounds), rows)
	if bench > 0 {
		return []figure.Figure{figure.Median("users."+p.engine+"_get_vs_pgbench", ratios(gets, selects))}, nil
	}
	return []figure.Figure{figure.Median("users."+p.engine+"_get_vs_storeless", ratios(gets, storeless))}, nil
}

// closed loads the service with one request, after some warming.
func (r *run) closed(ctx context.Context, s *service.Process, request *load.Request) (*load.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, r.warm+r.during+patience)
	defer cancel()
	conns, closeAll, err := s.Connect(ctx, connections)
	if err != nil {
		return nil, err
	}
	defer closeAll()
	if _, err := load.Closed(conns, request, callers, r.warm); err != nil {
		return nil, err
	}
	res, err := load.Closed(conns, request, callers, r.during)
	if err != nil {
		return nil, err
	}
	return res, res.Err()
}

// benchmark makes the tables of pgbench, with as many rows as there are users or some more, and returns the number of clients with
// which `pgbench -S` is at its best; 0 on SQLite.
func (r *run) benchmark(ctx context.Context, p *pair) (clients int, err error) {
	if p.bench == nil {
		return 0, nil
	}
	const accounts = 100_000 // of each unit of scale
	if _, err := p.bench.Run(ctx, "pgbench", "--initialize", fmt.Sprintf("--scale=%d", max(1, r.large/accounts))); err != nil {
		return 0, err
	}
	best := 0.0
	rows := [][]string{{"clients", "a second"}}
	for _, n := range []int{1, 2, 4, 8, 16, 32} {
		rate, err := selectRate(ctx, p.bench, n, min(r.during, 2*time.Second))
		if err != nil {
			return 0, err
		}
		if rate > best {
			best, clients = rate, n
		}
		rows = append(rows, []string{fmt.Sprint(n), fmt.Sprintf("%.0f", rate)})
		if r.opts.Quick && n == 2 {
			break
		}
	}
	r.out.Table("pgbench -S -M prepared", rows)
	return clients, nil
}

// ratios returns a over b, round by round: the rounds of one turn met the same machine.
func ratios(a, b []float64) (list []float64) {
	for i := range a {
		list = append(list, a[i]/b[i])
	}
	return list
}

func ratio(a, b []float64) float64 { return figure.Median("", ratios(a, b)).Value }
