// Package baseline finds what a contract is held against: the base that a change starts from, and the baselines that
// proto/baselines.yaml names. It never skips one: what cannot be found or read is an error. The only changes without a
// base are the first commit of a repository and the one that brings the contract.
package baseline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
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
// ref; where that is HEAD itself, the first parent of HEAD. At the first commit of a repository it
// is HEAD, if the working tree is no longer what was committed.
//
// An empty ref, and the id of only zeros that a push of a new branch comes with, mean the main
// branch: the default branch of origin; main, master or what init.defaultBranch says, of origin and
// then here; or the only branch that there is. Where none of them exists it is an error, as is a ref
// that is given and does not exist, a history that was cut off by a shallow clone, and a commit
// whose contract lies in another folder, from where it has gone.
func FindBase(ctx context.Context, dir, ref string) (Base, error) {
	base, err := findBase(ctx, dir, ref)
	if err != nil {
		return Base{}, fmt.Errorf("find base: %w", err)
	}
	return base, nil
}

func findBase(ctx context.Context, dir, ref string) (Base, error) {
	head, err := commitOf(ctx, dir, "HEAD")
	if errors.Is(err, errNoCommit) {
		return beforeFirstCommit(ctx, dir)
	}
	if err != nil {
		return Base{}, err
	}
	main, err := mainRef(ctx, dir, ref)
	if err != nil {
		return Base{}, err
	}
	merged, err := repo.Output(ctx, dir, "git", "merge-base", "HEAD", main)
	if err != nil {
		return Base{}, fmt.Errorf("HEAD and %s have no common ancestor here (a shallow clone? fetch the whole history: fetch-depth: 0): %w", main, err)
	}
	if merged != head {
		return withContract(ctx, dir, merged, "the merge base of HEAD and "+main)
	}
	parent, err := firstParent(ctx, dir, head)
	if err != nil {
		return Base{}, err
	}
	if parent != "" {
		return withContract(ctx, dir, parent, "the first parent of HEAD, because "+main+" holds HEAD")
	}
	const first = "HEAD is the first commit of the repository"
	changed, err := repo.Output(ctx, dir, "git", "status", "--porcelain")
	if err != nil {
		return Base{}, err
	}
	if changed == "" {
		return Base{How: first}, nil
	}
	return withContract(ctx, dir, head, first+", and the working tree is another")
}

// beforeFirstCommit returns the base of a repository whose HEAD means nothing: none, if that is so
// because it has no commit at all.
func beforeFirstCommit(ctx context.Context, dir string) (Base, error) {
	newest, err := repo.Output(ctx, dir, "git", "rev-list", "--all", "--max-count=1")
	if err != nil {
		return Base{}, err
	}
	if newest != "" {
		return Base{}, errors.New("HEAD is no commit, but the repository has some")
	}
	return Base{How: "the repository has no commit yet"}, nil
}

// withContract returns the commit as base if it holds a contract.
func withContract(ctx context.Context, dir, commit, how string) (Base, error) {
	here, err := repo.Output(ctx, dir, "git", "ls-tree", "-r", "--name-only", commit)
	if err != nil {
		return Base{}, err
	}
	if slices.ContainsFunc(strings.Split(here, "\n"), isProto) {
		return Base{Commit: commit, How: how}, nil
	}
	from, err := movedFrom(ctx, dir, commit)
	if err != nil {
		return Base{}, err
	}
	if from != "" {
		up, err := repo.Output(ctx, dir, "git", "rev-parse", "--show-cdup")
		if err != nil {
			return Base{}, err
		}
		return Base{}, fmt.Errorf("%s, %.12s, has no contract here, and one in %s that is gone: if it moved, name it by --against %s.git#ref=%s,subdir=%s", how, commit, from, up, commit, from)
	}
	return Base{How: fmt.Sprintf("%s, %s, holds no contract yet", how, commit)}, nil
}

func isProto(name string) bool { return strings.HasSuffix(name, ".proto") }

