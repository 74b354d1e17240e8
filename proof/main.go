// Command proof measures what we claim. Each area is a harness; it prints its figures against the goals of goals.yaml, and
// prints a goal that was missed as missed.
package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/concordat-dev/concordat/proof/internal/figure"
	"github.com/concordat-dev/concordat/proof/internal/start"
)

//go:embed goals.yaml
var goalsText []byte

type options struct {
	Area  string `arg:"" enum:"start" help:"What to measure: start (from exec to healthy)."`
	JSON  bool   `name:"json" help:"Print one JSON object a line instead of a table."`
	Quick bool   `help:"Fewer rounds: to see that it works, not to quote."`
	Root  string `help:"The repository." default:"." type:"existingdir"`
}

func main() {
	var opts options
	kong.Parse(&opts, kong.Name("proof"), kong.Description("Measure what we claim."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, opts); err != nil {
		fmt.Fprintln(os.Stderr, "proof:", err)
		os.Exit(1)
	}
}

// run measures one area and prints what came out.
func run(ctx context.Context, opts options) error {
	goals, err := figure.ParseGoals(goalsText)
	if err != nil {
		return err
	}
	runs := 7
	if opts.Quick {
		runs = 2
	}
	figures, err := start.Measure(ctx, opts.Root, runs)
	if err != nil {
		return err
	}
	command := "go run ./proof " + strings.Join(os.Args[1:], " ")
	return figure.Print(os.Stdout, goals, opts.Area, figures, command, opts.JSON)
}
