// Command review says what a change of a contract breaks, and for whom, and lets through exactly what was approved.
//
//	go run ./tools/cmd/review                       the working tree against its base and every baseline
//	go run ./tools/cmd/review approve <fingerprint> write an approval of one finding
//	go run ./tools/cmd/review prune                 remove approvals that are good for nothing any more
//	go run ./tools/cmd/review rules                 every rule, and why
//	go run ./tools/cmd/review selftest              break the contract once per rule, and expect each to be found
//	go run ./tools/cmd/review comment               keep the comment on a pull request up to date
//
// It works in any repository with a buf.yaml. It exits with 0 when nothing is left to mend or approve, with 1 when
// something is, and with 2 when it could not tell; `go run` makes 1 of 2.
package main

import (
	"context"
	"errors"
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
	"time"

	"github.com/alecthomas/kong"

	"github.com/concordat-dev/concordat/tools/review"
	"github.com/concordat-dev/concordat/tools/review/baseline"
	"github.com/concordat-dev/concordat/tools/review/report"
	"github.com/concordat-dev/concordat/tools/review/rules"
	"github.com/concordat-dev/concordat/tools/review/selftest"
)

// errFailed: the review reached a verdict, and it is no.
var errFailed = errors.New("failed")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

type settings struct {
	Dir string `help:"The root of the workspace: the folder with buf.yaml. The default is the nearest one above." placeholder:"FOLDER"`

	Check    check    `cmd:"" default:"withargs" help:"Hold the working tree against its base and every baseline (the default)."`
	Approve  approve  `cmd:"" help:"Write an approval of exactly one change, or of several, each by its fingerprint."`
	Prune    prune    `cmd:"" help:"Remove approvals that are good for nothing any more."`
	Rules    list     `cmd:"" help:"List every rule: what it finds, why that matters, and the way out."`
	Base     base     `cmd:"" help:"Print the commit that the change starts from; nothing where there is none."`
	Comment  comment  `cmd:"" help:"Write a report to a pull request as a comment, over the one of the last run; GITHUB_TOKEN is the token."`
	Selftest selfTest `cmd:"" help:"Break the contract once per rule in copies of the tree, and expect each break to be found."`
}

// against says what the tree is held against; every command that reviews has it.
type against struct {
	Base    string   `env:"BASE_REF" help:"The branch that the change will be merged into. The default is the default branch of origin, main or master." placeholder:"REF"`
	Against []string `sep:"none" help:"Compare with this input of buf (a folder, .git#ref=…, an image) in place of the base and the baselines." placeholder:"INPUT"`
	BufFrom string   `type:"existingdir" help:"A folder whose go.mod has buf as a tool, for a workspace that has no buf of its own." placeholder:"FOLDER"`
}

// looks says what a review looks at beside the contract; who approves a finding looks at what found it.
type looks struct {
	NoConsumers bool     `help:"Do not look for Go code that uses what changed."`
	Usage       []string `type:"existingfile" help:"A snapshot of what callers send, from the admin port's /usage; may be given more than once." placeholder:"FILE"`
	NoCache     bool     `help:"Keep nothing of what was found out about commits."`
}

type check struct {
	against
	looks
	Format  string            `default:"auto" env:"REVIEW_FORMAT" enum:"auto,text,color,markdown,json,sarif,github,html,changelog" help:"What to print: ${enum}."`
	Write   map[string]string `help:"Also write FORMAT=FILE; may be given more than once." placeholder:"FORMAT=FILE"`
	Reports string            `env:"REVIEW_REPORTS" help:"Also write review.md, review.html, review.json and review.sarif into this folder." placeholder:"FOLDER"`
	Outputs string            `help:"Append verdict=passed, failed or unknown, and report=FOLDER, to this file: $GITHUB_OUTPUT of a workflow step." placeholder:"FILE"`
}

type approve struct {
	against
	looks
	Fingerprints []string `arg:"" name:"fingerprint" help:"The fingerprint of a finding, or at least four characters of its beginning."`
	Reason       string   `required:"" help:"Why this break is right, for a reader of next year."`
	Owner        string   `required:"" help:"Who answers for it, such as @team or an address."`
	Expires      string   `help:"The last day on which it holds, yyyy-mm-dd; at most 90 days ahead. The default is in 30 days." placeholder:"DAY"`
}

type prune struct {
	against
	looks
}

type list struct {
	Format string `default:"text" enum:"text,markdown" help:"What to print: ${enum}."`
}

type base struct{ against }

type selfTest struct {
	Only     []string `help:"Try only these rules." placeholder:"RULE"`
	Harmless bool     `default:"true" negatable:"" help:"Also make edits that break nothing, and expect no finding."`
}

// run does what the command line says and returns the exit code.
func run(ctx context.Context, args []string, out, notes io.Writer) int {
	var s settings
	exited := -1
	parser, err := kong.New(&s, kong.Name("review"), kong.Description("What a change of the contract breaks, for whom, and what of it was approved."),
		kong.Writers(out, notes), kong.Exit(func(code int) { exited = code }), kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(&s),
		kong.BindTo(out, (*io.Writer)(nil)))
	if err != nil {
		fmt.Fprintln(notes, "review:", err)
		return 2
	}
	parsed, err := parser.Parse(args)
	if exited >= 0 {
		return exited
	}
	if err == nil {
		if parsed.Command() != "comment" { // which needs no contract
			s.Dir, err = root(s.Dir)
		}
		if err == nil {
			err = parsed.Run()
		}
	}
	switch {
	case errors.Is(err, errFailed):
		return 1
	case err != nil:
		fmt.Fprintln(notes, "review:", strings.Join(strings.Fields(err.Error()), " "))
		return 2
	default:
		return 0
	}
}

