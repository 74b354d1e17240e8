package rules_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/concordat-dev/concordat/tools/review/rules"
	"github.com/concordat-dev/concordat/tools/review/schema"
	"github.com/concordat-dev/concordat/tools/review/schema/schematest"
)

var update = flag.Bool("update", false, "write want.txt anew")

// now is the day on which sunsets are judged.
var now = time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)

// compile returns the image of one file called thing.proto; a path that does not exist is an image without it.
func compile(t *testing.T, path string) *schema.Image {
	t.Helper()
	text, err := os.ReadFile(path)
	name := "acme/v1/thing.proto"
	if errors.Is(err, fs.ErrNotExist) {
		text, err, name = []byte("syntax = \"proto3\";\n\npackage acme.v1;\n"), nil, "acme/v1/other.proto"
	}
	if err != nil {
		t.Fatal(err)
	}
	return compileText(t, name, string(text))
}

// ours are the files that the testdata imports, compiled once: they take longer than all of the testdata.
var ours = sync.OnceValues(func() (map[string]protoreflect.FileDescriptor, error) {
	root := filepath.Join("..", "..", "..")
	compiler := protocompile.Compiler{Resolver: protocompile.WithStandardImports(
		&protocompile.SourceResolver{ImportPaths: []string{filepath.Join(root, "third_party"), filepath.Join(root, "proto")}})}
	files, err := compiler.Compile(context.Background(), "buf/validate/validate.proto", "google/api/annotations.proto", "policy/v1/policy.proto")
	byPath := map[string]protoreflect.FileDescriptor{}
	for _, file := range files {
		byPath[file.Path()] = file
	}
	return byPath, err
})

func compileText(t *testing.T, name, text string) *schema.Image {
	t.Helper()
	compiled, err := ours()
	if err != nil {
		t.Fatal(err)
	}
	return schematest.Compile(t, map[string]string{name: text}, protocompile.ResolverFunc(func(path string) (protocompile.SearchResult, error) {
		if file, ok := compiled[path]; ok {
			return protocompile.SearchResult{Desc: file}, nil
		}
		return protocompile.SearchResult{}, fs.ErrNotExist
	})).Image(t)
}

// found writes what the rules find, one a line.
func found(before, after *schema.Image) string {
	var out bytes.Buffer
	for _, f := range rules.Check(before, after, schema.Compare(before, after), now) {
		fmt.Fprintf(&out, "%s %s wire=%s json=%s source=%s semantics=%s\n  %s\n", f.Rule, f.Level, f.Axes.Wire, f.Axes.JSON, f.Axes.Source, f.Axes.Semantics, f.Text)
		for line := range strings.Lines(f.Patch) {
			fmt.Fprintf(&out, "  | %s\n", strings.TrimRight(line, "\n"))
		}
	}
	return out.String()
}

// Every rule has testdata/<id>/{before,after}.proto and want.txt, which holds everything that is found; a file that is
// not there was deleted.
func TestEveryRuleFindsWhatItIsFor(t *testing.T) {
	for _, rule := range rules.All() {
		t.Run(rule.ID, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join("testdata", rule.ID)
			got := found(compile(t, filepath.Join(dir, "before.proto")), compile(t, filepath.Join(dir, "after.proto")))
			want := filepath.Join(dir, "want.txt")
			if *update {
				if err := os.WriteFile(want, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			text, err := os.ReadFile(want)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(text) {
				t.Errorf("found\n%swant\n%s", got, text)
			}
			if !strings.HasPrefix(got, rule.ID+" ") && !strings.Contains(got, "\n"+rule.ID+" ") {
				t.Errorf("%s is not found:\n%s", rule.ID, got)
			}
			if again := found(compile(t, filepath.Join(dir, "after.proto")), compile(t, filepath.Join(dir, "after.proto"))); again != "" {
				t.Errorf("found in a contract that did not change:\n%s", again)
			}
		})
	}
}

func TestEveryRuleSaysWhyItMattersAndWhatToDo(t *testing.T) {
	seen := map[string]bool{}
	for _, rule := range rules.All() {
		if rule.Purpose == "" || rule.Why == "" || rule.WayOut == "" || rule.Level == "" {
			t.Errorf("%s does not say all that it must", rule.ID)
		}
		if seen[rule.ID] {
			t.Errorf("%s is there twice", rule.ID)
		}
		seen[rule.ID] = true
	}
	entries, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if !seen[entry.Name()] {
			t.Errorf("testdata/%s is of no rule", entry.Name())
		}
	}
}

