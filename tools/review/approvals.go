package review

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/concordat-dev/concordat/tools/internal/repo"
	"github.com/concordat-dev/concordat/tools/internal/strictyaml"
	"github.com/concordat-dev/concordat/tools/review/rules"
)

// ApprovalsDir is where approvals lie, from the root of the workspace. Its line in CODEOWNERS says whose review an
// approval needs.
const ApprovalsDir = "proto/approvals"

// LongestApproval is how far ahead an approval may expire: what is approved for ever is a rule switched off.
const LongestApproval = 90 * 24 * time.Hour

// An Approval is the content of proto/approvals/<fingerprint>.yaml. It lets one change of one element of one baseline
// through, and nothing else.
type Approval struct {
	Rule    string `yaml:"rule"`
	Element string `yaml:"element"`
	Attr    string `yaml:"attr,omitempty"`
	Old     string `yaml:"old,omitempty"`
	New     string `yaml:"new,omitempty"`
	// Baseline is the digest of the element in the baseline.
	Baseline string `yaml:"baseline"`
	// Reason says to a reader of next year why it was right. Required.
	Reason string `yaml:"reason"`
	// Owner is who answers for it. Required.
	Owner string `yaml:"owner"`
	// Expires is the last day on which it holds: at most 90 days after it was written.
	Expires string `yaml:"expires"`
}

// fingerprint returns the fingerprint of what the approval says that it approves.
func (a Approval) fingerprint() string {
	return rules.Fingerprint(a.Rule, a.Element, a.Attr, a.Old, a.New, a.Baseline)
}

// State is what an approval is good for.
type State string

// The states. All but Used, Absorbed and Unjudged fail the review.
const (
	// Used: it approves a finding.
	Used State = "used"
	// Absorbed: the base holds the change that it approved. `review prune` removes it.
	Absorbed State = "absorbed"
	// Unjudged: this review did not look at what it is about: snapshots of usage.
	Unjudged State = "not looked at"
	// Unused: the change that it approves was not made.
	Unused State = "unused"
	// Stale: the element in the baseline is no longer what it was approved for.
	Stale State = "stale"
	// Expired: its last day has passed.
	Expired State = "expired"
	// Widened: what it says is not what its file name stands for: somebody edited it.
	Widened State = "edited by hand"
	// Malformed: it cannot be read, or lacks what it must say.
	Malformed State = "malformed"
)

