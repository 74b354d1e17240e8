// Command proof measures what we claim. Each area is a harness; it prints its figures against the goals of goals.yaml, and
// prints a goal that was missed as missed.
package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/concordat-dev/concordat/proof/internal/conformance"
	"github.com/concordat-dev/concordat/proof/internal/faults"
	"github.com/concordat-dev/concordat/proof/internal/figure"
	"github.com/concordat-dev/concordat/proof/internal/payments"
	"github.com/concordat-dev/concordat/proof/internal/review"
	"github.com/concordat-dev/concordat/proof/internal/rpc"
	"github.com/concordat-dev/concordat/proof/internal/skew"
	"github.com/concordat-dev/concordat/proof/internal/start"
	"github.com/concordat-dev/concordat/proof/internal/users"
)

//go:embed goals.yaml
var goalsText []byte

type options struct {
	Area     string        `arg:"" enum:"${areas}" help:"What to measure: rpc (the request path beside stock grpc-go), faults (gRPC and HTTP/2 as others understand them; kills, full disks, power cuts), start (from exec to healthy), users (the users service on both stores; needs PostgreSQL), payments (charges beside pgbench, of the store and of the program; needs PostgreSQL), skew (this version beside an older one), review (how long the schema review takes, and what it finds)."`
	JSON     bool          `name:"json" help:"Print one JSON object a line instead of a table."`
	Quick    bool          `help:"Fewer rounds or cases: to see that it works, not to quote."`
	Service  string        `help:"faults: break this service alone." enum:"users,payments," default:""`
	Kills    int           `help:"faults: how often a service is killed on each engine. None means 100, or 10 with --quick."`
	Growth   int           `help:"payments: how many payments the large tables have. None means 1,000,000, or 10,000 with --quick."`
	Pace     time.Duration `help:"faults: how often PostgreSQL is restarted under load that never ends. None means every 20 s, or 5 s with --quick."`
	Seed     uint64        `help:"faults: what decides when. None means another one each time."`
	Profile  string        `help:"rpc and users: write profiles of the servers under load into this directory." type:"existingdir"`
	Strict   bool          `help:"End with 1 where a goal is missed."`
	Baseline string        `help:"skew: the commit of the older version. None means the release of proto/baselines.yaml; where that says none, what this change starts from."`
	Freeze   string        `help:"skew: measure nothing, add to the frozen messages: \"missing\" adds one of each message that has none, a full name (payments.v1.ChargeRequest) the one whose JSON comes on standard input." placeholder:"MESSAGE"`
	As       string        `help:"skew: with --freeze MESSAGE, the name of the frozen message." placeholder:"NAME"`
	Root     string        `help:"The repository." default:"." type:"existingdir"`
}

// areas are the first parts of the names of the figures.
func areas() []string {
	return []string{"rpc", "faults", "start", "users", "payments", "skew", "review"}
}

func main() {
	if variant := os.Getenv(rpc.Variable); variant != "" {
		os.Exit(rpc.Serve(variant)) // a server that the area rpc measures
	}
	if role := os.Getenv(conformance.Variable); role != "" {
		os.Exit(conformance.Serve(role)) // a server or a client of the area faults
	}
	var opts options
	kong.Parse(&opts, kong.Name("proof"), kong.Description("Measure what we claim."),
		kong.Vars{"areas": strings.Join(areas(), ",")})
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
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
	if opts.Freeze != "" {
		return freeze(opts, os.Stdin, os.Stdout)
	}
	figures, err := measure(ctx, opts, os.Stderr)
	if err != nil {
		return err
	}
	if opts.Area == "faults" && opts.Service != "" {
		of := "faults." + opts.Service + "_"
		maps.DeleteFunc(goals, func(name string, _ figure.Goal) bool { return !strings.HasPrefix(name, of) })
	}
	command := "go run ./proof " + strings.Join(os.Args[1:], " ")
	if err := figure.Print(os.Stdout, goals, opts.Area, figures, command, opts.JSON); err != nil {
		return err
	}
	if missed := figure.Missed(goals, figures); opts.Strict && len(missed) > 0 {
		return fmt.Errorf("missed: %s", strings.Join(missed, ", "))
	}
	return nil
}

// freeze adds to the corpus of frozen messages.
func freeze(opts options, in io.Reader, out io.Writer) error {
	if opts.Area != "skew" {
		return errors.New("--freeze goes with the area skew")
	}
	return skew.Freeze(opts.Root, opts.Freeze, opts.As, in, out)
}

// measure returns the figures of the area; detail gets what stands behind them.
func measure(ctx context.Context, opts options, detail io.Writer) ([]figure.Figure, error) {
	switch opts.Area {
	case "rpc":
		return rpc.Measure(ctx, rpc.Options{Root: opts.Root, Quick: opts.Quick, Profile: opts.Profile, Detail: detail})
	case "faults":
		broken := faults.Options{Root: opts.Root, Service: opts.Service, Quick: opts.Quick, Kills: opts.Kills, Pace: opts.Pace, Seed: opts.Seed, Detail: detail}
		if opts.Service != "" {
			return faults.Measure(ctx, broken)
		}
		understood, err := conformance.Measure(ctx, conformance.Options{Quick: opts.Quick, Detail: detail})
		if err != nil {
			return nil, err
		}
		survived, err := faults.Measure(ctx, broken)
		return append(understood, survived...), err
	case "users":
		return users.Measure(ctx, users.Options{Root: opts.Root, Quick: opts.Quick, Profile: opts.Profile, Detail: detail})
	case "skew":
		return skew.Measure(ctx, skew.Options{Root: opts.Root, Baseline: opts.Baseline, Detail: detail})
	case "payments":
		return payments.Measure(ctx, payments.Options{Root: opts.Root, Quick: opts.Quick, Growth: opts.Growth, Detail: detail})
	case "review":
		return review.Measure(ctx, review.Options{Root: opts.Root, Quick: opts.Quick, Detail: detail})
	}
	runs := 7
	if opts.Quick {
		runs = 2
	}
	return start.Measure(ctx, opts.Root, runs)
}
