package ci

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/tools/internal/repo"
	"github.com/concordat-dev/concordat/tools/internal/repo/repotest"
	"github.com/concordat-dev/concordat/tools/review/comment/githubtest"
	"github.com/concordat-dev/concordat/tools/review/report"
)

const (
	ours       = "acme/shop"
	userProto  = "proto/users/v1/user.proto"
	reportStep = ".ci/run breaking"
)

// scratch makes a repository of our contract, our check and one Go module that uses the contract.
func scratch(t *testing.T) repotest.Tree {
	t.Helper()
	tr := repotest.New(t)
	files, err := repo.Output(t.Context(), root(t), "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	if err != nil {
		t.Fatal(err)
	}
	parts := []string{".ci/", ".github/", "tools/", "gen/", "proto/", "third_party/", "deploy/grafana/", "buf.", "go.work.sum", ".gitignore", ".gitattributes"}
	for path := range strings.SplitSeq(files, "\x00") {
		if !slices.ContainsFunc(parts, func(part string) bool { return strings.HasPrefix(path, part) }) {
			continue
		}
		data, err := os.ReadFile(filepath.Join(root(t), path))
		if os.IsNotExist(err) {
			continue // removed, and not committed yet
		}
		if err != nil {
			t.Fatal(err)
		}
		tr.Write(path, string(data))
		if info, err := os.Stat(filepath.Join(root(t), path)); err == nil {
			if err := os.Chmod(filepath.Join(tr.Dir, path), info.Mode()); err != nil {
				t.Fatal(err)
			}
		}
	}
	tr.Write("go.work", "go 1.26.7\n\nuse (\n\t./gen\n\t./shop\n\t./tools\n)\n")
	tr.Write("shop/go.mod", "module example.com/shop\n\ngo 1.26.7\n\nrequire github.com/concordat-dev/concordat/gen v0.0.0\n\nreplace github.com/concordat-dev/concordat/gen => ../gen\n")
	shop(tr, "GetLastName")
	tr.Commit("the contract")
	return tr
}

// shop writes the module that uses the contract.
func shop(tr repotest.Tree, getter string) {
	tr.Write("shop/shop.go", "// Package shop greets.\npackage shop\n\nimport usersv1 \"github.com/concordat-dev/concordat/gen/go/users/v1\"\n\n"+
		"// Greet greets.\nfunc Greet(u *usersv1.User) string { return u."+getter+"() }\n")
}

// pullRequest is the event of a push to a pull request.
func pullRequest(id, head, base, from, actor string) event {
	return event{
		id: id, defaultRef: head, readOnly: from != ours || actor == "dependabot[bot]",
		context: map[string]any{
			"event_name": "pull_request", "repository": ours, "base_ref": "main", "ref": "refs/pull/7/merge", "sha": head, "actor": actor,
			"server_url": "https://github.example", "run_id": id,
			"event": map[string]any{"pull_request": map[string]any{
				"number": 7, "head": map[string]any{"sha": head, "repo": map[string]any{"full_name": from}}, "base": map[string]any{"sha": base},
			}},
		},
	}
}

// completed is the event of the end of a run, which starts contract-comment.yaml on the default branch.
func completed(id, of, conclusion, head, from, actor string) event {
	return event{
		id: id, defaultRef: "origin/main",
		context: map[string]any{
			"event_name": "workflow_run", "repository": ours, "server_url": "https://github.example", "run_id": id,
			"event": map[string]any{"workflow_run": map[string]any{
				"id": of, "event": "pull_request", "conclusion": conclusion, "head_sha": head, "head_branch": "change", "html_url": "https://github.example/runs/" + of,
				"head_repository": map[string]any{"full_name": from}, "actor": map[string]any{"login": actor},
			}},
		},
	}
}

// findings reads the fingerprints of what has to be approved from the report that a run uploaded.
func (r *runner) findings(id string) []string {
	r.t.Helper()
	data, err := os.ReadFile(filepath.Join(r.artifacts[id+" schema-review"], "review.json"))
	if err != nil {
		r.t.Fatal(err)
	}
	var is struct {
		Findings []struct {
			Fingerprint, Level, Hidden, Approval, Implied string
		}
	}
	if err := json.Unmarshal(data, &is); err != nil {
		r.t.Fatal(err)
	}
	var list []string
	for _, f := range is.Findings {
		if f.Level != "note" && f.Hidden+f.Approval+f.Implied == "" {
			list = append(list, f.Fingerprint)
		}
	}
	return list
}

