// Package selftest proves that the gate bites. It breaks a copy of a contract once per rule, and the gate itself in the
// ways in which gates are broken, and expects the review to find each with that very rule; and it makes edits that break
// nothing, and expects it to find nothing. A rule that finds nothing looks the same as a contract without breaks, until
// somebody tries.
package selftest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/concordat-dev/concordat/tools/internal/repo"
	"github.com/concordat-dev/concordat/tools/review"
	"github.com/concordat-dev/concordat/tools/review/rules"
	"github.com/concordat-dev/concordat/tools/review/schema"
)

// Options say what is tried.
type Options struct {
	// Dir is the root of the workspace. It is copied, and left as it is.
	Dir string
	// Only are rules to try; empty means all, and all gate failures.
	Only []string
	// Harmless asks for the edits that break nothing as well.
	Harmless bool
	Now      time.Time
	// Out is told each result, one a line.
	Out io.Writer
}

// A Result is what was tried.
type Result struct {
	// Tried are all attempts, in order.
	Tried []Attempt
	// Untried are the rules for which the contract, the fixture included, holds nothing to break.
	Untried []string
}

// An Attempt is one edit and what the review said.
type Attempt struct {
	// Name says what was done.
	Name string
	// Rule is what had to be found; empty for an edit that breaks nothing.
	Rule string
	// Caught is set where the review said what it had to.
	Caught bool
	// Said is what it said instead.
	Said string
}

// Count returns how many attempts there were, of those that break something or of those that do not, and how many the
// review judged as it had to.
func (r *Result) Count(breaking bool) (tried, caught int) {
	for _, a := range r.Tried {
		if (a.Rule != "") == breaking {
			tried++
			if a.Caught {
				caught++
			}
		}
	}
	return tried, caught
}

// Missed counts the attempts that the review judged wrongly.
func (r *Result) Missed() int {
	missed := 0
	for _, a := range r.Tried {
		if !a.Caught {
			missed++
		}
	}
	return missed
}

// A trial is a self-test at work, in a copy of the tree.
type trial struct {
	Options
	buf    review.Buf
	base   string // the commit that edits are held against
	change string // the commit that they are made on: the next one
	source *source
	result *Result
}

// Run tries the gate of the workspace at o.Dir. An error says that it could not be tried; whether it bites, the result
// says.
func Run(ctx context.Context, buf review.Buf, o Options) (*Result, error) {
	t := &trial{Options: o, buf: buf, result: &Result{}}
	remove, err := t.copy(ctx)
	if err != nil {
		return nil, fmt.Errorf("copy the tree: %w", err)
	}
	defer remove()
	if err := t.try(ctx); err != nil {
		return nil, err
	}
	tried, caught := t.result.Count(true)
	harmless, quiet := t.result.Count(false)
	fmt.Fprintf(o.Out, "caught %d of %d breaks; silent on %d of %d harmless edits\n", caught, tried, quiet, harmless)
	if len(t.result.Untried) > 0 {
		fmt.Fprintf(o.Out, "nothing here to try these with: %s\n", strings.Join(t.result.Untried, ", "))
	}
	return t.result, nil
}

// copy clones the repository, lays the working tree over it and adds the fixture: the base of every attempt.
func (t *trial) copy(ctx context.Context) (remove func(), err error) {
	to, err := os.MkdirTemp("", "selftest-")
	if err != nil {
		return nil, err
	}
	remove = func() { os.RemoveAll(to) }
	defer func() {
		if err != nil {
			remove()
		}
	}()
	top, err := repo.Output(ctx, t.Dir, "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return nil, err
	}
	below, err := repo.Output(ctx, t.Dir, "git", "rev-parse", "--show-prefix")
	if err != nil {
		return nil, err
	}
	clone := filepath.Join(to, "tree")
	if _, err := repo.Output(ctx, top, "git", "clone", "--quiet", "--shared", "--", top, clone); err != nil {
		return nil, err
	}
	if err := overlay(ctx, top, clone); err != nil {
		return nil, err
	}
	t.Dir, t.buf.Dir = filepath.Join(clone, below), filepath.Join(clone, below)
	image, err := t.buf.Build(ctx, ".")
	if err != nil {
		return nil, err
	}
	files, err := fixtures(image)
	if err != nil {
		return nil, err
	}
	t.source = newSource(t.Dir)
	for path, text := range files {
		if err := t.source.create(path, text); err != nil {
			return nil, err
		}
	}
	for _, args := range [][]string{{"add", "--all"}, {"commit", "--quiet", "--allow-empty", "--message", "base"}, {"branch", "selftest-base"}, {"commit", "--quiet", "--allow-empty", "--message", "change"}} {
		if _, err := t.git(ctx, args...); err != nil {
			return nil, err
		}
	}
	t.base = "selftest-base"
	if t.change, err = t.git(ctx, "rev-parse", "HEAD"); err != nil {
		return nil, err
	}
	t.source.image, err = t.buf.Build(ctx, ".")
	return remove, err
}

func (t *trial) git(ctx context.Context, args ...string) (string, error) {
	identity := []string{"-c", "user.name=selftest", "-c", "user.email=selftest@localhost", "-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null"}
	return repo.Output(ctx, t.Dir, "git", append(identity, args...)...)
}

