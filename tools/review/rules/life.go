package rules

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/concordat-dev/concordat/tools/review/schema"
)

// EnumValueAdded is the rule of which only the consumers can say how much it weighs: a switch without a default breaks.
const EnumValueAdded = "ENUM_VALUE_ADDED"

var lifeRules = []*Rule{
	{ID: "FIELD_NOT_RESERVED", Level: Care, Axes: Axes{Risk, Risk, Safe, Risk}, Purpose: "a field was deleted and its number or its name is free",
		Why: "Somebody will use it for something else, and old bytes will be read as that.", WayOut: "Reserve the number and the name.", check: notReserved(schema.Field)},
	{ID: "ENUM_VALUE_NOT_RESERVED", Level: Care, Axes: Axes{Risk, Risk, Safe, Risk}, Purpose: "a value of an enum was deleted and its number or its name is free",
		Why: "Somebody will use it for something else, and old bytes will be read as that.", WayOut: "Reserve the number and the name.", check: notReserved(schema.EnumValue)},
	{ID: "ERROR_REASON_REMOVED", Level: Break, Axes: semantics, Purpose: "a reason of errors was removed or renamed",
		Why: "Callers decide by the reason what to do; they fall into their default.", WayOut: "Leave the reason, deprecated, even when nothing returns it any more.", check: reasonRemoved},
	{ID: "REDACT_REMOVED", Level: Security, Axes: Axes{Safe, Safe, Safe, Breaks}, Purpose: "a field is no longer kept out of logs",
		Why: "Its values appear in logs and traces.", WayOut: restoreWayOut, check: redactRemoved},
	{ID: "DEPRECATED_WITHOUT_REPLACEMENT", Level: Care, Axes: nothingElse, Purpose: "something was deprecated, and its comment does not say what to use instead",
		Why: "Nobody can move away from it.", WayOut: "Write `Deprecated: use <name> instead.` in its comment; `Deprecated: nothing replaces it.` is an answer.",
		check: deprecated(func(comment string) bool { return replacement.MatchString(comment) }, "is deprecated, and its comment names nothing to use instead",
			"// Deprecated: use <name> instead. Sunset: <yyyy-mm-dd>.")},
	{ID: "DEPRECATED_WITHOUT_SUNSET", Level: Care, Axes: nothingElse, Purpose: "something was deprecated, and its comment does not say until when it stays",
		Why: "Nobody knows by when to move, and nobody dares to remove it.", WayOut: "Write `Sunset: 2027-06-30.` in its comment: until then it stays.",
		check: deprecated(func(comment string) bool { _, ok := sunset(comment); return ok }, "is deprecated, and its comment names no sunset",
			"// Deprecated: use <name> instead. Sunset: <yyyy-mm-dd>.")},
	{ID: "SUNSET_NOT_REACHED", Level: Break, Axes: everywhere, Purpose: "something was removed before the sunset that its comment promised",
		Why: "Its users were told that they had until then.", WayOut: "Wait for the sunset.", check: beforeSunset},
	{ID: "SUNSET_MOVED_FORWARD", Level: Break, Axes: semantics, Purpose: "a sunset comes sooner than was promised, or the promise is gone",
		Why: "Its users were told that they had longer.", WayOut: "Leave the date, or move it back.", check: sunsetSooner},
	{ID: EnumValueAdded, Level: Note, Axes: Axes{Safe, Risk, Safe, Risk}, Purpose: "an enum has one more value",
		Why: "Readers meet a value that they do not know: a switch without a default does nothing, or the wrong thing, and in JSON its name is refused or dropped.", WayOut: "Give every switch over it a default before anything sends the new value.", check: valueAdded},
	{ID: "ENUM_ZERO_CHANGED", Level: Break, Axes: Axes{Safe, Breaks, Breaks, Breaks}, Purpose: "the first value of an enum, which absence means, is another one",
		Why: "Every message in which the field is not set means something else.", WayOut: restoreWayOut, check: zeroChanged},
}

var (
	replacement = regexp.MustCompile(`(?is)deprecated:?.*?\b(use|see|replaced by|nothing replaces|instead|in favou?r of|superseded by)\b`)
	sunsetDate  = regexp.MustCompile(`(?i)\bsunset:?\s+(?:on\s+)?(\d{4}-\d{2}-\d{2})\b`)
)

// sunset reads until when a deprecated element stays.
func sunset(comment string) (time.Time, bool) {
	found := sunsetDate.FindStringSubmatch(comment)
	if found == nil {
		return time.Time{}, false
	}
	at, err := time.Parse(time.DateOnly, found[1])
	return at, err == nil
}

// Sunset returns the day until which an element stays, from its comment or that of what it lies in.
func Sunset(e *schema.Element) (time.Time, bool) {
	for ; e != nil; e = e.Parent {
		if at, ok := sunset(e.Comment); ok && e.Attr("deprecated") == "true" {
			return at, true
		}
	}
	return time.Time{}, false
}

