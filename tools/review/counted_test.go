package review_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/tools/internal/repo/repotest"
	"github.com/concordat-dev/concordat/tools/review"
	"github.com/concordat-dev/concordat/tools/review/rules"
)

// started makes a repository with these files on main, and a branch on which they may be changed.
func started(t *testing.T, files map[string]string) repotest.Tree {
	t.Helper()
	tr := repotest.New(t)
	for path, text := range files {
		tr.Write(path, text)
	}
	tr.Commit("contract")
	tr.Git("checkout", "--quiet", "-b", "change")
	tr.Commit("work")
	return tr
}

// elements lists what fails, each as its rule and its element.
func elements(report *review.Report) []string {
	var list []string
	for _, f := range report.Findings {
		if f.Fails() {
			list = append(list, f.Rule+" "+f.Element)
		}
	}
	slices.Sort(list)
	return list
}

// The file is not what the workspace asks about; what was in it is.
func TestWhatIsInAFileThatDoesNotCountCounts(t *testing.T) {
	tr := started(t, map[string]string{
		"buf.yaml":               strings.Replace(bufYAML, "- FILE", "- PACKAGE", 1),
		"proto/acme/v1/a.proto":  "syntax = \"proto3\";\n\npackage acme.v1;\n\nmessage A {}\n",
		"proto/acme/v1/b.proto":  "syntax = \"proto3\";\n\npackage acme.v1;\n\nmessage B {\n  string name = 1;\n  message Inner {}\n}\n",
		"proto/other/v1/c.proto": "syntax = \"proto3\";\n\npackage other.v1;\n\nmessage C {\n  string name = 1;\n}\n",
		"proto/other/v1/d.proto": "syntax = \"proto3\";\n\npackage other.v1;\n\nmessage D {\n  string name = 1;\n}\n",
	})
	tr.Git("rm", "--quiet", "proto/acme/v1/b.proto")
	if got, want := elements(reviewed(t, tr, nil)), []string{"MESSAGE_NO_DELETE acme.v1.B"}; !slices.Equal(got, want) {
		t.Errorf("a file that is gone: found %v; want %v", got, want)
	}
	tr.Git("reset", "--quiet", "--hard", "HEAD")
	tr.Git("rm", "--quiet", "proto/other/v1/c.proto", "proto/other/v1/d.proto")
	if got, want := elements(reviewed(t, tr, nil)), []string{"FILE_NO_DELETE other/v1/c.proto", "FILE_NO_DELETE other/v1/d.proto"}; !slices.Equal(got, want) {
		t.Errorf("a package that is gone: found %v; want %v, and nothing for what was in them", got, want)
	}
}

// Of a release whose events are retained only what streams carry counts, however it came about that it is gone.
func TestAStreamedMessageThatGoesWithItsFileOrPackageIsHeldAgainstRetainedReleases(t *testing.T) {
	const (
		event   = "syntax = \"proto3\";\n\npackage acme.v1;\n\nmessage Event {\n  string name = 1;\n}\n"
		service = "syntax = \"proto3\";\n\npackage acme.v1;\n\nimport \"acme/v1/event.proto\";\n\nservice EventService {\n  rpc Watch(Asked) returns (stream Event);\n}\n\nmessage Asked {}\n"
	)
	for name, change := range map[string]struct {
		make func(tr repotest.Tree)
		want []string
	}{
		"its file is gone": {func(tr repotest.Tree) {
			tr.Git("rm", "--quiet", "proto/acme/v1/event.proto")
			tr.Write("proto/acme/v1/service.proto", strings.Replace(strings.Replace(service, "import \"acme/v1/event.proto\";\n", "", 1), "stream Event", "stream Asked", 1))
		}, []string{"MESSAGE_NO_DELETE acme.v1.Event"}},
		"its package is renamed": {func(tr repotest.Tree) {
			tr.Write("proto/acme/v1/event.proto", strings.Replace(event, "acme.v1", "acme.v2", 1))
			tr.Write("proto/acme/v1/service.proto", strings.Replace(service, "package acme.v1", "package acme.v2", 1))
		}, []string{"FILE_SAME_PACKAGE acme/v1/event.proto"}},
	} {
		t.Run(name, func(t *testing.T) {
			tr := started(t, map[string]string{"buf.yaml": bufYAML, "proto/acme/v1/event.proto": event, "proto/acme/v1/service.proto": service})
			old := tr.Git("rev-parse", "HEAD")
			tr.Git("checkout", "--quiet", "main")
			tr.Git("merge", "--quiet", "--ff-only", "change")
			change.make(tr)
			tr.Write("proto/baselines.yaml", "release: none\nretained:\n  - "+old+"\n")
			tr.Commit("changed since")
			tr.Git("checkout", "--quiet", "-b", "next")
			tr.Commit("next")
			if got := elements(reviewed(t, tr, nil)); !slices.Equal(got, change.want) {
				t.Errorf("found %v; want %v", got, change.want)
			}
		})
	}
}

