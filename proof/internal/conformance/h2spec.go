package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"

	"github.com/concordat-dev/concordat/proof/internal/figure"
)

// h2specCase is one case of the suite.
type h2specCase struct {
	id string // as h2spec writes it: the part, the section and the number in the section
	*spec.TestCase
}

// h2specSuite returns the cases in the order of the suite, without those that h2spec runs only when it is told to be
// strict; with quick, those of the generic part.
func h2specSuite(quick bool) []h2specCase {
	parts := []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()}
	if quick {
		parts = parts[:1]
	}
	var cases []h2specCase
	var walk func(*spec.TestGroup)
	walk = func(g *spec.TestGroup) {
		if g.Strict {
			return
		}
		for i, c := range g.Tests {
			if c.Strict {
				continue
			}
			cases = append(cases, h2specCase{fmt.Sprintf("%s/%d", g.ID(), i+1), c})
		}
		for _, sub := range g.Groups {
			walk(sub)
		}
	}
	for _, p := range parts {
		walk(p)
	}
	return cases
}

// patience is how long a case waits for a frame: what h2spec's own command does, or less.
func patience(quick bool) time.Duration {
	if quick {
		return time.Second
	}
	return 2 * time.Second
}

// h2specResult is what one case returned against both servers.
type h2specResult struct {
	h2specCase
	pair[error]
}

// outcome returns what h2spec's own report would say of it. A case is skipped that has no question to the server, such
// as one about a limit that it does not have.
func outcome(err error) string {
	switch err {
	case nil:
		return "passed"
	case spec.ErrSkipped:
		return "skipped"
	default:
		return "failed"
	}
}

// unlike reports whether the case ended in another way for the one than for the other.
func (r h2specResult) unlike() bool { return outcome(r.ours) != outcome(r.stock) }

// h2spec runs each case against both servers at the same moment, so that both find the machine as busy. What has not ended
// with ctx has failed.
func (l *lab) h2spec(ctx context.Context, cases []h2specCase, servers pair[*process], patience time.Duration) ([]h2specResult, error) {
	ours, err := l.h2specConfig(servers.ours.address, patience)
	if err != nil {
		return nil, err
	}
	stock, err := l.h2specConfig(servers.stock.address, patience)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, h2specBound)
	defer cancel()
	results := make([]h2specResult, len(cases))
	several(len(cases), func(i int) {
		r := &results[i]
		r.h2specCase = cases[i]
		var both sync.WaitGroup
		both.Go(func() { r.ours = r.settled(ctx, ours) })
		both.Go(func() { r.stock = r.settled(ctx, stock) })
		both.Wait()
	})
	return results, nil
}

// h2specConfig is how a case finds a server. h2spec shows the client's certificate and does not look at the server's,
// whose name is no host's.
func (l *lab) h2specConfig(address string, patience time.Duration) (*config.Config, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	return &config.Config{
		Host: host, Port: number, Path: testgrpc.TestService_EmptyCall_FullMethodName, Timeout: patience, MaxHeaderLen: 4000,
		TLS: true, Insecure: true, CertFile: l.files.Cert, CertKeyFile: l.files.Key,
	}, nil
}

// tries is how often a case is run whose end was a reset of the connection.
const tries = 5

// settled runs the case until it ends otherwise than by a reset. A server that says why it closes a connection and then
// closes it, with bytes of the client's unread, has the kernel reset it: whether the client still reads the reason is a race,
// which grpc-go's servers mostly win. h2spec means to take the reset for a close, but looks for it in a form that Go has
// long wrapped.
func (c h2specCase) settled(ctx context.Context, cfg *config.Config) (err error) {
	for range tries {
		if err = c.against(ctx, cfg); !isReset(err) {
			break
		}
	}
	return err
}

// isReset reports whether what a case got is a reset, which most cases keep as a text alone.
func isReset(err error) bool {
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return true
	}
	var e *spec.TestError
	return errors.As(err, &e) && (strings.Contains(e.Actual, syscall.ECONNRESET.Error()) || strings.Contains(e.Actual, syscall.EPIPE.Error()))
}

// against runs the case on a connection of its own. What h2spec panics with, or does not end with, is its failure.
func (c h2specCase) against(ctx context.Context, cfg *config.Config) error {
	conn, err := spec.Dial(cfg)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	done := make(chan error, 1)
	go func() {
		defer func() {
			if v := recover(); v != nil {
				done <- fmt.Errorf("h2spec panicked: %v", v)
			}
		}()
		done <- c.Run(cfg, conn)
	}()
	last := time.NewTimer(caseTimeout)
	defer last.Stop()
	select {
	case err := <-done:
		return err
	case <-last.C:
		return errors.New(notEnded)
	case <-ctx.Done():
		return errors.New(notEnded)
	}
}

// h2specFigures counts.
func h2specFigures(results []h2specResult) []figure.Figure {
	var unlike int
	for _, r := range results {
		if r.unlike() {
			unlike++
		}
	}
	return []figure.Figure{
		{Name: "faults.h2spec_passed", Value: float64(count(results)["passed"].ours), Runs: 1},
		{Name: "faults.h2spec_unlike_stock", Value: float64(unlike), Runs: 1},
	}
}

// count returns how many cases had each outcome.
func count(results []h2specResult) map[string]pair[int] {
	all := map[string]pair[int]{}
	for _, r := range results {
		ours, stock := outcome(r.ours), outcome(r.stock)
		all[ours] = pair[int]{all[ours].ours + 1, all[ours].stock}
		all[stock] = pair[int]{all[stock].ours, all[stock].stock + 1}
	}
	return all
}

// printH2spec names the cases that a server did not pass.
func printH2spec(w io.Writer, results []h2specResult) {
	all := count(results)
	fmt.Fprintf(w, "\nh2spec, %d cases\n", len(results))
	for _, o := range []string{"passed", "failed", "skipped"} {
		fmt.Fprintf(w, "  %-8s the path %d, stock %d\n", o, all[o].ours, all[o].stock)
	}
	rows := [][]string{{"case", "the path", "stock", "what h2spec does, and what came"}}
	for _, r := range results {
		if r.ours == nil && r.stock == nil {
			continue
		}
		mark := ""
		if r.unlike() {
			mark = "UNLIKE: "
		}
		what := came(r.ours)
		if other := came(r.stock); other != what {
			what = fmt.Sprintf("of the path %s, of stock %s", what, other)
		}
		rows = append(rows, []string{r.id, outcome(r.ours), outcome(r.stock), mark + r.Desc + ": " + what})
	}
	table(w, "Cases of h2spec that one of them did not pass", rows)
}

// came returns what a case got instead of what it wanted, in one line.
func came(err error) string {
	if err == nil {
		return "as it should"
	}
	if e, ok := err.(*spec.TestError); ok {
		return e.Actual
	}
	if err == spec.ErrSkipped {
		return "nothing to ask"
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}
