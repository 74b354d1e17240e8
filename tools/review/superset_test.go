package review

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/tools/internal/repo"
	"github.com/concordat-dev/concordat/tools/review/rules"
	"github.com/concordat-dev/concordat/tools/review/schema"
)

// rulesOf returns the rules of a category of buf's.
func rulesOf(t *testing.T, buf Buf, category string) []string {
	t.Helper()
	out, err := repo.Output(t.Context(), t.TempDir(), buf.Program, "config", "ls-breaking-rules", "--format", "json")
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for printed := json.NewDecoder(strings.NewReader(out)); printed.More(); {
		var rule struct {
			ID         string   `json:"id"`
			Categories []string `json:"categories"`
		}
		if err := printed.Decode(&rule); err != nil {
			t.Fatal(err)
		}
		if slices.Contains(rule.Categories, category) {
			ids = append(ids, rule.ID)
		}
	}
	return ids
}

// copyTree copies the .proto files below from.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
}

// more are the changes of rules of buf's other categories which the testdata of our rule with the same findings does not
// make, before and after. buf does not see that the last enum, or extension, of a package is gone.
var more = map[string][2]string{
	"PACKAGE_ENUM_NO_DELETE":                      {"enum Stays { STAYS = 0; }\nenum Goes { GOES = 0; }", "enum Stays { STAYS = 0; }"},
	"PACKAGE_EXTENSION_NO_DELETE":                 {"message M { extensions 1 to 9; }\nextend M { optional string stays = 1; optional string goes = 2; }", "message M { extensions 1 to 9; }\nextend M { optional string stays = 1; }"},
	"PACKAGE_MESSAGE_NO_DELETE":                   {"message Stays {}", "message Stays {}"},
	"PACKAGE_SERVICE_NO_DELETE":                   {"message Stays {}\nservice StaysService { rpc Stay(Stays) returns (Stays); }", "message Stays {}\nservice StaysService { rpc Stay(Stays) returns (Stays); }"},
	"FIELD_NO_DELETE_UNLESS_NAME_RESERVED":        {"message M { optional string goes = 1; }", "message M { reserved 1; }"},
	"FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED":      {"message M { optional string goes = 1; }", "message M { reserved \"goes\"; }"},
	"ENUM_VALUE_NO_DELETE_UNLESS_NAME_RESERVED":   {"enum E { STAYS = 0; GOES = 1; }", "enum E { STAYS = 0; reserved 1; }"},
	"ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED": {"enum E { STAYS = 0; GOES = 1; }", "enum E { STAYS = 0; reserved \"GOES\"; }"},
	"FIELD_WIRE_COMPATIBLE_TYPE":                  {"message M { optional int32 changes = 1; }", "message M { optional string changes = 1; }"},
}

