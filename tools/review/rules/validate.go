package rules

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/concordat-dev/concordat/tools/review/schema"
)

// The options in which protovalidate keeps its rules (https://protovalidate.com).
var validateOptions = []string{"(buf.validate.field)", "(buf.validate.message)", "(buf.validate.oneof)", "(buf.validate.predefined)"}

var validateRules = []*Rule{
	{ID: "VALIDATE_REQUIRED_ADDED", Level: Break, Axes: semantics, Purpose: "what a request may leave out is now required",
		Why: "Requests without it, which were fine, are refused with INVALID_ARGUMENT.", WayOut: "Take the absence as a default for two releases, look at the usage snapshot, then require it.",
		check: both(constraint(func(c *Comparison, ch *schema.Change, j judgement) bool {
			return strings.HasSuffix(j.Name, ".required") && j.New == "true" && c.requested(ch)
		}, "is now required"), addedRequired)},
	{ID: "VALIDATE_REQUEST_TIGHTENED", Level: Break, Axes: semantics, Purpose: "a rule on what callers send is stricter",
		Why: "Requests that were fine are refused with INVALID_ARGUMENT.", WayOut: "Warn first: count what the stricter rule would refuse, tell the callers, then tighten; or put it in the next version.",
		check: constraint(func(c *Comparison, ch *schema.Change, j judgement) bool {
			return j.way&tightened != 0 && !strings.HasSuffix(j.Name, ".required") && c.requested(ch)
		}, "is valid in fewer cases")},
	{ID: "VALIDATE_RESPONSE_LOOSENED", Level: Break, Axes: semantics, Purpose: "a rule on what callers receive is weaker",
		Why: "Callers get values that they were promised never to see: a longer string than their column, an empty id.", WayOut: "Put the wider values in a field beside it.",
		check: constraint(func(c *Comparison, ch *schema.Change, j judgement) bool {
			return j.way&loosened != 0 && c.answered(ch)
		}, "may be returned with values that it never had")},
	{ID: "VALIDATE_CEL_CHANGED", Level: Break, Axes: careful, Purpose: "a CEL expression or a pattern changed, or another rule in a way that cannot be judged",
		Why: "Nobody can tell from the texts whether it refuses more, or less.", WayOut: "Say in the approval which values are judged differently, with a test of each.",
		check: both(constraint(func(_ *Comparison, _ *schema.Change, j judgement) bool {
			return j.way == unclear
		}, "is checked differently"), addedUnclear)},
}

// constraint makes a check over the protovalidate rules of what is there before and after.
func constraint(found func(*Comparison, *schema.Change, judgement) bool, text string) func(*Comparison, *schema.Change) []hit {
	return func(c *Comparison, change *schema.Change) []hit {
		var hits []hit
		for _, j := range judgements(change) {
			if found(c, change, j) {
				rule, _ := validateRule(j.Name)
				hits = append(hits, hit{attr: j.Name, old: j.Old, new: j.New, text: fmt.Sprintf("%s: %s is %s and was %s", text, rule, quoted(j.New), quoted(j.Old))})
			}
		}
		return hits
	}
}

// both makes one check of two.
func both(one, other func(*Comparison, *schema.Change) []hit) func(*Comparison, *schema.Change) []hit {
	return func(c *Comparison, change *schema.Change) []hit { return append(one(c, change), other(c, change)...) }
}

// validateRule returns the path of a rule below the option that holds it.
func validateRule(attr string) (string, bool) {
	for _, option := range validateOptions {
		if rule, ok := strings.CutPrefix(attr, option); ok {
			return strings.TrimPrefix(rule, "."), true
		}
	}
	return "", false
}

// A way is what a changed rule does to what was valid, and to what was not.
type way int

const (
	same way = 0
	// tightened: something that was valid no longer is.
	tightened way = 1 << iota
	// loosened: something is valid that was not.
	loosened
	// unclear: only running both would tell.
	unclear
)

// A judgement is what became of one rule, or of the limits that one value has.
type judgement struct {
	schema.AttrChange
	way way
}

// judgements returns what became of the protovalidate rules of an element that is there before and after.
func judgements(change *schema.Change) []judgement {
	var list []judgement
	var limited []string // the paths below which limits were judged together
	for _, a := range change.Attrs {
		if _, ok := validateRule(a.Name); !ok {
			continue
		}
		path, isLimit := limitOf(a.Name)
		switch {
		case !isLimit:
			list = append(list, judgement{a, direction(a)})
		case !slices.Contains(limited, path):
			limited = append(limited, path)
			list = append(list, limitsChanged(change, path))
		}
	}
	return list
}

// cel matches what is text for a machine: only running it would tell.
var cel = regexp.MustCompile(`(^|\.)cel(_expression)?(\[|\.|$)|\.pattern$|\.ignore$|\.well_known_regex$|\.example$|\(unknown\)`)

// direction tells whether a changed rule refuses more or less than before.
func direction(a schema.AttrChange) way {
	rule, _ := validateRule(a.Name)
	last := rule[strings.LastIndexByte(rule, '.')+1:]
	came, went := a.Old == "", a.New == ""
	switch {
	case last == "message" && strings.Contains(rule, "cel"), last == "example", last == "id" && strings.Contains(rule, "cel"):
		return same
	case strings.HasSuffix(rule, ".ignore") || rule == "ignore":
		return unclear
	case strings.HasSuffix(rule, ".pattern") && came || cel.MatchString(rule) && came:
		return tightened
	case cel.MatchString(rule) && went:
		return loosened
	case cel.MatchString(rule):
		return unclear
	}
	switch last {
	case "min_len", "min_bytes", "min_items", "min_pairs", "after":
		return bound(a, came, went, 1)
	case "max_len", "max_bytes", "max_items", "max_pairs", "within", "before":
		return bound(a, came, went, -1)
	case "in":
		return listed(a, came, went, tightened, loosened)
	case "not_in":
		return listed(a, came, went, loosened, tightened)
	case "required", "unique", "finite", "defined_only", "strict":
		return switched(a)
	}
	switch {
	case came:
		return tightened
	case went:
		return loosened
	case a.New == "false":
		return loosened
	case a.New == "true":
		return tightened
	default: // const, len, prefix, contains: some values are in, others out
		return unclear
	}
}

// switched judges a flag.
func switched(a schema.AttrChange) way {
	if a.New == "true" {
		return tightened
	}
	if a.Old == "true" {
		return loosened
	}
	return same
}

// bound judges a limit; up says that a higher one refuses more.
func bound(a schema.AttrChange, came, went bool, up int) way {
	switch {
	case came:
		return tightened
	case went:
		return loosened
	}
	old, now := number(a.Old), number(a.New)
	switch {
	case old == nil || now == nil:
		return unclear
	case old.Cmp(now) == 0:
		return same
	case (now.Cmp(old) > 0) == (up > 0):
		return tightened
	default:
		return loosened
	}
}

// listed judges a list of values of which fewer, or more, refuse more.
func listed(a schema.AttrChange, came, went bool, fewer, more way) way {
	lost, won := len(without(items(a.Old), items(a.New))) > 0, len(without(items(a.New), items(a.Old))) > 0
	switch {
	case came:
		return tightened
	case went:
		return loosened
	case lost && won:
		return unclear
	case lost:
		return fewer
	case won:
		return more
	default:
		return same
	}
}
