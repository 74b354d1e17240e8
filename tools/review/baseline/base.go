// Package baseline finds what a contract is held against: the base that a change starts from, and the baselines that
// proto/baselines.yaml names. It never skips one: what cannot be found or read is an error. The only changes without a
// base are the first commit of a repository and the one that brings the contract.
package baseline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/concordat-dev/concordat/tools/internal/repo"
)

// A Base is the commit that a change starts from.
type Base struct {
	// Commit is a full commit id. It is empty where nothing was promised before: at the first commit
	// of a repository, and where the commit that the change starts from holds no contract yet.
	Commit string
	// How says in words how it was found.
	How string
}

// String prints the commit and how it was found.
func (b Base) String() string {
	if b.Commit == "" {
		return "NONE, NOTHING IS COMPARED: " + b.How
	}
	return b.Commit + ": " + b.How
}

// FindBase returns what the HEAD of the repository at dir is compared with: its merge base with
// ref; where that is HEAD itself, the first parent of HEAD.
//
// An empty ref means origin/main; where that does not exist, what origin calls its default branch,
// then the local main; where none of them exists, the first parent of HEAD. A ref that is given and
// does not exist is an error, and so is a history that was cut off by a shallow clone.
func FindBase(ctx context.Context, dir, ref string) (Base, error) {
	head, err := commitOf(ctx, dir, "HEAD")
	if errors.Is(err, errNoCommit) {
		return beforeFirstCommit(ctx, dir)
	}
	if err != nil {
		return Base{}, fmt.Errorf("find base: %w", err)
	}
	main, err := mainRef(ctx, dir, ref)
	if err != nil {
		return Base{}, fmt.Errorf("find base: %w", err)
	}
	how := "the first parent of HEAD, because no main branch is known here (BASE_REF names one)"
	if main != "" {
		merged, err := repo.Output(ctx, dir, "git", "merge-base", "HEAD", main)
		if err != nil {
			return Base{}, fmt.Errorf("find base: HEAD and %s have no common ancestor here (a shallow clone? fetch the whole history: fetch-depth: 0): %w", main, err)
		}
		if merged != head {
			return withContract(ctx, dir, merged, "the merge base of HEAD and "+main)
		}
		how = "the first parent of HEAD, because " + main + " holds HEAD"
	}
	parent, err := firstParent(ctx, dir, head)
	if err != nil {
		return Base{}, fmt.Errorf("find base: %w", err)
	}
	if parent == "" {
		return Base{How: "HEAD is the first commit of the repository"}, nil
	}
	return withContract(ctx, dir, parent, how)
}

// beforeFirstCommit returns the base of a repository whose HEAD means nothing: none, if that is so
// because it has no commit at all.
func beforeFirstCommit(ctx context.Context, dir string) (Base, error) {
	newest, err := repo.Output(ctx, dir, "git", "rev-list", "--all", "--max-count=1")
	if err != nil {
		return Base{}, fmt.Errorf("find base: %w", err)
	}
	if newest != "" {
		return Base{}, errors.New("find base: HEAD is no commit, but the repository has some")
	}
	return Base{How: "the repository has no commit yet"}, nil
}

// withContract returns the commit as base if it holds a contract.
func withContract(ctx context.Context, dir, commit, how string) (Base, error) {
	files, err := repo.Output(ctx, dir, "git", "ls-tree", "-r", "--name-only", commit)
	if err != nil {
		return Base{}, fmt.Errorf("find base: %w", err)
	}
	isProto := func(name string) bool { return strings.HasSuffix(name, ".proto") }
	if !slices.ContainsFunc(strings.Split(files, "\n"), isProto) {
		return Base{How: fmt.Sprintf("%s, %s, holds no contract yet", how, commit)}, nil
	}
	return Base{Commit: commit, How: how}, nil
}

// mainRef returns the revision that stands for the main branch: ref where it is given, which must
// exist, or the first of the usual ones that does. It is empty where there is none.
func mainRef(ctx context.Context, dir, ref string) (string, error) {
	if ref != "" {
		if _, err := commitOf(ctx, dir, ref); err != nil {
			return "", fmt.Errorf("BASE_REF: %w", err)
		}
		return ref, nil
	}
	for _, usual := range []string{"refs/remotes/origin/main", "refs/remotes/origin/HEAD", "refs/heads/main"} {
		_, err := commitOf(ctx, dir, usual)
		if err == nil {
			return strings.TrimPrefix(strings.TrimPrefix(usual, "refs/heads/"), "refs/remotes/"), nil
		}
		if !errors.Is(err, errNoCommit) {
			return "", err
		}
	}
	return "", nil
}

// errNoCommit: a name means no commit that this repository has.
var errNoCommit = errors.New("no such commit")

// commitOf returns the id of the commit that a revision means, or errNoCommit.
func commitOf(ctx context.Context, dir, revision string) (string, error) {
	id, err := repo.Output(ctx, dir, "git", "rev-parse", "--verify", "--quiet", "--end-of-options", revision+"^{commit}")
	// With --quiet git says nothing where the name means nothing; anything that it says is another problem.
	if failed, ok := errors.AsType[*repo.RunError](err); ok && failed.Code == 1 && failed.Stderr == "" {
		return "", fmt.Errorf("%s: %w", revision, errNoCommit)
	}
	return id, err
}

// firstParent returns the first parent of a commit, or nothing where it has none. It reads the
// commit itself: in a shallow clone `git rev-parse HEAD^` cannot tell a root from a cut.
func firstParent(ctx context.Context, dir, commit string) (string, error) {
	raw, err := repo.Output(ctx, dir, "git", "cat-file", "commit", commit)
	if err != nil {
		return "", err
	}
	header, _, _ := strings.Cut(raw, "\n\n")
	for line := range strings.Lines(header) {
		parent, ok := strings.CutPrefix(strings.TrimSpace(line), "parent ")
		if !ok {
			continue
		}
		if _, err := commitOf(ctx, dir, parent); err != nil {
			return "", fmt.Errorf("the parent of %s is not here (a shallow clone? fetch the whole history: fetch-depth: 0): %w", commit, err)
		}
		return parent, nil
	}
	return "", nil
}
