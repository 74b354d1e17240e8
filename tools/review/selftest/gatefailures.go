package selftest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/concordat-dev/concordat/tools/internal/repo"
	"github.com/concordat-dev/concordat/tools/review"
	"github.com/concordat-dev/concordat/tools/review/baseline"
)

// gateFailures breaks the gate itself in the ways in which gates are broken.
func (t *trial) gateFailures(ctx context.Context) error {
	t.source.restore()
	for _, g := range []struct {
		name string
		try  func(context.Context) (caught bool, said string, err error)
	}{
		{"a rule is switched off in buf.yaml", t.ruleSwitchedOff},
		{"a file is ignored in buf.yaml", t.fileIgnored},
		{"an approval of another change", t.otherApproval},
		{"an approval that was widened by hand", t.widenedApproval},
		{"an approval that has expired", t.expiredApproval},
		{"a baseline that does not exist", t.baselineMissing},
		{"a baseline that was force-pushed away", t.baselineForcePushed},
		{"the baselines are gone", t.baselinesGone},
		{"a contract that does not compile", t.brokenContract},
		{"generated code that was edited", t.drift},
		{"generated code that nothing generates", t.orphan},
	} {
		caught, said, err := g.try(ctx)
		t.source.restore()
		if errors.Is(err, errNotHere) {
			t.result.Untried = append(t.result.Untried, g.name)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", g.name, err)
		}
		t.record(Attempt{g.name, "gate", caught, said})
	}
	return nil
}

// errNotHere: the tree has nothing to try it with.
var errNotHere = errors.New("not here")

// expect reviews and tells whether a finding of a rule fails.
func (t *trial) expect(ctx context.Context, rule string) (bool, string, error) {
	report, err := t.review(ctx)
	if err != nil {
		return false, err.Error(), nil
	}
	for _, f := range report.Findings {
		if f.Rule == rule && f.Fails() {
			return true, "", nil
		}
	}
	return false, fmt.Sprintf("%d failures, none by %s", report.Failures(), rule), nil
}

// refused reviews and expects that there is no verdict.
func (t *trial) refused(ctx context.Context, says string) (bool, string, error) {
	report, err := t.review(ctx)
	if err != nil {
		return strings.Contains(err.Error(), says), err.Error(), nil
	}
	return false, fmt.Sprintf("a verdict with %d failures", report.Failures()), nil
}

func (t *trial) bufYAML(change func(string) string) error {
	text, err := t.source.read("buf.yaml")
	if err != nil {
		return err
	}
	changed := change(text)
	if changed == text {
		return errNotHere
	}
	return t.source.write("buf.yaml", changed)
}

func (t *trial) ruleSwitchedOff(ctx context.Context) (bool, string, error) {
	err := t.bufYAML(func(text string) string {
		return strings.Replace(text, "\nbreaking:\n", "\nbreaking:\n  except:\n    - FIELD_SAME_TYPE\n", 1)
	})
	if err != nil {
		return false, "", err
	}
	return t.expect(ctx, review.GateWeakened)
}

func (t *trial) fileIgnored(ctx context.Context) (bool, string, error) {
	err := t.bufYAML(func(text string) string {
		head, tail, found := strings.Cut(text, "\nbreaking:\n")
		if !found {
			return text
		}
		ignore := "  ignore:\n    - " + t.source.path(fixtureFolder) + "\n"
		if strings.Contains(tail, "  ignore:\n") {
			return head + "\nbreaking:\n" + strings.Replace(tail, "  ignore:\n", ignore, 1)
		}
		return head + "\nbreaking:\n" + ignore + tail
	})
	if err != nil {
		return false, "", err
	}
	return t.expect(ctx, review.GateWeakened)
}

// breakOne makes one break and returns its report.
func (t *trial) breakOne(ctx context.Context) (*review.Report, error) {
	if _, err := swap("", "", current, "string key = 2;", "string token = 2;").make(t.source); err != nil {
		return nil, err
	}
	return t.review(ctx)
}

// approve writes approvals of everything that fails, as text by path.
func (t *trial) approve(report *review.Report, now time.Time) (map[string]string, error) {
	var all []string
	for _, f := range report.Findings {
		if f.Fails() {
			all = append(all, f.Fingerprint)
		}
	}
	files, err := review.Approve(t.Dir, report, review.Approver{Reason: "tried", Owner: "@selftest", Expires: now.AddDate(0, 0, 10)}, now, all...)
	if err != nil {
		return nil, err
	}
	written := map[string]string{}
	for _, file := range files {
		text, err := t.source.read(file)
		if err != nil {
			return nil, err
		}
		if err := os.Remove(filepath.Join(t.Dir, file)); err != nil {
			return nil, err
		}
		written[file] = text
	}
	return written, nil
}

// otherApproval approves one rename and makes another; and first sees that the approved one passes, without which the
// failure would mean nothing.
func (t *trial) otherApproval(ctx context.Context) (bool, string, error) {
	report, err := t.breakOne(ctx)
	if err != nil {
		return false, "", err
	}
	files, err := t.approve(report, t.Now)
	if err != nil {
		return false, "", err
	}
	for path, text := range files {
		if err := t.source.write(path, text); err != nil {
			return false, "", err
		}
	}
	if report, err = t.review(ctx); err != nil {
		return false, "", err
	}
	if report.Failures() > 0 {
		return false, "what was approved does not pass", nil
	}
	if _, err := swap("", "", current, "string token = 2;", "string other = 2;").make(t.source); err != nil {
		return false, "", err
	}
	return t.expect(ctx, "FIELD_SAME_NAME")
}

