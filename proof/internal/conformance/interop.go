package conformance

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/concordat-dev/concordat/proof/internal/figure"
)

// verdict is how a server did in a case.
type verdict int

const (
	failed   verdict = iota
	passed           // as the case has it
	designed         // otherwise than the case has it, as the path is to by design
)

// String returns what the table says.
func (v verdict) String() string { return [...]string{"FAILED", "passed", "by design"}[v] }

// answer is how a server did in a case, and why it did not pass.
type answer struct {
	verdict verdict
	why     string
}

// interopResult is one case against both servers.
type interopResult struct {
	interopCase
	pair[answer]
}

// interop runs each case against both servers. What has not ended with ctx has failed.
func (l *lab) interop(ctx context.Context, cases []interopCase, servers pair[*process]) []interopResult {
	ctx, cancel := context.WithTimeout(ctx, interopBound)
	defer cancel()
	results := make([]interopResult, len(cases))
	several(len(cases), func(i int) {
		c := cases[i]
		r := interopResult{interopCase: c}
		r.stock = l.ask(ctx, servers.stock, c.name, false)
		if r.ours = l.ask(ctx, servers.ours, c.name, false); r.ours.verdict == failed && c.design != "" {
			if instead := l.ask(ctx, servers.ours, c.name, true); instead.verdict == passed {
				r.ours = answer{designed, c.design}
			} else {
				r.ours.why += "; and instead: " + instead.why
			}
		}
		results[i] = r
	})
	return results
}

// ask runs one case in a process of its own, or its instead.
func (l *lab) ask(ctx context.Context, server *process, name string, instead bool) answer {
	ctx, cancel := context.WithTimeout(ctx, caseTimeout)
	defer cancel()
	cmd := l.command(ctx, client, "--pki", l.pki, "--address", server.address, "--case", name, fmt.Sprintf("--instead=%t", instead))
	var said bytes.Buffer
	cmd.Stderr = &said
	err := cmd.Run()
	switch {
	case err == nil:
		return answer{verdict: passed}
	case ctx.Err() != nil:
		return answer{failed, notEnded}
	default:
		lines := strings.Split(string(tail(said.Bytes())), "\n")
		last := lines[len(lines)-1]
		if _, text, ok := strings.Cut(last, "FATAL: [interop] "); ok {
			last = text
		}
		return answer{failed, fmt.Sprintf("%s (%v)", strings.TrimSpace(last), err)}
	}
}

// runCase is the role client: one case, in a process of its own because most cases end it where they fail.
func runCase(args []string) (err error) {
	flags := flag.NewFlagSet(client, flag.ContinueOnError)
	dir := flags.String("pki", "", "directory of the development PKI")
	address := flags.String("address", "", "where the server is")
	name := flags.String("case", "", "name of the case")
	instead := flags.Bool("instead", false, "hold the server to what the path answers by design")
	if err := flags.Parse(args); err != nil {
		return err
	}
	cases := interopCases()
	i := slices.IndexFunc(cases, func(c interopCase) bool { return c.name == *name })
	if i < 0 {
		return fmt.Errorf("there is no case %q", *name)
	}
	run := cases[i].run
	if *instead {
		run = cases[i].instead
	}
	ctx, cancel := context.WithTimeout(context.Background(), caseTimeout)
	defer cancel()
	certificate, err := identityOf(ctx, *dir, clientName)
	if err != nil {
		return err
	}
	var conns []*grpc.ClientConn
	defer func() {
		for _, c := range conns {
			err = errors.Join(err, c.Close())
		}
	}()
	return run(ctx, func(balancer string) (*grpc.ClientConn, error) {
		conn, err := grpc.NewClient("passthrough:///"+*address,
			grpc.WithTransportCredentials(credentials.NewTLS(certificate.ClientTLS(serverName))),
			grpc.WithDefaultServiceConfig(fmt.Sprintf(`{"loadBalancingConfig": [{%q: {}}]}`, balancer)))
		if err != nil {
			return nil, err
		}
		conns = append(conns, conn)
		return conn, nil
	})
}

// interopFigures counts.
func interopFigures(results []interopResult) []figure.Figure {
	var pass, worse int
	for _, r := range results {
		if r.ours.verdict == passed {
			pass++
		}
		if r.ours.verdict == failed {
			worse++
		}
	}
	return []figure.Figure{
		{Name: "faults.interop_passed", Value: float64(pass), Runs: 1},
		{Name: "faults.interop_failed", Value: float64(worse), Runs: 1},
	}
}

// printInterop names each case, and those that are not run.
func printInterop(w io.Writer, results []interopResult) {
	rows := [][]string{{"case", "the path", "stock", "why"}}
	for _, r := range results {
		why := r.ours.why
		if r.stock.why != "" {
			why = strings.TrimPrefix(why+"; stock: "+r.stock.why, "; ")
		}
		rows = append(rows, []string{r.name, r.ours.verdict.String(), r.stock.verdict.String(), why})
	}
	for _, n := range notRun {
		rows = append(rows, []string{n[0], "not run", "not run", n[1]})
	}
	table(w, "Cases of grpc-go's interoperability client", rows)
}
