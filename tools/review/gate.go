package review

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/concordat-dev/concordat/tools/internal/repo"
	"github.com/concordat-dev/concordat/tools/review/baseline"
	"github.com/concordat-dev/concordat/tools/review/rules"
	"github.com/concordat-dev/concordat/tools/review/schema"
)

// GateWeakened is the rule over what the contract is checked by. A break is approved one by one; whoever switches a rule
// off approves every break to come.
const GateWeakened = "GATE_WEAKENED"

const (
	weakenedWhy = "A rule that is off, or a file that is ignored, lets every later break through without a word, also those of others."
	weakenedWay = "Leave the configuration, and approve the one change that you mean: review approve <fingerprint>."
)

// A weakening is one thing that the contract is no longer checked by.
type weakening struct {
	file           string // that says so
	attr, old, new string
	text           string
	digest         string // of what it was in the baseline, and of all that is lost
}

// finding makes a finding of a weakening.
func (w weakening) finding() *rules.Finding {
	f := &rules.Finding{
		Rule: GateWeakened, Level: rules.Security, Kind: schema.File, Element: w.file, Attr: w.attr, Old: w.old, New: w.new, Text: w.text,
		Axes: rules.Axes{Wire: rules.Safe, JSON: rules.Safe, Source: rules.Safe, Semantics: rules.Safe},
		Why:  weakenedWhy, WayOut: weakenedWay, At: schema.Position{Path: w.file, Line: 1, Column: 1}, Baseline: w.digest,
	}
	f.Fingerprint = rules.Fingerprint(f.Rule, f.Element, f.Attr, f.Old, f.New, f.Baseline)
	return f
}

// weaker compares what the contract is checked by with what it was checked by in a baseline: the rules that buf is
// asked for, what it is told to ignore, and the baselines.
func (r *run) weaker(ctx context.Context, b *Baseline) ([]weakening, error) {
	was, err := r.configurationOf(ctx, b)
	if err != nil || was == nil {
		return nil, err
	}
	is, err := configurationIn(r.Dir)
	if err != nil {
		return nil, err
	}
	weaker, err := r.bufTool.weaker(ctx, was, is)
	if err != nil {
		return nil, err
	}
	if b.Commit == "" {
		return weaker, nil // who names an input has no baselines held
	}
	moved, err := r.movedBaselines(ctx, b)
	return append(weaker, moved...), err
}

// movedBaselines finds baselines that point to something older than they did, or to nothing.
func (r *run) movedBaselines(ctx context.Context, b *Baseline) ([]weakening, error) {
	old, err := committed(ctx, r.Dir, b.Commit, baseline.Path)
	if err != nil || old == "" {
		return nil, err
	}
	was, err := baseline.Parse([]byte(old))
	if err != nil {
		return nil, nil // there was no verdict with it; the change may mend it
	}
	now := map[string]string{}
	for _, n := range r.baselines {
		now[n.Name] = n.Commit
	}
	var moved []weakening
	find := func(name, old, now, text string) {
		moved = append(moved, weakening{baseline.Path, name, old, now, text, digestOf(name + "=" + old)})
	}
	for _, w := range was {
		is, there := now[w.Name]
		switch {
		case w.Commit == "" || is == w.Commit:
		case !there || is == "":
			find(w.Name, w.Commit, "", fmt.Sprintf("the baseline %s was %.12s and is gone", w.Name, w.Commit))
		default:
			_, err := repo.Output(ctx, r.Dir, "git", "merge-base", "--is-ancestor", w.Commit, is)
			if failed, ok := errors.AsType[*repo.RunError](err); err != nil && !ok {
				return nil, err
			} else if ok && failed.Code >= 0 { // no ancestor, or no commit that is here
				find(w.Name, w.Commit, is, fmt.Sprintf("the baseline %s went from %.12s to %.12s, which does not hold it", w.Name, w.Commit, is))
			}
		}
	}
	return moved, nil
}

// committed returns a file of a commit, by its path from dir; empty where the commit does not have it.
func committed(ctx context.Context, dir, commit, path string) (string, error) {
	listed, err := repo.Output(ctx, dir, "git", "ls-tree", "--name-only", commit, "--", path)
	if err != nil || listed == "" {
		return "", err
	}
	return repo.Output(ctx, dir, "git", "show", commit+":./"+path)
}

func digestOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// againstCommit returns the repository, the commit and the folder in it that an input of buf means, where it is one of
// a repository on this machine.
func againstCommit(input string) (git, revision, folder string, ok bool) {
	git, settings, _ := strings.Cut(input, "#")
	if !strings.HasSuffix(git, ".git") || strings.Contains(git, "://") {
		return "", "", "", false
	}
	revision, folder = "HEAD", "."
	for _, setting := range strings.Split(settings, ",") {
		switch name, value, _ := strings.Cut(setting, "="); name {
		case "ref", "commit":
			revision = value
		case "branch":
			revision = "refs/heads/" + value
		case "tag":
			revision = "refs/tags/" + value
		case "subdir":
			folder = value
		}
	}
	return git, revision, folder, true
}
