package ci

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/tools/internal/repo/repotest"
)

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

// call runs the composite action in a clone of a repository, as a step of a workflow there does.
func (r *runner) call(e event, inputs map[string]string) *done {
	r.t.Helper()
	folder := filepath.Join(root(r.t), ".github", "actions", "schema-review")
	action := load(r.t, filepath.Join(folder, "action.yml"))
	c := contexts{"github": e.context}
	given := map[string]any{}
	for name, input := range action.Inputs {
		given[name] = c.expand(r.t, input.Default)
	}
	for name, value := range inputs {
		if _, ok := given[name]; !ok {
			r.t.Fatalf("the action has no input %s", name)
		}
		given[name] = value
	}
	c["inputs"] = given
	place := r.place()
	d := &done{verdict: "success", steps: map[string]string{}, outputs: map[string]map[string]string{}}
	clone := step{Uses: "actions/checkout@", With: map[string]string{"persist-credentials": "false"}}
	if err := r.uses(clone, c, e, nil, place, d); err != nil {
		r.t.Fatal(err)
	}
	place.env["GITHUB_ACTION_PATH"] = folder
	r.steps(action.Runs.Steps, c, place.env, place, d, func(s step) error { return r.uses(s, c, e, nil, place, d) })
	handed := map[string]string{}
	for name, output := range action.Outputs {
		handed[name] = c.expand(r.t, output.Value)
	}
	d.outputs["action"] = handed
	return d
}

func TestAnotherRepositoryCallsTheReviewAsAnAction(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the review")
	}
	origin := repotest.New(t)
	origin.Write("api/buf.yaml", "version: v2\nmodules:\n  - path: proto\nbreaking:\n  use:\n    - FILE\n")
	origin.Write("api/proto/acme/v1/thing.proto", thing)
	base := origin.Commit("contract")
	origin.Git("checkout", "--quiet", "-b", "change")
	r := &runner{t: t, origin: origin, home: t.TempDir(), artifacts: map[string]string{}}

	type want struct {
		job, verdict string
		says         string // in the report
		log          string // in the log
	}
	pull := func() event {
		head := origin.Git("rev-parse", "HEAD")
		return event{defaultRef: head, context: map[string]any{"base_ref": "main", "event": map[string]any{}}}
	}
	for _, row := range []struct {
		name   string
		file   string // the text of the contract
		event  func() event
		inputs map[string]string
		want   want
	}{
		{"a change that breaks nothing passes", strings.Replace(thing, "int32 size = 2;", "int32 size = 2;\n\n  // Its colour.\n  string colour = 3;", 1), pull, nil, want{"success", "passed", "✅", ""}},
		{"a break fails, and the report is there all the same", strings.Replace(thing, "int32 size", "bool size", 1), pull, nil, want{"failure", "failed", "FIELD_SAME_TYPE", "::error file=api/proto/acme/v1/thing.proto,line="}},
		{"a push is held against what the branch was before", strings.Replace(thing, "string name", "bytes name", 1), func() event {
			e := pull()
			e.context["base_ref"], e.context["event"] = "", map[string]any{"before": base}
			return e
		}, nil, want{"failure", "failed", "FIELD_SAME_TYPE", "::error file=api/proto/acme/v1/thing.proto,line="}},
		{"more flags are words of their own", strings.Replace(thing, "int32 size", "bool size", 1), pull, map[string]string{"args": "--no-consumers --against proto"}, want{"success", "passed", "✅", ""}},
		{"a contract that does not compile is no verdict", "syntax = \"proto3\";\nmessage {\n", pull, nil, want{"failure", "unknown", "no verdict", "review: "}},
		{"a base that does not exist is no verdict", thing, pull, map[string]string{"base-ref": "origin/gone"}, want{"failure", "unknown", "no verdict", "review: "}},
		{"a snapshot that does not exist is no verdict", thing, pull, map[string]string{"usage": "gone.json"}, want{"failure", "unknown", "", "gone.json"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			origin.Write("api/proto/acme/v1/thing.proto", row.file)
			origin.Commit(row.name)
			r.t = t
			inputs := map[string]string{"dir": "api"}
			for name, value := range row.inputs {
				inputs[name] = value
			}
			d := r.call(row.event(), inputs)
			if d.verdict != row.want.job || d.outputs["action"]["verdict"] != row.want.verdict {
				t.Errorf("ended as %s with %v; want %+v. The log:\n%s", d.verdict, d.outputs["action"], row.want, d.log)
			}
			if !strings.Contains(d.log, row.want.log) {
				t.Errorf("the log lacks %q:\n%s", row.want.log, d.log)
			}
			if row.want.says == "" {
				return
			}
			text, err := os.ReadFile(filepath.Join(d.outputs["action"]["report"], "review.md"))
			if err != nil || !strings.Contains(string(text), row.want.says) {
				t.Errorf("the report (%v) lacks %q:\n%s", err, row.want.says, text)
			}
		})
	}
}
