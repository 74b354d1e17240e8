package review

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/concordat-dev/concordat/tools/internal/repo"
	"github.com/concordat-dev/concordat/tools/review/consumers"
	"github.com/concordat-dev/concordat/tools/review/rules"
	"github.com/concordat-dev/concordat/tools/review/schema"
)

// A Verdict says what a finding does to the Go code that was looked at.
type Verdict string

// The verdicts, the worst first.
const (
	// BreaksCompilation: code in the tree does not compile, or will not once the code is generated again.
	BreaksCompilation Verdict = "breaks compilation"
	// BreaksAtRunTime: code in the tree, or a program built from a baseline, compiles and meets what it does not expect.
	BreaksAtRunTime Verdict = "breaks at run time"
	// Unknown: something could not be analysed, or reads whole messages, and may use it.
	Unknown Verdict = "unknown"
	// UnusedHere: nothing in the tree uses it, and everything was analysed. Who else does, it cannot say.
	UnusedHere Verdict = "unused here"
	// Unaffected: code uses it, and goes on as before.
	Unaffected Verdict = "unaffected"
)

// Consumers are who a finding concerns.
type Consumers struct {
	Verdict Verdict `json:"verdict,omitempty"`
	// Uses are in the working tree, Built in the baseline: in programs that may still run.
	Uses  []Use `json:"uses,omitempty"`
	Built []Use `json:"built,omitempty"`
	// Why says what was not known, where the verdict is unknown.
	Why string `json:"why,omitempty"`
}

// A Use is a place in Go code and whose it is.
type Use struct {
	consumers.Use
	// Owners are whom CODEOWNERS names for the file.
	Owners []string `json:"owners,omitempty"`
	// Breaks is set where this place stops compiling.
	Breaks bool `json:"breaks,omitempty"`
}

// Analysed says how far the search for consumers went.
type Analysed struct {
	Modules  []string            `json:"modules"`
	Packages int                 `json:"packages"`
	Problems []consumers.Problem `json:"problems"`
	// Built are the problems with what was built from baselines, by their names, as far as the working tree does not have
	// them too.
	Built map[string][]consumers.Problem `json:"built,omitempty"`
	// LeftOut are the files that may use the contract and are not built here, for their build tags or their system.
	LeftOut []string `json:"left_out,omitempty"`
}

// findConsumers analyses the working tree, and of each baseline that is a commit what was built from it.
func (r *run) findConsumers(ctx context.Context) error {
	images := []*schema.Image{r.after}
	for _, b := range r.baselines {
		if b.before != nil && !slices.Contains(images, b.before) {
			images = append(images, b.before)
		}
	}
	top := r.top(ctx)
	var err error
	if r.now, err = consumers.Find(ctx, top, images...); err != nil {
		return fmt.Errorf("look for consumers: %w", err)
	}
	r.fromHere(r.now)
	r.ungenerated = r.generatedAsBefore(ctx)
	r.report.Analysed = &Analysed{Modules: r.now.Modules, Packages: r.now.Packages, Problems: r.now.Problems, LeftOut: r.now.LeftOut}
	done := map[string]*consumers.Index{}
	for _, b := range r.baselines {
		if b.Commit == "" {
			continue
		}
		if done[b.Commit] == nil {
			if done[b.Commit], err = r.built(ctx, top, b); err != nil {
				return fmt.Errorf("look for consumers in %s: %w", b.Name, err)
			}
			r.fromHere(done[b.Commit])
		}
		b.uses = done[b.Commit]
		for _, problem := range b.uses.Problems {
			if problem.What != consumers.NoModules && !slices.Contains(r.now.Problems, problem) { // where no Go was, none was built
				if r.report.Analysed.Built == nil {
					r.report.Analysed.Built = map[string][]consumers.Problem{}
				}
				r.report.Analysed.Built[b.Name] = append(r.report.Analysed.Built[b.Name], problem)
			}
		}
	}
	return nil
}

// top is the root of the repository, all Go code of which may use the contract; outside of one it is the workspace.
func (r *run) top(ctx context.Context) string {
	if top, err := repo.Output(ctx, r.Dir, "git", "rev-parse", "--show-toplevel"); err == nil {
		return top
	}
	return r.Dir
}

// fromHere writes the paths of an index, which are from the root of the repository, as all of a report: from the
// workspace.
func (r *run) fromHere(index *consumers.Index) {
	if r.report.Prefix == "" {
		return
	}
	here := func(path string) string {
		if relative, err := filepath.Rel(filepath.FromSlash(r.report.Prefix), filepath.FromSlash(path)); err == nil {
			return filepath.ToSlash(relative)
		}
		return path
	}
	for n := range index.Uses {
		index.Uses[n].Path = here(index.Uses[n].Path)
	}
	for n := range index.LeftOut {
		index.LeftOut[n] = here(index.LeftOut[n])
	}
}

