package selftest

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/tools/internal/repo/repotest"
	"github.com/concordat-dev/concordat/tools/review"
	"github.com/concordat-dev/concordat/tools/review/rules"
)

// What an attempt does to the copy is gone before the next one.
func TestEveryEditIsTakenBack(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("kept.proto", "kept")
	write("gone.proto", "gone")
	s := newSource(dir)
	for range 2 {
		if err := errors.Join(s.write("kept.proto", "other"), s.write("kept.proto", "another"), s.write("new/new.proto", "new"), s.remove("gone.proto"), s.write("gone.proto", "back")); err != nil {
			t.Fatal(err)
		}
		if text, err := s.read("kept.proto"); err != nil || text != "another" {
			t.Errorf("written: %q, %v", text, err)
		}
		s.restore()
		for name, want := range map[string]string{"kept.proto": "kept", "gone.proto": "gone"} {
			if text, err := s.read(name); err != nil || text != want {
				t.Errorf("%s is %q, %v; want %q", name, text, err, want)
			}
		}
		if _, err := s.read("new/new.proto"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("what was new is there: %v", err)
		}
	}
	if err := s.remove("nowhere.proto"); err == nil {
		t.Error("what is not there was removed")
	}
}

// The copy is the tree as it is, also what is not committed yet.
func TestTheCopyIsTheTreeAsItIs(t *testing.T) {
	tr := repotest.New(t)
	for _, name := range []string{"kept", "changed", "deleted"} {
		tr.Write(name, name)
	}
	tr.Write(".gitignore", "ignored\n")
	tr.Commit("tree")
	clone := tr.Clone()
	tr.Write("changed", "now")
	tr.Write("folder with space/new", "new")
	tr.Write("ignored", "secret")
	if err := os.Remove(filepath.Join(tr.Dir, "deleted")); err != nil {
		t.Fatal(err)
	}
	if err := overlay(t.Context(), tr.Dir, clone.Dir); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"kept": "kept", "changed": "now", "folder with space/new": "new"} {
		if text, err := os.ReadFile(filepath.Join(clone.Dir, name)); err != nil || string(text) != want {
			t.Errorf("%s is %q, %v; want %q", name, text, err, want)
		}
	}
	for _, name := range []string{"deleted", "ignored"} {
		if _, err := os.Stat(filepath.Join(clone.Dir, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is there: %v", name, err)
		}
	}
}

func TestABlockEndsWithItsBraceOrItsSemicolon(t *testing.T) {
	for _, row := range []struct{ text, begins, left string }{
		{"message A {\n  message B {}\n}\nmessage C {}", "message A", "\nmessage C {}"},
		{"rpc A(B) returns (C);\nrpc D(E) returns (F) {}", "rpc A", "\nrpc D(E) returns (F) {}"},
		{"rpc A(B) returns (C) { option x = {y: 1}; }rest", "rpc A", "rest"},
		{"int32 a = 1 [x = {b: 1}];rest", "int32", "rest"},
		{"message A {", "message A", ""},
	} {
		if left := row.text[bodyEnd(row.text, strings.Index(row.text, row.begins)):]; left != row.left {
			t.Errorf("after %q of %q is left %q; want %q", row.begins, row.text, left, row.left)
		}
	}
}

func TestOptionsThatAContractDoesNotHaveAreTakenOutWhole(t *testing.T) {
	const text = "import \"a.proto\";\nimport \"b.proto\";\nrpc R(A) returns (B) {\n  option (a.http) = {\n    get: \"/x;y\"\n    more: [{post: \"/z\"}]\n  };\n  option idempotency_level = IDEMPOTENT;\n}\n" +
		"string x = 1 [(buf.validate.field).string.max_len = 3, deprecated = true];\nstring y = 2 [(buf.validate.field) = {required: true}];\n"
	got := cutOption(without(text, "a.proto"), "(a.http)")
	if strings.Contains(got, "a.proto") || strings.Contains(got, "(a.http)") || strings.Contains(got, "more") || !strings.Contains(got, "option idempotency_level = IDEMPOTENT;") {
		t.Errorf("left:\n%s", got)
	}
	got = withoutRules(text)
	if !strings.Contains(got, "string x = 1 [deprecated = true];") || !strings.Contains(got, "string y = 2;") {
		t.Errorf("left:\n%s", got)
	}
}

