package baseline

import (
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/tools/internal/repo/repotest"
)

func TestTheBaseOfAChange(t *testing.T) {
	for _, row := range []struct {
		name string
		// setup makes the repository and returns it with the commit that must be the base.
		setup func(t *testing.T) (repotest.Tree, string)
		ref   string
		how   string // part of the explanation
	}{
		{
			name: "of a branch is where it left main, whatever main did since",
			setup: func(t *testing.T) (repotest.Tree, string) {
				origin := repotest.New(t)
				want := origin.Contract()
				tr := origin.Clone()
				tr.Git("checkout", "--quiet", "-b", "change")
				tr.Commit("first of the change")
				tr.Commit("second of the change")
				origin.Commit("meanwhile on main")
				tr.Git("fetch", "--quiet")
				return tr, want
			},
			how: "the merge base of HEAD and origin/main",
		},
		{
			name: "of main itself is the first parent",
			setup: func(t *testing.T) (repotest.Tree, string) {
				origin := repotest.New(t)
				want := origin.Contract()
				origin.Commit("next on main")
				return origin.Clone(), want
			},
			how: "the first parent of HEAD, because origin/main holds HEAD",
		},
		{
			name: "of a merge on main is what main was before it",
			setup: func(t *testing.T) (repotest.Tree, string) {
				tr := repotest.New(t)
				tr.Contract()
				tr.Git("checkout", "--quiet", "-b", "change")
				tr.Commit("change")
				tr.Git("checkout", "--quiet", "main")
				want := tr.Commit("meanwhile")
				tr.Git("merge", "--quiet", "--no-ff", "--message", "merge", "change")
				return tr, want
			},
			how: "because main holds HEAD",
		},
		{
			name: "of a repository without a remote is counted from the local main",
			setup: func(t *testing.T) (repotest.Tree, string) {
				tr := repotest.New(t)
				want := tr.Contract()
				tr.Git("checkout", "--quiet", "-b", "change")
				tr.Commit("first")
				tr.Commit("second")
				return tr, want
			},
			how: "the merge base of HEAD and main",
		},
		{
			name: "where the main branch has another name is counted from the default branch of origin",
			setup: func(t *testing.T) (repotest.Tree, string) {
				origin := repotest.New(t)
				want := origin.Contract()
				origin.Git("branch", "--move", "trunk")
				tr := origin.Clone()
				tr.Git("checkout", "--quiet", "-b", "change")
				tr.Commit("first")
				tr.Commit("second")
				return tr, want
			},
			how: "the merge base of HEAD and origin/trunk",
		},
		{
			name: "is counted from the default branch of origin, if there is a main beside it",
			setup: func(t *testing.T) (repotest.Tree, string) {
				origin := repotest.New(t)
				origin.Contract()
				origin.Git("checkout", "--quiet", "-b", "develop")
				want := origin.Commit("on develop")
				tr := origin.Clone()
				tr.Git("checkout", "--quiet", "-b", "change")
				tr.Commit("change")
				return tr, want
			},
			how: "the merge base of HEAD and origin/develop",
		},
		{
			name: "where the main branch is master is counted from that, however many commits it has",
			setup: func(t *testing.T) (repotest.Tree, string) {
				tr := repotest.New(t)
				want := tr.Contract()
				tr.Git("branch", "--move", "master")
				tr.Git("checkout", "--quiet", "-b", "change")
				tr.Commit("first")
				tr.Commit("second")
				return tr, want
			},
			how: "the merge base of HEAD and master",
		},
		{
			name: "where git was told another name for main is counted from that",
			setup: func(t *testing.T) (repotest.Tree, string) {
				tr := repotest.New(t)
				want := tr.Contract()
				tr.Git("branch", "--move", "trunk")
				tr.Git("config", "init.defaultBranch", "trunk")
				tr.Git("checkout", "--quiet", "-b", "change")
				tr.Commit("first")
				tr.Commit("second")
				return tr, want
			},
			how: "the merge base of HEAD and trunk",
		},
		{
			name: "of the only branch there is is the first parent",
			setup: func(t *testing.T) (repotest.Tree, string) {
				tr := repotest.New(t)
				tr.Contract()
				want := tr.Commit("second")
				tr.Commit("third")
				tr.Git("branch", "--move", "trunk")
				return tr, want
			},
			how: "the first parent of HEAD, because trunk holds HEAD",
		},
		{
			name: "is counted from the main branch where a push was of a new one",
			setup: func(t *testing.T) (repotest.Tree, string) {
				tr := repotest.New(t)
				want := tr.Contract()
				tr.Git("checkout", "--quiet", "-b", "change")
				tr.Commit("first")
				return tr, want
			},
			ref: strings.Repeat("0", 40),
			how: "the merge base of HEAD and main",
		},
		{
			name: "is the first commit for a tree that is another one",
			setup: func(t *testing.T) (repotest.Tree, string) {
				tr := repotest.New(t)
				want := tr.Contract()
				tr.Git("checkout", "--quiet", "-b", "change")
				tr.Write("proto/a.proto", "syntax = \"proto3\";\n\npackage b;\n")
				return tr, want
			},
			how: "HEAD is the first commit of the repository, and the working tree is another",
		},
		{
			name: "does not exist for a second contract, and that is said",
			setup: func(t *testing.T) (repotest.Tree, string) {
				tr := repotest.New(t)
				tr.Write("api/buf.yaml", "version: v2\n")
				tr.Write("api/a.proto", "syntax = \"proto3\";\n\npackage a;\n")
				tr.Write("api/old.proto", "syntax = \"proto3\";\n\npackage old;\n")
				tr.Commit("first")
				tr.Git("rm", "--quiet", "api/old.proto")
				tr.Write("other/b.proto", "syntax = \"proto3\";\n\npackage b;\n")
				tr.Commit("another")
				return repotest.At(t, tr.Dir+"/other"), ""
			},
			how: "holds no contract yet",
		},
		{
			name: "is counted from the branch that is asked for",
			setup: func(t *testing.T) (repotest.Tree, string) {
				tr := repotest.New(t)
				tr.Contract()
				tr.Git("checkout", "--quiet", "-b", "release-1")
				want := tr.Commit("on the release branch")
				tr.Git("checkout", "--quiet", "-b", "change")
				tr.Commit("change")
				return tr, want
			},
			ref: "release-1",
			how: "the merge base of HEAD and release-1",
		},
		{
			name: "does not exist at the first commit, and that is said",
			setup: func(t *testing.T) (repotest.Tree, string) {
				tr := repotest.New(t)
				tr.Contract()
				return tr, ""
			},
			how: "NOTHING IS COMPARED: HEAD is the first commit of the repository",
		},
		{
			name: "does not exist before the first commit, and that is said",
			setup: func(t *testing.T) (repotest.Tree, string) {
				return repotest.New(t), ""
			},
			how: "NOTHING IS COMPARED: the repository has no commit yet",
		},
		{
			name: "does not exist for the commit that brings the contract, and that is said",
			setup: func(t *testing.T) (repotest.Tree, string) {
				tr := repotest.New(t)
				tr.Write("proto/README.md", "soon")
				tr.Commit("first")
				tr.Contract()
				return tr, ""
			},
			how: "holds no contract yet",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			tr, want := row.setup(t)
			got, err := FindBase(t.Context(), tr.Dir, row.ref)
			if err != nil {
				t.Fatal(err)
			}
			if got.Commit != want {
				t.Errorf("got %s, want %q", got, want)
			}
			if !strings.Contains(got.String(), row.how) {
				t.Errorf("explained as %q, want it to say %q", got, row.how)
			}
		})
	}
}

