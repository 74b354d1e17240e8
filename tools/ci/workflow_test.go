package ci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/concordat-dev/concordat/tools/internal/repo/repotest"
	"github.com/concordat-dev/concordat/tools/review/comment/githubtest"
)

// A workflow is what is needed of a workflow to run it, or of a composite action: Runs holds its steps.
type workflow struct {
	Permissions map[string]string
	Env         map[string]string
	Jobs        map[string]job
	Inputs      map[string]struct{ Default string }
	Outputs     map[string]struct{ Value string }
	Runs        struct{ Steps []step }
}

type job struct {
	Needs       string
	If          string
	Permissions map[string]string
	Env         map[string]string
	Steps       []step
}

type step struct {
	ID, If, Uses, Run, Shell string
	With, Env                map[string]string
	ContinueOnError          bool `yaml:"continue-on-error"`
}

// name says in one line what a step does.
func (s step) name() string { return s.Run + s.Uses }

func load(t *testing.T, path string) workflow {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var w workflow
	if err := yaml.Unmarshal(data, &w); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return w
}

// A runner runs workflows of one repository as GitHub does, as far as these use it: the steps in order, with their
// conditions, in a fresh clone, with a token that may do what the permissions say and the event allows.
type runner struct {
	t      *testing.T
	origin repotest.Tree
	api    *githubtest.Server
	// home is a folder of the runner's own, in which every job finds its workspace at the same path, as on GitHub: Go then
	// compiles what did not change once.
	home string
	// artifacts are the folders that were uploaded, by run id and name.
	artifacts map[string]string
}

// An event is what starts a run.
type event struct {
	id      string
	context map[string]any // the github context
	// defaultRef is what a checkout without a ref takes.
	defaultRef string
	// readOnly is set where GitHub gives the run a token that cannot write, whatever the permissions say.
	readOnly bool
}

// A done is a job that ran.
type done struct {
	// verdict is success, failure or skipped.
	verdict string
	// steps are the verdicts of the steps that ran, by what they do.
	steps map[string]string
	// checkouts are the commits that were checked out.
	checkouts []string
	// canWrite tells whether the token could write.
	canWrite bool
	log      string
	outputs  map[string]map[string]string
}

// run runs every job of a workflow. The jobs of ours need at most one other.
func (r *runner) run(file string, e event) map[string]*done {
	r.t.Helper()
	w := load(r.t, filepath.Join(root(r.t), ".github", "workflows", file))
	jobs := map[string]*done{}
	for len(jobs) < len(w.Jobs) {
		before := len(jobs)
		for _, name := range slices.Sorted(maps.Keys(w.Jobs)) {
			j := w.Jobs[name]
			status := "success"
			if need := jobs[j.Needs]; need != nil {
				status = need.verdict
			} else if j.Needs != "" {
				continue
			}
			if jobs[name] == nil {
				jobs[name] = r.job(w, j, e, status)
			}
		}
		if len(jobs) == before {
			r.t.Fatalf("%s: jobs need each other", file)
		}
	}
	return jobs
}

func (r *runner) job(w workflow, j job, e event, status string) *done {
	r.t.Helper()
	d := &done{verdict: "success", steps: map[string]string{}, outputs: map[string]map[string]string{}}
	c := contexts{"github": maps.Clone(e.context)}
	if !c.condition(r.t, j.If, status) {
		d.verdict = "skipped"
		return d
	}
	permissions := w.Permissions
	if j.Permissions != nil {
		permissions = j.Permissions
	}
	d.canWrite = permissions["pull-requests"] == "write" && !e.readOnly
	token := githubtest.ReadToken
	if d.canWrite {
		token = githubtest.WriteToken
	}
	place := r.place()
	github, _ := c["github"].(map[string]any)
	github["token"] = token
	c["runner"] = map[string]any{"temp": place.temp}
	env := maps.Clone(place.env)
	for name, value := range map[string]string{"GITHUB_REPOSITORY": r.api.Repo, "GITHUB_API_URL": r.api.URL} {
		env[name] = value
	}
	for _, more := range []map[string]string{w.Env, j.Env} {
		for name, value := range more {
			env[name] = c.expand(r.t, value)
		}
	}
	r.steps(j.Steps, c, env, place, d, func(s step) error { return r.uses(s, c, e, permissions, place, d) })
	return d
}

// A place is where a job runs.
type place struct {
	workspace, temp string
	env             map[string]string
}

