package review

import (
	"encoding/json"
	"errors"
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

// fileRules returns the rules of buf's category FILE.
func fileRules(t *testing.T, buf Buf) []string {
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
		if slices.Contains(rule.Categories, "FILE") {
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

// Everything that buf finds is found: buf is run over the smallest change of each rule of its category FILE, and each of
// its findings has one of ours with the same rule and the same element.
func TestEverythingThatBufFindsIsFound(t *testing.T) {
	root, err := repo.Root(".")
	if err != nil {
		t.Fatal(err)
	}
	buf, err := FindBuf(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	ids := fileRules(t, buf)
	if len(ids) < 50 {
		t.Fatalf("buf lists %d rules of FILE", len(ids))
	}
	before, after := t.TempDir(), t.TempDir()
	for _, dir := range []string{before, after} {
		if err := os.WriteFile(filepath.Join(dir, "buf.yaml"), []byte("version: v2\nbreaking:\n  use:\n    - FILE\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		copyTree(t, filepath.Join(root, "third_party"), dir)
		copyTree(t, filepath.Join(root, "proto", "policy"), filepath.Join(dir, "policy"))
	}
	folder := func(id string) string { return strings.ToLower(strings.ReplaceAll(id, "_", "")) }
	for _, id := range ids {
		if _, ok := rules.Find(id); !ok {
			t.Errorf("no rule of ours is called %s", id)
			continue
		}
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
	buf.Dir = after
	theirs, err := buf.Breaking(t.Context(), before)
	if err != nil {
		t.Fatal(err)
	}
	images := map[string]*schema.Image{}
	for _, dir := range []string{before, after} {
		if images[dir], err = buf.Build(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
	}
	ours := rules.Check(images[before], images[after], schema.Compare(images[before], images[after]), time.Now())
	_, unpaired := pair(ours, theirs)
	for _, f := range unpaired {
		t.Errorf("buf finds, and we do not: %s %s: %s", f.Rule, f.Path, f.Message)
	}
	for _, id := range ids {
		// The testdata of each rule must be what buf takes for it, else the test would say nothing.
		found := slices.ContainsFunc(theirs, func(f bufFinding) bool {
			return f.Rule == id && (strings.Contains(f.Path, folder(id)+"/") || strings.Contains(f.Message, folder(id)))
		})
		if !found {
			t.Errorf("%s: buf does not find it in its testdata", id)
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