// movedFrom returns the folder, from the root of the repository, of a contract that a commit has and
// the working tree does not; empty where there is none. It is what may have become the contract at
// dir: a folder with a buf.yaml and schemas that has none any more, or with a schema that is gone and
// of a package that dir has now.
func movedFrom(ctx context.Context, dir, commit string) (string, error) {
	top, err := repo.Output(ctx, dir, "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return "", err
	}
	all, err := repo.Output(ctx, top, "git", "ls-tree", "-r", "--name-only", "-z", commit)
	if err != nil {
		return "", err
	}
	var gone []string // schemas
	var workspaces []string
	for name := range strings.SplitSeq(strings.Trim(all, "\x00"), "\x00") {
		if _, err := os.Stat(filepath.Join(top, filepath.FromSlash(name))); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		switch {
		case isProto(name):
			gone = append(gone, name)
		case path.Base(name) == "buf.yaml" || path.Base(name) == "buf.work.yaml":
			workspaces = append(workspaces, path.Dir(name))
		}
	}
	for _, workspace := range workspaces {
		if slices.ContainsFunc(gone, func(name string) bool { return workspace == "." || strings.HasPrefix(name, workspace+"/") }) {
			return workspace, nil
		}
	}
	if len(gone) == 0 {
		return "", nil
	}
	packages, err := packagesBelow(dir)
	if err != nil {
		return "", err
	}
	for _, name := range gone {
		text, err := repo.Output(ctx, top, "git", "show", commit+":"+name)
		if err != nil {
			return "", err
		}
		if packages[packageOf(text)] {
			return path.Dir(name), nil
		}
	}
	return "", nil
}

// packagesBelow returns the packages of the schemas below dir.
func packagesBelow(dir string) (map[string]bool, error) {
	packages := map[string]bool{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !isProto(name) {
			return err
		}
		text, err := os.ReadFile(name)
		packages[packageOf(string(text))] = true
		return err
	})
	delete(packages, "")
	return packages, err
}

// declared is how a schema says its package.
var declared = regexp.MustCompile(`(?m)^\s*package\s+([\w.]+)\s*;`)

// packageOf returns the package of a schema; empty where it says none.
func packageOf(text string) string {
	if found := declared.FindStringSubmatch(text); found != nil {
		return found[1]
	}
	return ""
}

// mainRef returns the revision that stands for the main branch: ref where it is given, which must
// exist, or the first of the usual ones that does.
func mainRef(ctx context.Context, dir, ref string) (string, error) {
	if strings.Trim(ref, "0") != "" {
		if _, err := commitOf(ctx, dir, ref); err != nil {
			return "", fmt.Errorf("BASE_REF: %w", err)
		}
		return ref, nil
	}
	usual := []string{"main", "master"}
	if set, err := repo.Output(ctx, dir, "git", "config", "init.defaultBranch"); err == nil && set != "" {
		usual = append(usual, set)
	}
	names := []string{"refs/remotes/origin/HEAD"}
	for _, prefix := range []string{"refs/remotes/origin/", "refs/heads/"} {
		for _, name := range usual {
			names = append(names, prefix+name)
		}
	}
	for _, name := range names {
		_, err := commitOf(ctx, dir, name)
		if errors.Is(err, errNoCommit) {
			continue
		}
		if err != nil {
			return "", err
		}
		if target, err := repo.Output(ctx, dir, "git", "symbolic-ref", "--quiet", name); err == nil {
			name = target // as origin/HEAD stands for another one
		}
		return strings.TrimPrefix(strings.TrimPrefix(name, "refs/heads/"), "refs/remotes/"), nil
	}
	// HEAD is the main branch where there is no other one.
	branches, err := repo.Output(ctx, dir, "git", "for-each-ref", "--format=%(refname)", "refs/heads", "refs/remotes")
	if err != nil {
		return "", err
	}
	if on, err := repo.Output(ctx, dir, "git", "symbolic-ref", "--quiet", "HEAD"); err == nil && on == branches {
		return strings.TrimPrefix(on, "refs/heads/"), nil
	}
	return "", errors.New("no main branch is known here (origin/HEAD, main, master, init.defaultBranch): name the one that the change will be merged into by --base or BASE_REF")
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