// comments expects exactly one comment on the pull request, with all of these in it.
func (r *runner) comment(parts ...string) {
	r.t.Helper()
	left := r.api.Comments(7)
	if len(left) != 1 || !strings.HasPrefix(left[0].Body, report.Marker) {
		r.t.Fatalf("%d comments: %v; want one, of the review", len(left), left)
	}
	for _, part := range parts {
		if !strings.Contains(left[0].Body, part) {
			r.t.Errorf("the comment lacks %q:\n%s", part, left[0].Body)
		}
	}
}

// expect compares how steps ended.
func (r *runner) expect(d *done, want map[string]string) {
	r.t.Helper()
	for step, verdict := range want {
		if d.steps[step] != verdict {
			r.t.Errorf("%s: %q; want %s. The log:\n%s", step, d.steps[step], verdict, d.log)
		}
	}
}

func TestThePullRequestOfABreakFromItsFirstPushToItsMerge(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the review in a clone of its own")
	}
	origin := scratch(t)
	r := &runner{t: t, origin: origin, api: githubtest.New(t, ours), home: t.TempDir(), artifacts: map[string]string{}}
	base := origin.Git("rev-parse", "main")

	// A break, pushed without more.
	origin.Git("checkout", "--quiet", "-b", "change")
	proto, err := os.ReadFile(filepath.Join(origin.Dir, userProto))
	if err != nil {
		t.Fatal(err)
	}
	broken := strings.Replace(string(proto), "string last_name = 5", "string family_name = 5", 1)
	if broken == string(proto) {
		t.Fatalf("%s has no last_name to rename", userProto)
	}
	origin.Write(userProto, broken)
	head := origin.Commit("rename last_name")
	r.api.Open(githubtest.Pull{Number: 7, State: "open", Repo: ours, Branch: "change", SHA: head})
	jobs := r.run("contract.yaml", pullRequest("1", head, base, ours, "ann"))
	r.expect(jobs["contract"], map[string]string{".ci/run lint": "success", ".ci/run format": "success", reportStep: "failure", ".ci/run drift": "failure"})
	if log := jobs["contract"].log; !strings.Contains(log, "::error file="+userProto+",line=") {
		t.Errorf("no annotation in the log:\n%s", log)
	}
	if jobs["contract"].verdict != "failure" || jobs["contract"].canWrite || jobs["comment"].verdict != "success" || !jobs["comment"].canWrite {
		t.Errorf("contract %+v\ncomment %+v", jobs["contract"], jobs["comment"])
	}
	if !slices.Equal(jobs["comment"].checkouts, []string{base}) {
		t.Errorf("beside a token that can write, %v was checked out; want only the target, %s", jobs["comment"].checkouts, base)
	}
	r.comment("❌", "FIELD_SAME_NAME", "shop/shop.go:7", head[:12])
	for _, file := range []string{"review.md", "review.html", "review.json", "review.sarif"} {
		if info, err := os.Stat(filepath.Join(r.artifacts["1 schema-review"], file)); err != nil || info.Size() == 0 {
			t.Errorf("the artifact lacks %s: %v", file, err)
		}
	}
	if skipped := r.run("contract-comment.yaml", completed("2", "1", "failure", head, ours, "ann")); skipped["comment"].verdict != "skipped" {
		t.Errorf("contract-comment.yaml posts what contract.yaml has posted: %+v", skipped["comment"])
	}

	// Its approval, with what is generated and who uses it brought along.
	approve := append([]string{"run", "./tools/cmd/review", "approve", "--reason", "Nobody sends it.", "--owner", "@acme/contract"}, r.findings("1")...)
	for _, command := range [][]string{approve, {"tool", "buf", "generate"}} {
		if _, err := repo.Output(t.Context(), origin.Dir, "go", command...); err != nil {
			t.Fatal(err)
		}
	}
	shop(origin, "GetFamilyName")
	head = origin.Commit("approve the rename")
	r.api.Open(githubtest.Pull{Number: 7, State: "open", Repo: ours, Branch: "change", SHA: head})
	jobs = r.run("contract.yaml", pullRequest("3", head, base, ours, "ann"))
	if jobs["contract"].verdict != "success" || jobs["comment"].verdict != "success" {
		t.Errorf("contract:\n%s\ncomment:\n%s", jobs["contract"].log, jobs["comment"].log)
	}
	r.comment("✅", "approved", head[:12])

	// The merge, of which nobody is told by a comment.
	origin.Git("checkout", "--quiet", "main")
	origin.Git("merge", "--quiet", "--no-ff", "--message", "merge", "change")
	merged := origin.Git("rev-parse", "HEAD")
	jobs = r.run("contract.yaml", event{id: "4", defaultRef: merged, context: map[string]any{
		"event_name": "push", "repository": ours, "base_ref": "", "sha": merged, "actor": "ann", "event": map[string]any{"before": base},
	}})
	if jobs["contract"].verdict != "success" || jobs["comment"].verdict != "skipped" {
		t.Errorf("contract:\n%s\ncomment: %s", jobs["contract"].log, jobs["comment"].verdict)
	}
	r.comment("✅", head[:12])

	r.fork(head)
}

