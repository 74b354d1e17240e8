// Package review says what a change of a contract means to everybody who relies on it: every difference between two
// versions, what each breaks, who in the Go of the tree uses it, and whether that very break was approved.
//
// It holds the working tree against its base and every baseline at once. It never skips: a baseline that cannot be
// found or compiled, an approval that approves nothing, and rules that buf.yaml no longer asks for are failures.
package review

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/concordat-dev/concordat/tools/internal/repo"
	"github.com/concordat-dev/concordat/tools/review/baseline"
	"github.com/concordat-dev/concordat/tools/review/consumers"
	"github.com/concordat-dev/concordat/tools/review/rules"
	"github.com/concordat-dev/concordat/tools/review/schema"
)

// Options say what is reviewed.
type Options struct {
	// Dir is the root of the workspace: the folder with buf.yaml. Required.
	Dir string
	// BaseRef is the revision that the change will be merged into. Empty means the main branch: see baseline.FindBase.
	BaseRef string
	// Against are inputs of buf to hold the tree against, in place of the base and the baselines.
	Against []string
	// Consumers asks who uses what changed.
	Consumers bool
	// Usage are snapshots of what callers really send, as files.
	Usage []string
	// Cache is a folder for what was found out about commits; empty means that nothing is kept.
	Cache string
	// Now is the time by which sunsets and approvals are judged. Required.
	Now time.Time
}

// A Baseline is what the tree was held against.
type Baseline struct {
	// Name is base, release or deployed, or an input of buf.
	Name string `json:"name"`
	// Commit is its id; empty for an input that is none, and where nothing was promised yet.
	Commit string `json:"commit,omitempty"`
	// How says how it was found.
	How string `json:"how"`
	// None is set where there is nothing to compare with, as before the first release.
	None bool `json:"none,omitempty"`
	// Changes counts the elements that differ.
	Changes int `json:"changes"`
	// Bump is the least part of a semantic version that has to go up.
	Bump string `json:"semver,omitempty"`
	// Events is set where only what streams carry counts: readers of a stream may be told what a server of this baseline
	// wrote, long after the last of them has gone.
	Events bool `json:"events_only,omitempty"`

	input   string // of buf: what was asked for, or the folder into which the commit was checked out
	before  *schema.Image
	changes []schema.Change
	uses    *consumers.Index
	buf     []bufFinding
	weaker  []weakening
}

// key is the same for two baselines that are the same.
func (b *Baseline) key() string { return cmp.Or(b.Commit, b.Name) }

// named lets an error about a commit speak of the commit, and not of the folder that it was looked at in.
func (b *Baseline) named(err error) error {
	if err == nil || b.Commit == "" {
		return err
	}
	text := strings.ReplaceAll(err.Error(), b.input+string(filepath.Separator), "")
	return errors.New(strings.ReplaceAll(text, b.input, fmt.Sprintf("the baseline %s (%s)", b.Name, b.Commit)))
}

