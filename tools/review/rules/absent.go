package rules

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/concordat-dev/concordat/tools/review/schema"
)

// addedRequired finds fields and oneofs that came to a message which requests carried already, and without which a
// request is refused: the callers of yesterday do not send them.
func addedRequired(c *Comparison, change *schema.Change) []hit {
	if !c.cameToRequests(change) {
		return nil
	}
	refusing, _ := absence(change.After)
	if change.After.Kind == schema.Oneof && widens(change.After, c.Before.Find(change.After.Parent.Name)) {
		return nil
	}
	return absentHits(change.After, refusing, "is new, and a request without it is refused")
}

// addedUnclear finds new fields of which only running their rules would tell whether a request may be without them.
func addedUnclear(c *Comparison, change *schema.Change) []hit {
	if !c.cameToRequests(change) {
		return nil
	}
	refusing, open := absence(change.After)
	if len(refusing) > 0 {
		return nil // that is said already
	}
	return absentHits(change.After, open, "is new, and whether a request without it is refused cannot be told (with `optional`, absence is not checked)")
}

func absentHits(e *schema.Element, rules []string, text string) []hit {
	if len(rules) == 0 {
		return nil
	}
	option := "(buf.validate.field)"
	if e.Kind == schema.Oneof {
		option = "(buf.validate.oneof)"
	}
	said := strings.Join(rules, ", ")
	return []hit{{attr: option, new: said, text: fmt.Sprintf("%s: %s", text, quoted(said))}}
}

// cameToRequests tells whether a field or a oneof is new in a message that travelled in requests before; what no method
// carried may have travelled anywhere. A field that only has another number is compared with itself.
func (c *Comparison) cameToRequests(change *schema.Change) bool {
	e := change.Element()
	if !change.Added() || change.Implied || e.Parent == nil || e.Kind != schema.Field && e.Kind != schema.Oneof {
		return false
	}
	message := c.Before.Find(e.Parent.Name)
	if message == nil || message.Kind != schema.Message || len(c.was.Requests(message)) == 0 && len(c.was.Methods(message)) > 0 {
		return false
	}
	return !slices.ContainsFunc(message.Children, func(old *schema.Element) bool {
		return e.Kind == schema.Field && old.Kind == schema.Field && old.Short() == e.Short()
	})
}

// widens tells whether a message already had to have one of the members of a oneof, so that having to have one of all of
// them refuses nothing more.
func widens(oneof, before *schema.Element) bool {
	members := func(message *schema.Element, name string) []int32 {
		var numbers []int32
		for _, e := range message.Children {
			if e.Kind == schema.Field && e.Attr("oneof") == name {
				numbers = append(numbers, e.Number)
			}
		}
		return numbers
	}
	now := members(oneof.Parent, oneof.Short())
	for _, old := range before.Children {
		if old.Kind == schema.Oneof && old.Attr("(buf.validate.oneof).required") == "true" &&
			!slices.ContainsFunc(members(before, old.Short()), func(n int32) bool { return !slices.Contains(now, n) }) {
			return true
		}
	}
	return false
}

// absence returns the protovalidate rules by which a message without a field, or without any member of a oneof, is
// refused, and those of which that cannot be told. Where absence can be told from a zero, only `required` looks at it;
// where not, all rules look at the zero.
func absence(e *schema.Element) (refusing, open []string) {
	if e.Kind == schema.Oneof {
		if e.Attr("(buf.validate.oneof).required") == "true" {
			refusing = []string{"required"}
		}
		return refusing, nil
	}
	const option = "(buf.validate.field)."
	ignore := e.Attr(option + "ignore")
	if ignore == "IGNORE_ALWAYS" {
		return nil, nil
	}
	if e.Attr(option+"required") == "true" {
		return []string{"required"}, nil
	}
	if e.Attr("presence") == "true" || ignore == "IGNORE_IF_ZERO_VALUE" {
		return nil, nil
	}
	limited := map[string]bool{}
	for _, a := range e.Shape {
		rule, ok := strings.CutPrefix(a.Name, option)
		if !ok {
			continue
		}
		value := a.Value
		if path, isLimit := limitOf(a.Name); isLimit {
			if limited[path] {
				continue
			}
			limited[path] = true
			rule, value = strings.TrimPrefix(path, option), limitsText(e, path)
			l, ok := limitsOf(e, path)
			switch {
			case !ok:
				open = append(open, rule+" "+value)
			case !l.hold(point{at: number("0")}):
				refusing = append(refusing, rule+" "+value)
			}
			continue
		}
		switch refusesZero(rule, value) {
		case tightened:
			refusing = append(refusing, rule+" "+value)
		case unclear:
			open = append(open, rule+" "+value)
		}
	}
	return refusing, open
}

// acceptEmpty are the rules of strings that are flags, or named expressions, and that hold for an empty one.
var acceptEmpty = []string{"uri_ref", "strict", "not_contains", "max_len", "max_bytes", "max_items", "max_pairs", "unique", "finite", "defined_only", "example", "ignore", "required"}

// refusesZero tells whether a rule refuses the zero of its type: tightened where it does, same where it does not,
// unclear where only running it would tell.
func refusesZero(rule, value string) way {
	kind, name, _ := strings.Cut(rule, ".")
	refusedIf := func(refused bool) way {
		if refused {
			return tightened
		}
		return same
	}
	zero := map[string]string{"string": "", "bytes": `""`, "bool": "false"}
	empty, known := zero[kind]
	if !known {
		empty = "0"
	}
	switch {
	case strings.HasPrefix(name, "items.") || strings.HasPrefix(name, "keys.") || strings.HasPrefix(name, "values."):
		return same // there are none
	case strings.HasPrefix(kind, "cel[") && !strings.HasSuffix(rule, ".expression"):
		return same // its id, or what it says
	case strings.HasPrefix(kind, "cel[") || kind == "cel_expression" || strings.Contains(rule, "("):
		return unclear
	case slices.Contains(acceptEmpty, name) || slices.Contains(acceptEmpty, kind):
		return same
	}
	switch name {
	case "min_len", "len", "min_bytes", "len_bytes", "min_items", "min_pairs":
		return refusedIf(value != "0")
	case "const", "prefix", "suffix", "contains":
		return refusedIf(value != empty)
	case "in":
		return refusedIf(!slices.Contains(items(value), empty))
	case "not_in":
		return refusedIf(slices.Contains(items(value), empty))
	case "pattern":
		pattern, err := regexp.Compile(value) // protovalidate's expressions are those of RE2, as Go's are
		if err != nil {
			return unclear
		}
		return refusedIf(!pattern.MatchString(""))
	case "well_known_regex":
		return refusedIf(value == "KNOWN_REGEX_HTTP_HEADER_NAME")
	}
	switch value {
	case "true": // a format, such as uuid: nothing is no value of it
		return tightened
	case "false":
		return same
	default:
		return unclear
	}
}
