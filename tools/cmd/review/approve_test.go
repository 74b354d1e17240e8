package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/tools/internal/repo"
	"github.com/concordat-dev/concordat/tools/internal/repo/repotest"
)

// printed returns the words of the command by which a report says that the finding of a rule is approved.
func printed(t *testing.T, report, rule string) []string {
	t.Helper()
	_, after, _ := strings.Cut(report, rule)
	command := regexp.MustCompile(`review (approve .*) --owner … --reason … --expires …`).FindStringSubmatch(after)
	if command == nil {
		t.Fatalf("no command for %s:\n%s", rule, report)
	}
	today := time.Now().UTC().Format(time.DateOnly) // the last day counts
	return append(strings.Fields(command[1]), "--owner", "@acme/contract", "--reason", "It is right.", "--expires", today)
}

// approved runs the command that a review prints and expects the review to pass.
func approved(t *testing.T, tr repotest.Tree, rule string, args ...string) {
	t.Helper()
	code, out, notes := reviewOf(t, tr, args...)
	if code != 1 || !strings.Contains(out, rule) {
		t.Fatalf("before: %d\n%s%s", code, out, notes)
	}
	for code == 1 && strings.Contains(out, "review approve") {
		of := regexp.MustCompile(`(?m)^  (?:break|care|security) ([A-Z_]+)  `).FindStringSubmatch(out)[1]
		if code, out, notes := reviewOf(t, tr, printed(t, out, of)...); code != 0 || !strings.Contains(out, "proto/approvals/") {
			t.Fatalf("what is printed for %s: %d\n%s%s", of, code, out, notes)
		}
		code, out, notes = reviewOf(t, tr, args...)
	}
	if code != 0 || !strings.Contains(out, "approved") {
		t.Errorf("approved: %d\n%s%s", code, out, notes)
	}
}

func TestAnEnumValueThatCodeDoesNotExpectIsApprovedByTheCommandThatIsPrinted(t *testing.T) {
	tr := workspace(t)
	tr.Git("checkout", "--quiet", "main")
	const colours = "syntax = \"proto3\";\n\npackage acme.v1;\n\noption go_package = \"example.com/acme/gen/acme/v1;acmev1\";\n\nenum Colour {\n  COLOUR_UNSPECIFIED = 0;\n  COLOUR_RED = 1;\n}\n"
	tr.Write("proto/acme/v1/colour.proto", colours)
	goModule(t, tr, map[string]string{"shop/shop.go": "package shop\n\nimport acmev1 \"example.com/acme/gen/acme/v1\"\n\nfunc Warm(c acmev1.Colour) bool {\n\tswitch c {\n\tcase acmev1.Colour_COLOUR_RED:\n\t\treturn true\n\t}\n\treturn false\n}\n"})
	tr.Commit("code")
	tr.Git("checkout", "--quiet", "-B", "change")
	tr.Commit("work")
	tr.Write("proto/acme/v1/colour.proto", strings.Replace(colours, "COLOUR_RED = 1;", "COLOUR_RED = 1;\n  COLOUR_BLUE = 2;", 1))
	approved(t, tr, "ENUM_VALUE_ADDED", "--no-cache")
	if code, out, notes := reviewOf(t, tr, "prune", "--no-cache"); code != 0 || out != "" {
		t.Errorf("prune takes away what is used: %d\n%s%s", code, out, notes)
	}
}

// goModule makes a Go module of the tree, with the code that is generated from its contract.
func goModule(t *testing.T, tr repotest.Tree, files map[string]string) {
	t.Helper()
	root, err := repo.Root(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(root, "gen", name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = regexp.MustCompile(`(?m)^module .*$`).ReplaceAllString(string(text), "module example.com/acme")
	}
	plugin, err := repo.Output(t.Context(), filepath.Join(root, "tools"), "go", "tool", "-n", "protoc-gen-go")
	if err != nil {
		t.Fatal(err)
	}
	files["buf.gen.yaml"] = "version: v2\nplugins:\n  - local: [" + plugin + "]\n    out: gen\n    opt: paths=source_relative,Macme/v1/thing.proto=example.com/acme/gen/acme/v1;acmev1\n"
	for name, text := range files {
		tr.Write(name, text)
	}
	if _, err := repo.Output(t.Context(), tr.Dir, "buf", "generate"); err != nil {
		t.Fatal(err)
	}
}

func TestARemovalThatCallersStillUseIsApprovedByTheCommandThatIsPrinted(t *testing.T) {
	tr := workspace(t)
	tr.Write("proto/acme/v1/thing.proto", strings.Split(thing, "// A thing.")[0]+"message Other {}\n")
	t.Chdir(tr.Dir)
	tr.Write(".git/seen.json", `{"version": 1, "service": "things", "sampled_one_in": 10, "entries": [
		{"caller": "orders", "method": "/acme.v1.ThingService/Put", "direction": "request", "message": "acme.v1.Thing", "field": "name", "count": 7, "last_seen": "2026-11-01T09:00:00Z"},
		{"caller": "billing", "method": "/acme.v1.ThingService/Put", "direction": "request", "message": "acme.v1.Thing", "field": "name", "count": 7, "last_seen": "2026-11-02T09:00:00Z"}]}`)
	usage := filepath.Join(".git", "seen.json")
	approved(t, tr, "STILL_USED", "--no-consumers", "--usage", usage)
	// Who reviews without the snapshots says nothing of it, and leaves the approval.
	if code, out, notes := reviewOf(t, tr, "--no-consumers"); code != 0 || !strings.Contains(out, "is not looked at") {
		t.Errorf("without usage: %d\n%s%s", code, out, notes)
	}
	for _, args := range [][]string{{"prune", "--no-consumers"}, {"prune", "--no-consumers", "--usage", usage}} {
		if code, out, notes := reviewOf(t, tr, args...); code != 0 || out != "" {
			t.Errorf("%v takes away what is used: %d\n%s%s", args, code, out, notes)
		}
	}
	// Somebody more uses it now: that was not approved.
	text, err := os.ReadFile(usage)
	if err != nil {
		t.Fatal(err)
	}
	tr.Write(".git/seen.json", strings.Replace(string(text), `"billing"`, `"web"`, 1))
	if code, out, _ := reviewOf(t, tr, "--no-consumers", "--usage", usage); code != 1 || !strings.Contains(out, "review approve") {
		t.Errorf("another caller: %d\n%s", code, out)
	}
}

func TestWhatLiesBesideApprovalsApprovesNothing(t *testing.T) {
	tr := workspace(t)
	rename(tr, "title")
	_, out, _ := reviewOf(t, tr, "--no-consumers")
	if code, _, notes := reviewOf(t, tr, append(printed(t, out, "FIELD_SAME_NAME"), "--no-consumers")...); code != 0 {
		t.Fatal(notes)
	}
	files, err := filepath.Glob(filepath.Join(tr.Dir, "proto", "approvals", "*.yaml"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	if err := os.Rename(files[0], strings.TrimSuffix(files[0], ".yaml")); err != nil {
		t.Fatal(err)
	}
	tr.Write("proto/approvals/.gitkeep", "")
	tr.Write("proto/approvals/older/a.yaml", "rule: X\n")
	code, out, notes := reviewOf(t, tr, "--no-consumers")
	if code != 1 || strings.Contains(out, "1 approved") || strings.Count(out, "is malformed: an approval is a file <fingerprint>.yaml") != 2 || strings.Contains(out, ".gitkeep") {
		t.Errorf("%d\n%s%s", code, out, notes)
	}
}