// What buf was told to pass over is passed over, and no more than that.
func TestWhatBufPassesOverDoesNotCount(t *testing.T) {
	const (
		other = "syntax = \"proto3\";\n\npackage other.v1;\n\nmessage Other {\n  string name = 1;\n  int32 size = 2;\n}\n"
		beta  = "syntax = \"proto3\";\n\npackage acme.v1beta1;\n\nmessage Beta {\n  string name = 1;\n  int32 size = 2;\n}\n"
	)
	for name, row := range map[string]struct {
		config string
		want   []string
	}{
		"a folder for one rule": {"  ignore_only:\n    FIELD_SAME_TYPE:\n      - proto/acme\n",
			[]string{"FIELD_SAME_JSON_NAME acme.v1.Thing.name", "FIELD_SAME_JSON_NAME acme.v1beta1.Beta.name", "FIELD_SAME_JSON_NAME other.v1.Other.name",
				"FIELD_SAME_NAME acme.v1.Thing.name", "FIELD_SAME_NAME acme.v1beta1.Beta.name", "FIELD_SAME_NAME other.v1.Other.name", "FIELD_SAME_TYPE other.v1.Other.size"}},
		"a file for a category": {"  ignore_only:\n    WIRE:\n      - proto/acme/v1/thing.proto\n    FILE:\n      - proto/other\n      - proto/acme/v1beta1\n",
			[]string{"FIELD_SAME_JSON_NAME acme.v1.Thing.name", "FIELD_SAME_NAME acme.v1.Thing.name", "FIELD_SAME_TYPE acme.v1.Thing.size"}},
		"packages that promise nothing yet": {"  ignore_unstable_packages: true\n  ignore:\n    - proto/other\n",
			[]string{"FIELD_SAME_JSON_NAME acme.v1.Thing.name", "FIELD_SAME_NAME acme.v1.Thing.name", "FIELD_SAME_TYPE acme.v1.Thing.size"}},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"proto/acme/v1/thing.proto": thing, "proto/other/v1/other.proto": other, "proto/acme/v1beta1/beta.proto": beta}
			tr := started(t, map[string]string{"buf.yaml": bufYAML + row.config, "proto/acme/v1/thing.proto": thing, "proto/other/v1/other.proto": other, "proto/acme/v1beta1/beta.proto": beta})
			for path, text := range files {
				tr.Write(path, strings.NewReplacer("string name", "string title", "int32 size", "string size").Replace(text))
			}
			report := reviewed(t, tr, nil)
			if got := elements(report); !slices.Equal(got, row.want) {
				t.Errorf("found %v; want %v", got, row.want)
			}
			for _, f := range report.Findings {
				if !f.Fails() && !strings.HasPrefix(f.Hidden, "buf.yaml ignores") {
					t.Errorf("%s of %s is hidden because %q", f.Rule, f.Element, f.Hidden)
				}
			}
		})
	}
}

// A module that says itself what counts is not told by the workspace.
func TestAModuleWithItsOwnSectionPassesOverItsOwnAlone(t *testing.T) {
	config := "version: v2\nmodules:\n  - path: one\n    breaking:\n      use:\n        - FILE\n  - path: two\nbreaking:\n  use:\n    - FILE\n  ignore:\n    - one/acme\n    - two/beta\n"
	one := thing
	two := strings.Replace(thing, "acme.v1", "beta.v1", 1)
	tr := started(t, map[string]string{"buf.yaml": config, "one/acme/v1/thing.proto": one, "two/beta/v1/thing.proto": two})
	for path, text := range map[string]string{"one/acme/v1/thing.proto": one, "two/beta/v1/thing.proto": two} {
		tr.Write(path, strings.Replace(text, "int32 size", "string size", 1))
	}
	if got, want := elements(reviewed(t, tr, nil)), []string{"FIELD_SAME_TYPE acme.v1.Thing.size"}; !slices.Equal(got, want) {
		t.Errorf("found %v; want %v", got, want)
	}
}

