package gate

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/tools/internal/repo"
)

// A tree is a git repository of a test.
type tree struct {
	t   *testing.T
	dir string
}

// newTree makes an empty repository whose branch is main. Git sees no settings but the test's own.
func newTree(t *testing.T) tree {
	t.Helper()
	isolateGit(t)
	tr := tree{t, filepath.Join(t.TempDir(), "repository")}
	if err := os.Mkdir(tr.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	tr.git("init", "--quiet", "--initial-branch=main")
	return tr
}

// isolateGit takes away what a git hook or a user's settings would make git do. A variable such as
// GIT_DIR would turn the test's commands on the repository that the test itself stands in.
func isolateGit(t *testing.T) {
	t.Helper()
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "GIT_") {
			t.Setenv(name, value) // puts it back after the test
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, value := range map[string]string{
		"GIT_CONFIG_GLOBAL": os.DevNull, "GIT_CONFIG_NOSYSTEM": "1",
		"GIT_AUTHOR_NAME": "Test", "GIT_AUTHOR_EMAIL": "test@example.com",
		"GIT_COMMITTER_NAME": "Test", "GIT_COMMITTER_EMAIL": "test@example.com",
	} {
		t.Setenv(name, value)
	}
}

func (tr tree) git(args ...string) string {
	tr.t.Helper()
	out, err := repo.Output(tr.t.Context(), tr.dir, "git", args...)
	if err != nil {
		tr.t.Fatal(err)
	}
	return out
}

func (tr tree) write(path, text string) {
	tr.t.Helper()
	path = filepath.Join(tr.dir, filepath.FromSlash(path))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		tr.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		tr.t.Fatal(err)
	}
}

// commit commits everything and returns the id.
func (tr tree) commit(message string) string {
	tr.t.Helper()
	tr.git("add", "--all")
	tr.git("commit", "--quiet", "--allow-empty", "--message", message)
	return tr.git("rev-parse", "HEAD")
}

// clone makes a clone of the tree; args go to git clone.
func (tr tree) clone(args ...string) tree {
	tr.t.Helper()
	dir := filepath.Join(tr.t.TempDir(), "clone")
	tr.git(append(append([]string{"clone", "--quiet"}, args...), "file://"+filepath.ToSlash(tr.dir), dir)...)
	return tree{tr.t, dir}
}

// contract commits a contract of one file.
func (tr tree) contract() string {
	tr.t.Helper()
	tr.write("proto/a.proto", "syntax = \"proto3\";\n\npackage a;\n")
	return tr.commit("contract")
}
