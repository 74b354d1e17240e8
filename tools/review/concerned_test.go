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
		{name: "a deprecation of what code reads", proto: strings.Replace(coloured, "int32 size = 2;", "// Deprecated: use spare instead.\n  int32 size = 2 [deprecated = true];", 1), shop: shop, regenerate: true,
			rule: "DEPRECATED_WITHOUT_SUNSET", verdict: review.Unaffected, level: rules.Care, uses: 2, built: 2},
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

// withoutSpare removes the field that nobody reads.
var withoutSpare = strings.Replace(coloured, "  int32 spare = 3;\n", "  reserved 3;\n  reserved \"spare\";\n", 1)

const readsSpare = "import acmev1 \"example.com/acme/gen/acme/v1\"\n\nfunc Spare(t *acmev1.Thing) int32 { return t.GetSpare() }\n"

func TestWhatIsNotBuiltOrNotKnownIsNeverUnused(t *testing.T) {
	for _, row := range []struct {
		name       string
		was        map[string]string // what the base has more
		gone       []string          // what the change takes away of it
		regenerate bool
		verdict    review.Verdict
		says       string
	}{
		{name: "a file behind a build tag", was: map[string]string{"shop/tagged.go": "//go:build integration\n\npackage shop\n\n" + readsSpare}, verdict: review.BreaksCompilation, says: "shop/tagged.go"},
		{name: "a file for another system that imports what is not here",
			was:     map[string]string{"shop/shop_plan9.go": "package shop\n\nimport \"example.com/nowhere\"\n\n" + readsSpare + "\nfunc Of() int32 { return nowhere.Thing().GetSpare() }\n"},
			verdict: review.BreaksCompilation, says: "shop/shop_plan9.go"},
		{name: "a name in a file for another system", was: map[string]string{"shop/shop_plan9.go": "package shop\n\nimport \"example.com/nowhere\"\n\nfunc Of() int32 { return nowhere.Thing().GetSpare() }\n"},
			verdict: review.Unknown, says: "shop/shop_plan9.go"},
		{name: "an interface", was: map[string]string{"shop/spare.go": "package shop\n\nimport acmev1 \"example.com/acme/gen/acme/v1\"\n\nfunc Spare(t *acmev1.Thing) interface{ GetSpare() int32 } { return t }\n"},
			verdict: review.BreaksCompilation, says: "shop/spare.go"},
		{name: "an interface, after the code was generated again",
			was:        map[string]string{"shop/spare.go": "package shop\n\nimport acmev1 \"example.com/acme/gen/acme/v1\"\n\nfunc Spare(t *acmev1.Thing) interface{ GetSpare() int32 } { return t }\n"},
			regenerate: true, verdict: review.BreaksCompilation, says: "missing method GetSpare"},
		{name: "an interface that is asked for", was: map[string]string{"shop/spare.go": "package shop\n\nfunc Spare(v any) bool { _, ok := v.(interface{ GetSpare() int32 }); return ok }\n"},
			verdict: review.Unknown, says: "shop/spare.go:3 may use it"},
		{name: "a module of the base that does not load and is gone", was: map[string]string{"old/go.mod": "module example.com/old\n\ngo 1.26\n\nrequire BROKEN\n", "old/old.go": "package old\n"},
			gone: []string{"old/go.mod", "old/old.go"}, verdict: review.Unknown, says: "in base, example.com/old: "},
		{name: "a module of the base that names it, does not load and is gone", was: map[string]string{"old/go.mod": "module example.com/old\n\ngo 1.26\n\nrequire BROKEN\n", "old/old.go": "package old\n\n" + readsSpare},
			gone: []string{"old/go.mod", "old/old.go"}, verdict: review.Unknown, says: "old/old.go:5 may use it"},
	} {
		t.Run(row.name, func(t *testing.T) {
			tr := acme(t)
			tr.Git("checkout", "--quiet", "main")
			for file, text := range row.was {
				tr.Write(file, text)
			}
			tr.Commit("more code")
			tr.Git("checkout", "--quiet", "-B", "change")
			tr.Write("proto/acme/v1/thing.proto", withoutSpare)
			for _, file := range row.gone {
				tr.Git("rm", "--quiet", file)
			}
			tr.Commit("change")
			if row.regenerate {
				generate(t, tr)
			}
			report := reviewed(t, tr, func(o *review.Options) { o.Consumers = true })
			c := finding(t, report, "FIELD_NO_DELETE").Consumers
			if text := fmt.Sprint(c); c.Verdict != row.verdict || !strings.Contains(text, row.says) {
				t.Errorf("got %+v; want %q that says %q; analysed %+v", c, row.verdict, row.says, report.Analysed)
			}
		})
	}
}

// A workspace may be a folder of its repository, and the code that uses it lies beside it.
func TestCodeBesideTheWorkspaceIsLookedAt(t *testing.T) {
	tr := acme(t)
	tr.Git("checkout", "--quiet", "main")
	tr.Git("mv", "buf.yaml", "proto/buf.yaml")
	tr.Write("proto/buf.yaml", "version: v2\n")
	tr.Write("other/buf.yaml", "version: v2\n")
	tr.Write("other/other/v1/other.proto", "syntax = \"proto3\";\n\npackage other.v1;\n\nmessage Other {\n  string id = 1;\n}\n")
	tr.Commit("the workspace is a folder")
	tr.Git("checkout", "--quiet", "-B", "change")
	tr.Write("proto/acme/v1/thing.proto", strings.Replace(coloured, "  int32 size = 2;\n", "  reserved 2;\n  reserved \"size\";\n", 1))
	tr.Write("other/other/v1/other.proto", "syntax = \"proto3\";\n\npackage other.v1;\n\nmessage Other {\n  string key = 1;\n}\n")
	tr.Commit("change")
	cache := t.TempDir()
	look := func(folder, rule string) review.Consumers {
		tr := repotest.At(t, filepath.Join(tr.Dir, folder))
		return finding(t, reviewed(t, tr, func(o *review.Options) { o.Consumers, o.Cache = true, cache }), rule).Consumers
	}
	if c := look("other", "FIELD_SAME_NAME"); c.Verdict != review.UnusedHere {
		t.Errorf("what nobody uses: %+v", c)
	}
	// What was found out about the commit for one workspace says nothing of another one.
	c := look("proto", "FIELD_NO_DELETE")
	if c.Verdict != review.BreaksCompilation || len(c.Uses) != 2 || len(c.Built) != 2 {
		t.Fatalf("got %+v; want two uses and two in the base", c)
	}
	for _, use := range slices.Concat(c.Uses, c.Built) {
		if use.Path != "../shop/shop.go" || !slices.Equal(use.Owners, []string{"@acme/shop"}) {
			t.Errorf("a use is at %s and owned by %v", use.Path, use.Owners)
		}
	}
}

// What could not be analysed this time may be the next time.
func TestWhatCouldNotBeAnalysedIsNotKept(t *testing.T) {
	tr := acme(t)
	tr.Git("checkout", "--quiet", "main")
	tr.Write("old/go.mod", "module example.com/old\n\ngo 1.26\n\nrequire BROKEN\n")
	tr.Commit("broken")
	tr.Git("checkout", "--quiet", "-B", "change")
	tr.Write("proto/acme/v1/thing.proto", withoutSpare)
	tr.Commit("change")
	cache := t.TempDir()
	reviewed(t, tr, func(o *review.Options) { o.Consumers, o.Cache = true, cache })
	if kept, err := os.ReadDir(cache); err != nil || len(kept) > 0 {
		t.Errorf("kept %v, %v", kept, err)
	}
}
