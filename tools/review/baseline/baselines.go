package baseline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/concordat-dev/concordat/tools/internal/repo"
	"github.com/concordat-dev/concordat/tools/internal/strictyaml"
)

// A Baseline is a commit whose contract somebody relies on.
type Baseline struct {
	// Name is its key in proto/baselines.yaml.
	Name string
	// Commit is a full commit id. It is empty where the file says none.
	Commit string
	// Events is set where only what was written then counts: streams may still tell of it.
	Events bool
}

// Path is where the baselines stand, from the root of the workspace.
const Path = "proto/baselines.yaml"

// none is how the file says that there is no such baseline yet.
const none = "none"

// FindBaselines reads proto/baselines.yaml of the repository at dir and returns the baselines in a
// fixed order: release, deployed, and then those of which only the events are retained. It refuses a file that is missing, incomplete or has keys that it does
// not know; a commit that is not written in full, does not exist or is no ancestor of the main
// branch (ref, as in FindBase); and `release: none` once a release tag exists.
func FindBaselines(ctx context.Context, dir, ref string) ([]Baseline, error) {
	text, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(Path)))
	if err != nil {
		return nil, fmt.Errorf("read baselines: %w", err)
	}
	named, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf(Path+": %w", err)
	}
	main, err := mainRef(ctx, dir, ref)
	if err != nil {
		return nil, fmt.Errorf("find baselines: %w", err)
	}
	for _, b := range named {
		if b.Commit == "" {
			err = refuseTags(ctx, dir)
		} else {
			err = isAncestor(ctx, dir, b.Commit, main)
		}
		if err != nil {
			return nil, fmt.Errorf(Path+": %s: %w", b.Name, err)
		}
	}
	return named, nil
}

// full matches a commit id that nobody can move or mistake for another.
var full = regexp.MustCompile(`^[0-9a-f]{40}$|^[0-9a-f]{64}$`)

// Parse reads the text of the file without looking at the repository.
func Parse(text []byte) ([]Baseline, error) {
	var file struct {
		Release  *string `yaml:"release"`
		Deployed *string `yaml:"deployed"`
		// Retained are older releases whose events are still kept.
		Retained []string `yaml:"retained"`
	}
	if err := strictyaml.Decode(text, &file); err != nil {
		return nil, err
	}
	if file.Release == nil {
		return nil, errors.New("release is missing: name a commit, or say none until the first release")
	}
	named := []Baseline{{Name: "release", Commit: *file.Release}}
	if file.Deployed != nil {
		named = append(named, Baseline{Name: "deployed", Commit: *file.Deployed})
	}
	for n, commit := range file.Retained {
		if slices.Contains(file.Retained[:n], commit) {
			return nil, fmt.Errorf("retained: %s is there twice", commit)
		}
		named = append(named, Baseline{Name: fmt.Sprintf("retained %.12s", commit), Commit: commit, Events: true})
	}
	for _, b := range named {
		unreleased := b.Name == "release" && b.Commit == none
		if !unreleased && !full.MatchString(b.Commit) {
			return nil, fmt.Errorf("%s: %q is not a full commit id", b.Name, b.Commit)
		}
	}
	if *file.Release == none {
		named[0].Commit = ""
	}
	return named, nil
}

// refuseTags fails where a release exists. The contract's Go module is released by tags below gen/.
func refuseTags(ctx context.Context, dir string) error {
	tags, err := repo.Output(ctx, dir, "git", "tag", "--list", "v*", "gen/v*")
	if err != nil {
		return err
	}
	if tags != "" {
		first, _, _ := strings.Cut(tags, "\n")
		return fmt.Errorf("says none, but there is the release %s: name its commit", first)
	}
	return nil
}

// isAncestor fails where commit does not exist or is not part of main's history.
func isAncestor(ctx context.Context, dir, commit, main string) error {
	if _, err := commitOf(ctx, dir, commit); err != nil {
		return err
	}
	_, err := repo.Output(ctx, dir, "git", "merge-base", "--is-ancestor", commit, main)
	if failed, ok := errors.AsType[*repo.RunError](err); ok && failed.Code == 1 {
		return fmt.Errorf("%s is no ancestor of %s", commit, main)
	}
	return err
}