// A Finding is a finding of a rule, with who is concerned and whether it was approved.
type Finding struct {
	*rules.Finding
	// Path is the file from the root of the tree; Line and Column count from 1, and are 0 where unknown.
	Path   string `json:"path"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	// Baselines are the names of those in comparison with which it was found.
	Baselines []string `json:"baselines"`
	// Hidden says why it does not count although a rule found it; empty where it counts.
	Hidden string `json:"hidden,omitempty"`
	// Consumers are who is concerned.
	Consumers Consumers `json:"consumers"`
	// Seen are the callers that have used the element, from usage snapshots.
	Seen []Seen `json:"seen,omitempty"`
	// Found are the flags by which a review finds it that does not find it without; who approves it needs them too.
	Found []string `json:"found_by,omitempty"`
	// Approval is the file that approves it; empty where none does.
	Approval string `json:"approval,omitempty"`
}

// Fails tells whether the finding makes the review fail. What is implied by another finding fails, and is approved, with
// that one.
func (f *Finding) Fails() bool {
	return f.Level != rules.Note && f.Hidden == "" && f.Approval == "" && f.Implied == ""
}

// A Report is the result of a review.
type Report struct {
	// Version is that of this format, which grows without breaking: 1.
	Version int `json:"version"`
	// Head is the commit that the working tree stands on, with "+" where it was changed since.
	Head string `json:"head"`
	// Prefix is the folder of the workspace from the root of its repository, with a slash at its end; empty where they are
	// the same. All paths in the report are from the workspace.
	Prefix string `json:"prefix,omitempty"`
	// Baselines are what the tree was held against, in the order base, release, deployed.
	Baselines []*Baseline `json:"baselines"`
	// Findings are sorted by package, by level and by element.
	Findings []*Finding `json:"findings"`
	// Changes are all differences from the first baseline, also those that no rule objects to.
	Changes []Change `json:"changes"`
	// Released are all differences from the release; nil before the first one.
	Released []Change `json:"released,omitempty"`
	// Approvals are all approvals in the tree, and what each is good for.
	Approvals []ApprovalState `json:"approvals"`
	// Analysed says how far the search for consumers went; nil where it was not asked for.
	Analysed *Analysed `json:"analysed,omitempty"`
	// Evidence says what the snapshots of usage are worth; nil where there are none.
	Evidence *Evidence `json:"evidence,omitempty"`
	// Bump is the least part of a semantic version that has to go up since the release, or since the base before
	// the first one.
	Bump string `json:"semver"`
	// Took is how long the review took.
	Took time.Duration `json:"took_ns"`
}

// Failures counts what makes the review fail: findings that nobody approved, and approvals that are good for nothing.
func (r *Report) Failures() int {
	count := 0
	for _, f := range r.Findings {
		if f.Fails() {
			count++
		}
	}
	for _, a := range r.Approvals {
		if a.Fails() {
			count++
		}
	}
	return count
}

// Run reviews the tree. An error says that no verdict was reached; whether the tree passes, Report.Failures says.
func Run(ctx context.Context, buf Buf, o Options) (*Report, error) {
	began := time.Now()
	if _, err := os.Stat(filepath.Join(o.Dir, "buf.yaml")); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has no buf.yaml: run the review in the root of a buf workspace, or name it by --dir", o.Dir)
	}
	baselines, err := findBaselines(ctx, o)
	if err != nil {
		return nil, err
	}
	r := &run{Options: o, bufTool: buf, baselines: baselines, report: &Report{
		Version: 1, Head: head(ctx, o.Dir), Prefix: prefix(ctx, o.Dir), Baselines: baselines, Findings: []*Finding{}, Changes: []Change{},
	}}
	if err := r.compile(ctx); err != nil {
		return nil, err
	}
	if err := r.judge(ctx); err != nil {
		return nil, err
	}
	r.report.Took = time.Since(began)
	return r.report, nil
}

// A run is one review at work.
type run struct {
	Options
	bufTool    Buf
	baselines  []*Baseline
	after      *schema.Image
	configured map[string]bool
	categories map[string][]string // the rules of buf by category, where buf.yaml may name one
	now        *consumers.Index    // of the working tree
	// ungenerated is set where the Go code was not generated again since the base.
	ungenerated bool
	disk        disk
	whose       *owners
	report      *Report
}

// findBaselines lists what the tree is held against.
func findBaselines(ctx context.Context, o Options) ([]*Baseline, error) {
	if len(o.Against) > 0 {
		var list []*Baseline
		for _, input := range o.Against {
			if err := isInput(ctx, o.Dir, input); err != nil {
				return nil, err
			}
			list = append(list, &Baseline{Name: input, How: "as asked for", input: input})
		}
		return list, nil
	}
	if _, err := repo.Output(ctx, o.Dir, "git", "rev-parse", "--git-dir"); err != nil {
		return nil, fmt.Errorf("%s is not in a git repository: name what to compare with by --against: %w", o.Dir, said(err))
	}
	base, err := baseline.FindBase(ctx, o.Dir, o.BaseRef)
	if err != nil {
		return nil, err
	}
	list := []*Baseline{{Name: "base", Commit: base.Commit, How: base.How, None: base.Commit == ""}}
	named, err := baseline.FindBaselines(ctx, o.Dir, o.BaseRef)
	if errors.Is(err, fs.ErrNotExist) {
		if base.Commit != "" {
			if _, gone := repo.Output(ctx, o.Dir, "git", "cat-file", "-e", base.Commit+":./"+baseline.Path); gone == nil {
				return nil, fmt.Errorf("%s is missing, and the base has it: a baseline is never dropped", baseline.Path)
			}
		}
		return list, nil
	}
	if err != nil {
		return nil, err
	}
	for _, b := range named {
		how := baseline.Path
		if b.Commit == "" {
			how += " says none"
		}
		list = append(list, &Baseline{Name: b.Name, Commit: b.Commit, How: how, None: b.Commit == "", Events: b.Events})
	}
	return list, nil
}

// isInput refuses a commit without a word about its repository, which buf would look for as a folder.
func isInput(ctx context.Context, dir, input string) error {
	at := input
	if !filepath.IsAbs(at) {
		at = filepath.Join(dir, at)
	}
	if _, err := os.Stat(at); err == nil || strings.Contains(input, "#") {
		return nil
	}
	if _, err := repo.Output(ctx, dir, "git", "rev-parse", "--verify", "--quiet", "--end-of-options", input+"^{commit}"); err != nil {
		return nil // what it is, buf knows
	}
	up, _ := repo.Output(ctx, dir, "git", "rev-parse", "--show-cdup")
	return fmt.Errorf("--against: %s is a commit, and no input of buf: say %s.git#ref=%s", input, up, input)
}

// head names what the working tree stands on.
func head(ctx context.Context, dir string) string {
	commit, err := repo.Output(ctx, dir, "git", "rev-parse", "HEAD")
	if err != nil {
		return "the working tree"
	}
	if changed, err := repo.Output(ctx, dir, "git", "status", "--porcelain", "--untracked-files=no"); err != nil || changed != "" {
		commit += "+"
	}
	return commit
}

// prefix is the folder of the workspace from the root of its repository; empty outside of one.
func prefix(ctx context.Context, dir string) string {
	at, err := repo.Output(ctx, dir, "git", "rev-parse", "--show-prefix")
	if err != nil {
		return ""
	}
	return at
}

// compile builds every image and looks for consumers, side by side: each is a process of its own.
func (r *run) compile(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	same := map[string]*Baseline{} // the first baseline of each commit or input
	var firsts []*Baseline
	for _, b := range r.baselines {
		if b.None || same[b.key()] != nil {
			continue
		}
		same[b.key()] = b
		firsts = append(firsts, b)
		if b.Commit != "" {
			tree, remove, err := checkout(ctx, r.Dir, b.Commit, compiled)
			if err != nil {
				return err
			}
			defer remove()
			b.input = tree
		}
	}
	r.disk = newDisk(r.Dir)
	var group sync.WaitGroup
	var problems []*error // in the order in which they are told: the same contract gets the same line each time
	do := func(what func() error) {
		problem := new(error)
		problems = append(problems, problem)
		group.Go(func() { *problem = what() })
	}
	do(func() (err error) { r.after, err = r.bufTool.Build(ctx, "."); return err })
	do(func() (err error) { r.configured, err = r.bufTool.Configured(ctx); return err })
	if r.disk.ignoresOnly() {
		do(func() (err error) { r.categories, err = r.bufTool.categories(ctx); return err })
	}
	for _, b := range firsts {
		do(func() (err error) { b.before, err = r.bufTool.imageOf(ctx, b.Commit, b.input); return b.named(err) })
		do(func() (err error) { b.buf, err = r.bufTool.Breaking(ctx, b.input); return b.named(err) })
		do(func() (err error) { b.weaker, err = r.weaker(ctx, b); return b.named(err) })
	}
	group.Wait()
	for _, problem := range problems {
		if *problem != nil {
			return *problem
		}
	}
	for _, b := range r.baselines {
		if first := same[b.key()]; first != nil && first != b {
			b.before, b.buf, b.weaker = first.before, first.buf, first.weaker
		}
	}
	if !r.Consumers {
		return nil
	}
	return r.findConsumers(ctx)
}

// judge compares with each baseline and puts the verdicts together.
func (r *run) judge(ctx context.Context) error {
	byFingerprint := map[string]*Finding{}
	seen := sightings{}
	first := true
	for _, b := range r.baselines {
		if b.None {
			continue
		}
		b.changes = schema.Compare(b.before, r.after)
		found := rules.Check(b.before, r.after, b.changes, r.Now)
		paired, unpaired := pair(found, b.buf)
		if b.Events {
			found = told(found, b.before)
			unpaired = nil // what cannot be said to be part of a stream is no promise of this baseline
		}
		for _, theirs := range unpaired {
			f := alien(theirs, b.before, r.after)
			paired[f] = true
			found = append(found, f)
		}
		for _, w := range b.weaker {
			found = append(found, w.finding())
		}
		for _, f := range found {
			known := byFingerprint[f.Fingerprint]
			if known == nil {
				known = &Finding{Finding: f, Path: r.disk.path(f.At.Path), Line: f.At.Line, Column: f.At.Column}
				if f.Rule == GateWeakened {
					known.Path = f.At.Path // of the workspace, and of none of its modules
				}
				byFingerprint[f.Fingerprint] = known
				r.report.Findings = append(r.report.Findings, known)
			}
			if !slices.Contains(known.Baselines, b.Name) {
				known.Baselines = append(known.Baselines, b.Name)
			}
			hidden := r.hidden(known, paired[f])
			if seen[f.Fingerprint] == nil || hidden == "" {
				known.Hidden = hidden // hidden is what counts against no baseline
			}
			seen.add(b.Name, f, hidden)
		}
		for n := range b.changes {
			if !b.changes[n].Commented() {
				b.Changes++
			}
		}
		b.Bump = bump(b.changes, found)
		if first {
			r.report.Changes, first = r.describe(b), false
		}
		if b.Name == "release" {
			r.report.Released = r.describe(b)
		}
		if r.report.Bump == "" || b.Name == "release" {
			r.report.Bump = b.Bump
		}
	}
	for _, f := range r.report.Findings {
		f.Implied = seen.includer(f.Fingerprint)
		r.concerned(f)
	}
	if err := r.usage(); err != nil {
		return err
	}
	if err := r.approve(ctx); err != nil {
		return err
	}
	slices.SortStableFunc(r.report.Findings, compareFindings)
	return nil
}

// levels in the order in which they are reported.
var levels = []rules.Level{rules.Security, rules.Break, rules.Care, rules.Note}

func compareFindings(a, b *Finding) int {
	for _, order := range []int{
		strings.Compare(a.Package, b.Package), slices.Index(levels, a.Level) - slices.Index(levels, b.Level),
		strings.Compare(a.Element, b.Element), strings.Compare(a.Rule, b.Rule), strings.Compare(a.Attr, b.Attr),
	} {
		if order != 0 {
			return order
		}
	}
	return 0
}