func (t *trial) approvalThat(ctx context.Context, now time.Time, change func(string) string, want review.State) (bool, string, error) {
	report, err := t.breakOne(ctx)
	if err != nil {
		return false, "", err
	}
	files, err := t.approve(report, now)
	if err != nil {
		return false, "", err
	}
	for path, text := range files {
		if err := t.source.write(path, change(text)); err != nil {
			return false, "", err
		}
	}
	if report, err = t.review(ctx); err != nil {
		return false, "", err
	}
	for _, a := range report.Approvals {
		if a.State != want {
			return false, "an approval is " + string(a.State), nil
		}
	}
	return len(report.Approvals) > 0 && report.Failures() > 0, "it passes", nil
}

func (t *trial) widenedApproval(ctx context.Context) (bool, string, error) {
	return t.approvalThat(ctx, t.Now, func(text string) string {
		return strings.Replace(text, "element: ", "element: concordatselftest.v1.", 1)
	}, review.Widened)
}

func (t *trial) expiredApproval(ctx context.Context) (bool, string, error) {
	return t.approvalThat(ctx, t.Now.AddDate(0, 0, -30), func(text string) string { return text }, review.Expired)
}

func (t *trial) baselineMissing(ctx context.Context) (bool, string, error) {
	if err := t.source.write(baseline.Path, "release: "+strings.Repeat("ab", 20)+"\n"); err != nil {
		return false, "", err
	}
	return t.refused(ctx, "no such commit")
}

// baselineForcePushed names a commit that exists and that the main branch does not hold.
func (t *trial) baselineForcePushed(ctx context.Context) (bool, string, error) {
	aside, err := t.git(ctx, "commit-tree", "-m", "pushed away", "HEAD^{tree}")
	if err != nil {
		return false, "", err
	}
	if err := t.source.write(baseline.Path, "release: "+aside+"\n"); err != nil {
		return false, "", err
	}
	return t.refused(ctx, "no ancestor")
}

func (t *trial) baselinesGone(ctx context.Context) (bool, string, error) {
	if _, err := t.source.read(baseline.Path); err != nil {
		return false, "", errNotHere
	}
	if err := t.source.remove(baseline.Path); err != nil {
		return false, "", err
	}
	return t.refused(ctx, "missing")
}

func (t *trial) brokenContract(ctx context.Context) (bool, string, error) {
	if _, err := swap("", "", current, "string key = 2;", "strinx key = 2;").make(t.source); err != nil {
		return false, "", err
	}
	return t.refused(ctx, current)
}

// driftCommand is the step of the whole check that generates the code again and compares.
var driftCommand = []string{".ci/run", "drift"}

// drift expects the step to be red after an edit, and green before.
func (t *trial) drift(ctx context.Context) (bool, string, error) {
	return t.driftAfter(ctx, func() error {
		files, err := t.git(ctx, "ls-files", "*.pb.go")
		if err != nil {
			return err
		}
		first, _, _ := strings.Cut(files, "\n")
		if first == "" {
			return errNotHere
		}
		text, err := t.source.read(first)
		if err != nil {
			return err
		}
		return t.source.write(first, text+"\n// edited\n")
	})
}

func (t *trial) orphan(ctx context.Context) (bool, string, error) {
	return t.driftAfter(ctx, func() error {
		files, err := t.git(ctx, "ls-files", "*.pb.go")
		if err != nil {
			return err
		}
		first, _, _ := strings.Cut(files, "\n")
		if first == "" {
			return errNotHere
		}
		return t.source.write(filepath.ToSlash(filepath.Join(filepath.Dir(first), "orphan.pb.go")), "package orphan\n")
	})
}

// driftAfter commits an edit of generated code and runs the step. The fixture has no generated code: without it the step
// is green.
func (t *trial) driftAfter(ctx context.Context, edit func() error) (bool, string, error) {
	if _, err := t.source.read(driftCommand[0]); err != nil {
		return false, "", errNotHere
	}
	if _, err := t.git(ctx, "rm", "-r", "--quiet", "--cached", t.source.path(fixtureFolder)); err != nil {
		return false, "", err
	}
	if err := os.RemoveAll(filepath.Join(t.Dir, t.source.path(fixtureFolder))); err != nil {
		return false, "", err
	}
	defer func() {
		_, _ = t.git(ctx, "reset", "--quiet", "--hard", t.change)
		_, _ = t.git(ctx, "clean", "-q", "-d", "--force")
	}()
	step := func() error {
		_, err := repo.Output(ctx, t.Dir, filepath.Join(t.Dir, driftCommand[0]), driftCommand[1:]...)
		return err
	}
	if err := step(); err != nil {
		return false, "the step is red before the edit: " + err.Error(), nil
	}
	if err := edit(); err != nil {
		return false, "", err
	}
	if _, err := t.git(ctx, "add", "--all"); err != nil {
		return false, "", err
	}
	if _, err := t.git(ctx, "commit", "--quiet", "--message", "edited"); err != nil {
		return false, "", err
	}
	if err := step(); err == nil {
		return false, "the step is green", nil
	}
	return true, "", nil
}