// place makes a workspace, and an environment that holds nothing of this process's but what programs need to run.
func (r *runner) place() place {
	r.t.Helper()
	p := place{workspace: filepath.Join(r.home, "workspace"), temp: filepath.Join(r.home, "temp"), env: map[string]string{}}
	for _, dir := range []string{p.workspace, p.temp} {
		if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
			r.t.Fatal(err)
		}
	}
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		if !regexp.MustCompile(`^(GITHUB|RUNNER|ACTIONS|REVIEW|INPUT)_|^(BASE_REF|CI|GOWORK|PWD)$`).MatchString(name) {
			p.env[name] = value
		}
	}
	// What the review and buf keep is kept apart; what Go compiled is not compiled again.
	cache, err := exec.CommandContext(r.t.Context(), "go", "env", "GOCACHE").Output()
	if err != nil {
		r.t.Fatal(err)
	}
	for name, value := range map[string]string{
		"GOCACHE": strings.TrimSpace(string(cache)), "XDG_CACHE_HOME": filepath.Join(r.home, "cache"), "RUNNER_TEMP": p.temp,
		"GITHUB_WORKSPACE": p.workspace, "GITHUB_ACTIONS": "true",
	} {
		p.env[name] = value
	}
	return p
}

// steps runs steps and puts down what became of them.
func (r *runner) steps(steps []step, c contexts, env map[string]string, place place, d *done, uses func(step) error) {
	r.t.Helper()
	outputs := map[string]any{}
	c["steps"] = outputs
	for n, s := range steps {
		if !c.condition(r.t, s.If, d.verdict) {
			d.steps[s.name()] = "skipped"
			continue
		}
		var err error
		if s.Uses != "" {
			err = uses(s)
		} else {
			file := filepath.Join(place.temp, fmt.Sprintf("outputs-%d", n))
			err = r.command(s, c, env, place, file, d)
			if data, readErr := os.ReadFile(file); readErr == nil && s.ID != "" {
				set := map[string]any{}
				d.outputs[s.ID] = map[string]string{}
				for line := range strings.Lines(string(data)) {
					name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
					set[name], d.outputs[s.ID][name] = value, value
				}
				outputs[s.ID] = map[string]any{"outputs": set}
			}
		}
		d.steps[s.name()] = "success"
		if err != nil {
			d.steps[s.name()] = "failure"
			d.log += err.Error() + "\n"
			if !s.ContinueOnError {
				d.verdict = "failure"
			}
		}
	}
}

// command runs a step's command as GitHub's bash does.
func (r *runner) command(s step, c contexts, env map[string]string, place place, outputs string, d *done) error {
	r.t.Helper()
	if strings.Contains(s.Run, "${{") {
		r.t.Errorf("%q: an expression in a command makes commands of what strangers name their branches", s.Run)
	}
	if lines := strings.Count(strings.TrimSpace(s.Run), "\n"); lines > 0 {
		r.t.Errorf("%q is more than one command", s.Run)
	}
	args := []string{"-e", "-c", s.Run}
	if s.Shell == "bash" {
		args = []string{"--noprofile", "--norc", "-eo", "pipefail", "-c", s.Run}
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", args...)
	cmd.Dir = place.workspace
	all := maps.Clone(env)
	all["GITHUB_OUTPUT"] = outputs
	for name, value := range s.Env {
		all[name] = c.expand(r.t, value)
	}
	for name, value := range all {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	began := time.Now()
	err := cmd.Run()
	r.t.Logf("%4.1f s %s", time.Since(began).Seconds(), s.Run)
	d.log += "$ " + s.Run + "\n" + out.String()
	return err
}

// uses does what an action does.
func (r *runner) uses(s step, c contexts, e event, permissions map[string]string, place place, d *done) error {
	r.t.Helper()
	with := map[string]string{}
	for name, value := range s.With {
		with[name] = c.expand(r.t, value)
	}
	action, _, _ := strings.Cut(s.Uses, "@")
	switch action {
	case "actions/checkout":
		ref := e.defaultRef
		if with["ref"] != "" {
			ref = with["ref"]
		}
		if with["persist-credentials"] != "false" {
			return fmt.Errorf("%s leaves the token behind in the clone", s.Uses)
		}
		r.origin.Git("clone", "--quiet", "--no-checkout", "file://"+r.origin.Dir, place.workspace)
		clone := repotest.At(r.t, place.workspace)
		clone.Git("checkout", "--quiet", "--detach", ref)
		d.checkouts = append(d.checkouts, clone.Git("rev-parse", "HEAD"))
	case "actions/setup-go":
		if _, err := os.Stat(filepath.Join(place.workspace, with["go-version-file"])); err != nil {
			return err
		}
	case "actions/upload-artifact":
		if _, err := os.Stat(with["path"]); err != nil {
			return nil // a warning, which fails nothing
		}
		kept := filepath.Join(r.t.TempDir(), with["name"])
		r.artifacts[e.id+" "+with["name"]] = kept
		return os.CopyFS(kept, os.DirFS(with["path"]))
	case "actions/download-artifact":
		id := e.id
		if other := with["run-id"]; other != "" {
			if with["github-token"] == "" || permissions["actions"] != "read" {
				return fmt.Errorf("%s may not read other runs", s.Uses)
			}
			id = other
		}
		from := r.artifacts[id+" "+with["name"]]
		if from == "" {
			return fmt.Errorf("run %s has no artifact %s", id, with["name"])
		}
		return os.CopyFS(with["path"], os.DirFS(from))
	default:
		r.t.Fatalf("a step uses %s, which this test cannot do", s.Uses)
	}
	return nil
}
