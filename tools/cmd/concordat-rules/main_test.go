package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"buf.build/go/bufplugin/check"

	"github.com/concordat-dev/concordat/tools/internal/repo"
)

// The test reads proto/, third_party/ and buf.yaml of the repository, which Go's test cache does not see: run it with
// -count=1.
func TestBufRunsTheRulesOnTheContract(t *testing.T) {
	root, err := repo.Root(".")
	if err != nil {
		t.Fatal(err)
	}
	dir := contract(t, root)
	// By this the copy, which is no workspace, has the tools of the repository as buf.yaml names them.
	t.Setenv("GOWORK", filepath.Join(root, "go.work"))

	if found := broken(t, dir, "lint"); len(found) > 0 {
		t.Fatalf("the contract as it is breaks %v", found)
	}
	for _, spoil := range []struct{ file, from, to string }{
		{"payments/v1/payment_service.proto", "timeout: {seconds: 5}", ""},
		{"auth/v1/session_service.proto", "debug_redact = true,", ""},
		{"users/v1/user_service.proto", "(buf.validate.field).string.max_len = 4096", "(buf.validate.field).string.min_len = 0"},
		{"payments/v1/transaction.proto", "timestamp = 3", "written_at = 3"},
	} {
		replace(t, dir, spoil.file, spoil.from, spoil.to)
	}
	want := []string{"FIELD_SECRET_REDACTED", "POLICY_TIMEOUT", "REQUEST_FIELD_BOUNDED", "WATCH_EVENT_SHAPE"}
	if found := broken(t, dir, "lint"); !slices.Equal(found, want) {
		t.Errorf("buf finds %v in the spoiled contract, want %v", found, want)
	}
}

// What the review finds by the descriptors alone, plain `buf breaking` finds as well.
func TestBufFindsWhatTheReviewFinds(t *testing.T) {
	root, err := repo.Root(".")
	if err != nil {
		t.Fatal(err)
	}
	before, after := contract(t, root), contract(t, root)
	t.Setenv("GOWORK", filepath.Join(root, "go.work"))
	if found := broken(t, after, "breaking", "--against", before); len(found) > 0 {
		t.Fatalf("two equal contracts: %v", found)
	}
	replace(t, after, "payments/v1/payment_service.proto", "timeout: {seconds: 5}", "timeout: {seconds: 2}")
	replace(t, after, "auth/v1/session_service.proto", "debug_redact = true", "debug_redact = false")
	replace(t, after, "users/v1/user.proto", "string.max_len = 254", "string.max_len = 100")
	replace(t, after, "payments/v1/payment_service.proto", `post: "/v1/charges"`, `post: "/v1/payments"`)
	want := []string{"HTTP_ROUTE_REMOVED", "POLICY_TIMEOUT_SHORTENED", "REDACT_REMOVED", "VALIDATE_REQUEST_TIGHTENED"}
	if found := broken(t, after, "breaking", "--against", before); !slices.Equal(found, want) {
		t.Errorf("buf finds %v, want %v", found, want)
	}
}

func TestTheWholePluginIsSound(t *testing.T) {
	if err := check.ValidateSpec(spec()); err != nil {
		t.Error(err)
	}
}

// contract copies the contract of the repository and its buf.yaml to a folder of the test.
func contract(t *testing.T, root string) string {
	t.Helper()
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
	return dir
}

// replace changes a file of a contract, which must have what is replaced.
func replace(t *testing.T, dir, file, from, to string) {
	t.Helper()
	path := filepath.Join(dir, "proto", filepath.FromSlash(file))
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), from) {
		t.Fatalf("%s has no %q: spoil something that it has", file, from)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), from, to, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// broken returns the rules that a check of buf finds broken in the tree at dir, sorted, each once.
func broken(t *testing.T, dir string, check ...string) []string {
	t.Helper()
	out, err := repo.Output(t.Context(), dir, "go", append([]string{"tool", "buf"}, append(check, "--error-format", "json")...)...)
	if _, ok := errors.AsType[*repo.RunError](err); err != nil && (!ok || out == "") {
		t.Fatal(err)
	}
	var rules []string
	for line := range strings.Lines(out) {
		var finding struct {
			Rule string `json:"type"`
		}
		if err := json.Unmarshal([]byte(line), &finding); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		rules = append(rules, finding.Rule)
	}
	slices.Sort(rules)
	return slices.Compact(rules)
}