func TestAFindingIsTheSameOnlyForTheSameChangeOfTheSameElement(t *testing.T) {
	file := func(fields string) *schema.Image {
		return compileText(t, "acme/v1/thing.proto", "syntax = \"proto3\";\n\npackage acme.v1;\n\nmessage Thing {\n"+fields+"\n}\n")
	}
	fingerprints := func(before, after string) []string {
		var list []string
		b, a := file(before), file(after)
		for _, f := range rules.Check(b, a, schema.Compare(b, a), now) {
			list = append(list, f.Rule+" "+f.Fingerprint)
		}
		return list
	}
	renamed := fingerprints("string name = 1;", "string title = 1;")
	if len(renamed) != 2 || !slices.Equal(renamed, fingerprints("// More words.\nstring name = 1;", "string title = 1;\nstring more = 2;")) {
		t.Errorf("the same change has other fingerprints where only a comment and another field are new: %v", renamed)
	}
	for name, other := range map[string][]string{
		"to another name":           fingerprints("string name = 1;", "string label = 1;"),
		"of a field that differs":   fingerprints("string name = 1 [deprecated = true];", "string title = 1 [deprecated = true];"),
		"of a field in its place":   fingerprints("string label = 1;", "string title = 1;"),
		"of the number beside it":   fingerprints("string name = 2;", "string title = 2;"),
		"with a change of the type": fingerprints("int32 name = 1;", "int32 title = 1;"),
	} {
		for _, f := range other {
			if slices.Contains(renamed, f) {
				t.Errorf("a rename %s has the same fingerprint %s", name, f)
			}
		}
	}
}

// What is inside of something deleted is part of that finding: it is approved, and fails, with it.
func TestWhatGoesWithAnotherThingIsImpliedByIt(t *testing.T) {
	before := compileText(t, "acme/v1/thing.proto", "syntax = \"proto3\";\n\npackage acme.v1;\n\nmessage Thing {\n  message Part {\n    string name = 1;\n  }\n  Part part = 1;\n}\n")
	after := compileText(t, "acme/v1/thing.proto", "syntax = \"proto3\";\n\npackage acme.v1;\n")
	findings := rules.Check(before, after, schema.Compare(before, after), now)
	if findings[0].Rule != "MESSAGE_NO_DELETE" || findings[0].Element != "acme.v1.Thing" || findings[0].Implied != "" {
		t.Fatalf("the first finding is %s of %s", findings[0].Rule, findings[0].Element)
	}
	for _, f := range findings[1:] {
		if f.Implied != findings[0].Fingerprint {
			t.Errorf("%s of %s is not implied by the message that it was in", f.Rule, f.Element)
		}
	}
	if len(findings) < 4 {
		t.Errorf("%d findings; want those of the inner message and both fields as well", len(findings))
	}
}

func TestASunsetThatWasPromisedIsNotTakenBack(t *testing.T) {
	file := func(comment string) *schema.Image {
		return compileText(t, "acme/v1/thing.proto", "syntax = \"proto3\";\n\npackage acme.v1;\n\nmessage Thing {\n// Deprecated: use title instead."+comment+"\nstring name = 1 [deprecated = true];\n}\n")
	}
	for after, want := range map[string]bool{"": true, " Sunset: 2027-06-29.": true, " Sunset: 2027-06-30.": false, " Sunset: 2027-07-01.": false} {
		if got := strings.Contains(found(file(" Sunset: 2027-06-30."), file(after)), "SUNSET_MOVED_FORWARD "); got != want {
			t.Errorf("to %q: found %t, want %t", after, got, want)
		}
	}
}
