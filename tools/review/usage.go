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

// A Snapshot is what a server counted of what callers really send and get: the format of the admin port's /usage
// (docs/observability.md). What a review does not need of it is left out.
type Snapshot struct {
	Version      int       `json:"version"`
	Service      string    `json:"service"`
	Since        time.Time `json:"since"`
	SampledOneIn uint32    `json:"sampled_one_in"`
	Dropped      uint64    `json:"dropped"`
	Truncated    uint64    `json:"truncated"`
	Totals       []struct {
		Caller    string    `json:"caller"`
		Method    string    `json:"method"`
		Direction string    `json:"direction"`
		Messages  uint64    `json:"messages"`
		LastSeen  time.Time `json:"last_seen"`
	} `json:"totals"`
	Entries []struct {
		Caller    string    `json:"caller"`
		Method    string    `json:"method"`
		Direction string    `json:"direction"`
		Message   string    `json:"message"`
		Field     string    `json:"field"`
		Count     uint64    `json:"count"`
		LastSeen  time.Time `json:"last_seen"`
	} `json:"entries"`
}

// Seen is a caller that used an element.
type Seen struct {
	Caller string `json:"caller"`
	Method string `json:"method"`
	// Direction is request where the caller sent it, and response where it was sent to the caller, who may or may not
	// have read it.
	Direction string    `json:"direction"`
	Count     uint64    `json:"count"`
	LastSeen  time.Time `json:"last_seen"`
}

// String says who, and how.
func (s Seen) String() string {
	if s.Direction == "response" {
		return "sent to " + s.Caller
	}
	return "used by " + s.Caller
}

// Evidence says what the snapshots are worth.
type Evidence struct {
	// Services are the servers that counted, and Since the youngest beginning of their counting: before it nothing is
	// known.
	Services []string  `json:"services"`
	Since    time.Time `json:"since"`
	// Incomplete says why what was not seen may have been used all the same; empty where nothing was left out.
	Incomplete string `json:"incomplete,omitempty"`
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
		r.weigh(s)
		element := func(method string) string { return strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", ".") }
		for _, t := range s.Totals {
			if t.Direction == "request" {
				seen[element(t.Method)] = merge(seen[element(t.Method)], Seen{t.Caller, t.Method, t.Direction, t.Messages, t.LastSeen})
			}
		}
		for _, e := range s.Entries {
			name := e.Message + "." + e.Field
			seen[name] = merge(seen[name], Seen{e.Caller, e.Method, e.Direction, e.Count, e.LastSeen})
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
		f.Seen = seenOf(seen, change.Before, func(*schema.Element) bool { return true })
		if !change.Removed() || change.Implied || used[f.Element] {
			continue
		}
		// What moved to another file is still there.
		gone := seenOf(seen, change.Before, func(e *schema.Element) bool { return r.after.Find(e.Name) == nil })
		if len(gone) == 0 {
			continue
		}
		used[f.Element] = true
		var callers []string // who they are is approved, and not who was the last of them
		for _, is := range gone {
			callers = append(callers, is.Caller)
		}
		slices.Sort(callers)
		last := gone[0]
		still := *f.Finding
		still.Rule, still.Level, still.Attr, still.Old, still.New, still.Buf, still.Patch = StillUsed, rules.Break, "usage", strings.Join(slices.Compact(callers), ", "), "", false, ""
		still.Implied = ""
		still.Text = fmt.Sprintf("%s %s is removed, and was last %s %s", f.Kind, f.Element, last, ago(r.Now, last.LastSeen))
		still.Why, still.WayOut = "Somebody uses it today.", "Move the callers first, and stop sending it: the snapshot names who and where."
		still.Fingerprint = rules.Fingerprint(still.Rule, still.Element, still.Attr, still.Old, still.New, still.Baseline)
		more := *f
		more.Finding, more.Hidden, more.Seen = &still, "", gone
		for _, file := range r.Usage {
			more.Found = append(more.Found, "--usage", file)
		}
		r.report.Findings = append(r.report.Findings, &more)
	}
	return nil
}

// weigh notes what a snapshot is worth.
func (r *run) weigh(s Snapshot) {
	if r.report.Evidence == nil {
		r.report.Evidence = &Evidence{}
	}
	e := r.report.Evidence
	e.Services = append(e.Services, s.Service)
	if s.Since.After(e.Since) {
		e.Since = s.Since
	}
	switch {
	case s.SampledOneIn == 0:
		e.Incomplete = s.Service + " counted nothing: it runs without --usage-sample"
	case s.Dropped > 0:
		e.Incomplete = fmt.Sprintf("%s had no room to count %d times", s.Service, s.Dropped)
	case s.Truncated > 0:
		e.Incomplete = fmt.Sprintf("%s did not look at %d messages to their end", s.Service, s.Truncated)
	}
}

// merge adds what another server saw of the same caller.
func merge(list []Seen, is Seen) []Seen {
	for n := range list {
		if list[n].Caller == is.Caller && list[n].Method == is.Method && list[n].Direction == is.Direction {
			list[n].Count += is.Count
			if is.LastSeen.After(list[n].LastSeen) {
				list[n].LastSeen = is.LastSeen
			}
			return list
		}
	}
	return append(list, is)
}

// seenOf returns who used an element or anything in it that counts, the latest first.
func seenOf(seen map[string][]Seen, e *schema.Element, counts func(*schema.Element) bool) []Seen {
	if e == nil {
		return nil
	}
	var found []Seen
	e.Walk(func(inside *schema.Element) {
		if counts(inside) {
			for _, is := range seen[inside.Name] {
				found = merge(found, is)
			}
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
