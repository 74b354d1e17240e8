package payments

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/auth"
	"github.com/concordat-dev/concordat/proof/internal/figure"
	"github.com/concordat-dev/concordat/proof/internal/load"
	"github.com/concordat-dev/concordat/proof/internal/service"
)

// How the service is loaded: unary calls on so many connections, and charges under way on streams, one on each of a few connections.
const (
	callers     = 256
	connections = 16
	window      = 64 // of each stream: so many the service takes on before it answers
	callTime    = 5 * time.Second
	streamTime  = time.Hour
	// customers are known to the service before anything is measured, as on a service that has run for a while.
	customers = 10_000
)

// calls measures the program, by unary calls and by streams, and pgbench on the same server, turn by turn.
func (r *run) calls(ctx context.Context) (figures []figure.Figure, err error) {
	known, err := auth.Start(ctx, r.program.PKI, service.TrustDomain)
	if err != nil {
		return nil, err
	}
	defer func() { _ = known.Close() }() // it has nothing to lose
	db, err := r.server.Create(ctx)
	if err != nil {
		return nil, err
	}
	data := service.Data{Dir: filepath.Join(r.dir, "calls"), URL: db.URL}
	// Nobody is erased here, so nobody serves users.
	s, err := r.program.Start(ctx, "calls", data, "--auth", known.Target, "--users", "passthrough:///127.0.0.1:1")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Kill())
		}
	}()
	b := &book{}
	unary := &way{name: fmt.Sprintf("Charge, %d callers on %d connections", callers, connections), connections: connections,
		load: func(conns []*load.Conn, during time.Duration) (*load.Result, error) {
			return load.Closed(conns, b.request(), callers, during)
		}}
	pipelined := func(streams int) *way {
		return &way{name: fmt.Sprintf("ProcessCharges, %d under way on each of %d streams", window, streams), connections: streams,
			load: func(conns []*load.Conn, during time.Duration) (*load.Result, error) {
				return load.Pipelined(conns, b.dialog(), window, during)
			}}
	}
	stream := pipelined(callers / window)
	// The last one is no figure: it has more under way.
	ways := []*way{unary, stream, pipelined(2 * callers / window)}
	// All customers, and some more for those whose charge is under way.
	for b.next.Load() < 2*customers {
		if _, err := r.loaded(ctx, s, unary, 0); err != nil {
			return nil, err
		}
	}
	var tpcb []float64
	for round := range r.rounds {
		turns := []func() error{
			func() error {
				tps, err := r.pgbench(ctx, r.clients)
				tpcb = append(tpcb, tps)
				return err
			},
		}
		for _, w := range ways {
			turns = append(turns, func() error { return r.take(ctx, s, w, b) })
		}
		for i := range turns { // another one is first in each round
			if err := turns[(i+round)%len(turns)](); err != nil {
				return nil, err
			}
		}
	}
	rows := [][]string{append([]string{"", "per second", "p99"}, service.CostHeads(r.server)...), {fmt.Sprintf("pgbench, %d clients", r.clients), median("%.0f", tpcb)}}
	for _, w := range ways {
		rows = append(rows, append([]string{w.name, median("%.0f", w.perSecond), median("%.1f ms", w.p99)}, w.cost.Each(w.charges)...))
	}
	r.out.Table(fmt.Sprintf("charges of the program on PostgreSQL, over mutual TLS, medians of %d rounds", r.rounds), rows)
	r.out.Line("  Charge against pgbench, round by round: %s; ProcessCharges against Charge: %s",
		perRoundText(unary.perSecond, tpcb), perRoundText(stream.perSecond, unary.perSecond))
	if err := s.Stop(); err != nil {
		return nil, err
	}
	transfers, err := r.verify(ctx, data)
	if err != nil {
		return nil, err
	}
	if made := b.keys(); transfers != made {
		return nil, fmt.Errorf("%d keys were charged, and there are %d transfers", made, transfers)
	}
	r.out.Line("  payments verify: %d transfers are as they must be, one for each key", transfers)
	return []figure.Figure{
		perRound("payments.grpc_charge_vs_pgbench", unary.perSecond, tpcb),
		perRound("payments.grpc_stream_vs_unary", stream.perSecond, unary.perSecond),
	}, nil
}

// way is a way to charge, and what its turns have shown.
type way struct {
	name        string
	connections int
	load        func(conns []*load.Conn, during time.Duration) (*load.Result, error)

	perSecond, p99 []float64
	cost           service.Cost
	charges        int // for that cost
}

// take gives a way its turn.
func (r *run) take(ctx context.Context, s *service.Process, w *way, b *book) error {
	before, err := s.Used(r.server)
	if err != nil {
		return err
	}
	charged := b.next.Load()
	res, err := r.loaded(ctx, s, w, r.during)
	if err != nil {
		return fmt.Errorf("%s: %w", w.name, err)
	}
	after, err := s.Used(r.server)
	if err != nil {
		return err
	}
	w.perSecond, w.p99 = append(w.perSecond, res.Rate()), append(w.p99, float64(res.Latency.Quantile(0.99))/float64(time.Millisecond))
	w.cost, w.charges = w.cost.Plus(after.Since(before)), w.charges+int(b.next.Load()-charged)
	return nil
}

// loaded loads the service for a while, after some warming. Every charge must be made.
func (r *run) loaded(ctx context.Context, s *service.Process, w *way, during time.Duration) (res *load.Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute+during)
	defer cancel()
	conns, closeAll, err := s.Connect(ctx, w.connections)
	if err != nil {
		return nil, err
	}
	defer closeAll()
	for _, d := range []time.Duration{r.warm, during} {
		if d == 0 {
			continue
		}
		if res, err = w.load(conns, d); err != nil {
			return nil, err
		}
		if err := res.Err(); err != nil {
			return nil, err
		}
	}
	return res, nil
}

// verify runs the program's own check of its books and returns how many transfers they have.
func (r *run) verify(ctx context.Context, data service.Data) (transfers int, err error) {
	cmd := exec.CommandContext(ctx, r.program.Path, "verify", "--data", data.Dir, "--pki", r.program.PKI)
	cmd.Env = r.program.Environment(data)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("payments verify: %w\n%s", err, out[max(len(out)-2000, 0):])
	}
	count, _, _ := strings.Cut(string(out), " transfers are as they must be")
	if transfers, err = strconv.Atoi(count[strings.LastIndex(count, "\n")+1:]); err != nil {
		return 0, fmt.Errorf("payments verify does not say how many transfers there are: %q", out)
	}
	return transfers, nil
}