// Who approves one thing approves that thing.
func TestAnApprovalIsOfOneThing(t *testing.T) {
	const (
		file    = "syntax = \"proto3\";\n\npackage acme.v1;\n\nmessage B {\n  string name = 1;\n}\n\nmessage C {}\n"
		methods = "syntax = \"proto3\";\n\npackage acme.v1;\n\nimport \"google/api/annotations.proto\";\n\nservice S {\n  rpc Go(A) returns (A) {\n    option (google.api.http) = {\n      post: \"/v1/a\"\n      body: \"*\"\n      additional_bindings {\n        post: \"/v1/b\"\n        body: \"*\"\n      }\n    };\n  }\n}\n\nmessage A {}\n"
		retried = "syntax = \"proto3\";\n\npackage acme.v1;\n\nimport \"policy/v1/policy.proto\";\n\nservice S {\n  rpc Go(A) returns (A) {\n    option (policy.v1.method) = {\n      retry: {\n        attempts: 4\n        codes: [CODE_ONE, CODE_TWO]\n      }\n    };\n  }\n}\n\nmessage A {}\n"
	)
	without := func(text string, cuts ...string) string {
		for _, cut := range cuts {
			text = strings.Replace(text, cut, "", 1)
		}
		return text
	}
	files := map[string]string{
		"buf.yaml": bufYAML, "proto/acme/v1/thing.proto": thing, "proto/acme/v1/b.proto": file,
		"proto/google/api/annotations.proto": "syntax = \"proto3\";\n\npackage google.api;\n\nimport \"google/protobuf/descriptor.proto\";\n\nextend google.protobuf.MethodOptions {\n  HttpRule http = 72295728;\n}\n\nmessage HttpRule {\n  string post = 4;\n  string body = 7;\n  repeated HttpRule additional_bindings = 11;\n}\n",
		"proto/policy/v1/policy.proto":       "syntax = \"proto3\";\n\npackage policy.v1;\n\nimport \"google/protobuf/descriptor.proto\";\n\nextend google.protobuf.MethodOptions {\n  Policy method = 50001;\n}\n\nmessage Policy {\n  Retry retry = 1;\n}\n\nmessage Retry {\n  int32 attempts = 1;\n  repeated Code codes = 2;\n}\n\nenum Code {\n  CODE_NONE = 0;\n  CODE_ONE = 1;\n  CODE_TWO = 2;\n}\n",
	}
	for name, row := range map[string]struct {
		path, was, approved, then string
		want                      []string
	}{
		"a body of one route": {"proto/acme/v1/s.proto", methods, without(methods, "\n      body: \"*\""), without(methods, "\n      body: \"*\"", "\n        body: \"*\""), []string{"HTTP_BODY_CHANGED acme.v1.S.Go"}},
		"fewer attempts": {"proto/acme/v1/s.proto", retried, strings.Replace(retried, "attempts: 4", "attempts: 2", 1),
			strings.NewReplacer("attempts: 4", "attempts: 2", ", CODE_TWO", "").Replace(retried), []string{"POLICY_RETRY_LOST acme.v1.S.Go"}},
		"a file that moved": {"proto/acme/v1/c.proto", "", file, "syntax = \"proto3\";\n\npackage acme.v1;\n", []string{"FILE_NO_DELETE acme/v1/b.proto"}},
		"a file of which half moved": {"proto/acme/v1/c.proto", "", without(file, "\nmessage C {}\n"), without(file, "message B {\n  string name = 1;\n}\n\n"),
			[]string{"FILE_NO_DELETE acme/v1/b.proto", "MESSAGE_NO_DELETE acme.v1.C"}},
	} {
		t.Run(name, func(t *testing.T) {
			tr := repotest.New(t)
			for path, text := range files {
				tr.Write(path, text)
			}
			if row.was != "" {
				tr.Write(row.path, row.was)
			}
			tr.Commit("contract")
			tr.Git("checkout", "--quiet", "-b", "change")
			tr.Commit("work")
			if row.was == "" {
				tr.Git("rm", "--quiet", "proto/acme/v1/b.proto")
			}
			tr.Write(row.path, row.approved)
			report := reviewed(t, tr, nil)
			if len(elements(report)) == 0 {
				t.Fatal("nothing to approve")
			}
			approved(t, tr, report)
			if report := reviewed(t, tr, nil); report.Failures() > 0 {
				t.Fatalf("what was approved fails: %v", elements(report))
			}
			tr.Write(row.path, row.then)
			if got := elements(reviewed(t, tr, nil)); !slices.Equal(got, row.want) {
				t.Errorf("the approval lets through more than it is of: found %v; want %v", got, row.want)
			}
		})
	}
}

// Where a file goes, Go code may have to follow it, or not.
func TestWhatMovedIsNotSaidToBeGone(t *testing.T) {
	tr := contract(t)
	tr.Git("mv", "proto/acme/v1/thing.proto", "proto/acme/v1/item.proto")
	f := finding(t, reviewed(t, tr, nil), "MESSAGE_NO_DELETE")
	if f.Axes.Source != rules.Safe || strings.Contains(f.Why, "not understood") || !strings.Contains(f.WayOut, "import public \"acme/v1/item.proto\"") {
		t.Errorf("got %+v: %s %s", f.Axes, f.Why, f.WayOut)
	}
	tr.Write("proto/acme/v1/item.proto", strings.Replace(thing, "package acme.v1;", "package acme.v1;\n\noption go_package = \"example.com/items\";", 1))
	if f := finding(t, reviewed(t, tr, nil), "MESSAGE_NO_DELETE"); f.Axes.Source != rules.Breaks || !strings.Contains(f.Why, "example.com/items") {
		t.Errorf("to another Go package: got %+v: %s", f.Axes, f.Why)
	}
}