// overlay writes the working tree of one clone over that of another, as far as git knows its files or would add them.
func overlay(ctx context.Context, from, to string) error {
	gone, err := repo.Output(ctx, from, "git", "ls-files", "-z", "--deleted")
	if err != nil {
		return err
	}
	for _, path := range strings.Split(strings.Trim(gone, "\x00"), "\x00") {
		if path != "" {
			if err := os.Remove(filepath.Join(to, path)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	changed, err := repo.Output(ctx, from, "git", "ls-files", "-z", "--modified", "--others", "--exclude-standard")
	if err != nil {
		return err
	}
	for _, path := range strings.Split(strings.Trim(changed, "\x00"), "\x00") {
		data, err := os.ReadFile(filepath.Join(from, path))
		if path == "" || errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(to, path)), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, path), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// try makes every attempt.
func (t *trial) try(ctx context.Context) error {
	all := len(t.Only) == 0
	if all {
		if err := t.attempt(ctx, "the clean tree", "", func() (bool, error) { return true, nil }); err != nil {
			return err
		}
	}
	applicable := map[string]bool{}
	for _, m := range slices.Concat(ours(), mutations()) {
		if !all && !slices.Contains(t.Only, m.rule) {
			continue
		}
		if _, seen := applicable[m.rule]; !seen {
			applicable[m.rule] = false
		}
		err := t.attempt(ctx, m.name, m.rule, func() (bool, error) {
			done, err := m.make(t.source)
			applicable[m.rule] = applicable[m.rule] || done
			return done, err
		})
		if err != nil {
			return err
		}
	}
	for _, rule := range rules.All() {
		if (all || slices.Contains(t.Only, rule.ID)) && !applicable[rule.ID] {
			t.result.Untried = append(t.result.Untried, rule.ID)
		}
	}
	if all {
		if err := t.gateFailures(ctx); err != nil {
			return err
		}
	}
	if !t.Harmless || !all {
		return nil
	}
	for _, edit := range harmless() {
		if err := t.attempt(ctx, edit.name, "", func() (bool, error) { return edit.make(t.source) }); err != nil {
			return err
		}
	}
	return nil
}

// attempt makes one edit, reviews, and puts everything back. An edit for which there is nothing in the contract is not
// counted.
func (t *trial) attempt(ctx context.Context, name, rule string, edit func() (bool, error)) error {
	defer t.source.restore()
	done, err := edit()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if !done {
		return nil
	}
	report, err := t.review(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		t.record(Attempt{name, rule, false, "no verdict: " + err.Error()})
		return nil
	}
	var failing []string
	caught := false
	for _, f := range report.Findings {
		if f.Fails() {
			failing = append(failing, f.Rule)
		}
		// A note does not fail, and is found all the same.
		caught = caught || f.Rule == rule && (f.Fails() || f.Level == rules.Note)
	}
	for _, a := range report.Approvals {
		if a.Fails() {
			failing = append(failing, "an approval is "+string(a.State))
		}
	}
	if rule == "" {
		caught = len(failing) == 0
	}
	said := "nothing"
	if len(failing) > 0 {
		said = strings.Join(failing, ", ")
	}
	t.record(Attempt{name, rule, caught, said})
	return nil
}

func (t *trial) review(ctx context.Context) (*review.Report, error) {
	return review.Run(ctx, t.buf, review.Options{Dir: t.Dir, BaseRef: t.base, Now: t.Now})
}

func (t *trial) record(a Attempt) {
	t.result.Tried = append(t.result.Tried, a)
	expected := a.Rule
	if expected == "" {
		expected = "no finding"
	}
	switch {
	case a.Caught:
		fmt.Fprintf(t.Out, "ok      %-46s %s\n", expected, a.Name)
	default:
		fmt.Fprintf(t.Out, "MISSED  %-46s %s; found: %s\n", expected, a.Name, a.Said)
	}
}

// A source is the contract of the copy as text, with what the compiler knows of it.
type source struct {
	dir   string
	image *schema.Image
	saved map[string]*string // by path: what it was; nil where it was not
}

func newSource(dir string) *source {
	return &source{dir: dir, saved: map[string]*string{}}
}

// create adds a file to the first module of the workspace, for good.
func (s *source) create(path, text string) error {
	at := filepath.Join(s.dir, filepath.FromSlash(review.ModulePath(s.dir, path)))
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	return os.WriteFile(at, []byte(text), 0o644)
}

// read returns a file, by its path from the root of the workspace.
func (s *source) read(path string) (string, error) {
	data, err := os.ReadFile(filepath.Join(s.dir, filepath.FromSlash(path)))
	return string(data), err
}

// write changes a file until restore.
func (s *source) write(path, text string) error {
	at := filepath.Join(s.dir, filepath.FromSlash(path))
	if _, known := s.saved[path]; !known {
		s.saved[path] = nil
		if was, err := os.ReadFile(at); err == nil {
			text := string(was)
			s.saved[path] = &text
		}
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	return os.WriteFile(at, []byte(text), 0o644)
}

// remove deletes a file until restore.
func (s *source) remove(path string) error {
	was, err := s.read(path)
	if err != nil {
		return err
	}
	if _, known := s.saved[path]; !known {
		s.saved[path] = &was
	}
	return os.Remove(filepath.Join(s.dir, filepath.FromSlash(path)))
}

// restore puts everything back.
func (s *source) restore() {
	for path, was := range s.saved {
		at := filepath.Join(s.dir, filepath.FromSlash(path))
		if was == nil {
			os.Remove(at)
			continue
		}
		// A file that cannot be written back makes the next attempt fail loudly: the clean tree is one of them.
		_ = os.WriteFile(at, []byte(*was), 0o644)
	}
	clear(s.saved)
}