func notReserved(kind schema.Kind) func(*Comparison, *schema.Change) []hit {
	return func(c *Comparison, change *schema.Change) []hit {
		e := change.Element()
		if e.Kind != kind || !change.Removed() || change.Implied {
			return nil
		}
		holder := c.After.Find(e.Parent.Name)
		if holder == nil || kind == schema.EnumValue && aliasStays(c, e) {
			return nil
		}
		axes := Axes{Safe, Safe, Safe, Risk} // a number is what the wire knows, a name is what JSON knows
		number, name := free(holder, e)
		var both []string
		if number {
			both, axes.Wire = append(both, fmt.Sprint(e.Number)), Risk
		}
		if name {
			both, axes.JSON = append(both, reservedName(e)), Risk
		}
		if len(both) == 0 {
			return nil
		}
		return []hit{{attr: "reserved", axes: &axes, new: strings.Trim(holder.Attr("reserved")+"; "+holder.Attr("reserved_names"), "; "), text: "is gone, and " + strings.Join(both, " and ") + " can be used again",
			patch: fmt.Sprintf("  // in %s %s\n+ reserved %s;", holder.Kind, holder.Short(), strings.Join(both, ";\n+ reserved "))}}
	}
}

// errorReasons matches the enums whose values are reasons of errors (AIP-193).
var errorReasons = regexp.MustCompile(`(^|\.)[A-Za-z]*ErrorReason$`)

func reasonRemoved(_ *Comparison, change *schema.Change) []hit {
	e := change.Element()
	if e.Kind != schema.EnumValue || change.Added() || !errorReasons.MatchString(e.Parent.Name) {
		return nil
	}
	if change.Removed() {
		return []hit{{old: e.Short(), text: "was removed: callers that look for it never see it again"}}
	}
	if a, ok := change.Attr("name"); ok {
		return []hit{{attr: "name", old: a.Old, new: a.New, text: "was renamed: callers that look for it never see it again"}}
	}
	return nil
}

func redactRemoved(_ *Comparison, change *schema.Change) []hit {
	if a, ok := change.Attr("debug_redact"); ok && a.Old == "true" {
		return []hit{{attr: a.Name, old: a.Old, new: a.New, text: "is no longer redacted", patch: "+ [debug_redact = true]"}}
	}
	return nil
}

// deprecated makes a check of what newly is deprecated.
func deprecated(said func(comment string) bool, text, patch string) func(*Comparison, *schema.Change) []hit {
	return func(_ *Comparison, change *schema.Change) []hit {
		if change.Removed() || change.After.Attr("deprecated") != "true" || change.Before.Attr("deprecated") == "true" {
			return nil
		}
		if said(change.After.Comment) {
			return nil
		}
		return []hit{{attr: "deprecated", new: "true", text: text, patch: "+ " + patch}}
	}
}

func beforeSunset(c *Comparison, change *schema.Change) []hit {
	if !change.Removed() || change.Implied {
		return nil
	}
	at, ok := Sunset(change.Before)
	if !ok || c.Now.After(at) {
		return nil
	}
	return []hit{{attr: "sunset", old: at.Format(time.DateOnly), text: "was removed before its sunset on " + at.Format(time.DateOnly)}}
}

func sunsetSooner(_ *Comparison, change *schema.Change) []hit {
	if change.Added() || change.Removed() || change.After.Attr("deprecated") != "true" {
		return nil
	}
	was, had := sunset(change.Before.Comment)
	is, has := sunset(change.After.Comment)
	if !had || has && !is.Before(was) {
		return nil
	}
	now := ""
	if has {
		now = is.Format(time.DateOnly)
	}
	return []hit{{attr: "sunset", old: was.Format(time.DateOnly), new: now, text: fmt.Sprintf("has its sunset on %s, and had it on %s", quoted(now), was.Format(time.DateOnly))}}
}

func valueAdded(c *Comparison, change *schema.Change) []hit {
	e := change.Element()
	if e.Kind != schema.EnumValue || !change.Added() || change.Implied || e.Attr("deprecated") == "true" {
		return nil
	}
	return []hit{{new: e.Summary(), text: "was added"}}
}

func zeroChanged(_ *Comparison, change *schema.Change) []hit {
	e := change.Element()
	if e.Kind != schema.EnumValue || change.Added() || change.Implied || e.Number != 0 {
		return nil
	}
	if change.Removed() {
		return []hit{{old: e.Short(), text: "was the value that absence means, and is gone"}}
	}
	if a, ok := change.Attr("name"); ok {
		return []hit{{attr: "name", old: a.Old, new: a.New, text: "is what absence means, and has another name"}}
	}
	return nil
}
