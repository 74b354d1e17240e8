package review_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/tools/internal/repo"
	"github.com/concordat-dev/concordat/tools/internal/repo/repotest"
	"github.com/concordat-dev/concordat/tools/review"
	"github.com/concordat-dev/concordat/tools/review/rules"
)

const coloured = `syntax = "proto3";

package acme.v1;

option go_package = "example.com/acme/gen/acme/v1;acmev1";

message Thing {
  string name = 1;
  int32 size = 2;
  int32 spare = 3;
  Colour colour = 4;
}

enum Colour {
  COLOUR_UNSPECIFIED = 0;
  COLOUR_RED = 1;
}
`

const shop = `package shop

import acmev1 "example.com/acme/gen/acme/v1"

func Area(t *acmev1.Thing) int32 {
	return t.GetSize() * t.GetSize()
}

func Warm(t *acmev1.Thing) bool {
	switch t.GetColour() {
	case acmev1.Colour_COLOUR_RED:
		return true
	}
	return false
}
`

// acme makes a repository with a contract, the code that is generated from it and a package that uses it, which
// CODEOWNERS gives to somebody.
func acme(t *testing.T) repotest.Tree {
	t.Helper()
	root, err := repo.Root(".")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join(root, "gen", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	sum, err := os.ReadFile(filepath.Join(root, "gen", "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	plugin, err := repo.Output(t.Context(), filepath.Join(root, "tools"), "go", "tool", "-n", "protoc-gen-go")
	if err != nil {
		t.Fatal(err)
	}
	tr := repotest.New(t)
	tr.Write("go.mod", regexp.MustCompile(`(?m)^module .*$`).ReplaceAllString(string(mod), "module example.com/acme"))
	tr.Write("go.sum", string(sum))
	tr.Write(".github/CODEOWNERS", "/shop/ @acme/shop\n")
	tr.Write("buf.yaml", bufYAML)
	tr.Write("buf.gen.yaml", fmt.Sprintf("version: v2\nplugins:\n  - local: [%q]\n    out: gen\n    opt: paths=source_relative\n", plugin))
	tr.Write("proto/acme/v1/thing.proto", coloured)
	tr.Write("shop/shop.go", shop)
	generate(t, tr)
	tr.Commit("contract")
	tr.Git("checkout", "--quiet", "-b", "change")
	tr.Commit("work")
	return tr
}

func generate(t *testing.T, tr repotest.Tree) {
	t.Helper()
	buf, err := review.FindBuf(t.Context(), filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repo.Output(t.Context(), tr.Dir, buf.Program, "generate"); err != nil {
		t.Fatal(err)
	}
}

// finding returns the finding of a rule.
func finding(t *testing.T, report *review.Report, rule string) *review.Finding {
	t.Helper()
	for _, f := range report.Findings {
		if f.Rule == rule {
			return f
		}
	}
	t.Fatalf("%s is not found", rule)
	return nil
}

func TestAFindingSaysWhomItConcerns(t *testing.T) {
	withoutSize := strings.Replace(coloured, "  int32 size = 2;\n", "  reserved 2;\n  reserved \"size\";\n", 1)
	withoutUse := strings.Replace(shop, "return t.GetSize() * t.GetSize()", "return 0", 1)
	for _, row := range []struct {
		name        string
		proto, shop string
		regenerate  bool
		rule        string
		verdict     review.Verdict
		level       rules.Level
		uses, built int
		breaks      bool
	}{
		{name: "a field that code reads", proto: withoutSize, shop: shop, regenerate: true, rule: "FIELD_NO_DELETE", verdict: review.BreaksCompilation, level: rules.Break, uses: 2, built: 2, breaks: true},
		{name: "a field that code reads, not generated yet", proto: withoutSize, shop: shop, rule: "FIELD_NO_DELETE", verdict: review.BreaksCompilation, level: rules.Break, uses: 2, built: 2, breaks: true},
		{name: "a field that the same change stops reading", proto: withoutSize, shop: withoutUse, regenerate: true, rule: "FIELD_NO_DELETE", verdict: review.BreaksAtRunTime, level: rules.Break, built: 2},
		{name: "a field that nobody reads", proto: strings.Replace(coloured, "  int32 spare = 3;\n", "  reserved 3;\n  reserved \"spare\";\n", 1), shop: shop, regenerate: true,
			rule: "FIELD_NO_DELETE", verdict: review.UnusedHere, level: rules.Break},
		{name: "a field that nobody reads beside code that does not compile", proto: strings.Replace(coloured, "  int32 spare = 3;\n", "  reserved 3;\n  reserved \"spare\";\n", 1),
			shop: shop + "\nfunc Broken() { nowhere() }\n", regenerate: true, rule: "FIELD_NO_DELETE", verdict: review.Unknown, level: rules.Break},
		{name: "a field that nobody reads beside code that reads all by reflection", proto: strings.Replace(coloured, "  int32 spare = 3;\n", "  reserved 3;\n  reserved \"spare\";\n", 1),
			shop:       strings.Replace(shop, "import acmev1", "import \"google.golang.org/protobuf/encoding/protojson\"\nimport acmev1", 1) + "\nfunc All(t *acmev1.Thing) string { return protojson.Format(t) }\n",
			regenerate: true, rule: "FIELD_NO_DELETE", verdict: review.Unknown, level: rules.Break},
		{name: "a type that code computes with", proto: strings.Replace(coloured, "int32 size", "int64 size", 1), shop: shop, regenerate: true, rule: "FIELD_SAME_TYPE",
			verdict: review.BreaksCompilation, level: rules.Break, uses: 2, built: 2, breaks: true},
		{name: "a name that code reads", proto: strings.Replace(coloured, "int32 size", "int32 extent", 1), shop: shop, regenerate: true, rule: "FIELD_SAME_NAME",
			verdict: review.BreaksCompilation, level: rules.Break, uses: 2, built: 2, breaks: true},
		{name: "a value beside a switch without a default", proto: strings.Replace(coloured, "COLOUR_RED = 1;", "COLOUR_RED = 1;\n  COLOUR_BLUE = 2;", 1), shop: shop, regenerate: true,
			rule: rules.EnumValueAdded, verdict: review.BreaksAtRunTime, level: rules.Break, uses: 1},
		{name: "a value beside a switch with a default", proto: strings.Replace(coloured, "COLOUR_RED = 1;", "COLOUR_RED = 1;\n  COLOUR_BLUE = 2;", 1),
			shop: strings.Replace(shop, "\t\treturn true\n\t}", "\t\treturn true\n\tdefault:\n\t}", 1), regenerate: true, rule: rules.EnumValueAdded, verdict: review.UnusedHere, level: rules.Note},
	} {
		t.Run(row.name, func(t *testing.T) {
			tr := acme(t)
			tr.Write("proto/acme/v1/thing.proto", row.proto)
			tr.Write("shop/shop.go", row.shop)
			if row.regenerate {
				generate(t, tr)
			}
			report := reviewed(t, tr, func(o *review.Options) { o.Consumers = true })
			f := finding(t, report, row.rule)
			if f.Consumers.Verdict != row.verdict || f.Level != row.level || len(f.Consumers.Uses) != row.uses || len(f.Consumers.Built) != row.built {
				t.Errorf("got %s (%s), %d uses, %d built in: %+v; problems %v; want %s (%s), %d, %d", f.Consumers.Verdict, f.Level, len(f.Consumers.Uses), len(f.Consumers.Built),
					f.Consumers, report.Analysed.Problems, row.verdict, row.level, row.uses, row.built)
			}
			for _, use := range slices.Concat(f.Consumers.Uses, f.Consumers.Built) {
				if use.Path != "shop/shop.go" || !slices.Equal(use.Owners, []string{"@acme/shop"}) {
					t.Errorf("a use is at %s and owned by %v", use.Path, use.Owners)
				}
			}
			for _, use := range f.Consumers.Uses {
				if use.Breaks != row.breaks {
					t.Errorf("%s:%d breaks: %v", use.Path, use.Line, use.Breaks)
				}
			}
		})
	}
}

// What was found out about a commit is kept, and is the same when it is read.
func TestWhatIsKnownOfACommitIsKept(t *testing.T) {
	tr := acme(t)
	tr.Write("proto/acme/v1/thing.proto", strings.Replace(coloured, "  int32 size = 2;\n", "  reserved 2;\n  reserved \"size\";\n", 1))
	cache := t.TempDir()
	look := func() *review.Finding {
		return finding(t, reviewed(t, tr, func(o *review.Options) { o.Consumers, o.Cache = true, cache }), "FIELD_NO_DELETE")
	}
	first := look()
	kept, err := os.ReadDir(cache)
	if err != nil || len(kept) != 1 {
		t.Fatalf("kept %v, %v", kept, err)
	}
	if again := look(); fmt.Sprint(again.Consumers) != fmt.Sprint(first.Consumers) {
		t.Errorf("read again: %+v; first: %+v", again.Consumers, first.Consumers)
	}
	if err := os.WriteFile(filepath.Join(cache, kept[0].Name()), []byte("{half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if again := look(); fmt.Sprint(again.Consumers) != fmt.Sprint(first.Consumers) {
		t.Errorf("from a file that was cut off: %+v; first: %+v", again.Consumers, first.Consumers)
	}
}

// Only what the workspace asks buf for fails; the rest is shown as hidden, with the reason.
func TestARuleThatTheWorkspaceDoesNotAskForIsHidden(t *testing.T) {
	tr := repotest.New(t)
	tr.Write("buf.yaml", strings.Replace(bufYAML, "- FILE", "- WIRE", 1))
	tr.Write("proto/acme/v1/thing.proto", thing)
	tr.Commit("contract")
	tr.Git("checkout", "--quiet", "-b", "change")
	tr.Commit("work")
	rename(tr, "title")
	report := reviewed(t, tr, nil)
	if f := finding(t, report, "FIELD_SAME_NAME"); f.Fails() || !strings.Contains(f.Hidden, "does not ask for FIELD_SAME_NAME") {
		t.Errorf("a rename fails where only the wire counts: hidden because %q", f.Hidden)
	}
	if report.Failures() > 0 {
		t.Errorf("found %v", failing(report))
	}
	tr.Write("proto/acme/v1/thing.proto", strings.Replace(thing, "int32 size", "string size", 1))
	if report := reviewed(t, tr, nil); !slices.Equal(failing(report), []string{"FIELD_SAME_TYPE"}) {
		t.Errorf("what buf finds by a rule of another category: %v", failing(report))
	}
}
