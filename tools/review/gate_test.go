package review_test

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/tools/internal/repo"
	"github.com/concordat-dev/concordat/tools/review"
)

// What weakens the gate is what buf checks less, however buf.yaml says it; what is said in another way, and checks as
// much, does not.
func TestTheGateIsWhatBufChecks(t *testing.T) {
	const v2, file = "version: v2\nmodules:\n  - path: proto\n", "breaking:\n  use:\n    - FILE\n"
	module := func(text string) string { return "version: v2\nmodules:\n  - path: proto\n" + text + file }
	for _, row := range []struct {
		name     string
		was, is  string
		weakened []string // what
	}{
		{"a category where there was the default", v2, v2 + "breaking:\n  use:\n    - WIRE\n", []string{"breaking.rules"}},
		{"the default in place of more", v2 + file + "lint:\n  use:\n    - STANDARD\n    - COMMENTS\n", v2 + file, []string{"lint.rules"}},
		{"a category for one module", v2 + file, module("    breaking:\n      use:\n        - WIRE\n"), []string{"breaking.rules"}},
		{"a module's own section that ignores nothing the workspace does not", v2 + file + "  ignore:\n    - proto/old\n", module("    breaking:\n      use:\n        - FILE\n      ignore:\n        - proto/old\n"), nil},
		{"a module's own section that ignores more", v2 + file + "  ignore:\n    - proto/old\n", module("    breaking:\n      use:\n        - FILE\n      ignore:\n        - proto\n"), []string{"breaking.ignore"}},
		{"a module's own section that comments lint", v2 + file + "lint:\n  disallow_comment_ignores: true\n", module("    lint:\n      use:\n        - STANDARD\n") + "lint:\n  disallow_comment_ignores: true\n", []string{"lint.disallow_comment_ignores"}},
		{"less is ignored", v2 + file + "  ignore:\n    - proto/old\n", v2 + file + "  ignore:\n    - proto/old/v1\n", nil},
		{"the same is ignored for one rule", v2 + file + "  ignore:\n    - proto/old\n", v2 + file + "  ignore_only:\n    FIELD_SAME_NAME:\n      - proto/old\n", nil},
		{"a stricter category", v2 + "breaking:\n  use:\n    - WIRE\n", v2 + file, nil},
		{"a less strict category", v2 + "breaking:\n  use:\n    - WIRE_JSON\n", v2 + "breaking:\n  use:\n    - WIRE\n", []string{"breaking.rules"}},
		{"the default said", v2, v2 + file, nil},
		{"comments and order", v2 + file + "lint:\n  use: [STANDARD, COMMENTS]\n", "# ours\n" + v2 + "lint:\n  use: [COMMENTS, STANDARD]\n" + file, nil},
		{"a rule excepted that was not asked for", v2 + file, v2 + file + "  except:\n    - PACKAGE_MESSAGE_NO_DELETE\n", nil},
		{"the module by another name", v2 + file, "version: v2\nmodules:\n  - path: other\n" + file, []string{"modules"}},
		{"version 1 with less", "version: v1\n", "version: v1\nbreaking:\n  use:\n    - WIRE\n", []string{"breaking.rules"}},
		{"version 1 in version 2", "version: v1\nbreaking:\n  use:\n    - FILE\n", "version: v2\nbreaking:\n  use:\n    - FILE\n", nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			tr := contract(t)
			tr.Git("checkout", "--quiet", "main")
			tr.Write("buf.yaml", row.was)
			tr.Write("other/other/v1/other.proto", "syntax = \"proto3\";\n\npackage other.v1;\n")
			tr.Commit("gate")
			tr.Git("checkout", "--quiet", "-B", "change")
			tr.Write("buf.yaml", row.is)
			tr.Commit("change")
			weakened := func(report *review.Report) []string {
				found := map[string]bool{}
				for _, f := range report.Findings {
					if f.Rule == review.GateWeakened {
						found[f.Attr] = f.Fails()
						if f.Path != "buf.yaml" || strings.Contains(f.Text, "\n") {
							t.Errorf("%s says %q", f.Path, f.Text)
						}
					}
				}
				return slices.Sorted(maps.Keys(found))
			}
			if got := weakened(reviewed(t, tr, nil)); !slices.Equal(got, row.weakened) {
				t.Errorf("found %v; want %v", got, row.weakened)
			}
			against := func(o *review.Options) { o.Against = []string{".git#branch=main"} }
			if got := weakened(reviewed(t, tr, against)); !slices.Equal(got, row.weakened) {
				t.Errorf("against the branch: found %v; want %v", got, row.weakened)
			}
		})
	}
}

func TestAgainstAnInputTheGateIsHeldAsFarAsItIsKnown(t *testing.T) {
	tr := contract(t)
	tr.Git("worktree", "add", "--quiet", "../main", "main")
	tr.Write("buf.yaml", strings.Replace(bufYAML, "- FILE", "- WIRE", 1))
	for input, failing := range map[string]bool{"../main": true, ".git#ref=main": true, ".git#branch=main,subdir=.": true, "image.binpb": false} {
		t.Run(input, func(t *testing.T) {
			buf, err := review.FindBuf(t.Context(), filepath.Join("..", ".."))
			if err != nil {
				t.Fatal(err)
			}
			buf.Dir = tr.Dir
			if input == "image.binpb" {
				if _, err := repo.Output(t.Context(), tr.Dir, buf.Program, "build", "--output", input); err != nil {
					t.Fatal(err)
				}
			}
			report := reviewed(t, tr, func(o *review.Options) { o.Against = []string{input} })
			if (report.Failures() > 0) != failing {
				t.Errorf("%d failures: %+v", report.Failures(), report.Findings)
			}
			if said := strings.Contains(report.Baselines[0].How, "is not known"); said == failing {
				t.Errorf("it says %q", report.Baselines[0].How)
			}
		})
	}
}

// Two weakenings are two changes: who approved the first has not approved the second.
func TestAnApprovalOfLessIsNotOneOfLessStill(t *testing.T) {
	tr := contract(t)
	less := strings.Replace(bufYAML, "- FILE\n", "- FILE\n  except:\n    - FIELD_SAME_NAME\n", 1)
	tr.Write("buf.yaml", less)
	approved(t, tr, reviewed(t, tr, nil))
	if report := reviewed(t, tr, nil); report.Failures() > 0 {
		t.Fatalf("approved, and fails: %v", failing(report))
	}
	tr.Write("buf.yaml", less+"    - FIELD_SAME_TYPE\n")
	if report := reviewed(t, tr, nil); !slices.Equal(failing(report), []string{review.GateWeakened}) {
		t.Errorf("found %v", failing(report))
	}
}