// Every rule has a mutation that must be found by it, and no two attempts have the same name.
func TestEveryRuleIsTried(t *testing.T) {
	tried, names := map[string]bool{}, map[string]bool{}
	for _, m := range slices.Concat(ours(), mutations()) {
		tried[m.rule] = true
		if key := m.rule + " " + m.name; names[key] {
			t.Errorf("%s is tried twice", key)
		} else {
			names[key] = true
		}
	}
	for _, rule := range rules.All() {
		if !tried[rule.ID] {
			t.Errorf("%s is never tried", rule.ID)
		}
	}
	if all := len(slices.Concat(ours(), mutations())); all < 60 {
		t.Errorf("%d mutations; want 60", all)
	}
}

// A gate that finds nothing is what the self-test is there to find.
func TestAGateThatFindsNothingIsMissed(t *testing.T) {
	var out bytes.Buffer
	tr := &trial{Options: Options{Out: &out, Now: time.Now()}, result: &Result{}}
	for _, a := range []Attempt{{"a break", "FIELD_NO_DELETE", true, "FIELD_NO_DELETE"}, {"a break that nobody saw", "FIELD_SAME_TYPE", false, "nothing"}, {"a comment", "", true, "nothing"}, {"a reorder", "", false, "FIELD_SAME_NAME"}} {
		tr.record(a)
	}
	if missed := tr.result.Missed(); missed != 2 {
		t.Errorf("%d missed; want 2", missed)
	}
	for _, row := range []struct {
		breaking      bool
		tried, caught int
	}{{true, 2, 1}, {false, 2, 1}} {
		if tried, caught := tr.result.Count(row.breaking); tried != row.tried || caught != row.caught {
			t.Errorf("breaking %v: %d of %d; want %d of %d", row.breaking, caught, tried, row.caught, row.tried)
		}
	}
	for _, line := range []string{"ok      FIELD_NO_DELETE", "MISSED  FIELD_SAME_TYPE", "found: nothing", "MISSED  no finding", "found: FIELD_SAME_NAME"} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("%q is not printed:\n%s", line, &out)
		}
	}
}

// An attempt counts what the review says, and an edit for which there is nothing does not count.
func TestAnAttemptIsJudgedByTheRuleThatFails(t *testing.T) {
	tr := repotest.New(t)
	const proto = "syntax = \"proto3\";\n\npackage acme.v1;\n\nmessage Thing {\n  string name = 1;\n}\n"
	tr.Write("buf.yaml", "version: v2\nmodules:\n  - path: proto\n")
	tr.Write("proto/acme/v1/thing.proto", proto)
	tr.Commit("contract")
	tr.Git("branch", "selftest-base")
	tr.Commit("change")
	buf, err := review.FindBuf(t.Context(), filepath.Join("..", "..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	buf.Dir = tr.Dir
	try := &trial{Options: Options{Dir: tr.Dir, Now: time.Now(), Out: new(bytes.Buffer)}, buf: buf, base: "selftest-base", source: newSource(tr.Dir), result: &Result{}}
	change := func(old, new string) func() (bool, error) {
		return func() (bool, error) {
			return strings.Contains(proto, old), try.source.write("proto/acme/v1/thing.proto", strings.Replace(proto, old, new, 1))
		}
	}
	for _, row := range []struct {
		name, rule string
		edit       func() (bool, error)
		caught     bool
	}{
		{"a rename by its rule", "FIELD_SAME_NAME", change("name = 1", "title = 1"), true},
		{"a rename by another rule", "FIELD_SAME_TYPE", change("name = 1", "title = 1"), false},
		{"a comment", "", change("message", "// A thing.\nmessage"), true},
		{"a break that should be harmless", "", change("string", "int32"), false},
		{"what does not compile", "FIELD_SAME_TYPE", change("string", "strinx"), false},
	} {
		if err := try.attempt(t.Context(), row.name, row.rule, row.edit); err != nil {
			t.Fatal(err)
		}
		if last := try.result.Tried[len(try.result.Tried)-1]; last.Name != row.name || last.Caught != row.caught {
			t.Errorf("%+v; want caught %v", last, row.caught)
		}
	}
	before := len(try.result.Tried)
	if err := try.attempt(t.Context(), "nothing to edit", "FIELD_SAME_NAME", change("nowhere", "")); err != nil || len(try.result.Tried) != before {
		t.Errorf("an edit of nothing counts: %v", err)
	}
}