// An ApprovalState is an approval and what it is good for.
type ApprovalState struct {
	// File is its path from the root.
	File    string `json:"file"`
	State   State  `json:"state"`
	Rule    string `json:"rule,omitempty"`
	Element string `json:"element,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Owner   string `json:"owner,omitempty"`
	Expires string `json:"expires,omitempty"`
	// What says what is wrong, in one line.
	What string `json:"what,omitempty"`
}

// Fails tells whether the approval makes the review fail.
func (a ApprovalState) Fails() bool {
	return a.State != Used && a.State != Absorbed && a.State != Unjudged
}

// approve subtracts from the findings exactly what is approved, and says what every approval is good for.
func (r *run) approve(ctx context.Context) error {
	r.report.Approvals = []ApprovalState{}
	files, err := os.ReadDir(filepath.Join(r.Dir, filepath.FromSlash(ApprovalsDir)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read approvals: %w", err)
	}
	for _, file := range files {
		if file.Name() == "README.md" || strings.HasPrefix(file.Name(), ".") { // as .gitkeep
			continue
		}
		state, err := r.approval(ctx, path.Join(ApprovalsDir, file.Name()))
		if err != nil {
			return fmt.Errorf("read approvals: %w", err)
		}
		r.report.Approvals = append(r.report.Approvals, state)
	}
	return nil
}

func (r *run) approval(ctx context.Context, file string) (ApprovalState, error) {
	state := func(s State, a Approval, what string) (ApprovalState, error) {
		return ApprovalState{file, s, a.Rule, a.Element, a.Reason, a.Owner, a.Expires, what}, nil
	}
	fingerprint, named := strings.CutSuffix(path.Base(file), ".yaml")
	at := filepath.Join(r.Dir, filepath.FromSlash(file))
	if info, err := os.Stat(at); err != nil || !named || info.IsDir() {
		return state(Malformed, Approval{}, "an approval is a file <fingerprint>.yaml of this folder, as review approve writes it")
	}
	data, err := os.ReadFile(at)
	if err != nil {
		return ApprovalState{}, err
	}
	a, expires, err := parseApproval(data)
	if err != nil {
		return state(Malformed, a, err.Error())
	}
	switch {
	case a.fingerprint() != fingerprint:
		return state(Widened, a, "it says another change than its name stands for; review approve writes approvals")
	case ended(expires, r.Now):
		return state(Expired, a, "its last day was "+a.Expires)
	case expires.After(r.Now.Add(LongestApproval)):
		return state(Malformed, a, fmt.Sprintf("expires more than %d days ahead", int(LongestApproval.Hours()/24)))
	}
	found := false
	for _, f := range r.report.Findings {
		if f.Fingerprint == fingerprint {
			f.Approval, found = file, true
		}
	}
	if found {
		return state(Used, a, "")
	}
	// It approves nothing: the change is in every baseline, the element is another one, or nobody made the change.
	same := false
	for _, b := range r.baselines {
		if b.before != nil {
			if e := b.before.Find(a.Element); e != nil && e.Digest() == a.Baseline {
				same = true
			}
		}
	}
	switch {
	case same && a.Rule == StillUsed && len(r.Usage) == 0:
		return state(Unjudged, a, "it is about what callers were seen to use: review --usage judges it")
	case same:
		return state(Unused, a, "nothing in the tree is the change that it approves")
	case r.inBase(ctx, file, data):
		return state(Absorbed, a, "the base holds the change; review prune removes it")
	default:
		return state(Stale, a, "the element in the baseline is not the one that it was approved for")
	}
}

// inBase tells whether the base holds the approval as it is: then it came there together with the change.
func (r *run) inBase(ctx context.Context, file string, data []byte) bool {
	for _, b := range r.baselines {
		if b.Name == "base" && b.Commit != "" {
			old, err := repo.Output(ctx, r.Dir, "git", "show", b.Commit+":./"+file)
			return err == nil && old == strings.TrimSpace(string(data))
		}
	}
	return false
}

// parseApproval reads an approval and the last day on which it holds.
func parseApproval(data []byte) (Approval, time.Time, error) {
	var a Approval
	if bytes.Contains(data, []byte("\n<<<<<<< ")) || bytes.HasPrefix(data, []byte("<<<<<<< ")) {
		return a, time.Time{}, errors.New("a merge left both sides in it: write it anew with review approve")
	}
	if err := strictyaml.Decode(data, &a); errors.Is(err, strictyaml.ErrMore) {
		return a, time.Time{}, errors.New("more than one document: one file approves one change")
	} else if err != nil {
		return a, time.Time{}, fmt.Errorf("not an approval: %w", err)
	}
	if a == (Approval{}) {
		return a, time.Time{}, errors.New("not an approval: it says nothing")
	}
	for _, required := range []struct{ name, value string }{{"rule", a.Rule}, {"element", a.Element}, {"reason", a.Reason}, {"owner", a.Owner}, {"expires", a.Expires}} {
		if strings.TrimSpace(required.value) == "" {
			return a, time.Time{}, fmt.Errorf("%s is missing", required.name)
		}
	}
	expires, err := time.Parse(time.DateOnly, a.Expires)
	if err != nil {
		return a, time.Time{}, fmt.Errorf("expires: %q is no day (yyyy-mm-dd)", a.Expires)
	}
	return a, expires, nil
}

// ended tells whether the last day of an approval has passed.
func ended(lastDay, now time.Time) bool { return !now.Before(lastDay.AddDate(0, 0, 1)) }

// An Approver is who approves, why and until when.
type Approver struct {
	Reason, Owner string
	Expires       time.Time
}

// Approve writes approvals of findings of a report, by fingerprint; a unique beginning of at least four characters is
// enough. It returns the files that it wrote. Nothing is written where one of the findings cannot be approved.
func Approve(dir string, report *Report, by Approver, now time.Time, fingerprints ...string) ([]string, error) {
	switch {
	case strings.TrimSpace(by.Reason) == "":
		return nil, errors.New("--reason is missing: say to a reader of next year why this break is right")
	case strings.TrimSpace(by.Owner) == "":
		return nil, errors.New("--owner is missing: name who answers for it")
	case ended(by.Expires, now):
		return nil, fmt.Errorf("--expires: %s has passed", by.Expires.Format(time.DateOnly))
	case by.Expires.After(now.Add(LongestApproval)):
		return nil, fmt.Errorf("--expires: %s is more than %d days ahead", by.Expires.Format(time.DateOnly), int(LongestApproval.Hours()/24))
	}
	var found []*Finding
	for _, fingerprint := range fingerprints {
		f, err := find(report, fingerprint)
		if err != nil {
			return nil, err
		}
		found = append(found, f)
	}
	dir = filepath.Join(dir, filepath.FromSlash(ApprovalsDir))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var written []string
	for _, f := range found {
		var text bytes.Buffer
		fmt.Fprintf(&text, "# %s\n# Written by `review approve`. It approves this one change and dies with it: do not edit it.\n", strings.ReplaceAll(f.Text, "\n", " "))
		enc := yaml.NewEncoder(&text)
		enc.SetIndent(2)
		a := Approval{f.Rule, f.Element, f.Attr, f.Old, f.New, f.Baseline, by.Reason, by.Owner, by.Expires.Format(time.DateOnly)}
		if err := errors.Join(enc.Encode(a), enc.Close()); err != nil {
			return written, err
		}
		if err := os.WriteFile(filepath.Join(dir, f.Fingerprint+".yaml"), text.Bytes(), 0o644); err != nil {
			return written, err
		}
		written = append(written, path.Join(ApprovalsDir, f.Fingerprint+".yaml"))
	}
	return written, nil
}

// find returns the finding that a fingerprint, or the beginning of one, names.
func find(report *Report, fingerprint string) (*Finding, error) {
	if len(fingerprint) < 4 {
		return nil, fmt.Errorf("%q is too short: give at least four characters of a fingerprint", fingerprint)
	}
	var found *Finding
	for _, f := range report.Findings {
		if !strings.HasPrefix(f.Fingerprint, fingerprint) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%q names more than one finding: %s and %s", fingerprint, found.Fingerprint, f.Fingerprint)
		}
		found = f
	}
	switch {
	case found == nil:
		return nil, fmt.Errorf("no finding has the fingerprint %q: `review` lists them, with the command that approves each", fingerprint)
	case found.Implied != "":
		return nil, fmt.Errorf("%s comes with %s: approve that one", fingerprint, found.Implied)
	case !found.Fails() && found.Approval == "":
		return nil, fmt.Errorf("%s needs no approval: it is a note, or hidden", fingerprint)
	default:
		return found, nil
	}
}

// Prune removes the approvals of a report that are good for nothing any more: absorbed, unused, stale and expired ones.
// It returns their files. One that was edited or cannot be read is left for a person to look at.
func Prune(dir string, report *Report) ([]string, error) {
	var removed []string
	for _, a := range report.Approvals {
		if !slices.Contains([]State{Absorbed, Unused, Stale, Expired}, a.State) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, filepath.FromSlash(a.File))); err != nil {
			return removed, err
		}
		removed = append(removed, a.File)
	}
	return removed, nil
}
