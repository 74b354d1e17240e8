// Package rules says what a change of a contract means. A rule is data: what it finds, why that matters, the way out,
// and a check over one change. Rules with the name of a rule of buf find what buf finds, with more to say about it; the
// others find what buf does not look for: who may call, what is valid, where a method is reached, what is kept out of
// logs.
package rules

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/concordat-dev/concordat/tools/review/schema"
)

// Level is how much a finding weighs. Everything but a Note fails the review until it is mended or approved.
type Level string

// The levels.
const (
	// Break: somebody who relies on the baseline stops working, or may.
	Break Level = "break"
	// Security: somebody may do or see what they could not.
	Security Level = "security"
	// Care: nothing breaks today, but what a later change needs in order not to break is missing.
	Care Level = "care"
	// Note: worth knowing.
	Note Level = "note"
)

// A Verdict is what a change does along one axis.
type Verdict string

// The verdicts.
const (
	Safe Verdict = "safe"
	// Risk: it depends on what is sent, or on who reads it.
	Risk Verdict = "risk"
	// Breaks: what worked stops working.
	Breaks Verdict = "breaks"
)

// Axes are the verdicts on one change.
type Axes struct {
	// Wire: a peer with the old schema and one with the new exchange binary messages.
	Wire Verdict `json:"wire"`
	// JSON: the same in JSON, and over REST.
	JSON Verdict `json:"json"`
	// Source: Go code that compiles with the old generated code compiles with the new.
	Source Verdict `json:"source"`
	// Semantics: what both understand means the same.
	Semantics Verdict `json:"semantics"`
}

// A Rule finds one kind of change.
type Rule struct {
	// ID names the rule. It never changes: approvals name it.
	ID string
	// Buf is set where buf has a rule of this name; then buf.yaml says whether it counts.
	Buf bool
	// Level is how much a hit weighs, unless the hit says otherwise.
	Level Level
	// Axes are the verdicts on a hit, unless the hit says otherwise.
	Axes Axes
	// Purpose says what the rule finds, Why why that matters, and WayOut how to do what is wanted without the break.
	Purpose, Why, WayOut string

	check func(*Comparison, *schema.Change) []hit
}

// A hit is one thing that a rule found in one change.
type hit struct {
	attr, old, new string
	// text says what happened, as the end of a sentence that begins with the element.
	text  string
	axes  *Axes
	level Level
	// patch are lines of a patch that takes the way out.
	patch string
	// why and wayOut are said in place of those of the rule.
	why, wayOut string
}

// A Finding is a hit of a rule, with all that a reader needs.
type Finding struct {
	// Rule is the id of the rule.
	Rule  string      `json:"rule"`
	Level Level       `json:"level"`
	Kind  schema.Kind `json:"kind"`
	// Element is the full name of the element: in the baseline, or now where it was added.
	Element string `json:"element"`
	// Package is the protobuf package of the element.
	Package string `json:"package"`
	// Attr is what changed of it; empty where it came or went.
	Attr string `json:"attr,omitempty"`
	// Old and New are the shapes before and after: of the attribute where there is one. Empty means not there.
	Old string `json:"old,omitempty"`
	New string `json:"new,omitempty"`
	// Text says in one sentence what happened.
	Text   string `json:"text"`
	Axes   Axes   `json:"axes"`
	Why    string `json:"why"`
	WayOut string `json:"way_out"`
	Patch  string `json:"patch,omitempty"`
	// At is where the change stands now; where the element is gone, where what it lay in stands.
	At schema.Position `json:"-"`
	// Methods are the methods that carry the element.
	Methods []string `json:"methods,omitempty"`
	// Baseline is the digest of the element in the baseline that the change starts from.
	Baseline string `json:"baseline_digest"`
	// Fingerprint names this change of this element of this baseline: an approval of it approves nothing else.
	Fingerprint string `json:"fingerprint"`
	// Buf is set where buf has a rule of this name.
	Buf bool `json:"buf"`
	// Implied is the fingerprint of the finding that includes this one, as that of a deleted message includes those of
	// the messages inside.
	Implied string `json:"implied_by,omitempty"`

	change *schema.Change
	// within are the fingerprints of all findings that include this one, the outermost first.
	within []string
	// anchor is the element that At is the position of; nil where nothing of it is left but the baseline.
	anchor *schema.Element
}

// Change returns the change that the finding is about; nil for one that is not about a change of the schema.
func (f *Finding) Change() *schema.Change { return f.change }

// Within returns the fingerprints of the findings that include this one, the outermost first: that the file is gone,
// that the message in it is gone. Implied is the first of them.
func (f *Finding) Within() []string { return f.within }

// Fingerprint returns the fingerprint of a finding: of the rule, the element, what changed and the digest of the element
// in the baseline.
func Fingerprint(rule, element, attr, old, new, baseline string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %q %q", rule, element, attr, old, new, baseline))
	return hex.EncodeToString(sum[:8])
}

// A Comparison is what rules may look at beside the change itself.
type Comparison struct {
	Before, After *schema.Image
	// Now decides whether a sunset was reached.
	Now time.Time

	was, is *schema.Reach
}

// Check returns what all rules find in the changes between two images, in the order of the changes.
func Check(before, after *schema.Image, changes []schema.Change, now time.Time) []*Finding {
	c := &Comparison{Before: before, After: after, Now: now, was: before.Reach(), is: after.Reach()}
	var findings []*Finding
	gone := map[*schema.Element]*Finding{}
	for n := range changes {
		change := &changes[n]
		for _, rule := range All() {
			for _, hit := range rule.check(c, change) {
				f := c.finding(rule, change, hit)
				if change.Removed() {
					if f.within = within(change.Before, gone); len(f.within) > 0 {
						f.Implied = f.within[0]
					}
					if gone[change.Before] == nil {
						gone[change.Before] = f
					}
				}
				findings = append(findings, f)
			}
		}
	}
	return findings
}

