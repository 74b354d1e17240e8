package review

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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

var (
	// kept are the settings of buf.yaml of which a missing one checks less.
	kept = regexp.MustCompile(`(^|\.)(breaking|lint)\.use=|^modules\[[^]]*\]\.path=|\.disallow_comment_ignores=true$|^plugins`)
	// unwanted are those of which a new one checks less.
	unwanted = regexp.MustCompile(`(^|\.)(breaking|lint)\.(except|ignore|ignore_only\.[^.=]+)=|\.excludes=|\.ignore_unstable_packages=true$|\.disable_builtin=true$|\.allow_comment_ignores=true$|\.rpc_allow_`)
)

// weakened compares what the contract is checked by with what it was checked by in a baseline.
func (r *run) weakened(ctx context.Context, b *Baseline) ([]*rules.Finding, error) {
	if b.Commit == "" {
		return nil, nil
	}
	var findings []*rules.Finding
	find := func(file, attr, old, new, text, digest string) {
		f := &rules.Finding{
			Rule: GateWeakened, Level: rules.Security, Kind: schema.File, Element: file, Attr: attr, Old: old, New: new, Text: text,
			Axes: rules.Axes{Wire: rules.Safe, JSON: rules.Safe, Source: rules.Safe, Semantics: rules.Safe},
			Why:  weakenedWhy, WayOut: weakenedWay, At: schema.Position{Path: file, Line: 1, Column: 1}, Baseline: digest,
		}
		f.Fingerprint = rules.Fingerprint(f.Rule, f.Element, f.Attr, f.Old, f.New, f.Baseline)
		findings = append(findings, f)
	}
	old, err := repo.Output(ctx, r.Dir, "git", "show", b.Commit+":./buf.yaml")
	if err != nil {
		return nil, nil // the baseline knew no buf.yaml: what is there now is no weaker
	}
	was, err := leaves([]byte(old))
	if err != nil {
		return nil, fmt.Errorf("buf.yaml of %s: %w", b.Name, err)
	}
	now, err := os.ReadFile(filepath.Join(r.Dir, "buf.yaml"))
	if err != nil {
		return nil, err
	}
	is, err := leaves(now)
	if err != nil {
		return nil, fmt.Errorf("buf.yaml: %w", err)
	}
	for _, leaf := range slices.Sorted(maps.Keys(was)) {
		name, value, _ := strings.Cut(leaf, "=")
		if !is[leaf] && kept.MatchString(leaf) {
			find("buf.yaml", name, value, "", fmt.Sprintf("buf.yaml no longer says %s: %s", name, value), digestOf(leaf))
		}
	}
	for _, leaf := range slices.Sorted(maps.Keys(is)) {
		name, value, _ := strings.Cut(leaf, "=")
		if !was[leaf] && unwanted.MatchString(leaf) {
			find("buf.yaml", name, "", value, fmt.Sprintf("buf.yaml now says %s: %s", name, value), digestOf(leaf))
		}
	}
	moved, err := r.movedBaselines(ctx, b)
	if err != nil {
		return nil, err
	}
	for _, m := range moved {
		find(baseline.Path, m.name, m.old, m.now, m.text, digestOf(m.name+"="+m.old))
	}
	return findings, nil
}

type movedBaseline struct{ name, old, now, text string }

// movedBaselines finds baselines that point to something older than they did, or to nothing.
func (r *run) movedBaselines(ctx context.Context, b *Baseline) ([]movedBaseline, error) {
	old, err := repo.Output(ctx, r.Dir, "git", "show", b.Commit+":./"+baseline.Path)
	if err != nil {
		return nil, nil
	}
	was, err := baseline.Parse([]byte(old))
	if err != nil {
		return nil, nil // the change may mend it
	}
	now := map[string]string{}
	for _, n := range r.baselines {
		now[n.Name] = n.Commit
	}
	var moved []movedBaseline
	for _, w := range was {
		is, there := now[w.Name]
		switch {
		case w.Commit == "" || is == w.Commit:
		case !there || is == "":
			moved = append(moved, movedBaseline{w.Name, w.Commit, "", fmt.Sprintf("the baseline %s was %.12s and is gone", w.Name, w.Commit)})
		default:
			if _, err := repo.Output(ctx, r.Dir, "git", "merge-base", "--is-ancestor", w.Commit, is); err != nil {
				moved = append(moved, movedBaseline{w.Name, w.Commit, is, fmt.Sprintf("the baseline %s went from %.12s to %.12s, which does not hold it", w.Name, w.Commit, is)})
			}
		}
	}
	return moved, nil
}

func digestOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256:" + hex.EncodeToString(sum[:])
}