// generatedAsBefore tells whether no generated Go code differs from the base: then a contract that does was changed
// without generating the code again, and that everything compiles says nothing.
func (r *run) generatedAsBefore(ctx context.Context) bool {
	for _, b := range r.baselines {
		if b.Name == "base" && b.Commit != "" && len(r.now.Generated) > 0 {
			_, err := repo.Output(ctx, r.Dir, "git", "diff", "--quiet", b.Commit, "--", ":(top)*.pb.go")
			return err == nil
		}
	}
	return false
}

// indexVersion names what a kept index holds; it changes with the search.
const indexVersion = "2"

// kept names what is found out about a commit: a commit does not change, and what is looked for, and for which system,
// is part of the name.
func (r *run) kept(ctx context.Context, b *Baseline) (string, error) {
	settings, err := repo.Output(ctx, r.Dir, "go", "env", "GOVERSION", "GOOS", "GOARCH", "CGO_ENABLED", "GOEXPERIMENT")
	if err != nil {
		return "", said(err)
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{indexVersion, b.Commit, r.report.Prefix, settings}, "\x00")))
	return filepath.Join(r.Cache, fmt.Sprintf("consumers-%x.json", sum[:16])), nil
}

// built analyses the tree of a commit, or reads what was found out about it before. What had problems is not kept: a
// dependency that could not be had may be there the next time.
func (r *run) built(ctx context.Context, top string, b *Baseline) (*consumers.Index, error) {
	kept := ""
	if r.Cache != "" {
		var err error
		if kept, err = r.kept(ctx, b); err != nil {
			return nil, err
		}
		if data, err := os.ReadFile(kept); err == nil {
			var index consumers.Index
			if json.Unmarshal(data, &index) == nil {
				return &index, nil
			}
		}
	}
	tree, remove, err := checkout(ctx, top, b.Commit, everything)
	if err != nil {
		return nil, err
	}
	defer remove()
	index, err := consumers.Find(ctx, tree, b.before)
	if err != nil {
		return nil, err
	}
	if kept != "" && len(index.Problems) == 0 {
		if err := keep(kept, index); err != nil {
			return nil, err
		}
	}
	return index, nil
}

// keep writes an index so that nobody ever reads half of it.
func keep(path string, index *consumers.Index) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	data, err := json.Marshal(index)
	if err != nil {
		return err
	}
	half, err := os.CreateTemp(filepath.Dir(path), "half-*")
	if err != nil {
		return err
	}
	defer os.Remove(half.Name())
	if _, err := half.Write(data); err != nil {
		return errors.Join(err, half.Close())
	}
	if err := half.Close(); err != nil {
		return err
	}
	return os.Rename(half.Name(), path)
}

// concerned says whom a finding concerns.
func (r *run) concerned(f *Finding) {
	change := f.Change()
	if r.now == nil || change == nil {
		if f.Rule == rules.EnumValueAdded { // how much it weighs hangs on them: that nobody looked is said
			f.Consumers = Consumers{Verdict: Unknown, Why: "consumers were not looked for, and a switch over it without a default would break"}
		}
		return
	}
	var elements []string
	for _, e := range []*schema.Element{change.Before, change.After} {
		if e == nil {
			continue
		}
		if change.Removed() || change.After != nil && change.Before != nil && change.Before.Name != change.After.Name {
			e.Walk(func(inside *schema.Element) { elements = append(elements, inside.Name) })
		} else {
			elements = append(elements, e.Name)
		}
	}
	if f.Rule == rules.EnumValueAdded {
		r.newValue(f, change.After.Parent.Name)
		return
	}
	slices.Sort(elements)
	elements = slices.Compact(elements)
	owners := r.owners()
	c := &f.Consumers
	breaks, risks := false, false
	var perhaps []Use
	for _, use := range r.now.Of(elements...) {
		if use.Kind == consumers.Perhaps {
			perhaps = append(perhaps, Use{use, owners.of(use.Path), false})
			continue
		}
		is := Use{use, owners.of(use.Path), r.stops(f, use)}
		breaks = breaks || is.Breaks
		risks = true
		c.Uses = append(c.Uses, is)
	}
	for _, b := range r.baselines {
		if b.uses == nil || !slices.Contains(f.Baselines, b.Name) {
			continue
		}
		for _, use := range b.uses.Of(elements...) {
			if use.Kind == consumers.Perhaps {
				perhaps = append(perhaps, Use{use, owners.of(use.Path), false})
				continue
			}
			if !slices.ContainsFunc(c.Built, func(u Use) bool { return u.Use == use }) && !use.Test {
				c.Built = append(c.Built, Use{use, owners.of(use.Path), false})
			}
		}
	}
	felt := f.Axes.Wire != rules.Safe || f.Axes.JSON != rules.Safe || f.Axes.Semantics != rules.Safe
	whole := r.dynamic(change)
	switch {
	case breaks:
		c.Verdict = BreaksCompilation
	case felt && (risks || len(c.Built) > 0):
		c.Verdict = BreaksAtRunTime
	case risks:
		c.Verdict = Unaffected // it compiles, and nothing else is at stake
	case len(perhaps) > 0:
		c.Verdict, c.Why = Unknown, fmt.Sprintf("%s:%d may use it", perhaps[0].Path, perhaps[0].Line)
		if perhaps[0].LeftOut {
			c.Why += ", and is not built here"
		}
		c.Uses = perhaps
	case r.unanalysed(f) != "":
		c.Verdict, c.Why = Unknown, r.unanalysed(f)
	case len(whole) > 0:
		c.Verdict, c.Why = Unknown, fmt.Sprintf("%s:%d reads all of %s by reflection", whole[0].Path, whole[0].Line, whole[0].Element)
	default:
		c.Verdict = UnusedHere
	}
}

