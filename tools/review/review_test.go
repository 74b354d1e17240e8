package review_test

import (
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

// today is the day on which approvals are judged.
var today = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

const bufYAML = "version: v2\nmodules:\n  - path: proto\nbreaking:\n  use:\n    - FILE\n"

const thing = `syntax = "proto3";

package acme.v1;

// A thing.
message Thing {
  // Its name.
  string name = 1;

  // Its size.
  int32 size = 2;
}
`

// contract makes a repository with a contract, and a branch on which it may be changed.
func contract(t *testing.T) repotest.Tree {
	t.Helper()
	tr := repotest.New(t)
	tr.Write("buf.yaml", bufYAML)
	tr.Write("proto/acme/v1/thing.proto", thing)
	tr.Commit("contract")
	tr.Git("checkout", "--quiet", "-b", "change")
	tr.Commit("work")
	return tr
}

// run reviews a tree as it is on a day.
func run(t *testing.T, tr repotest.Tree, change func(*review.Options)) (*review.Report, error) {
	t.Helper()
	buf, err := review.FindBuf(t.Context(), filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	buf.Dir = tr.Dir
	o := review.Options{Dir: tr.Dir, Now: today}
	if change != nil {
		change(&o)
	}
	return review.Run(t.Context(), buf, o)
}

// reviewed reviews a tree of which a verdict is expected.
func reviewed(t *testing.T, tr repotest.Tree, change func(*review.Options)) *review.Report {
	t.Helper()
	report, err := run(t, tr, change)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// failing lists the rules of what fails.
func failing(report *review.Report) []string {
	var list []string
	for _, f := range report.Findings {
		if f.Fails() && !slices.Contains(list, f.Rule) {
			list = append(list, f.Rule)
		}
	}
	slices.Sort(list)
	return list
}

// rename renames the field.
func rename(tr repotest.Tree, to string) {
	tr.Write("proto/acme/v1/thing.proto", strings.Replace(thing, "string name = 1", "string "+to+" = 1", 1))
}

// approved approves everything that fails, and returns the files.
func approved(t *testing.T, tr repotest.Tree, report *review.Report) []string {
	t.Helper()
	var all []string
	for _, f := range report.Findings {
		if f.Fails() {
			all = append(all, f.Fingerprint)
		}
	}
	files, err := review.Approve(tr.Dir, report, review.Approver{Reason: "Nobody reads it yet.", Owner: "@acme/contract", Expires: today.AddDate(0, 0, 30)}, today, all...)
	if err != nil || len(files) != len(all) {
		t.Fatalf("wrote %v: %v", files, err)
	}
	return files
}

func TestAnApprovedBreakPassesWithoutTouchingTheConfiguration(t *testing.T) {
	tr := contract(t)
	rename(tr, "title")
	report := reviewed(t, tr, nil)
	if want := []string{"FIELD_SAME_JSON_NAME", "FIELD_SAME_NAME"}; !slices.Equal(failing(report), want) {
		t.Fatalf("found %v; want %v", failing(report), want)
	}
	approved(t, tr, report)
	report = reviewed(t, tr, nil)
	if report.Failures() > 0 {
		t.Fatalf("what was approved fails: %v %+v", failing(report), report.Approvals)
	}
	if text, _ := os.ReadFile(filepath.Join(tr.Dir, "buf.yaml")); string(text) != bufYAML {
		t.Errorf("buf.yaml was changed:\n%s", text)
	}

	// The approval is of this rename: another one, and one more break, are not let through by it.
	rename(tr, "label")
	report = reviewed(t, tr, nil)
	if want := []string{"FIELD_SAME_JSON_NAME", "FIELD_SAME_NAME"}; !slices.Equal(failing(report), want) {
		t.Errorf("another rename: found %v; want %v", failing(report), want)
	}
	for _, a := range report.Approvals {
		if a.State != review.Unused {
			t.Errorf("%s is %s; want %s", a.File, a.State, review.Unused)
		}
	}
	tr.Write("proto/acme/v1/thing.proto", strings.Replace(strings.Replace(thing, "string name = 1", "string title = 1", 1), "int32 size", "int64 size", 1))
	if report = reviewed(t, tr, nil); !slices.Equal(failing(report), []string{"FIELD_SAME_TYPE"}) {
		t.Errorf("one more break: found %v; want FIELD_SAME_TYPE alone", failing(report))
	}
}

func TestAnApprovalDiesWithTheChangeThatItWasFor(t *testing.T) {
	tr := contract(t)
	rename(tr, "title")
	files := approved(t, tr, reviewed(t, tr, nil))
	tr.Commit("rename, approved")
	tr.Git("checkout", "--quiet", "main")
	tr.Git("merge", "--quiet", "--ff-only", "change")
	tr.Git("checkout", "--quiet", "-b", "next")
	tr.Commit("next")
	report := reviewed(t, tr, nil)
	for _, a := range report.Approvals {
		if a.State != review.Absorbed || a.Fails() {
			t.Errorf("%s is %s; want %s, which does not fail who comes next", a.File, a.State, review.Absorbed)
		}
	}
	removed, err := review.Prune(tr.Dir, report)
	if err != nil || !slices.Equal(removed, files) {
		t.Errorf("pruned %v, %v; want %v", removed, err, files)
	}
	// Written anew on a later branch, it approves nothing that is there.
	for _, file := range files {
		tr.Git("checkout", "--quiet", "HEAD", "--", file)
		text, err := os.ReadFile(filepath.Join(tr.Dir, file))
		if err != nil {
			t.Fatal(err)
		}
		tr.Write(file, string(text)+"# touched\n")
	}
	for _, a := range reviewed(t, tr, nil).Approvals {
		if a.State != review.Stale || !a.Fails() {
			t.Errorf("%s is %s; want %s", a.File, a.State, review.Stale)
		}
	}
}

func TestAnApprovalThatIsNotWhatItSaysFails(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(text string) string
		now    time.Time
		want   review.State
		says   string
	}{
		{"another element", func(s string) string {
			return strings.Replace(s, "element: acme.v1.Thing.name", "element: acme.v1.Thing.size", 1)
		}, today, review.Widened, "another change"},
		{"another shape", func(s string) string { return strings.Replace(s, "new: title", "new: label", 1) }, today, review.Widened, "another change"},
		{"a pattern for an element", func(s string) string {
			return strings.Replace(s, "element: acme.v1.Thing.name", "element: acme.v1.*", 1)
		}, today, review.Widened, "another change"},
		{"after its last day", func(s string) string { return s }, today.AddDate(0, 0, 32), review.Expired, "last day"},
		{"on its last day", func(s string) string { return s }, today.AddDate(0, 0, 30), review.Used, ""},
		{"for ever", func(s string) string { return strings.Replace(s, `"2026-12-31"`, `"2099-12-31"`, 1) }, today, review.Malformed, "90 days"},
		{"no reason", func(s string) string { return strings.Replace(s, "reason: Nobody reads it yet.\n", "", 1) }, today, review.Malformed, "reason is missing"},
		{"no owner", func(s string) string { return strings.Replace(s, "owner: '@acme/contract'\n", "", 1) }, today, review.Malformed, "owner is missing"},
		{"a key that means nothing", func(s string) string { return s + "also: everything\n" }, today, review.Malformed, "also"},
		{"a conflict of a merge", func(s string) string { return "<<<<<<< HEAD\n" + s + "=======\n" + s + ">>>>>>> other\n" }, today, review.Malformed, "merge"},
		{"two documents", func(s string) string { return s + "---\n" + s }, today, review.Malformed, "more than one"},
		{"nothing", func(string) string { return "" }, today, review.Malformed, "not an approval"},
	} {
		t.Run(row.name, func(t *testing.T) {
			tr := contract(t)
			tr.Write("proto/acme/v1/thing.proto", strings.Replace(thing, "string name = 1;", "string title = 1 [json_name = \"name\"];", 1))
			file := approved(t, tr, reviewed(t, tr, nil))[0]
			text, err := os.ReadFile(filepath.Join(tr.Dir, file))
			if err != nil {
				t.Fatal(err)
			}
			tr.Write(file, row.change(string(text)))
			report := reviewed(t, tr, func(o *review.Options) { o.Now = row.now })
			if len(report.Approvals) != 1 || report.Approvals[0].State != row.want || !strings.Contains(report.Approvals[0].What, row.says) {
				t.Errorf("got %+v; want %s that says %q\n%s", report.Approvals, row.want, row.says, text)
			}
			if (report.Failures() > 0) != (row.want != review.Used) {
				t.Errorf("%d failures", report.Failures())
			}
		})
	}
}

func TestWhoWeakensTheGateIsFound(t *testing.T) {
	for name, text := range map[string]string{
		"a rule excepted":           bufYAML + "  except:\n    - FIELD_SAME_NAME\n",
		"a file ignored":            bufYAML + "  ignore:\n    - proto/acme\n",
		"a file ignored for a rule": bufYAML + "  ignore_only:\n    FIELD_SAME_NAME:\n      - proto/acme\n",
		"another category":          strings.Replace(bufYAML, "- FILE", "- WIRE", 1),
		"unstable packages":         bufYAML + "  ignore_unstable_packages: true\n",
		"a folder excluded":         strings.Replace(bufYAML, "- path: proto\n", "- path: proto\n    excludes:\n      - proto/old\n", 1),
	} {
		t.Run(name, func(t *testing.T) {
			tr := contract(t)
			rename(tr, "title")
			tr.Write("buf.yaml", text)
			report := reviewed(t, tr, nil)
			if !slices.Contains(failing(report), review.GateWeakened) {
				t.Errorf("found %v; want %s", failing(report), review.GateWeakened)
			}
			for _, f := range report.Findings {
				if f.Rule == review.GateWeakened && f.Path != "buf.yaml" {
					t.Errorf("it is said to be in %s", f.Path)
				}
			}
		})
	}
}

func TestEveryBaselineIsHeldInOneRun(t *testing.T) {
	tr := contract(t)
	tr.Git("checkout", "--quiet", "main")
	release := tr.Git("rev-parse", "HEAD")
	rename(tr, "title")
	tr.Write("proto/baselines.yaml", "release: "+release+"\n")
	tr.Commit("renamed since the release")
	tr.Git("checkout", "--quiet", "-B", "change")
	tr.Commit("work")
	tr.Write("proto/acme/v1/thing.proto", strings.Replace(strings.Replace(thing, "string name = 1", "string title = 1", 1), "int32 size", "int64 size", 1))
	report := reviewed(t, tr, nil)
	for _, f := range report.Findings {
		want := []string{"release"}
		if f.Rule == "FIELD_SAME_TYPE" {
			want = []string{"base", "release"}
		}
		if !slices.Equal(f.Baselines, want) {
			t.Errorf("%s was found against %v; want %v", f.Rule, f.Baselines, want)
		}
	}
	if want := []string{"FIELD_SAME_JSON_NAME", "FIELD_SAME_NAME", "FIELD_SAME_TYPE"}; !slices.Equal(failing(report), want) {
		t.Errorf("found %v; want %v", failing(report), want)
	}

	// A release that goes back is a weaker promise.
	tr.Git("checkout", "--quiet", "--", ".")
	newer := tr.Git("rev-parse", "HEAD")
	tr.Write("proto/baselines.yaml", "release: "+newer+"\n")
	tr.Commit("a newer release")
	tr.Git("branch", "--force", "main", "HEAD")
	tr.Write("proto/baselines.yaml", "release: "+release+"\n")
	tr.Commit("back")
	if report := reviewed(t, tr, nil); !slices.Contains(failing(report), review.GateWeakened) {
		t.Errorf("a release that went back: found %v", failing(report))
	}
}

// A reader of a stream may be told what was written by any release that is retained; who calls a method talks to servers
// of today.
func TestOfARetainedReleaseOnlyWhatStreamsCarryIsHeld(t *testing.T) {
	tr := contract(t)
	tr.Git("checkout", "--quiet", "main")
	const service = "\nservice ThingService {\n  rpc Get(Asked) returns (Asked);\n  rpc Watch(Asked) returns (stream Thing);\n}\n\nmessage Asked {\n  string id = 1;\n}\n"
	tr.Write("proto/acme/v1/thing.proto", thing+service)
	old := tr.Commit("old release")
	changed := strings.Replace(strings.Replace(thing+service, "string name = 1", "string title = 1", 1), "string id = 1", "string key = 1", 1)
	tr.Write("proto/acme/v1/thing.proto", changed)
	tr.Write("proto/baselines.yaml", "release: none\nretained:\n  - "+old+"\n")
	tr.Commit("renamed since")
	tr.Git("checkout", "--quiet", "-B", "change")
	tr.Commit("work")
	report := reviewed(t, tr, nil)
	if want := []string{"FIELD_SAME_JSON_NAME", "FIELD_SAME_NAME"}; !slices.Equal(failing(report), want) {
		t.Errorf("found %v; want %v", failing(report), want)
	}
	// What changed since another baseline is not what this change does.
	if len(report.Changes) > 0 || report.Baselines[0].Changes != 0 || report.Bump != "none" {
		t.Errorf("against the base nothing changed, and the report says %d changes, semver %s", len(report.Changes), report.Bump)
	}
	for _, f := range report.Findings {
		if f.Element != "acme.v1.Thing.name" || !slices.Equal(f.Baselines, []string{"retained " + old[:12]}) {
			t.Errorf("found %s of %s against %v; want what Watch streams, against the retained release", f.Rule, f.Element, f.Baselines)
		}
	}
}

func TestWithoutAVerdictTheReasonIsOneClearLine(t *testing.T) {
	for _, row := range []struct {
		name  string
		setup func(tr repotest.Tree) repotest.Tree
		o     func(*review.Options)
		says  string
	}{
		{"a broken file", func(tr repotest.Tree) repotest.Tree {
			tr.Write("proto/acme/v1/thing.proto", strings.Replace(thing, "string name", "strinx name", 1))
			return tr
		}, nil, "proto/acme/v1/thing.proto:8:3"},
		{"a branch that does not exist", func(tr repotest.Tree) repotest.Tree { return tr }, func(o *review.Options) { o.BaseRef = "nowhere" }, "nowhere: no such commit"},
		{"a shallow clone", func(tr repotest.Tree) repotest.Tree {
			tr.Commit("change")
			return tr.Clone("--depth=1", "--branch=change")
		}, nil, "fetch-depth: 0"},
		{"an import that nobody has", func(tr repotest.Tree) repotest.Tree {
			tr.Write("proto/acme/v1/thing.proto", strings.Replace(thing, "package acme.v1;", "package acme.v1;\n\nimport \"nowhere/x.proto\";", 1))
			return tr
		}, nil, `thing.proto:5:1: imported file does not exist: "nowhere/x.proto"`},
		{"a key that buf.yaml does not have", func(tr repotest.Tree) repotest.Tree {
			tr.Write("buf.yaml", bufYAML+"colour: red\n")
			return tr
		}, nil, "field colour not found"},
		{"a key that the baselines do not have", func(tr repotest.Tree) repotest.Tree {
			tr.Write("proto/baselines.yaml", "release: none\ndeplyed: none\n")
			return tr
		}, nil, "proto/baselines.yaml: line 2: field deplyed not found"},
		{"a commit in place of an input", func(tr repotest.Tree) repotest.Tree { return tr }, func(o *review.Options) { o.Against = []string{"HEAD"} }, "say .git#ref=HEAD"},
		{"an input whose commit does not exist", func(tr repotest.Tree) repotest.Tree { return tr }, func(o *review.Options) { o.Against = []string{".git#ref=nope"} }, "nope"},
		{"no buf.yaml", func(tr repotest.Tree) repotest.Tree { tr.Git("rm", "--quiet", "buf.yaml"); return tr }, nil, "no buf.yaml"},
		{"an input that does not exist", func(tr repotest.Tree) repotest.Tree { return tr }, func(o *review.Options) { o.Against = []string{"nowhere.binpb"} }, "nowhere.binpb"},
		{"usage that is no snapshot", func(tr repotest.Tree) repotest.Tree { return tr }, func(o *review.Options) { o.Usage = []string{filepath.Join(o.Dir, "buf.yaml")} }, "no snapshot"},
		{"baselines that were there", func(tr repotest.Tree) repotest.Tree {
			tr.Write("proto/baselines.yaml", "release: none\n")
			tr.Commit("baselines")
			tr.Git("branch", "--force", "main", "HEAD")
			tr.Git("rm", "--quiet", "proto/baselines.yaml")
			tr.Commit("gone")
			return tr
		}, nil, "never dropped"},
	} {
		t.Run(row.name, func(t *testing.T) {
			report, err := run(t, row.setup(contract(t)), row.o)
			if err == nil || !strings.Contains(err.Error(), row.says) {
				t.Fatalf("got %v, %v; want an error that says %q", report, err, row.says)
			}
			if strings.Contains(strings.TrimSpace(err.Error()), "\n") {
				t.Errorf("the error has more than one line:\n%v", err)
			}
		})
	}
}

func TestFilesThatMoveAndPackagesThatAreRenamedAreFollowed(t *testing.T) {
	tr := contract(t)
	tr.Git("mv", "proto/acme/v1/thing.proto", "proto/acme/v1/item.proto")
	report := reviewed(t, tr, nil)
	if want := []string{"FILE_NO_DELETE", "MESSAGE_NO_DELETE"}; !slices.Equal(failing(report), want) {
		t.Errorf("a file that moved: found %v; want %v", failing(report), want)
	}
	for _, f := range report.Findings {
		if f.Axes.Wire != rules.Safe || f.Axes.JSON != rules.Safe {
			t.Errorf("%s says that a file which moved is not safe on the wire: %+v", f.Rule, f.Axes)
		}
	}
	tr.Git("reset", "--quiet", "--hard", "HEAD")
	tr.Write("proto/acme/v1/thing.proto", strings.Replace(thing, "package acme.v1;", "package acme.v2;", 1))
	report = reviewed(t, tr, nil)
	if want := []string{"FILE_SAME_PACKAGE"}; !slices.Equal(failing(report), want) {
		t.Errorf("a package that was renamed: found %v; want %v", failing(report), want)
	}
}

func TestWhatServersSawSaysThatARemovalIsTooEarly(t *testing.T) {
	tr := contract(t)
	tr.Write("proto/acme/v1/thing.proto", strings.Replace(thing, "  // Its size.\n  int32 size = 2;\n", "  reserved 2;\n  reserved \"size\";\n", 1))
	snapshot := filepath.Join(t.TempDir(), "usage.json")
	if err := os.WriteFile(snapshot, []byte(`{"version": 1, "service": "things", "sampled_one_in": 10, "entries": [
		{"caller": "orders", "method": "/acme.v1.ThingService/Put", "direction": "request", "path": "thing.size", "message": "acme.v1.Thing", "field": "size", "count": 7, "last_seen": "2026-12-01T09:00:00Z"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	report := reviewed(t, tr, func(o *review.Options) { o.Usage = []string{snapshot} })
	if want := []string{"FIELD_NO_DELETE", review.StillUsed}; !slices.Equal(failing(report), want) {
		t.Fatalf("found %v; want %v", failing(report), want)
	}
	for _, f := range report.Findings {
		if len(f.Seen) != 1 || f.Seen[0].Caller != "orders" || f.Seen[0].Count != 7 {
			t.Errorf("%s does not say who uses it: %+v", f.Rule, f.Seen)
		}
		if f.Rule == review.StillUsed && !strings.Contains(f.Text, "last used by orders 3 h ago") {
			t.Errorf("it says %q", f.Text)
		}
	}
}

// A message is removed with its fields; one that moves to another file is still there.
func TestWhatServersSawOfAMessageCountsWhereItIsRemoved(t *testing.T) {
	snapshot := filepath.Join(t.TempDir(), "usage.json")
	if err := os.WriteFile(snapshot, []byte(`{"version": 1, "service": "things", "sampled_one_in": 10, "entries": [
		{"caller": "orders", "method": "/acme.v1.ThingService/Put", "direction": "request", "message": "acme.v1.Thing", "field": "size", "count": 7, "last_seen": "2026-12-01T09:00:00Z"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	usage := func(o *review.Options) { o.Usage = []string{snapshot} }
	for _, row := range []struct {
		name   string
		change func(tr repotest.Tree)
		of     string
	}{
		{"removed", func(tr repotest.Tree) {
			tr.Write("proto/acme/v1/thing.proto", strings.Split(thing, "// A thing.")[0]+"message Other {}\n")
		}, "message acme.v1.Thing is removed, and was last used by orders"},
		{"removed with its file", func(tr repotest.Tree) {
			tr.Write("proto/acme/v1/other.proto", strings.Split(thing, "// A thing.")[0]+"message Other {}\n")
			tr.Git("rm", "--quiet", "proto/acme/v1/thing.proto")
		}, "file acme/v1/thing.proto is removed, and was last used by orders"},
		{"moved to another file", func(tr repotest.Tree) { tr.Git("mv", "proto/acme/v1/thing.proto", "proto/acme/v1/item.proto") }, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			tr := contract(t)
			row.change(tr)
			var said []string
			for _, f := range reviewed(t, tr, usage).Findings {
				if f.Rule == review.StillUsed {
					said = append(said, f.Text)
				}
			}
			if row.of == "" && len(said) > 0 || row.of != "" && (len(said) != 1 || !strings.HasPrefix(said[0], row.of)) {
				t.Errorf("said %q; want %q", said, row.of)
			}
		})
	}
}
