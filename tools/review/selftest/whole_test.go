package selftest_test

import (
	"bytes"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/tools/internal/repo/repotest"
	"github.com/concordat-dev/concordat/tools/review"
	"github.com/concordat-dev/concordat/tools/review/selftest"
)

// tried runs the self-test of some rules in a small contract that knows none of our options and is held to a category of
// buf's.
func tried(t *testing.T, category string, only ...string) (*selftest.Result, string) {
	t.Helper()
	tr := repotest.New(t)
	tr.Write("buf.yaml", "version: v2\nmodules:\n  - path: api\nbreaking:\n  use:\n    - "+category+"\n")
	tr.Write("api/acme/v1/thing.proto", "syntax = \"proto3\";\n\npackage acme.v1;\n\nmessage Thing {\n  string name = 1;\n  int32 size = 2;\n}\n")
	tr.Commit("contract")
	buf, err := review.FindBuf(t.Context(), filepath.Join("..", "..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	buf.Dir = tr.Dir
	var out bytes.Buffer
	result, err := selftest.Run(t.Context(), buf, selftest.Options{Dir: tr.Dir, Only: only, Now: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC), Out: &out})
	if err != nil {
		t.Fatal(err)
	}
	return result, out.String()
}

// Options of protovalidate, of google.api and of policies are no part of most contracts: the gate is tried with the
// rest, and what could not be tried is said.
func TestInAContractWithoutOurOptionsTheRestIsTried(t *testing.T) {
	here := []string{"FIELD_SAME_TYPE", "EXTENSION_NUMBER_CHANGED", "PUBLIC_IMPORT_REMOVED", "REDACT_REMOVED"}
	notHere := []string{"VALIDATE_REQUIRED_ADDED", "VALIDATE_CEL_CHANGED", "POLICY_REMOVED", "HTTP_BODY_CHANGED"}
	result, out := tried(t, "FILE", slices.Concat(here, notHere)...)
	if result.Missed() > 0 {
		t.Errorf("missed %d:\n%s", result.Missed(), out)
	}
	for _, rule := range here {
		if !slices.ContainsFunc(result.Tried, func(a selftest.Attempt) bool { return a.Rule == rule && a.Caught }) {
			t.Errorf("%s was not tried:\n%s", rule, out)
		}
	}
	for _, rule := range notHere {
		if !slices.Contains(result.Untried, rule) {
			t.Errorf("%s is not said to be untried:\n%s", rule, out)
		}
	}
}

// A rule that is not found is missed, and the run says so: an edit that breaks nothing is not found by any rule.
func TestARuleThatTheWorkspaceSwitchedOffIsMissed(t *testing.T) {
	result, out := tried(t, "WIRE", "FIELD_SAME_NAME")
	if count, caught := result.Count(true); count == 0 || caught > 0 || result.Missed() != count {
		t.Errorf("%d tried, %d caught, %d missed:\n%s", count, caught, result.Missed(), out)
	}
}