// unanalysed says what could not be analysed, in the working tree or in what was built from a baseline that a finding
// is about; empty where everything was.
func (r *run) unanalysed(f *Finding) string {
	for _, problem := range r.now.Problems {
		return fmt.Sprintf("%s: %s", problem.Where, problem.What)
	}
	for _, name := range f.Baselines {
		for _, problem := range r.report.Analysed.Built[name] {
			return fmt.Sprintf("in %s, %s: %s", name, problem.Where, problem.What)
		}
	}
	return ""
}

// stops tells whether a use does not compile, or will not once the code is generated again.
func (r *run) stops(f *Finding, use consumers.Use) bool {
	change := f.Change()
	if f.Axes.Source != rules.Breaks || change.Added() {
		return false
	}
	// A name that the contract no longer has, in code that still finds it: what is generated is older than the contract.
	gone := change.Removed() || change.Before.Name != change.After.Name && use.Element == change.Before.Name
	return use.Missing || use.Error != "" || gone || r.ungenerated
}

// newValue says who meets a new value of an enum without a word about it. Unknown never counts as unused: what could not
// be analysed may hold such a switch.
func (r *run) newValue(f *Finding, enum string) {
	owners := r.owners()
	for _, use := range r.now.Of(enum) {
		if use.Kind == consumers.Undefaulted {
			f.Consumers.Uses = append(f.Consumers.Uses, Use{use, owners.of(use.Path), false})
		}
	}
	switch {
	case len(f.Consumers.Uses) > 0:
		f.Consumers.Verdict, f.Level = BreaksAtRunTime, rules.Break
	case len(r.now.Problems) > 0:
		f.Consumers.Verdict, f.Consumers.Why = Unknown, fmt.Sprintf("%s: %s", r.now.Problems[0].Where, r.now.Problems[0].What)
		f.Level = rules.Break
	default:
		f.Consumers.Verdict = UnusedHere
	}
}

// dynamic returns the places that read all of the message which a changed field belongs to.
func (r *run) dynamic(change *schema.Change) []consumers.Use {
	e := change.Element()
	if e.Kind != schema.Field || e.Parent == nil {
		return nil
	}
	return slices.DeleteFunc(r.now.Of(e.Parent.Name), func(u consumers.Use) bool { return u.Kind != consumers.Dynamic || u.Test })
}

// owners returns what CODEOWNERS says.
func (r *run) owners() owners {
	if r.whose == nil {
		found := r.readOwners()
		r.whose = &found
	}
	return *r.whose
}

// readOwners reads CODEOWNERS where code hosts look for it.
func (r *run) readOwners() owners {
	top, err := repo.Output(context.Background(), r.Dir, "git", "rev-parse", "--show-toplevel")
	if err != nil {
		top = r.Dir
	}
	for _, place := range []string{".github/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS", ".gitlab/CODEOWNERS"} {
		data, err := os.ReadFile(filepath.Join(top, filepath.FromSlash(place)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		below, _ := filepath.Rel(top, r.Dir)
		return parseOwners(string(data), strings.TrimPrefix(filepath.ToSlash(below), "."))
	}
	return owners{}
}