// fork runs the comments of forks with what the runs of the pull request above left behind.
func (r *runner) fork(head string) {
	r.t.Helper()
	const fork = "mallory/shop"
	api := githubtest.New(r.t, ours)
	r = &runner{t: r.t, origin: r.origin, api: api, home: r.home, artifacts: r.artifacts}
	api.Open(githubtest.Pull{Number: 7, State: "open", Repo: fork, Branch: "change", SHA: head})
	api.Open(githubtest.Pull{Number: 8, State: "open", Repo: "victim/shop", Branch: "change", SHA: head})
	main := r.origin.Git("rev-parse", "main")
	post := func(id, of string) *done {
		r.t.Helper()
		d := r.run("contract-comment.yaml", completed(id, of, "failure", head, fork, "mallory"))["comment"]
		if !slices.Equal(d.checkouts, []string{main}) || !d.canWrite {
			r.t.Errorf("checked out %v; want only the default branch, %s", d.checkouts, main)
		}
		if left := api.Comments(8); len(left) > 0 {
			r.t.Errorf("somebody else's pull request was written to: %v", left)
		}
		return d
	}

	// The report of an honest run.
	if d := post("11", "1"); d.verdict != "success" {
		r.t.Fatal(d.log)
	}
	r.comment("❌", "FIELD_SAME_NAME", "Made by a run of the code of mallory/shop", "https://github.example/runs/1")

	// What a run can leave behind that is not: another pull request's number, a link out, something else, nothing.
	leave := func(id string, fill func(dir string)) {
		dir := r.t.TempDir()
		fill(dir)
		r.artifacts[id+" schema-review"] = dir
	}
	write := func(dir, file, text string) {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			r.t.Fatal(err)
		}
	}
	leave("21", func(dir string) {
		write(dir, "review.md", report.Marker+"\nAll is well, @acme/security.\n")
		write(dir, "pull", "8")
		write(dir, "buf.yaml", "version: v0")
	})
	if d := post("12", "21"); d.verdict != "success" {
		r.t.Error(d.log)
	}
	r.comment("All is well, @\u200bacme/security.", "Made by a run of the code of mallory/shop")
	leave("22", func(dir string) { write(dir, "review.md", "Vote for me") })
	if d := post("13", "22"); d.verdict != "failure" || !strings.Contains(d.log, "marker") {
		r.t.Errorf("%s; want a refusal:\n%s", d.verdict, d.log)
	}
	if d := post("14", "no such run"); d.verdict != "success" {
		r.t.Error(d.log)
	}
	r.comment("no verdict", head[:12])

	// A pull request that has moved on by now keeps what its newer run said.
	api.Open(githubtest.Pull{Number: 7, State: "open", Repo: fork, Branch: "change", SHA: main})
	if d := post("15", "1"); d.verdict != "success" || !strings.Contains(d.log, "nothing to write") {
		r.t.Errorf("%s:\n%s", d.verdict, d.log)
	}
	r.comment("no verdict")

	// A run for a fork has no token that can write, so its own comment job does not try.
	e := pullRequest("16", head, main, fork, "mallory")
	w := load(r.t, filepath.Join(root(r.t), ".github", "workflows", "contract.yaml"))
	for _, e := range []event{e, pullRequest("17", head, main, ours, "dependabot[bot]")} {
		if d := r.job(w, w.Jobs["comment"], e, "success"); d.verdict != "skipped" {
			r.t.Errorf("%s: %+v; want that it is skipped", e.id, d)
		}
	}
	api.Open(githubtest.Pull{Number: 7, State: "open", Repo: ours, Branch: "change", SHA: head})
	if d := r.run("contract-comment.yaml", completed("18", "3", "success", head, ours, "dependabot[bot]"))["comment"]; d.verdict != "success" {
		r.t.Error(d.log)
	}
	r.comment("✅", "approved")
}
