// Command exportproto writes third_party/: the schemas that the contract imports but does not own.
//
// They are printed from the descriptors that the pinned Go modules register, so the schema that
// buf compiles against can never differ from the runtime that enforces it. Descriptors in Go carry
// no comments, so neither do the files; the module that each header names has them.
//
//	go run ./tools/cmd/exportproto           write third_party/
//	go run ./tools/cmd/exportproto --check   exit 1 and name the files that differ, write nothing
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"github.com/concordat-dev/concordat/tools/internal/repo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "exportproto:", err)
		os.Exit(1)
	}
}

// run exports into the third_party folder of the repository that the process stands in, or compares it.
func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("exportproto", flag.ContinueOnError)
	check := flags.Bool("check", false, "compare with third_party/ and write nothing")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	root, err := repo.Root(".")
	if err != nil {
		return err
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return fmt.Errorf("this binary carries no build information, so it does not know its module versions")
	}
	files, err := render(ctx, info, formatter{dir: filepath.Join(root, "tools")})
	if err != nil {
		return err
	}
	dir := filepath.Join(root, "third_party")
	differences, err := compare(dir, files)
	if err != nil {
		return err
	}
	if *check {
		if len(differences) == 0 {
			fmt.Fprintf(out, "third_party: %d files are what the pinned modules say\n", len(files))
			return nil
		}
		return differences
	}
	if err := write(dir, files, differences); err != nil {
		return err
	}
	for _, d := range differences {
		fmt.Fprintf(out, "third_party/%s: was %s\n", d.Path, d.State)
	}
	fmt.Fprintf(out, "third_party: %d files, %d written\n", len(files), len(differences))
	return nil
}