// within returns the fingerprints of the findings that what an element lies in is gone, the outermost first.
func within(e *schema.Element, gone map[*schema.Element]*Finding) []string {
	var all []string
	for outer := e.Parent; outer != nil; outer = outer.Parent {
		if f := gone[outer]; f != nil {
			all = append(all, f.Fingerprint)
		}
	}
	for file, f := range gone {
		if e.Kind != schema.File && file.Kind == schema.File && file.Name == e.At.Path {
			all = append(all, f.Fingerprint)
		}
	}
	slices.Reverse(all)
	return all
}

func (c *Comparison) finding(rule *Rule, change *schema.Change, hit hit) *Finding {
	// An approval names the element by the name that the baseline gives it; what is new has none there.
	named, base := change.Before, change.Before
	if named == nil {
		named, base = change.After, change.After.Parent
	}
	f := &Finding{
		Rule: rule.ID, Level: rule.Level, Kind: named.Kind, Element: named.Name, Package: named.Package,
		Attr: hit.attr, Old: hit.old, New: hit.new, Axes: rule.Axes,
		Text: fmt.Sprintf("%s %s %s", named.Kind, named.Name, hit.text),
		Why:  rule.Why, WayOut: rule.WayOut, Patch: hit.patch, Buf: rule.Buf,
		At: schema.Position{Path: change.Element().At.Path}, Methods: c.methods(change), change: change, anchor: c.anchor(change),
	}
	if f.anchor != nil {
		f.At = f.anchor.At
	}
	if hit.axes != nil {
		f.Axes = *hit.axes
	}
	if hit.level != "" {
		f.Level = hit.level
	}
	f.Why, f.WayOut = cmp.Or(hit.why, f.Why), cmp.Or(hit.wayOut, f.WayOut)
	switch {
	case change.Before != nil:
		f.Baseline = change.Before.Digest()
	case base != nil && c.Before.Find(base.Name) != nil:
		f.Baseline = c.Before.Find(base.Name).Digest()
	}
	f.Fingerprint = Fingerprint(f.Rule, f.Element, f.Attr, f.Old, f.New, f.Baseline)
	return f
}

// anchor returns what shows the place of a change in the new sources: the element, or the nearest thing around it
// that is still there; nil where nothing is.
func (c *Comparison) anchor(change *schema.Change) *schema.Element {
	if change.After != nil {
		return change.After
	}
	for outer := change.Before.Parent; outer != nil; outer = outer.Parent {
		if now := c.After.Find(outer.Name); now != nil {
			return now
		}
	}
	return nil
}

// A side is what one image says of a changed element.
type side struct {
	reach *schema.Reach
	// elements are the element itself; of an extension, everything of which something is said with it, where there is
	// such.
	elements []*schema.Element
}

// sides returns the element in the images that have it.
func (c *Comparison) sides(change *schema.Change) []side {
	var list []side
	for _, s := range []struct {
		image   *schema.Image
		reach   *schema.Reach
		element *schema.Element
	}{{c.Before, c.was, change.Before}, {c.After, c.is, change.After}} {
		if s.element != nil {
			list = append(list, side{s.reach, subjects(s.image, s.element)})
		}
	}
	return list
}

// subjects returns what is changed by a change of an element: for an option, as a predefined rule of protovalidate is
// one, whatever has it set.
func subjects(image *schema.Image, e *schema.Element) []*schema.Element {
	if e.Kind != schema.Extension {
		return []*schema.Element{e}
	}
	var users []*schema.Element
	image.Walk(func(user *schema.Element) {
		if slices.ContainsFunc(user.Shape, func(a schema.Attr) bool { return strings.Contains(a.Name, "("+e.Name+")") }) {
			users = append(users, user)
		}
	})
	if len(users) == 0 {
		return []*schema.Element{e}
	}
	return users
}

// methods returns the methods that carry an element, or have it set as an option.
func (c *Comparison) methods(change *schema.Change) []string {
	var all []string
	for _, s := range c.sides(change) {
		for _, e := range s.elements {
			all = append(all, s.reach.Methods(e)...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// requested tells whether an element travels in a request; what no method carries may travel anywhere.
func (c *Comparison) requested(change *schema.Change) bool {
	return c.travels(change, (*schema.Reach).Requests)
}

// answered tells whether an element travels in a response; what no method carries may travel anywhere.
func (c *Comparison) answered(change *schema.Change) bool {
	return c.travels(change, (*schema.Reach).Responses)
}

func (c *Comparison) travels(change *schema.Change, where func(*schema.Reach, *schema.Element) []string) bool {
	for _, s := range c.sides(change) {
		if slices.ContainsFunc(s.elements, func(e *schema.Element) bool { return len(where(s.reach, e)) > 0 }) {
			return true
		}
	}
	return len(c.methods(change)) == 0
}

// Find returns the rule with an id.
func Find(id string) (*Rule, bool) {
	n := slices.IndexFunc(All(), func(r *Rule) bool { return r.ID == id })
	if n < 0 {
		return nil, false
	}
	return All()[n], true
}

// All returns every rule: those of buf first, in the order in which they are documented.
func All() []*Rule {
	return slices.Concat(bufRules, policyRules, validateRules, routeRules, placeRules, lifeRules)
}

// quoted writes a value that may be empty.
func quoted(value string) string {
	if value == "" {
		return "nothing"
	}
	return "`" + strings.ReplaceAll(value, "`", "'") + "`"
}