// Everything that buf finds is found, and counts: buf is run over the smallest change of each rule, with each of its
// categories, and each of its findings has one of ours with the same rule and the same element, which fails, or comes
// with one that does.
func TestEverythingThatBufFindsIsFound(t *testing.T) {
	root, err := repo.Root(".")
	if err != nil {
		t.Fatal(err)
	}
	buf, err := FindBuf(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	before, after := t.TempDir(), t.TempDir()
	for _, dir := range []string{before, after} {
		copyTree(t, filepath.Join(root, "third_party"), dir)
		copyTree(t, filepath.Join(root, "proto", "policy"), filepath.Join(dir, "policy"))
	}
	all := rulesOf(t, buf, "FILE")
	for _, id := range all {
		for name, dir := range map[string]string{"before.proto": before, "after.proto": after} {
			text, err := os.ReadFile(filepath.Join("rules", "testdata", id, name))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			to := filepath.Join(dir, folder(id), "v1")
			if err := os.MkdirAll(to, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(to, "thing.proto"), []byte(strings.ReplaceAll(string(text), "acme.v", folder(id)+".v")), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	write := func(dir, id, file, text string) {
		to := filepath.Join(dir, folder(id), "v1", file)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, fmt.Appendf(nil, "syntax = \"proto2\";\n\npackage %s.v1;\n\n%s\n", folder(id), text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for id, texts := range more {
		write(before, id, "thing.proto", texts[0])
		write(after, id, "thing.proto", texts[1])
	}
	// A file that goes, of a package that stays.
	write(before, "PACKAGE_MESSAGE_NO_DELETE", "goes.proto", "message Goes { optional Inner inner = 1; message Inner {} }")
	write(before, "PACKAGE_SERVICE_NO_DELETE", "goes.proto", "message Goes {}\nservice GoesService { rpc Go(Goes) returns (Goes); }")
	buf.Dir = after
	for category, atLeast := range map[string]int{"FILE": 50, "PACKAGE": 40, "WIRE_JSON": 20, "WIRE": 15} {
		t.Run(category, func(t *testing.T) {
			ids := rulesOf(t, buf, category)
			if len(ids) < atLeast {
				t.Fatalf("buf lists %d rules of %s", len(ids), category)
			}
			config := []byte("version: v2\nbreaking:\n  use:\n    - " + category + "\n")
			if err := os.WriteFile(filepath.Join(after, "buf.yaml"), config, 0o644); err != nil {
				t.Fatal(err)
			}
			theirs, err := buf.Breaking(t.Context(), before)
			if err != nil {
				t.Fatal(err)
			}
			report, err := Run(t.Context(), buf, Options{Dir: after, Against: []string{before}, Now: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			held(t, report, theirs)
			for _, id := range ids {
				ours := equivalent(id)
				if _, ok := rules.Find(ours); !ok {
					t.Errorf("no rule of ours is called %s", ours)
				}
				// The testdata of each rule must be what buf takes for it, else the test would say nothing.
				if !slices.ContainsFunc(theirs, func(f bufFinding) bool {
					return f.Rule == id && slices.ContainsFunc([]string{folder(ours), folder(id)}, func(folder string) bool {
						return strings.Contains(f.Path, folder+"/") || strings.Contains(f.Message, folder)
					})
				}) {
					t.Errorf("%s: buf does not find it in the testdata of %s", id, ours)
				}
			}
		})
	}
}

// folder is where the testdata of a rule lies in the contract of the test.
func folder(id string) string { return strings.ToLower(strings.ReplaceAll(id, "_", "")) }

// held expects that a report fails by everything that buf found.
func held(t *testing.T, report *Report, theirs []bufFinding) {
	t.Helper()
	var ours []*rules.Finding
	fails := map[string]bool{} // by fingerprint
	for _, f := range report.Findings {
		ours = append(ours, f.Finding)
		fails[f.Fingerprint] = f.Fails()
	}
	paired, unpaired := pair(ours, theirs)
	for _, f := range unpaired {
		t.Errorf("buf finds, and we do not: %s %s: %s", f.Rule, f.Path, f.Message)
	}
	for f := range paired {
		if !fails[f.Fingerprint] && !fails[f.Implied] {
			t.Errorf("buf finds it, and it does not count: %s: %s (implied by %q)", f.Rule, f.Text, f.Implied)
		}
	}
	for _, f := range report.Findings {
		// An alien is what no rule of ours explains.
		if _, ok := rules.Find(f.Rule); !ok {
			t.Errorf("buf finds, and no rule of ours says the same: %s: %s", f.Rule, f.Text)
		}
	}
}

// A finding of buf that no rule of ours explains, such as that of a plugin, is a finding of its own.
func TestWhatOnlyBufFindsIsNotLost(t *testing.T) {
	ours := []*rules.Finding{}
	theirs := []bufFinding{{Path: "proto/acme/v1/thing.proto", Line: 3, Rule: "ACME_NO_VOWELS", Message: `Field "a" has a vowel.`}}
	_, unpaired := pair(ours, theirs)
	if len(unpaired) != 1 {
		t.Fatalf("unpaired: %v", unpaired)
	}
	f := alien(unpaired[0], new(schema.Image), new(schema.Image))
	other := alien(bufFinding{Path: "proto/acme/v1/thing.proto", Rule: "ACME_NO_VOWELS", Message: `Field "e" has a vowel.`}, new(schema.Image), new(schema.Image))
	if f.Rule != "ACME_NO_VOWELS" || f.Level != rules.Break || f.Fingerprint == other.Fingerprint {
		t.Errorf("got %+v and %s", f, other.Fingerprint)
	}
}

func TestOwnersAreThoseOfTheLastLineThatMatches(t *testing.T) {
	o := parseOwners(`
# everything
*            @all
*.md         @writers
/proto/      @contract  @lead # and nobody else
/proto/own/
docs/*       @docs
apps/        @apps
/a/**/z.go   @deep
[Section]
`, "")
	for file, want := range map[string]string{
		"main.go": "@all", "x/README.md": "@writers", "proto/a/b.proto": "@contract @lead", "proto": "@all", "proto/own/b.proto": "",
		"docs/a.txt": "@docs", "docs/a/b.txt": "@all", "x/apps/y.go": "@apps", "a/b/c/z.go": "@deep", "a/z.go": "@deep", "notproto/x": "@all",
	} {
		if got := strings.Join(o.of(file), " "); got != want {
			t.Errorf("%s is owned by %q; want %q", file, got, want)
		}
	}
	if got := (parseOwners("/sub/proto/ @x\n", "sub")).of("proto/a.proto"); len(got) != 1 {
		t.Errorf("in a workspace below the root of the repository: %v", got)
	}
}
