// Package conformance holds a server of the kit against what others understand by gRPC and HTTP/2: the cases of grpc-go's
// interoperability client, and the h2spec suite. A stock grpc-go server answers the same questions in the same run, so that
// what is ours can be told from what is grpc-go's.
//
// Nothing is left out silently: a case that the path answers otherwise by design is asked for that answer and named with
// the reason, and so is one that is not run at all.
package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/figure"
)

// Options say how much is run.
type Options struct {
	// Quick runs the interoperability cases and, of h2spec, the generic part with less patience.
	Quick bool
	// Detail gets the cases behind the figures, by name.
	Detail io.Writer
}

// Bounds of a run. A case that has not ended by then has failed.
const (
	caseTimeout   = 15 * time.Second
	interopBound  = time.Minute
	h2specBound   = 100 * time.Second
	processesGone = 3 * time.Minute // then whatever still runs is killed
)

// Measure starts both servers, runs the suites against them and returns the figures. It fails where a server or a suite
// cannot be run; a case that fails is a figure.
func Measure(ctx context.Context, opts Options) (figures []figure.Figure, err error) {
	ctx, cancel := context.WithTimeout(ctx, processesGone)
	defer cancel()
	dir, err := os.MkdirTemp("", "concordat-conformance-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	l, err := newLab(ctx, dir)
	if err != nil {
		return nil, err
	}
	var servers pair[*process]
	defer func() {
		for _, p := range []*process{servers.ours, servers.stock} {
			if p != nil {
				err = errors.Join(err, p.stop())
			}
		}
	}()
	if servers.ours, err = l.serve(ctx, path); err != nil {
		return nil, err
	}
	if servers.stock, err = l.serve(ctx, stock); err != nil {
		return nil, err
	}
	interop := l.interop(ctx, interopCases(), servers)
	printInterop(opts.Detail, interop)
	h2, err := l.h2spec(ctx, h2specSuite(opts.Quick), servers, patience(opts.Quick))
	if err != nil {
		return nil, err
	}
	printH2spec(opts.Detail, h2)
	return append(interopFigures(interop), h2specFigures(h2)...), ctx.Err()
}

// notEnded is said of a case that was given up.
const notEnded = "it has not ended in time"

// pair is the same of both servers.
type pair[T any] struct{ ours, stock T }

// atOnce is how many cases are under way at the same time. Most of the time they wait.
const atOnce = 4

// several calls f with 0 to n-1, some of them at once, and returns when all have returned.
func several(n int, f func(int)) {
	free := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for i := range n {
		free <- struct{}{}
		all.Go(func() {
			defer func() { <-free }()
			f(i)
		})
	}
	all.Wait()
}

// table prints rows in columns, below a title. What cannot be printed is not worth ending a run for.
func table(w io.Writer, title string, rows [][]string) {
	fmt.Fprintf(w, "\n%s\n", title)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(tw, "  "+strings.TrimRight(strings.Join(row, "\t"), "\t"))
	}
	_ = tw.Flush()
}
