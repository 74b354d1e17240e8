package gate

import (
	"strings"
	"testing"
)

func TestTheBaseOfAChange(t *testing.T) {
	for _, row := range []struct {
		name string
		// setup makes the repository and returns it with the commit that must be the base.
		setup func(t *testing.T) (tree, string)
		ref   string
		how   string // part of the explanation
	}{
		{
			name: "of a branch is where it left main, whatever main did since",
			setup: func(t *testing.T) (tree, string) {
				origin := newTree(t)
				want := origin.contract()
				tr := origin.clone()
				tr.git("checkout", "--quiet", "-b", "change")
				tr.commit("first of the change")
				tr.commit("second of the change")
				origin.commit("meanwhile on main")
				tr.git("fetch", "--quiet")
				return tr, want
			},
			how: "the merge base of HEAD and origin/main",
		},
		{
			name: "of main itself is the first parent",
			setup: func(t *testing.T) (tree, string) {
				origin := newTree(t)
				want := origin.contract()
				origin.commit("next on main")
				return origin.clone(), want
			},
			how: "the first parent of HEAD, because origin/main holds HEAD",
		},
		{
			name: "of a merge on main is what main was before it",
			setup: func(t *testing.T) (tree, string) {
				tr := newTree(t)
				tr.contract()
				tr.git("checkout", "--quiet", "-b", "change")
				tr.commit("change")
				tr.git("checkout", "--quiet", "main")
				want := tr.commit("meanwhile")
				tr.git("merge", "--quiet", "--no-ff", "--message", "merge", "change")
				return tr, want
			},
			how: "because main holds HEAD",
		},
		{
			name: "of a repository without a remote is counted from the local main",
			setup: func(t *testing.T) (tree, string) {
				tr := newTree(t)
				want := tr.contract()
				tr.git("checkout", "--quiet", "-b", "change")
				tr.commit("first")
				tr.commit("second")
				return tr, want
			},
			how: "the merge base of HEAD and main",
		},
		{
			name: "where the main branch has another name is counted from the default branch of origin",
			setup: func(t *testing.T) (tree, string) {
				origin := newTree(t)
				want := origin.contract()
				origin.git("branch", "--move", "trunk")
				tr := origin.clone()
				tr.git("checkout", "--quiet", "-b", "change")
				tr.commit("first")
				tr.commit("second")
				return tr, want
			},
			how: "the merge base of HEAD and origin/HEAD",
		},
		{
			name: "where no main branch is known is the first parent",
			setup: func(t *testing.T) (tree, string) {
				tr := newTree(t)
				tr.contract()
				want := tr.commit("second")
				tr.commit("third")
				tr.git("checkout", "--quiet", "--detach")
				tr.git("branch", "--delete", "--force", "main")
				return tr, want
			},
			how: "no main branch is known here",
		},
		{
			name: "is counted from the branch that is asked for",
			setup: func(t *testing.T) (tree, string) {
				tr := newTree(t)
				tr.contract()
				tr.git("checkout", "--quiet", "-b", "release-1")
				want := tr.commit("on the release branch")
				tr.git("checkout", "--quiet", "-b", "change")
				tr.commit("change")
				return tr, want
			},
			ref: "release-1",
			how: "the merge base of HEAD and release-1",
		},
		{
			name: "does not exist at the first commit, and that is said",
			setup: func(t *testing.T) (tree, string) {
				tr := newTree(t)
				tr.contract()
				return tr, ""
			},
			how: "NOTHING IS COMPARED: HEAD is the first commit of the repository",
		},
		{
			name: "does not exist before the first commit, and that is said",
			setup: func(t *testing.T) (tree, string) {
				return newTree(t), ""
			},
			how: "NOTHING IS COMPARED: the repository has no commit yet",
		},
		{
			name: "does not exist for the commit that brings the contract, and that is said",
			setup: func(t *testing.T) (tree, string) {
				tr := newTree(t)
				tr.write("proto/README.md", "soon")
				tr.commit("first")
				tr.contract()
				return tr, ""
			},
			how: "holds no contract yet",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			tr, want := row.setup(t)
			got, err := FindBase(t.Context(), tr.dir, row.ref)
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
		setup func(t *testing.T) tree
		ref   string
		want  string
	}{
		{
			name: "a branch that was asked for and does not exist",
			setup: func(t *testing.T) tree {
				tr := newTree(t)
				tr.contract()
				tr.commit("second")
				return tr
			},
			ref:  "origin/gone",
			want: "BASE_REF: origin/gone: no such commit",
		},
		{
			name: "a clone that is cut off at HEAD and so looks like a first commit",
			setup: func(t *testing.T) tree {
				tr := newTree(t)
				tr.contract()
				tr.commit("second")
				return tr.clone("--depth=1")
			},
			want: "a shallow clone?",
		},
		{
			name: "a clone that is cut off before the branch left main",
			setup: func(t *testing.T) tree {
				tr := newTree(t)
				tr.contract()
				tr.git("checkout", "--quiet", "-b", "change")
				tr.commit("change")
				tr.git("checkout", "--quiet", "main")
				tr.commit("meanwhile")
				tr.git("checkout", "--quiet", "change")
				return tr.clone("--depth=1", "--no-single-branch")
			},
			want: "a shallow clone?",
		},
		{
			name: "a folder that is no repository",
			setup: func(t *testing.T) tree {
				isolateGit(t)
				t.Setenv("GIT_CEILING_DIRECTORIES", "/")
				return tree{t, t.TempDir()}
			},
			want: "not a git repository",
		},
		{
			name: "a HEAD that points at nothing in a repository that has commits",
			setup: func(t *testing.T) tree {
				tr := newTree(t)
				tr.contract()
				tr.git("checkout", "--quiet", "--orphan", "empty")
				return tr
			},
			want: "HEAD is no commit",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := FindBase(t.Context(), row.setup(t).dir, row.ref)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, %v; want an error that says %q", got, err, row.want)
			}
		})
	}
}
