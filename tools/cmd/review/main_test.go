package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/tools/internal/doctest"
	"github.com/concordat-dev/concordat/tools/internal/repo"
	"github.com/concordat-dev/concordat/tools/internal/repo/repotest"
	"github.com/concordat-dev/concordat/tools/review/report"
)

var update = flag.Bool("update", false, "write the sections of the docs anew")

const thing = "syntax = \"proto3\";\n\npackage acme.v1;\n\n// A thing.\nmessage Thing {\n  // Its name.\n  string name = 1;\n}\n"

// workspace makes a repository with a contract, and a branch on which it may be changed. buf is on the PATH there.
func workspace(t *testing.T) repotest.Tree {
	t.Helper()
	buf, err := repo.Output(t.Context(), filepath.Join("..", ".."), "go", "tool", "-n", "buf")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Dir(buf)+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv("BASE_REF", "")
	t.Setenv("NO_COLOR", "1")
	tr := repotest.New(t)
	tr.Write("buf.yaml", "version: v2\nmodules:\n  - path: proto\n")
	tr.Write("proto/acme/v1/thing.proto", thing)
	tr.Commit("contract")
	tr.Git("checkout", "--quiet", "-b", "change")
	tr.Commit("work")
	return tr
}

func rename(tr repotest.Tree, to string) {
	tr.Write("proto/acme/v1/thing.proto", strings.Replace(thing, "string name", "string "+to, 1))
}

// reviewOf runs the command over a tree.
func reviewOf(t *testing.T, tr repotest.Tree, args ...string) (code int, out, notes string) {
	t.Helper()
	var printed, said bytes.Buffer
	code = run(t.Context(), append(args, "--dir", tr.Dir), &printed, &said)
	return code, printed.String(), said.String()
}

func TestTheExitCodeSaysWhetherItPassesFailsOrCannotTell(t *testing.T) {
	tr := workspace(t)
	code, out, notes := reviewOf(t, tr, "--no-consumers")
	if code != 0 || !strings.Contains(out, "No change of the contract, nothing to approve") || notes != "" {
		t.Errorf("nothing changed: %d\n%s%s", code, out, notes)
	}
	rename(tr, "title")
	code, out, notes = reviewOf(t, tr, "--no-consumers")
	if code != 1 || !strings.Contains(out, "FIELD_SAME_NAME") || !strings.Contains(out, "review approve ") || notes != "" {
		t.Errorf("a break: %d\n%s%s", code, out, notes)
	}
	tr.Write("proto/acme/v1/thing.proto", "what is this")
	code, out, notes = reviewOf(t, tr, "--no-consumers")
	if code != 2 || out != "" || !strings.HasPrefix(notes, "review: ") || !strings.Contains(notes, "thing.proto") || strings.Count(notes, "\n") != 1 || !strings.Contains(notes, "more: buf build)") {
		t.Errorf("a contract that does not compile: %d\n%s%s", code, out, notes)
	}
}

