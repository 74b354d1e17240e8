package review_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/tools/internal/repo"
	"github.com/concordat-dev/concordat/tools/review"
)

// weakenings returns what of the gate is weaker, by its attribute, and fails the test where one does not count.
func weakenings(t *testing.T, report *review.Report) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, f := range report.Findings {
		if f.Rule != review.GateWeakened {
			continue
		}
		if !f.Fails() {
			t.Errorf("%s passes", f.Text)
		}
		found[f.Attr] = f.Path + ": " + f.Text
	}
	return found
}

// Whoever takes out the plugin that holds the rules of the house takes out all of them at once.
func TestAPluginThatIsTakenOutIsFound(t *testing.T) {
	program := filepath.Join(t.TempDir(), "concordat-rules")
	root, err := repo.Root(".")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repo.Output(t.Context(), filepath.Join(root, "tools"), "go", "build", "-o", program, "./cmd/concordat-rules"); err != nil {
		t.Fatal(err)
	}
	with := bufYAML + "plugins:\n  - plugin: " + program + "\n"
	for name, row := range map[string]struct {
		was, is string
		want    bool
	}{
		"taken out":  {with, bufYAML, true},
		"brought in": {bufYAML, with, false},
	} {
		t.Run(name, func(t *testing.T) {
			tr := contract(t)
			tr.Git("checkout", "--quiet", "main")
			tr.Write("buf.yaml", row.was)
			tr.Commit("gate")
			tr.Git("checkout", "--quiet", "-B", "change")
			tr.Write("buf.yaml", row.is)
			tr.Commit("change")
			found := weakenings(t, reviewed(t, tr, nil))
			if said := found["plugins.plugin"]; len(found) > 0 != row.want || row.want && (!strings.HasPrefix(said, "buf.yaml: ") || !strings.Contains(said, program)) {
				t.Errorf("found %v", found)
			}
		})
	}
}

// What was promised to a release is not forgotten because the line that names it is gone.
func TestABaselineThatIsTakenOutIsFound(t *testing.T) {
	for name, row := range map[string]struct {
		is   func(release, deployed string) string
		want []string
	}{
		"as they were":        {func(r, d string) string { return "release: " + r + "\ndeployed: " + d + "\n" }, nil},
		"no release any more": {func(_, d string) string { return "release: none\ndeployed: " + d + "\n" }, []string{"release"}},
		"a line that is gone": {func(r, _ string) string { return "release: " + r + "\n" }, []string{"deployed"}},
	} {
		t.Run(name, func(t *testing.T) {
			tr := contract(t)
			tr.Git("checkout", "--quiet", "main")
			deployed := tr.Git("rev-parse", "HEAD")
			release := tr.Commit("release")
			tr.Write("proto/baselines.yaml", "release: "+release+"\ndeployed: "+deployed+"\n")
			tr.Commit("baselines")
			tr.Git("checkout", "--quiet", "-B", "change")
			tr.Write("proto/baselines.yaml", row.is(release, deployed))
			tr.Commit("change")
			found := weakenings(t, reviewed(t, tr, nil))
			var got []string
			for attr, said := range found {
				got = append(got, attr)
				if !strings.HasPrefix(said, "proto/baselines.yaml: ") || !strings.Contains(said, "is gone") {
					t.Errorf("it says %q", said)
				}
			}
			if !slices.Equal(got, row.want) {
				t.Errorf("found %v, want %v", found, row.want)
			}
		})
	}
}
