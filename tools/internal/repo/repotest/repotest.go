// Package repotest makes git repositories for tests.
package repotest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/tools/internal/repo"
)

// A Tree is a git repository of a test. Its methods fail the test where they cannot do what they say.
type Tree struct {
	t testing.TB
	// Dir is the root of its working tree.
	Dir string
}

// New makes an empty repository whose branch is main. Git sees no settings but the test's own.
func New(t *testing.T) Tree {
	t.Helper()
	Isolate(t)
	tr := Tree{t, filepath.Join(t.TempDir(), "repository")}
	if err := os.Mkdir(tr.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	tr.Git("init", "--quiet", "--initial-branch=main")
	return tr
}

// At returns the folder dir as a tree, whatever it is.
func At(t *testing.T, dir string) Tree {
	return Tree{t, dir}
}

// Isolate takes away what a git hook or a user's settings would make git do. A variable such as
// GIT_DIR would turn the test's commands on the repository that the test itself stands in.
func Isolate(t *testing.T) {
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

// Git runs git in the tree and returns what it prints, trimmed.
func (tr Tree) Git(args ...string) string {
	tr.t.Helper()
	out, err := repo.Output(tr.t.Context(), tr.Dir, "git", args...)
	if err != nil {
		tr.t.Fatal(err)
	}
	return out
}

// Write writes a file; path is relative to the root and has slashes.
func (tr Tree) Write(path, text string) {
	tr.t.Helper()
	path = filepath.Join(tr.Dir, filepath.FromSlash(path))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		tr.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		tr.t.Fatal(err)
	}
}

// Commit commits everything and returns the id.
func (tr Tree) Commit(message string) string {
	tr.t.Helper()
	tr.Git("add", "--all")
	tr.Git("commit", "--quiet", "--allow-empty", "--message", message)
	return tr.Git("rev-parse", "HEAD")
}

// Clone makes a clone of the tree; args go to git clone.
func (tr Tree) Clone(args ...string) Tree {
	tr.t.Helper()
	dir := filepath.Join(tr.t.TempDir(), "clone")
	tr.Git(append(append([]string{"clone", "--quiet"}, args...), "file://"+filepath.ToSlash(tr.Dir), dir)...)
	return Tree{tr.t, dir}
}

// Contract commits a contract of one file.
func (tr Tree) Contract() string {
	tr.t.Helper()
	tr.Write("proto/a.proto", "syntax = \"proto3\";\n\npackage a;\n")
	return tr.Commit("contract")
}