// root returns the nearest folder with a buf.yaml, from dir upwards; dir itself where it was given.
func root(dir string) (string, error) {
	given := dir != ""
	start, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for at := start; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "buf.yaml")); err == nil || !errors.Is(err, fs.ErrNotExist) {
			return at, err
		}
		if given {
			return "", fmt.Errorf("--dir: %s has no buf.yaml", dir)
		}
		if at == filepath.Dir(at) {
			return "", errors.New("no buf.yaml here or in any folder above: run it in a buf workspace, or name one by --dir")
		}
	}
}

func (a against) review(ctx context.Context, dir string, l looks) (*review.Report, error) {
	buf, err := review.FindBuf(ctx, dir)
	if err != nil && a.BufFrom != "" {
		buf, err = review.FindBuf(ctx, a.BufFrom)
		buf.Dir = dir
	}
	if err != nil {
		return nil, err
	}
	o := review.Options{Dir: dir, BaseRef: a.Base, Against: a.Against, Consumers: !l.NoConsumers, Now: time.Now()}
	here, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	for _, file := range l.Usage { // as it is named from here: a report repeats it
		if relative, err := filepath.Rel(here, file); err == nil && filepath.IsLocal(relative) {
			file = relative
		}
		o.Usage = append(o.Usage, file)
	}
	if at, err := os.UserCacheDir(); err == nil && !l.NoCache {
		o.Cache = filepath.Join(at, "concordat-review")
	}
	return review.Run(ctx, buf, o)
}

// Run reviews the tree and prints the report.
func (c *check) Run(ctx context.Context, s *settings, out io.Writer) error {
	formats := report.Formats()
	for name := range c.Write {
		if formats[name] == nil {
			return fmt.Errorf("--write: %q is no format: %s", name, strings.Join(slices.Sorted(maps.Keys(formats)), ", "))
		}
	}
	result, err := c.review(ctx, s.Dir, c.looks)
	if err := errors.Join(err, c.handOn(result, err)); err != nil {
		return err
	}
	format := c.Format
	if format == "auto" {
		format = "text"
		if terminal(out) && os.Getenv("NO_COLOR") == "" {
			format = "color"
		}
	}
	if err := formats[format](out, result); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(c.Write)) {
		if err := write(c.Write[name], formats[name], result); err != nil {
			return fmt.Errorf("--write: %w", err)
		}
	}
	if result.Failures() > 0 {
		return errFailed
	}
	return nil
}

// terminal tells whether a person reads what is printed.
func terminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// Run writes approvals.
func (a *approve) Run(ctx context.Context, s *settings, out io.Writer) error {
	now := time.Now()
	expires := now.AddDate(0, 0, 30)
	if a.Expires != "" {
		var err error
		if expires, err = time.Parse(time.DateOnly, a.Expires); err != nil {
			return fmt.Errorf("--expires: %q is no day (yyyy-mm-dd)", a.Expires)
		}
	}
	result, err := a.review(ctx, s.Dir, a.looks)
	if err != nil {
		return err
	}
	written, err := review.Approve(s.Dir, result, review.Approver{Reason: a.Reason, Owner: a.Owner, Expires: expires}, now, a.Fingerprints...)
	for _, file := range written {
		fmt.Fprintln(out, file)
	}
	return err
}

// Run removes approvals.
func (p *prune) Run(ctx context.Context, s *settings, out io.Writer) error {
	result, err := p.review(ctx, s.Dir, p.looks)
	if err != nil {
		return err
	}
	removed, err := review.Prune(s.Dir, result)
	for _, file := range removed {
		fmt.Fprintln(out, "removed", file)
	}
	return err
}

// Run prints every rule.
func (l *list) Run(out io.Writer) error {
	row := "%-46s %-8s %s\n    %s\n    %s\n"
	if l.Format == "markdown" {
		fmt.Fprint(out, "| rule | level | finds that | why | the way out |\n|---|---|---|---|---|\n")
		row = "| `%s` | %s | %s | %s | %s |\n"
	}
	for _, r := range rules.All() {
		fmt.Fprintf(out, row, r.ID, r.Level, r.Purpose, r.Why, r.WayOut)
	}
	return nil
}

// Run prints the base.
func (b *base) Run(ctx context.Context, s *settings, out io.Writer) error {
	found, err := baseline.FindBase(ctx, s.Dir, b.Base)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, found.Commit)
	return err
}

// Run tries the gate.
func (t *selfTest) Run(ctx context.Context, s *settings, out io.Writer) error {
	buf, err := review.FindBuf(ctx, s.Dir)
	if err != nil {
		return err
	}
	result, err := selftest.Run(ctx, buf, selftest.Options{Dir: s.Dir, Only: t.Only, Harmless: t.Harmless, Now: time.Now(), Out: out})
	if err != nil {
		return err
	}
	if result.Missed() > 0 {
		return errFailed
	}
	return nil
}
