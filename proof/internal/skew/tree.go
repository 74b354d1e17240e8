package skew

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/concordat-dev/concordat/proof/internal/skew/transcript"
	"github.com/concordat-dev/concordat/tools/review/baseline"
)

// Where things are in a tree.
const (
	probeDir      = "proof/internal/skew/probe"
	transcriptDir = "proof/internal/skew/transcript"
	corpusDir     = "proof/internal/skew/corpus/testdata"
)

// version is one side of the skew: a tree, and what was built from it.
type version struct {
	name       string // "old" or "new", as in the figures
	tree       string // its folder
	server     string // the binary of standalone
	probe      string // the binary of the client
	words      transcript.Words
	migrations []string
}

// Baseline returns the commit that the working tree at root is held against: rev where it is given; else the release
// that proto/baselines.yaml names; where that says none, what tools/review/baseline finds. how says in words which.
func Baseline(ctx context.Context, root, rev string) (commit, how string, err error) {
	if rev != "" {
		commit, err = output(ctx, root, "git", "rev-parse", "--verify", "--end-of-options", rev+"^{commit}")
		return commit, "--baseline " + rev, err
	}
	ref := os.Getenv("BASE_REF")
	baselines, err := baseline.FindBaselines(ctx, root, ref)
	if err != nil {
		return "", "", err
	}
	for _, b := range baselines {
		if b.Name == "release" && b.Commit != "" {
			return b.Commit, "release of proto/baselines.yaml", nil
		}
	}
	base, err := baseline.FindBase(ctx, root, ref)
	if err != nil {
		return "", "", err
	}
	if base.Commit == "" {
		return "", "", errors.New("there is no baseline to be skewed against: " + base.How)
	}
	return base.Commit, base.How, nil
}

// output runs a program and returns what it prints, without the space around it.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// checkout makes a worktree of a commit. remove takes it away again.
func checkout(ctx context.Context, root, commit, dir string) (remove func() error, err error) {
	if _, err := output(ctx, root, "git", "worktree", "add", "--detach", "--quiet", dir, commit); err != nil {
		return nil, fmt.Errorf("check out %s (a shallow clone? fetch the whole history): %w", commit, err)
	}
	return func() error {
		_, err := output(context.WithoutCancel(ctx), root, "git", "worktree", "remove", "--force", dir)
		return err
	}, nil
}

// build builds the server and the client of a tree into dir. Where the tree has no client, or one that speaks another
// protocol than this lab, it is given the source of the client of the tree at ours first.
func (v *version) build(ctx context.Context, ours, dir string) error {
	v.server, v.probe = filepath.Join(dir, v.name+"-standalone"), filepath.Join(dir, v.name+"-probe")
	own := true
	if _, err := os.Stat(filepath.Join(v.tree, probeDir)); errors.Is(err, fs.ErrNotExist) {
		own = false
	} else if err != nil {
		return err
	}
	if !own {
		if err := v.adopt(ours); err != nil {
			return err
		}
	}
	for binary, pkg := range map[string]string{v.server: "./services/standalone", v.probe: "./" + probeDir} {
		// The stamp of the commit would link anew what has not changed.
		if _, err := output(ctx, v.tree, "go", "build", "-buildvcs=false", "-o", binary, pkg); err != nil {
			return fmt.Errorf("build the %s %s: %w", v.name, pkg, err)
		}
	}
	seen, err := ask(ctx, v.probe, transcript.Request{Do: transcript.Names})
	if errors.Is(err, errProtocol) && own {
		if err := v.adopt(ours); err != nil {
			return err
		}
		return v.build(ctx, ours, dir)
	}
	if err != nil {
		return fmt.Errorf("the %s client: %w", v.name, err)
	}
	v.words = transcript.NewWords(seen.vocabulary)
	v.migrations, err = migrations(v.tree)
	return err
}

// adopt puts the client of the tree at ours into this one.
func (v *version) adopt(ours string) error {
	for _, dir := range []string{probeDir, transcriptDir} {
		to := filepath.Join(v.tree, dir)
		if err := os.RemoveAll(to); err != nil {
			return err
		}
		if err := os.CopyFS(to, os.DirFS(filepath.Join(ours, dir))); err != nil {
			return fmt.Errorf("give the %s tree a client: %w", v.name, err)
		}
	}
	return nil
}

// migrations returns every migration of SQLite in a tree, by its path.
func migrations(tree string) ([]string, error) {
	var all []string
	for _, room := range []string{"kit", "services"} {
		err := fs.WalkDir(os.DirFS(tree), room, func(path string, d fs.DirEntry, err error) error {
			if err == nil && filepath.Ext(path) == ".sql" && filepath.Base(filepath.Dir(path)) == "sqlite" {
				all = append(all, path)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(all)
	return all, nil
}

// migrates returns the migrations that a has and b lacks.
func (v *version) migrates(b *version) []string {
	return slices.DeleteFunc(slices.Clone(v.migrations), func(m string) bool { return slices.Contains(b.migrations, m) })
}
