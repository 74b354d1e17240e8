// Command dashboards writes deploy/grafana/: a Grafana dashboard and the Prometheus rules that it and its alerts stand on,
// with a panel and a threshold for each method of the contract.
//
// They are made from the schemas under proto/ and from the names of the metrics that the servers have (metrics.go), so a
// method that is new is watched from its first day, and one that is gone leaves no dead panel. The output depends on
// nothing else.
//
//	go run ./tools/cmd/dashboards           write deploy/grafana/
//	go run ./tools/cmd/dashboards --check   exit 1 and name the files that differ, write nothing
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/concordat-dev/concordat/tools/internal/repo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "dashboards:", err)
		os.Exit(1)
	}
}

// folder is where the files are, from the root of the repository.
const folder = "deploy/grafana"

// run writes the files of the repository that the process stands in, or compares them.
func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("dashboards", flag.ContinueOnError)
	check := flags.Bool("check", false, "compare with "+folder+" and write nothing")
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
	files, err := render(ctx, root)
	if err != nil {
		return err
	}
	stale, err := compare(filepath.Join(root, folder), files)
	if err != nil {
		return err
	}
	if *check {
		if len(stale) > 0 {
			return fmt.Errorf("not what the contract says: %s", strings.Join(stale, ", "))
		}
		fmt.Fprintf(out, "%s: %d files are what the contract says\n", folder, len(files))
		return nil
	}
	for _, name := range stale {
		if err := put(filepath.Join(root, name), files[name]); err != nil {
			return err
		}
		fmt.Fprintf(out, "%s: written\n", name)
	}
	return nil
}

// render returns the files by their paths from the root.
func render(ctx context.Context, root string) (map[string][]byte, error) {
	services, err := readContract(ctx, root)
	if err != nil {
		return nil, err
	}
	dashboard, err := renderDashboard(services)
	if err != nil {
		return nil, fmt.Errorf("make the dashboard: %w", err)
	}
	rules, err := renderRules(services)
	if err != nil {
		return nil, fmt.Errorf("make the rules: %w", err)
	}
	return map[string][]byte{folder + "/concordat.json": dashboard, folder + "/rules.yaml": rules}, nil
}

// compare returns the paths of the files that are missing or other than they should be.
func compare(dir string, files map[string][]byte) ([]string, error) {
	var stale []string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		have, err := os.ReadFile(filepath.Join(dir, filepath.Base(name)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err != nil || !bytes.Equal(have, files[name]) {
			stale = append(stale, name)
		}
	}
	return stale, nil
}

func put(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}