func TestABreakGoesFromRedToGreenByItsApprovalAndBack(t *testing.T) {
	tr := workspace(t)
	rename(tr, "title")
	_, out, _ := reviewOf(t, tr, "--no-consumers")
	offered := regexp.MustCompile(`review approve ([0-9a-f]{8})`).FindAllStringSubmatch(out, -1)
	if len(offered) != 2 {
		t.Fatalf("%d approvals are offered:\n%s", len(offered), out)
	}
	approve := []string{"approve", "--owner", "@acme/contract", "--reason", "Nobody reads it yet."}
	for _, o := range offered {
		approve = append(approve, o[1])
	}
	code, out, notes := reviewOf(t, tr, approve...)
	if code != 0 || strings.Count(out, "proto/approvals/") != 2 {
		t.Fatalf("approve: %d\n%s%s", code, out, notes)
	}
	if code, out, _ := reviewOf(t, tr, "--no-consumers"); code != 0 || !strings.Contains(out, "2 approved") {
		t.Errorf("approved: %d\n%s", code, out)
	}
	if code, out, notes := reviewOf(t, tr, "prune"); code != 0 || out != "" {
		t.Errorf("prune takes away what is used: %d\n%s%s", code, out, notes)
	}
	rename(tr, "name") // back
	if code, out, _ := reviewOf(t, tr, "--no-consumers"); code != 1 || !strings.Contains(out, "is unused") {
		t.Errorf("an approval of nothing: %d\n%s", code, out)
	}
	if code, out, notes := reviewOf(t, tr, "prune"); code != 0 || strings.Count(out, "removed proto/approvals/") != 2 {
		t.Errorf("prune: %d\n%s%s", code, out, notes)
	}
	if left, err := filepath.Glob(filepath.Join(tr.Dir, "proto", "approvals", "*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestWhatCannotBeApprovedIsNot(t *testing.T) {
	tr := workspace(t)
	rename(tr, "title")
	later := time.Now().AddDate(0, 0, 120).Format(time.DateOnly)
	for name, row := range map[string]struct {
		args []string
		says string
	}{
		"no reason":               {[]string{"approve", "abcd", "--owner", "@a"}, "--reason"},
		"an empty reason":         {[]string{"approve", "abcd", "--owner", "@a", "--reason", " "}, "--reason"},
		"no owner":                {[]string{"approve", "abcd", "--reason", "why"}, "--owner"},
		"no fingerprint":          {[]string{"approve", "--owner", "@a", "--reason", "why"}, "fingerprint"},
		"one that is not there":   {[]string{"approve", "0123456789abcdef", "--owner", "@a", "--reason", "why"}, "no finding has the fingerprint"},
		"one that is too short":   {[]string{"approve", "a", "--owner", "@a", "--reason", "why"}, "at least four"},
		"an end that is no day":   {[]string{"approve", "abcd", "--owner", "@a", "--reason", "why", "--expires", "soon"}, "yyyy-mm-dd"},
		"an end in the past":      {[]string{"approve", "abcd", "--owner", "@a", "--reason", "why", "--expires", "2020-01-01"}, "has passed"},
		"an end too far away":     {[]string{"approve", "abcd", "--owner", "@a", "--reason", "why", "--expires", later}, "90 days"},
		"a command that is none":  {[]string{"aprove", "abcd"}, "aprove"},
		"a format that is none":   {[]string{"--format", "pdf"}, "pdf"},
		"a format to write":       {[]string{"--no-consumers", "--write", "pdf=" + filepath.Join(t.TempDir(), "x")}, "pdf"},
		"a snapshot that is gone": {[]string{"--usage", "nowhere.json"}, "nowhere.json"},
		"a base that is none":     {[]string{"--base", "nowhere"}, "nowhere"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, notes := reviewOf(t, tr, row.args...)
			if code != 2 || out != "" || !strings.Contains(notes, row.says) {
				t.Errorf("%d\n%s%s", code, out, notes)
			}
			if _, err := os.Stat(filepath.Join(tr.Dir, "proto", "approvals")); err == nil {
				t.Error("something was written")
			}
		})
	}
}

func TestEveryFormatIsPrintedAndWritten(t *testing.T) {
	tr := workspace(t)
	rename(tr, "title")
	dir := t.TempDir()
	args := []string{"--no-consumers", "--format", "json"}
	for name := range report.Formats() {
		args = append(args, "--write", name+"="+filepath.Join(dir, name))
	}
	code, out, notes := reviewOf(t, tr, args...)
	var printed struct {
		Version  int
		Findings []struct{ Rule, Fingerprint string }
	}
	if err := json.Unmarshal([]byte(out), &printed); err != nil || code != 1 || printed.Version != 1 || len(printed.Findings) != 2 {
		t.Fatalf("%d, %v: %+v %s", code, err, printed, notes)
	}
	for name := range report.Formats() {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Contains(text, []byte("Thing.name")) {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
	if code, _, notes := reviewOf(t, tr, "--no-consumers", "--write", "json="+filepath.Join(dir, "no", "folder")); code != 2 || !strings.Contains(notes, "--write") {
		t.Errorf("a file that cannot be written: %d %s", code, notes)
	}
}

func TestTheBaseIsPrinted(t *testing.T) {
	tr := workspace(t)
	main := tr.Git("rev-parse", "main")
	if code, out, notes := reviewOf(t, tr, "base"); code != 0 || out != main+"\n" {
		t.Errorf("%d %q %s; want %s", code, out, notes, main)
	}
	other := tr.Git("rev-parse", "HEAD")
	tr.Git("branch", "release", "HEAD")
	tr.Commit("more")
	if code, out, notes := reviewOf(t, tr, "base", "--base", "release"); code != 0 || out != other+"\n" {
		t.Errorf("--base: %d %q %s; want %s", code, out, notes, other)
	}
}

func TestOutsideOfAWorkspaceItSaysWhereToGo(t *testing.T) {
	tr := workspace(t)
	var out, notes bytes.Buffer
	t.Chdir(t.TempDir())
	if code := run(t.Context(), nil, &out, &notes); code != 2 || !strings.Contains(notes.String(), "buf.yaml") || out.Len() > 0 {
		t.Errorf("in no workspace: %d\n%s%s", code, &out, &notes)
	}
	notes.Reset()
	if code := run(t.Context(), []string{"--dir", "."}, &out, &notes); code != 2 || !strings.Contains(notes.String(), "--dir") || out.Len() > 0 {
		t.Errorf("--dir that is none: %d\n%s%s", code, &out, &notes)
	}
	t.Chdir(filepath.Join(tr.Dir, "proto", "acme"))
	out.Reset()
	if code := run(t.Context(), []string{"--no-consumers"}, &out, &notes); code != 0 || !strings.Contains(out.String(), "nothing to approve") {
		t.Errorf("in a folder of a workspace: %d\n%s%s", code, &out, &notes)
	}
}

func TestHelpIsNoFailure(t *testing.T) {
	var out, notes bytes.Buffer
	if code := run(t.Context(), []string{"--help"}, &out, &notes); code != 0 || !strings.Contains(out.String(), "approve") {
		t.Errorf("%d\n%s%s", code, &out, &notes)
	}
}

func TestTheTableOfRulesInTheDocsIsWhatTheCommandPrints(t *testing.T) {
	root, err := repo.Root(".")
	if err != nil {
		t.Fatal(err)
	}
	var out, notes bytes.Buffer
	if code := run(t.Context(), []string{"rules", "--format", "markdown", "--dir", root}, &out, &notes); code != 0 {
		t.Fatalf("%d %s", code, &notes)
	}
	doctest.Section(t, filepath.Join(root, "docs", "evolving-the-contract.md"), "rules", out.String(), *update)
	var text bytes.Buffer
	if code := run(t.Context(), []string{"rules", "--dir", root}, &text, &notes); code != 0 || strings.Count(text.String(), "\n") != 3*(strings.Count(out.String(), "\n")-2) {
		t.Errorf("as text: %d, %d lines for %d rules", code, strings.Count(text.String(), "\n"), strings.Count(out.String(), "\n")-2)
	}
}

// `go run …/tools/cmd/review@main` in somebody else's repository is refused by Go where go.mod replaces or excludes anything, and
// finds nothing where a module of this repository is required.
func TestOthersCanRunTheReviewByItsPath(t *testing.T) {
	root, err := repo.Root(".")
	if err != nil {
		t.Fatal(err)
	}
	text, err := repo.Output(t.Context(), filepath.Join(root, "tools"), "go", "mod", "edit", "-json")
	if err != nil {
		t.Fatal(err)
	}
	var mod struct {
		Module           struct{ Path string }
		Replace, Exclude []any
		Require          []struct{ Path string }
	}
	if err := json.Unmarshal([]byte(text), &mod); err != nil {
		t.Fatal(err)
	}
	if mod.Module.Path != "github.com/concordat-dev/concordat/tools" || len(mod.Require) == 0 {
		t.Fatalf("go.mod is of %s and requires %v", mod.Module.Path, mod.Require)
	}
	if len(mod.Replace) > 0 || len(mod.Exclude) > 0 {
		t.Errorf("go.mod replaces %v and excludes %v", mod.Replace, mod.Exclude)
	}
	for _, r := range mod.Require {
		if strings.HasPrefix(r.Path, "github.com/concordat-dev/") {
			t.Errorf("go.mod requires %s, which is nowhere but here", r.Path)
		}
	}
}