func TestABaseThatCannotBeFoundIsAnError(t *testing.T) {
	for _, row := range []struct {
		name  string
		setup func(t *testing.T) repotest.Tree
		ref   string
		want  string
	}{
		{
			name: "a branch that was asked for and does not exist",
			setup: func(t *testing.T) repotest.Tree {
				tr := repotest.New(t)
				tr.Contract()
				tr.Commit("second")
				return tr
			},
			ref:  "origin/gone",
			want: "BASE_REF: origin/gone: no such commit",
		},
		{
			name: "no branch that could be the main one",
			setup: func(t *testing.T) repotest.Tree {
				tr := repotest.New(t)
				tr.Contract()
				tr.Git("branch", "--move", "trunk")
				tr.Git("checkout", "--quiet", "-b", "change")
				tr.Commit("first")
				tr.Commit("second")
				return tr
			},
			want: "by --base or BASE_REF",
		},
		{
			name: "no branch at all",
			setup: func(t *testing.T) repotest.Tree {
				tr := repotest.New(t)
				tr.Contract()
				tr.Commit("second")
				tr.Git("checkout", "--quiet", "--detach")
				tr.Git("branch", "--delete", "--force", "main")
				return tr
			},
			want: "by --base or BASE_REF",
		},
		{
			name: "a workspace that moved",
			setup: func(t *testing.T) repotest.Tree {
				tr := repotest.New(t)
				tr.Write("api/buf.yaml", "version: v2\n")
				tr.Write("api/a.proto", "syntax = \"proto3\";\n\npackage a;\n")
				tr.Commit("first")
				tr.Git("mv", "api", "idl")
				tr.Write("idl/a.proto", "syntax = \"proto3\";\n\npackage b;\n")
				tr.Commit("moved, and another package")
				return repotest.At(t, tr.Dir+"/idl")
			},
			want: "has no contract here, and one in api that is gone: if it moved, name it by --against ../.git#ref=",
		},
		{
			name: "a contract that moved to where its workspace began",
			setup: func(t *testing.T) repotest.Tree {
				tr := repotest.New(t)
				tr.Write("schemas/a.proto", "syntax = \"proto3\";\n\npackage a.v1;\n")
				tr.Commit("first")
				tr.Git("rm", "--quiet", "schemas/a.proto")
				tr.Write("api/x.proto", "syntax = \"proto3\";\n\npackage a.v1;\n")
				tr.Write("api/buf.yaml", "version: v2\n")
				tr.Commit("moved")
				return repotest.At(t, tr.Dir+"/api")
			},
			want: "one in schemas that is gone",
		},
		{
			name: "a clone that is cut off at HEAD and so looks like a first commit",
			setup: func(t *testing.T) repotest.Tree {
				tr := repotest.New(t)
				tr.Contract()
				tr.Commit("second")
				return tr.Clone("--depth=1")
			},
			want: "a shallow clone?",
		},
		{
			name: "a clone that is cut off before the branch left main",
			setup: func(t *testing.T) repotest.Tree {
				tr := repotest.New(t)
				tr.Contract()
				tr.Git("checkout", "--quiet", "-b", "change")
				tr.Commit("change")
				tr.Git("checkout", "--quiet", "main")
				tr.Commit("meanwhile")
				tr.Git("checkout", "--quiet", "change")
				return tr.Clone("--depth=1", "--no-single-branch")
			},
			want: "a shallow clone?",
		},
		{
			name: "a folder that is no repository",
			setup: func(t *testing.T) repotest.Tree {
				repotest.Isolate(t)
				t.Setenv("GIT_CEILING_DIRECTORIES", "/")
				return repotest.At(t, t.TempDir())
			},
			want: "not a git repository",
		},
		{
			name: "a HEAD that points at nothing in a repository that has commits",
			setup: func(t *testing.T) repotest.Tree {
				tr := repotest.New(t)
				tr.Contract()
				tr.Git("checkout", "--quiet", "--orphan", "empty")
				return tr
			},
			want: "HEAD is no commit",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := FindBase(t.Context(), row.setup(t).Dir, row.ref)
			if err == nil || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, %v; want an error that says %q", got, err, row.want)
			}
		})
	}
}
