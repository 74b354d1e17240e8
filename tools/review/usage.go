package review

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/concordat-dev/concordat/tools/review/rules"
	"github.com/concordat-dev/concordat/tools/review/schema"
)

// StillUsed is the rule over what snapshots of usage say: something is removed that callers were seen to use.
const StillUsed = "STILL_USED"

// A Snapshot is what a server counted of what callers really send and get: the format of the admin port's /usage.
type Snapshot struct {
	Version int       `json:"version"`
	Service string    `json:"service"`
	Since   time.Time `json:"since"`
	Entries []struct {
		Caller    string    `json:"caller"`
		Method    string    `json:"method"`
		Message   string    `json:"message"`
		Field     string    `json:"field"`
		Direction string    `json:"direction"`
		Count     int64     `json:"count"`
		LastSeen  time.Time `json:"last_seen"`
	} `json:"entries"`
}

// Seen is a caller that used an element.
type Seen struct {
	Caller   string    `json:"caller"`
	Method   string    `json:"method"`
	Count    int64     `json:"count"`
	LastSeen time.Time `json:"last_seen"`
}

// usage adds to every finding who was seen to use its element, and finds what is removed although it is used.
func (r *run) usage() error {
	seen := map[string][]Seen{}
	for _, file := range r.Usage {
		data, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("--usage: %w", err)
		}
		var s Snapshot
		if err := json.Unmarshal(data, &s); err != nil {
			return fmt.Errorf("--usage: %s is no snapshot of usage: %w", file, err)
		}
		if s.Version != 1 {
			return fmt.Errorf("--usage: %s has version %d; this review reads version 1", file, s.Version)
		}
		for _, e := range s.Entries {
			is := Seen{e.Caller, e.Method, e.Count, e.LastSeen}
			method := strings.ReplaceAll(strings.TrimPrefix(e.Method, "/"), "/", ".")
			for _, element := range []string{e.Message + "." + e.Field, method} {
				seen[element] = merge(seen[element], is)
			}
		}
	}
	if len(seen) == 0 {
		return nil
	}
	used := map[string]bool{}
	for _, f := range slices.Clone(r.report.Findings) {
		change := f.Change()
		if change == nil {
			continue
		}
		f.Seen = seenOf(seen, change)
		gone := change.Removed() && !change.Implied && (f.Kind == schema.Field || f.Kind == schema.Method)
		if len(f.Seen) == 0 || !gone || used[f.Element] {
			continue
		}
		used[f.Element] = true
		last := f.Seen[0]
		still := *f.Finding
		still.Rule, still.Level, still.Attr, still.Old, still.New, still.Buf, still.Patch = StillUsed, rules.Break, "usage", last.Caller, "", false, ""
		still.Text = fmt.Sprintf("%s %s is removed, and was last used by %s %s", f.Kind, f.Element, last.Caller, ago(r.Now, last.LastSeen))
		still.Why, still.WayOut = "Somebody uses it today.", "Move the callers first: the snapshot names them."
		still.Fingerprint = rules.Fingerprint(still.Rule, still.Element, still.Attr, still.Old, still.New, still.Baseline)
		more := *f
		more.Finding, more.Hidden = &still, ""
		r.report.Findings = append(r.report.Findings, &more)
	}
	return nil
}

// merge adds what another server saw of the same caller.
func merge(list []Seen, is Seen) []Seen {
	for n := range list {
		if list[n].Caller == is.Caller && list[n].Method == is.Method {
			list[n].Count += is.Count
			if is.LastSeen.After(list[n].LastSeen) {
				list[n].LastSeen = is.LastSeen
			}
			return list
		}
	}
	return append(list, is)
}

// seenOf returns who used an element or anything in it, the latest first.
func seenOf(seen map[string][]Seen, change *schema.Change) []Seen {
	e := change.Before
	if e == nil {
		return nil
	}
	var found []Seen
	e.Walk(func(inside *schema.Element) {
		for _, is := range seen[inside.Name] {
			found = merge(found, is)
		}
	})
	slices.SortFunc(found, func(a, b Seen) int { return b.LastSeen.Compare(a.LastSeen) })
	return found
}

// ago says how long something is past, as people do.
func ago(now, then time.Time) string {
	switch d := now.Sub(then); {
	case d < time.Minute:
		return "just now"
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	default:
		return fmt.Sprintf("%d days ago", int(d.Hours()/24))
	}
}
