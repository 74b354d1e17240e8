package review

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"github.com/concordat-dev/concordat/tools/internal/repo"
)

// everything is for checkout.
func everything(string) bool { return true }

// compiled tells whether buf reads a file when it compiles a workspace: schemas, and its own settings.
func compiled(name string) bool {
	return path.Ext(name) == ".proto" || strings.HasPrefix(path.Base(name), "buf.")
}

// checkout writes the files of a commit that are wanted, as far as they lie below dir, to a new folder, which remove
// deletes. Links are always wanted: what lies behind them may be.
//
// buf itself can read a commit, but clones the repository for it, each time, which takes longer than all the rest of a
// small review; `git archive` leaves out what .gitattributes keeps from releases.
func checkout(ctx context.Context, dir, commit string, wanted func(name string) bool) (tree string, remove func(), err error) {
	to, err := os.MkdirTemp("", "review-")
	if err != nil {
		return "", nil, err
	}
	remove = func() { os.RemoveAll(to) }
	if tree, err = fill(ctx, to, dir, commit, wanted); err != nil {
		remove()
		return "", nil, fmt.Errorf("check out %s: %w", commit, err)
	}
	return tree, remove, nil
}

// fill writes the files into a folder below to and returns it.
func fill(ctx context.Context, to, dir, commit string, wanted func(name string) bool) (string, error) {
	// The folder is named without links, as the go command names it; git writes outside of where it runs by a full path.
	to, err := filepath.EvalSymlinks(to)
	if err != nil {
		return "", err
	}
	top, err := repo.Output(ctx, dir, "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return "", said(err)
	}
	below, err := repo.Output(ctx, dir, "git", "rev-parse", "--show-prefix")
	if err != nil {
		return "", said(err)
	}
	git := func(input []byte, args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, "git", args...)
		cmd.Dir = top
		cmd.Env = append(os.Environ(), "GIT_INDEX_FILE="+filepath.Join(to, "index"))
		cmd.Stdin = bytes.NewReader(input)
		out, err := cmd.Output()
		if failed, ok := errors.AsType[*exec.ExitError](err); ok {
			return nil, fmt.Errorf("git %s: %s", args[0], bytes.TrimSpace(failed.Stderr))
		}
		return out, err
	}
	if _, err := git(nil, "read-tree", commit+":"+below); err != nil {
		return "", err
	}
	list, err := git(nil, "ls-files", "--stage", "-z")
	if err != nil {
		return "", err
	}
	var names []byte
	for entry := range bytes.SplitSeq(list, []byte{0}) {
		const link = "120000 "
		about, name, _ := strings.Cut(string(entry), "\t")
		if name != "" && (strings.HasPrefix(about, link) || wanted(name)) {
			names = append(append(names, name...), 0)
		}
	}
	tree := filepath.Join(to, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return "", err
	}
	_, err = git(names, "checkout-index", "--stdin", "-z", "--prefix="+tree+"/")
	return tree, err
}
