package ci

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/tools/internal/repo"
)

func root(t *testing.T) string {
	t.Helper()
	root, err := repo.Root(".")
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// workflows returns the text of every workflow by its file name.
func workflows(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root(t), ".github", "workflows", "*.y*ml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no workflow found: %v", err)
	}
	texts := map[string]string{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[filepath.Base(path)] = string(text)
	}
	return texts
}

func TestEveryStepOfTheCheckRunsInAWorkflow(t *testing.T) {
	list, err := repo.Output(t.Context(), root(t), "bash", ".ci/run", "--list")
	if err != nil {
		t.Fatal(err)
	}
	var steps []string
	for line := range strings.Lines(list) {
		steps = append(steps, strings.Fields(line)[0])
	}
	if len(steps) < 10 {
		t.Fatalf(".ci/run --list names only %q", steps)
	}
	called := map[string]bool{}
	call := regexp.MustCompile(`(?m)^\s*- run: \.ci/run( .*)?$`)
	for file, text := range workflows(t) {
		for _, found := range call.FindAllStringSubmatch(text, -1) {
			for _, step := range strings.Fields(found[1]) {
				called[step] = true
				if !slices.Contains(steps, step) {
					t.Errorf("%s runs the step %s, which .ci/run does not have", file, step)
				}
			}
		}
	}
	for _, step := range steps {
		if !called[step] {
			t.Errorf("no workflow runs the step %s of .ci/run", step)
		}
	}
}

func TestAStepThatDoesNotExistIsRefused(t *testing.T) {
	_, err := repo.Output(t.Context(), root(t), "bash", ".ci/run", "lint", "no-such-step")
	if err == nil || !strings.Contains(err.Error(), "exit code 2") {
		t.Errorf("got %v; want exit code 2", err)
	}
}

func TestActionsArePinnedToACommit(t *testing.T) {
	pinned := regexp.MustCompile(`^[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+){0,2}$`)
	uses := regexp.MustCompile(`(?m)^\s*-?\s*uses: *(.+)$`)
	texts := workflows(t)
	for file, text := range texts {
		if !strings.Contains(text, "\npermissions:\n  contents: read\n") {
			t.Errorf("%s does not limit its permissions to reading", file)
		}
	}
	actions, err := filepath.Glob(filepath.Join(root(t), ".github", "actions", "*", "action.y*ml"))
	if err != nil || len(actions) == 0 {
		t.Fatalf("no action found: %v", err)
	}
	for _, path := range actions {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[path] = string(text)
	}
	for file, text := range texts {
		for _, found := range uses.FindAllStringSubmatch(text, -1) {
			if !pinned.MatchString(found[1]) {
				t.Errorf("%s uses %s: want owner/name@commit # version", file, found[1])
			}
		}
	}
}

func TestAJobMayWriteOnlyTheCommentAndRunsOnlyReviewedCodeThen(t *testing.T) {
	for file := range workflows(t) {
		for name, j := range load(t, filepath.Join(root(t), ".github", "workflows", file)).Jobs {
			writes := false
			for scope, level := range j.Permissions {
				if level == "write" && (scope != "pull-requests" || name != "comment") {
					t.Errorf("%s: the job %s may write %s", file, name, scope)
				}
				writes = writes || level == "write"
			}
			for _, s := range j.Steps {
				if !writes || !strings.HasPrefix(s.Uses, "actions/checkout@") {
					continue
				}
				if ref := s.With["ref"]; ref != "" && ref != "${{ github.event.pull_request.base.sha }}" || s.With["repository"] != "" {
					t.Errorf("%s: the job %s may write, and checks out %q %s", file, name, s.With["repository"], ref)
				}
			}
		}
	}
}
