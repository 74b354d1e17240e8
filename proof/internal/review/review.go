// Package review measures the schema review as those who run it meet it: the built program, as a process, on our own contract,
// on one that is twenty times as large, and on every break of its self-test.
package review

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"

	"github.com/concordat-dev/concordat/proof/internal/figure"
	"github.com/concordat-dev/concordat/proof/internal/machine"
)

// Options say how much is measured.
type Options struct {
	// Root is the repository. Its HEAD is measured, not what was changed since.
	Root string
	// Quick measures just enough to see that everything works.
	Quick bool
	// Detail gets what stands behind the figures.
	Detail io.Writer
}

// run is one run of the harness.
type run struct {
	opts    Options
	out     *figure.Detail
	dir     string // gone with the run
	program string // the review, built
	buf     string // what the repository pins
	env     []string
}

// Measure returns all figures of the area.
func Measure(ctx context.Context, opts Options) (figures []figure.Figure, err error) {
	r := &run{opts: opts, out: figure.NewDetail(opts.Detail)}
	if r.opts.Root, err = filepath.Abs(opts.Root); err != nil {
		return nil, err
	}
	if r.dir, err = os.MkdirTemp("", "proof-review-"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(r.dir)) }()
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	r.out.Line("%s, %s, load average %s", runtime.Version(), machine.Processor(), machine.LoadAverage())
	ours, err := r.cloneOurs(ctx)
	if err != nil {
		return nil, fmt.Errorf("copy our own contract: %w", err)
	}
	large, err := r.writeLarge(ctx)
	if err != nil {
		return nil, fmt.Errorf("write a large contract: %w", err)
	}
	if figures, err = r.reviews(ctx, ours, large); err != nil {
		return nil, err
	}
	tried, err := r.selfTest(ctx, ours)
	if err != nil {
		return nil, err
	}
	r.out.Line("\nload average at the end: %s", machine.LoadAverage())
	return append(figures, tried...), nil
}

// prepare builds the review and finds what it needs.
func (r *run) prepare(ctx context.Context) error {
	r.program = filepath.Join(r.dir, "review")
	if _, err := r.output(ctx, r.opts.Root, "go", "build", "-o", r.program, "./tools/cmd/review"); err != nil {
		return err
	}
	var err error
	if r.buf, err = r.output(ctx, r.opts.Root, "go", "tool", "-n", "buf"); err != nil {
		return err
	}
	built, err := r.output(ctx, r.opts.Root, "go", "env", "GOCACHE")
	if err != nil {
		return err
	}
	// The large contract has no go.mod that pins buf. What Go has built is kept where it is; what the review keeps is not.
	r.env = []string{"PATH=" + filepath.Dir(r.buf) + string(filepath.ListSeparator) + os.Getenv("PATH"), "GOCACHE=" + built, "BASE_REF="}
	return nil
}

// output runs a program and returns what it prints.
func (r *run) output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), r.env...)
	out, err := cmd.Output()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, failed.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}

func (r *run) git(ctx context.Context, dir string, args ...string) (string, error) {
	identity := []string{"-c", "user.name=proof", "-c", "user.email=proof@localhost", "-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null", "-c", "init.defaultBranch=main"}
	return r.output(ctx, dir, "git", append(identity, args...)...)
}

// A contract is a repository in which a field was renamed or removed since its base.
type contract struct {
	dir     string
	base    string // the commit
	rule    string // what has to be found
	element string // there
	uses    int    // the least number of places in Go that use it
}

// renamed is the field of our own contract that is renamed.
var renamed = regexp.MustCompile(`string display_name = `)

// cloneOurs copies our own contract and renames a field that several services use.
func (r *run) cloneOurs(ctx context.Context) (*contract, error) {
	c := &contract{dir: filepath.Join(r.dir, "ours"), rule: "FIELD_SAME_NAME", element: "users.v1.User.display_name", uses: 5}
	if _, err := r.git(ctx, r.dir, "clone", "--quiet", "--shared", "--", r.opts.Root, c.dir); err != nil {
		return nil, err
	}
	var err error
	if c.base, err = r.git(ctx, c.dir, "rev-parse", "HEAD"); err != nil {
		return nil, err
	}
	file := filepath.Join(c.dir, "proto", "users", "v1", "user.proto")
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	changed := renamed.ReplaceAll(text, []byte("string shown_name = "))
	if len(changed) == len(text) {
		return nil, fmt.Errorf("%s has no field display_name", file)
	}
	if err := os.WriteFile(file, changed, 0o644); err != nil {
		return nil, err
	}
	_, err = r.git(ctx, c.dir, "commit", "--quiet", "--all", "--message", "rename a field")
	return c, err
}

// selfTestLine is how the self-test ends.
var selfTestLine = regexp.MustCompile(`(?m)^caught (\d+) of (\d+) breaks; silent on (\d+) of (\d+) harmless edits$`)

// selfTest runs the self-test on our own contract as it is.
func (r *run) selfTest(ctx context.Context, c *contract) ([]figure.Figure, error) {
	if _, err := r.git(ctx, c.dir, "checkout", "--quiet", c.base); err != nil {
		return nil, err
	}
	args := []string{"selftest", "--dir", c.dir}
	if r.opts.Quick {
		args = append(args, "--only", "FIELD_NO_DELETE", "--only", "AUDIENCE_WIDENED")
	}
	m, err := r.measure(ctx, r.dir, args...)
	if err != nil {
		return nil, err
	}
	found := selfTestLine.FindStringSubmatch(m.printed)
	if found == nil {
		return nil, fmt.Errorf("the self-test prints no result:\n%s", m.printed)
	}
	var n [4]float64
	for i := range n {
		if n[i], err = strconv.ParseFloat(found[i+1], 64); err != nil {
			return nil, err
		}
	}
	for line := range strings.Lines(m.printed) {
		if !strings.HasPrefix(line, "ok ") {
			r.out.Line("self-test: %s", strings.TrimSpace(line))
		}
	}
	r.out.Line("self-test: %s", m)
	return []figure.Figure{
		{Name: "review.selftest_caught", Value: n[0] / n[1], Runs: 1},
		{Name: "review.selftest_breaks", Value: n[1], Runs: 1},
		{Name: "review.selftest_harmless", Value: n[2], Runs: 1},
		{Name: "review.selftest_false", Value: n[3] - n[2], Runs: 1},
	}, nil
}
