package rules

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/concordat-dev/concordat/tools/review/schema"
)

// encodings are the groups of types of which one may be read as another: the bytes are the same, but values that do not
// fit are cut (https://protobuf.dev/programming-guides/proto3/#updating).
var encodings = [][]string{
	{"int32", "uint32", "int64", "uint64", "bool", "enum"},
	{"sint32", "sint64"},
	{"fixed32", "sfixed32"},
	{"fixed64", "sfixed64"},
	{"string", "bytes"},
}

// sameJSON are the groups of types that are the same in JSON, and inJSON those that look the same and have other ranges:
// 64-bit numbers are strings there (ProtoJSON).
var sameJSON = [][]string{{"int32", "sint32", "sfixed32"}, {"uint32", "fixed32"}, {"int64", "sint64", "sfixed64"}, {"uint64", "fixed64"}}
var inJSON = [][]string{
	{"int32", "uint32", "sint32", "fixed32", "sfixed32", "float", "double"},
	{"int64", "uint64", "sint64", "fixed64", "sfixed64"},
	{"string"}, {"bytes"}, {"bool"}, {"enum"},
}

// shared tells whether two types are in one group.
func shared(groups [][]string, a, b string) bool {
	for _, group := range groups {
		has := func(t string) bool {
			for _, member := range group {
				if member == t {
					return true
				}
			}
			return false
		}
		if has(a) && has(b) {
			return true
		}
	}
	return false
}

// family is the type of a field as far as encodings tell types apart.
func family(image *schema.Image, typeName string) string {
	if e := image.Find(typeName); e != nil {
		if e.Kind == schema.Enum {
			return "enum"
		}
		return "message " + typeName
	}
	return typeName
}

func typeChanged(c *Comparison, change *schema.Change) []hit {
	kind := change.Element().Kind
	a, ok := change.Attr("type")
	if !ok || kind != schema.Field && kind != schema.Extension {
		return nil
	}
	old, now := family(c.Before, a.Old), family(c.After, a.New)
	axes := Axes{Breaks, Breaks, Breaks, Breaks}
	switch {
	case old == now: // two enums
		axes = Axes{Risk, Risk, Breaks, Risk}
	case shared(encodings, old, now):
		axes.Wire, axes.Semantics = Risk, Risk
	}
	switch {
	case shared(sameJSON, old, now):
		axes.JSON = Safe
	case shared(inJSON, old, now):
		axes.JSON = Risk
	}
	text := fmt.Sprintf("changed its type from %s to %s", a.Old, a.New)
	if axes.Wire == Risk {
		text += ": the bytes can be read, but what does not fit is cut"
	}
	return []hit{{attr: "type", old: a.Old, new: a.New, axes: &axes, text: text}}
}

func cardinalityChanged(_ *Comparison, change *schema.Change) []hit {
	kind := change.Element().Kind
	if change.Added() || change.Removed() || kind != schema.Field && kind != schema.Extension {
		return nil
	}
	label, labelled := change.Attr("label")
	_, presence := change.Attr("presence")
	_, oneof := change.Attr("oneof")
	if !labelled && (!presence || oneof) {
		return nil
	}
	if !labelled {
		label = schema.AttrChange{Old: change.Before.Attr("label"), New: change.After.Attr("label")}
	}
	many := func(l string) bool { return l == "repeated" || l == "map" }
	axes := Axes{Breaks, Breaks, Breaks, Breaks}
	switch {
	case many(label.Old) != many(label.New):
		// Numbers are packed when repeated, which a singular reader takes for an unknown field.
		if change.Before.Attr("packed") == "" && change.After.Attr("packed") == "" && label.Old != "map" && label.New != "map" {
			axes.Wire = Risk
		}
	case label.Old == "map" || label.New == "map":
		axes.Wire = Risk
	case label.Old == "required" || label.New == "required":
		axes = Axes{Breaks, Breaks, Safe, Breaks}
	default:
		axes = Axes{Safe, Safe, Breaks, Risk}
	}
	name := func(e *schema.Element) string {
		switch l := e.Attr("label"); {
		case l != "":
			return l
		case e.Attr("presence") == "":
			return "singular without presence"
		default:
			return "singular with presence"
		}
	}
	was, is := name(change.Before), name(change.After)
	return []hit{{attr: "label", old: was, new: is, axes: &axes, text: fmt.Sprintf("is now %s and was %s", is, was)}}
}

// A span is a range of numbers, both ends included.
type span struct{ first, last int64 }

func spans(list string) []span {
	var result []span
	for _, part := range items(list) {
		from, to, ranged := strings.Cut(part, " to ")
		first, _ := strconv.ParseInt(from, 10, 64)
		last := first
		if ranged {
			last, _ = strconv.ParseInt(to, 10, 64)
		}
		result = append(result, span{first, last})
	}
	return result
}

// missing returns the parts of old that now does not cover, as ranges.
func missing(old, now []span) []span {
	left := old
	for _, cover := range now {
		var rest []span
		for _, s := range left {
			if cover.last < s.first || cover.first > s.last {
				rest = append(rest, s)
				continue
			}
			if s.first < cover.first {
				rest = append(rest, span{s.first, cover.first - 1})
			}
			if s.last > cover.last {
				rest = append(rest, span{cover.last + 1, s.last})
			}
		}
		left = rest
	}
	return left
}

func rangesFreed(kind schema.Kind, name string) func(*Comparison, *schema.Change) []hit {
	return func(_ *Comparison, change *schema.Change) []hit {
		a, ok := change.Attr(name)
		if !ok || change.Element().Kind != kind || len(missing(spans(a.Old), spans(a.New))) == 0 {
			return nil
		}
		return []hit{{attr: name, old: a.Old, new: a.New, text: fmt.Sprintf("changed %s from %s to %s", name, quoted(a.Old), quoted(a.New))}}
	}
}

func reservedFreed(kind schema.Kind) func(*Comparison, *schema.Change) []hit {
	numbers := rangesFreed(kind, "reserved")
	return func(c *Comparison, change *schema.Change) []hit {
		hits := numbers(c, change)
		if a, ok := change.Attr("reserved_names"); ok && change.Element().Kind == kind {
			if lost := without(items(a.Old), items(a.New)); len(lost) > 0 {
				hits = append(hits, hit{attr: a.Name, old: a.Old, new: a.New, text: "no longer reserves the name " + strings.Join(lost, ", ")})
			}
		}
		return hits
	}
}

// items splits a list as schema writes it.
func items(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ", ")
}

// without returns the items of list that are not in other.
func without(list, other []string) []string {
	var result []string
	for _, item := range list {
		found := false
		for _, o := range other {
			found = found || o == item
		}
		if !found {
			result = append(result, item)
		}
	}
	return result
}
