// Package gate holds the contract of a working tree against what was promised before: the base that
// the change starts from, and every baseline that proto/baselines.yaml names. Each comparison is one
// `buf breaking` with the rules of the tree's own buf.yaml.
//
// The gate never skips: a base or a baseline that cannot be found or read is an error. The only
// changes without a base are the first commit of a repository and the one that brings the contract.
//
// The tests read proto/ and third_party/ of the repository, which Go's test cache does not see: run
// them with -count=1.
package gate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/concordat-dev/concordat/tools/internal/repo"
)

// A Gate compares the contract of one working tree. All fields are required but BaseRef.
type Gate struct {
	// Dir is the root of the tree: the folder with buf.yaml and .git.
	Dir string
	// Buf is the path of the buf binary.
	Buf string
	// BaseRef is the revision that the change will be merged into. Empty means the main branch: see
	// FindBase.
	BaseRef string
	// Out is told what is compared with what, and each finding.
	Out io.Writer
}

// A Finding is one broken promise.
type Finding struct {
	Path    string `json:"path"` // of the file, from the root
	Line    int    `json:"start_line"`
	Column  int    `json:"start_column"`
	Rule    string `json:"type"` // the id of the buf rule
	Message string `json:"message"`
}

// String prints the finding as compilers do, so that editors can jump to it.
func (f Finding) String() string {
	return fmt.Sprintf("%s:%d:%d: %s: %s", f.Path, f.Line, f.Column, f.Rule, f.Message)
}

// A BreakingError says that the tree breaks promises.
type BreakingError struct {
	// Findings holds every broken promise, those of several comparisons one after another.
	Findings []Finding
}

// Error counts the findings: Gate.Run has printed each.
func (e *BreakingError) Error() string {
	return fmt.Sprintf("the contract breaks %d promise(s)", len(e.Findings))
}

// Run makes every comparison, also after one that found something, and prints as it goes. It
// returns a *BreakingError where the tree breaks promises, and another error where a comparison
// could not be made.
func (g Gate) Run(ctx context.Context) error {
	base, err := FindBase(ctx, g.Dir, g.BaseRef)
	if err != nil {
		return err
	}
	baselines, err := FindBaselines(ctx, g.Dir, g.BaseRef)
	if err != nil {
		return err
	}
	fmt.Fprintf(g.Out, "base: %s\n", base)

	var broken BreakingError
	compare := func(name, commit string) error {
		findings, err := g.against(ctx, commit)
		if err != nil {
			return fmt.Errorf("compare with %s: %w", name, err)
		}
		fmt.Fprintf(g.Out, "against %s: %d broken promise(s)\n", name, len(findings))
		for _, f := range findings {
			fmt.Fprintf(g.Out, "  %s\n", f)
		}
		broken.Findings = append(broken.Findings, findings...)
		return nil
	}
	if base.Commit != "" {
		if err := compare("base", base.Commit); err != nil {
			return err
		}
	}
	for _, b := range baselines {
		if b.Commit == "" {
			fmt.Fprintf(g.Out, "against %s: nothing, because proto/baselines.yaml says none\n", b.Name)
			continue
		}
		if err := compare(b.Name, b.Commit); err != nil {
			return err
		}
	}
	if len(broken.Findings) > 0 {
		return &broken
	}
	return nil
}

// bufFoundSomething is the exit code of a buf check that ran and was not satisfied.
const bufFoundSomething = 100

// against runs `buf breaking` against one commit.
func (g Gate) against(ctx context.Context, commit string) ([]Finding, error) {
	out, err := repo.Output(ctx, g.Dir, g.Buf, "breaking", "--against", ".git#ref="+commit, "--error-format", "json")
	if err == nil {
		return nil, nil
	}
	failed, ok := errors.AsType[*repo.RunError](err)
	if !ok || failed.Code != bufFoundSomething {
		return nil, err
	}
	var findings []Finding
	for printed := json.NewDecoder(strings.NewReader(out)); printed.More(); {
		var f Finding
		if err := printed.Decode(&f); err != nil {
			return nil, fmt.Errorf("read the findings of buf: %w", err)
		}
		if f.Rule == "COMPILE" {
			return nil, fmt.Errorf("the contract does not compile: %s", f)
		}
		findings = append(findings, f)
	}
	if len(findings) == 0 {
		return nil, fmt.Errorf("buf breaking failed without a finding: %w", err)
	}
	return findings, nil
}
