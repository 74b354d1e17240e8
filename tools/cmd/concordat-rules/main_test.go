package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/tools/internal/repo"
)

// The test reads proto/, third_party/ and buf.yaml of the repository, which Go's test cache does not see: run it with
// -count=1.
func TestBufRunsTheRulesOnTheContract(t *testing.T) {
	root, err := repo.Root(".")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"proto", "third_party"} {
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(root, name))); err != nil {
			t.Fatal(err)
		}
	}
	config, err := os.ReadFile(filepath.Join(root, "buf.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "buf.yaml"), config, 0o644); err != nil {
		t.Fatal(err)
	}
	// By this the copy, which is no workspace, has the tools of the repository as buf.yaml names them.
	t.Setenv("GOWORK", filepath.Join(root, "go.work"))

	if found := lint(t, dir); len(found) > 0 {
		t.Fatalf("the contract as it is breaks %v", found)
	}
	for _, spoil := range []struct{ file, from, to string }{
		{"payments/v1/payment_service.proto", "timeout: {seconds: 5}", ""},
		{"auth/v1/session_service.proto", "debug_redact = true,", ""},
		{"users/v1/user_service.proto", "(buf.validate.field).string.max_len = 4096", "(buf.validate.field).string.min_len = 0"},
		{"payments/v1/transaction.proto", "timestamp = 3", "written_at = 3"},
	} {
		path := filepath.Join(dir, "proto", filepath.FromSlash(spoil.file))
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), spoil.from) {
			t.Fatalf("%s has no %q: spoil something that it has", spoil.file, spoil.from)
		}
		if err := os.WriteFile(path, []byte(strings.Replace(string(text), spoil.from, spoil.to, 1)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"FIELD_SECRET_REDACTED", "POLICY_TIMEOUT", "REQUEST_FIELD_BOUNDED", "WATCH_EVENT_SHAPE"}
	if found := lint(t, dir); !slices.Equal(found, want) {
		t.Errorf("buf finds %v in the spoiled contract, want %v", found, want)
	}
}

// lint returns the rules that buf finds broken in the tree at dir, sorted, each once.
func lint(t *testing.T, dir string) []string {
	t.Helper()
	out, err := repo.Output(t.Context(), dir, "go", "tool", "buf", "lint", "--error-format", "json")
	if _, ok := errors.AsType[*repo.RunError](err); err != nil && (!ok || out == "") {
		t.Fatal(err)
	}
	var broken []string
	for line := range strings.Lines(out) {
		var finding struct {
			Rule string `json:"type"`
		}
		if err := json.Unmarshal([]byte(line), &finding); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		broken = append(broken, finding.Rule)
	}
	slices.Sort(broken)
	return slices.Compact(broken)
}
