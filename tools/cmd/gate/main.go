// Command gate holds the contract of the working tree against what was promised before.
//
//	go run ./tools/cmd/gate           compare with the base and with every baseline
//	go run ./tools/cmd/gate base      print the base commit, or nothing where there is none
//
// The environment variable BASE_REF names the branch that the change will be merged into; without
// it that is origin/main. It exits with 1 where a promise is broken and where a comparison could
// not be made.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/concordat-dev/concordat/tools/gate"
	"github.com/concordat-dev/concordat/tools/internal/repo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Getenv("BASE_REF"), os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gate:", err)
		os.Exit(1)
	}
}

// run prints its result to out and what a person should know to notes.
func run(ctx context.Context, args []string, baseRef string, out, notes io.Writer) error {
	root, err := repo.Root(".")
	if err != nil {
		return err
	}
	switch {
	case len(args) == 0:
		// In the tools module `go tool` finds buf with a workspace and without.
		buf, err := repo.Output(ctx, filepath.Join(root, "tools"), "go", "tool", "-n", "buf")
		if err != nil {
			return fmt.Errorf("build buf: %w", err)
		}
		return gate.Gate{Dir: root, Buf: buf, BaseRef: baseRef, Out: out}.Run(ctx)
	case len(args) == 1 && args[0] == "base":
		base, err := gate.FindBase(ctx, root, baseRef)
		if err != nil {
			return err
		}
		fmt.Fprintln(notes, base)
		fmt.Fprintln(out, base.Commit)
		return nil
	default:
		return errors.New("usage: gate [base]")
	}
}
