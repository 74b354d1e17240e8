package rules

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/concordat-dev/concordat/tools/review/schema"
)

// The options in which protovalidate keeps its rules (https://protovalidate.com).
var validateOptions = []string{"(buf.validate.field)", "(buf.validate.message)", "(buf.validate.oneof)"}

var validateRules = []*Rule{
	{ID: "VALIDATE_REQUIRED_ADDED", Level: Break, Axes: semantics, Purpose: "what a request may leave out is now required",
		Why: "Requests without it, which were fine, are refused with INVALID_ARGUMENT.", WayOut: "Take the absence as a default for two releases, look at the usage snapshot, then require it.",
		check: constraint(func(c *Comparison, ch *schema.Change, a schema.AttrChange) bool {
			return strings.HasSuffix(a.Name, ".required") && a.New == "true" && c.requested(ch)
		}, "is now required")},
	{ID: "VALIDATE_REQUEST_TIGHTENED", Level: Break, Axes: semantics, Purpose: "a rule on what callers send is stricter",
		Why: "Requests that were fine are refused with INVALID_ARGUMENT.", WayOut: "Warn first: count what the stricter rule would refuse, tell the callers, then tighten; or put it in the next version.",
		check: constraint(func(c *Comparison, ch *schema.Change, a schema.AttrChange) bool {
			return c.requested(ch) && !strings.HasSuffix(a.Name, ".required") && direction(a) == tightened
		}, "is valid in fewer cases")},
	{ID: "VALIDATE_RESPONSE_LOOSENED", Level: Break, Axes: semantics, Purpose: "a rule on what callers receive is weaker",
		Why: "Callers get values that they were promised never to see: a longer string than their column, an empty id.", WayOut: "Put the wider values in a field beside it.",
		check: constraint(func(c *Comparison, ch *schema.Change, a schema.AttrChange) bool {
			return c.answered(ch) && direction(a) == loosened
		}, "may be returned with values that it never had")},
	{ID: "VALIDATE_CEL_CHANGED", Level: Break, Axes: careful, Purpose: "a CEL expression or a pattern changed, or another rule in a way that cannot be judged",
		Why: "Nobody can tell from the texts whether it refuses more, or less.", WayOut: "Say in the approval which values are judged differently, with a test of each.",
		check: constraint(func(_ *Comparison, _ *schema.Change, a schema.AttrChange) bool {
			return direction(a) == unclear
		}, "is checked differently")},
}

// constraint makes a check over the protovalidate rules of what is there before and after.
func constraint(found func(*Comparison, *schema.Change, schema.AttrChange) bool, text string) func(*Comparison, *schema.Change) []hit {
	return func(c *Comparison, change *schema.Change) []hit {
		var hits []hit
		for _, a := range change.Attrs {
			if rule, ok := validateRule(a.Name); ok && found(c, change, a) {
				hits = append(hits, hit{attr: a.Name, old: a.Old, new: a.New, text: fmt.Sprintf("%s: %s is %s and was %s", text, rule, quoted(a.New), quoted(a.Old))})
			}
		}
		return hits
	}
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

type way int

const (
	same way = iota
	tightened
	loosened
	unclear
)

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
	case "gt", "gte", "min_len", "min_bytes", "min_items", "min_pairs", "after":
		return bound(a, came, went, 1)
	case "lt", "lte", "max_len", "max_bytes", "max_items", "max_pairs", "within", "before":
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
	old, oldOK := number(a.Old)
	now, nowOK := number(a.New)
	switch {
	case !oldOK || !nowOK:
		return unclear
	case (now > old) == (up > 0):
		return tightened
	default:
		return loosened
	}
}

// number reads a limit: a number, a duration or a time.
func number(text string) (float64, bool) {
	if n, err := strconv.ParseFloat(text, 64); err == nil {
		return n, true
	}
	if d, err := time.ParseDuration(text); err == nil {
		return float64(d), true
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return float64(t.UnixNano()), true
	}
	return 0, false
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
