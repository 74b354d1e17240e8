package rules

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/concordat-dev/concordat/tools/review/schema"
)

var (
	nothingElse = Axes{Safe, Safe, Safe, Safe}
	sourceOnly  = Axes{Safe, Safe, Breaks, Safe}
	everywhere  = Axes{Breaks, Breaks, Breaks, Breaks}
)

const (
	reserveWayOut  = "Keep it, mark it deprecated with what replaces it and a sunset; remove it after the sunset, with its number and name reserved."
	besideWayOut   = "Leave it as it is and add the new one beside it; move readers and writers over in two releases, then retire the old one."
	versionWayOut  = "Leave it, and put the new shape in the next version of the package (v2 beside v1)."
	restoreWayOut  = "Put it back as it was: nothing is gained that a reader of the old schema could see."
	generatedWhy   = "Code generated from the file changes its names or its place, and what imports it no longer compiles."
	generatedWay   = "Put the option back, or do it together with the next version of the package."
	otherLanguages = "It changes the code that other languages generate; Go does not see it."
)

// bufRules find what the rules of buf's category FILE find, under the same names.
var bufRules = slices.Concat([]*Rule{
	gone("FILE_NO_DELETE", schema.File, "a file was deleted", Axes{Safe, Safe, Breaks, Safe},
		"Whoever imports the file no longer compiles, and what it declared may be gone with it.", "Leave the file, or move what is in it in the next version of the package."),
	gone("MESSAGE_NO_DELETE", schema.Message, "a message was deleted or moved to another file", everywhere,
		"Peers that still send it are not understood, and code that names it no longer compiles.", reserveWayOut),
	gone("ENUM_NO_DELETE", schema.Enum, "an enum was deleted or moved to another file", everywhere,
		"Fields of its type lose their meaning, and code that names it no longer compiles.", reserveWayOut),
	gone("SERVICE_NO_DELETE", schema.Service, "a service was deleted or moved to another file", everywhere,
		"Every call of it is answered with UNIMPLEMENTED.", "Mark the service deprecated, say what replaces it, and remove it when no caller is left."),
	gone("EXTENSION_NO_DELETE", schema.Extension, "an extension was deleted or moved to another file", everywhere,
		"What was said with it is no longer understood.", reserveWayOut),
	gone("RPC_NO_DELETE", schema.Method, "a method was deleted", everywhere,
		"Every call of it is answered with UNIMPLEMENTED.", "Mark the method deprecated, say what replaces it, and remove it when no caller is left."),
	{ID: "FIELD_NO_DELETE", Buf: true, Level: Break, Axes: everywhere, Purpose: "a field was deleted, or got another number",
		Why: "Readers that need it get nothing, what writers send in it is lost without a word, and code that names it no longer compiles.", WayOut: reserveWayOut,
		check: fieldGone},
	{ID: "ENUM_VALUE_NO_DELETE", Buf: true, Level: Break, Axes: everywhere, Purpose: "a value of an enum was deleted, or got another number",
		Why: "Peers that send it are not understood, and code that names it no longer compiles.", WayOut: reserveWayOut, check: valueGone},
	gone("ONEOF_NO_DELETE", schema.Oneof, "a oneof was deleted", Axes{Risk, Risk, Breaks, Breaks},
		"Fields of which only one was set may now be set together, and Go code that switches over it no longer compiles.", besideWayOut),

	{ID: "FIELD_SAME_TYPE", Buf: true, Level: Break, Purpose: "a field changed its type", check: typeChanged,
		Why: "What one side writes, the other reads as something else, or not at all.", WayOut: besideWayOut},
	{ID: "FIELD_SAME_CARDINALITY", Buf: true, Level: Break, Purpose: "a field changed between singular, optional, repeated, map and required",
		check: cardinalityChanged, Why: "Readers take one value for many or many for one, or see absence where a zero was sent.", WayOut: besideWayOut},
	changed("FIELD_SAME_NAME", schema.Field, "name", "a field was renamed", Axes{Safe, Breaks, Breaks, Safe},
		"JSON and REST know fields by their names, and so does Go code.", besideWayOut),
	changed("FIELD_SAME_JSON_NAME", schema.Field, "json_name", "a field changed its name in JSON", Axes{Safe, Breaks, Safe, Safe},
		"JSON and REST clients send and read the old name.", besideWayOut),
	changed("FIELD_SAME_ONEOF", schema.Field, "oneof", "a field moved into or out of a oneof", Axes{Risk, Risk, Breaks, Breaks},
		"Setting it now clears others, or no longer does; old peers set what new ones drop.", besideWayOut),
	changed("FIELD_SAME_DEFAULT", schema.Field, "default", "a field changed its default", Axes{Safe, Safe, Safe, Breaks},
		"The same bytes mean another value to each side.", "Leave the default, and send the new value explicitly."),
	changed("FIELD_SAME_JSTYPE", schema.Field, "jstype", "a field changed its type in JavaScript", nothingElse, otherLanguages, restoreWayOut),
	changed("FIELD_SAME_CPP_STRING_TYPE", schema.Field, "cpp_string_type", "a field changed its string type in C++", nothingElse, otherLanguages, restoreWayOut),
	changed("FIELD_SAME_JAVA_UTF8_VALIDATION", schema.Field, "java_utf8_validation", "a field changed how Java checks UTF-8", Axes{Risk, Safe, Safe, Risk},
		"One side refuses strings that the other sends.", restoreWayOut),
	changed("FIELD_SAME_UTF8_VALIDATION", schema.Field, "utf8_validation", "a field changed whether strings must be UTF-8", Axes{Risk, Safe, Safe, Risk},
		"One side refuses strings that the other sends.", restoreWayOut),

	{ID: "ENUM_VALUE_SAME_NAME", Buf: true, Level: Break, Axes: Axes{Safe, Breaks, Breaks, Safe}, Purpose: "a value of an enum was renamed",
		Why: "JSON and REST know values by their names, and so does Go code.", WayOut: "Add the new name with the same number (allow_alias) and retire the old one.", check: valueRenamed},
	{ID: "ENUM_SAME_TYPE", Buf: true, Level: Break, Axes: Axes{Risk, Safe, Safe, Breaks}, Purpose: "an enum became open or closed",
		Why: "A closed enum moves values that it does not know to the unknown fields; an open one keeps them.", WayOut: restoreWayOut, check: attr(schema.Enum, "closed")},
	changed("ENUM_SAME_JSON_FORMAT", schema.Enum, "json_format", "an enum changed its support of JSON", Axes{Safe, Breaks, Safe, Safe}, "JSON that was checked is no longer.", restoreWayOut),
	changed("MESSAGE_SAME_JSON_FORMAT", schema.Message, "json_format", "a message changed its support of JSON", Axes{Safe, Breaks, Safe, Safe}, "JSON that was checked is no longer.", restoreWayOut),
	{ID: "MESSAGE_NO_REMOVE_STANDARD_DESCRIPTOR_ACCESSOR", Buf: true, Level: Break, Axes: nothingElse, Purpose: "a message lost its descriptor accessor",
		Why: otherLanguages, WayOut: restoreWayOut, check: func(_ *Comparison, change *schema.Change) []hit {
			return attrBecame(change, schema.Message, "no_standard_descriptor_accessor", "true")
		}},
	{ID: "MESSAGE_SAME_REQUIRED_FIELDS", Buf: true, Level: Break, Axes: Axes{Breaks, Breaks, Safe, Breaks}, Purpose: "a required field was added or deleted",
		Why: "A reader that requires a field refuses the whole message without it.", WayOut: "Make it optional, and check for it where it is needed.", check: requiredChanged},
	{ID: "RESERVED_MESSAGE_NO_DELETE", Buf: true, Level: Break, Axes: Axes{Risk, Risk, Safe, Risk}, Purpose: "a reserved number or name of a message is free again",
		Why: "Somebody may use it for something else, and old bytes would be read as that.", WayOut: restoreWayOut, check: reservedFreed(schema.Message)},
	{ID: "RESERVED_ENUM_NO_DELETE", Buf: true, Level: Break, Axes: Axes{Risk, Risk, Safe, Risk}, Purpose: "a reserved number or name of an enum is free again",
		Why: "Somebody may use it for something else, and old bytes would be read as that.", WayOut: restoreWayOut, check: reservedFreed(schema.Enum)},
	{ID: "EXTENSION_MESSAGE_NO_DELETE", Buf: true, Level: Break, Axes: Axes{Breaks, Breaks, Breaks, Safe}, Purpose: "a message lost numbers for extensions",
		Why: "Extensions that others declared no longer compile.", WayOut: restoreWayOut, check: rangesFreed(schema.Message, "extensions")},

	{ID: "RPC_SAME_REQUEST_TYPE", Buf: true, Level: Break, Axes: Axes{Risk, Risk, Breaks, Risk}, Purpose: "a method takes another message",
		Why: "Callers send the old one, and Go code no longer compiles.", WayOut: "Add the fields to the old message, or add a method.", check: attr(schema.Method, "request")},
	{ID: "RPC_SAME_RESPONSE_TYPE", Buf: true, Level: Break, Axes: Axes{Risk, Risk, Breaks, Risk}, Purpose: "a method returns another message",
		Why: "Callers read the old one, and Go code no longer compiles.", WayOut: "Add the fields to the old message, or add a method.", check: attr(schema.Method, "response")},
	{ID: "RPC_SAME_CLIENT_STREAMING", Buf: true, Level: Break, Axes: everywhere, Purpose: "a method changed whether the client streams",
		Why: "Old callers end the call, or wait, at the wrong moment; Go code no longer compiles.", WayOut: "Add a method.", check: attr(schema.Method, "client_streaming")},
	{ID: "RPC_SAME_SERVER_STREAMING", Buf: true, Level: Break, Axes: everywhere, Purpose: "a method changed whether the server streams",
		Why: "Old callers expect one answer, or many; Go code no longer compiles.", WayOut: "Add a method.", check: attr(schema.Method, "server_streaming")},
	{ID: "RPC_SAME_IDEMPOTENCY_LEVEL", Buf: true, Level: Break, Axes: Axes{Safe, Safe, Safe, Breaks}, Purpose: "a method changed what a repetition of it does",
		Why: "Clients and proxies repeat calls, or send them by GET, because the contract said that they may.", WayOut: "Add a method with the new promise.", check: attr(schema.Method, "idempotency_level")},

	{ID: "FILE_SAME_PACKAGE", Buf: true, Level: Break, Axes: everywhere, Purpose: "a file moved to another package",
		Why: "Every full name changes: methods are called by another path, and google.protobuf.Any holds another name.", WayOut: versionWayOut, check: attr(schema.File, "package")},
	{ID: "FILE_SAME_SYNTAX", Buf: true, Level: Break, Axes: Axes{Risk, Safe, Risk, Risk}, Purpose: "a file changed its syntax or edition",
		Why: "Presence, packing, UTF-8 checks and unknown values of enums may change with it.", WayOut: restoreWayOut, check: attr(schema.File, "syntax")},
	{ID: "FILE_SAME_GO_PACKAGE", Buf: true, Level: Break, Axes: sourceOnly, Purpose: "a file changed its Go package",
		Why: generatedWhy, WayOut: generatedWay, check: attr(schema.File, "go_package")},
}, fileOptions(
	"CC_ENABLE_ARENAS", "CC_GENERIC_SERVICES", "CSHARP_NAMESPACE", "JAVA_GENERIC_SERVICES", "JAVA_MULTIPLE_FILES", "JAVA_OUTER_CLASSNAME", "JAVA_PACKAGE",
	"OBJC_CLASS_PREFIX", "OPTIMIZE_FOR", "PHP_CLASS_PREFIX", "PHP_METADATA_NAMESPACE", "PHP_NAMESPACE", "PY_GENERIC_SERVICES", "RUBY_PACKAGE", "SWIFT_PREFIX"))

// fileOptions makes the rules over options of files that only the code of other languages sees.
func fileOptions(names ...string) []*Rule {
	result := make([]*Rule, len(names))
	for n, name := range names {
		option := strings.ToLower(name)
		result[n] = changed("FILE_SAME_"+name, schema.File, option, "a file changed its option "+option, nothingElse, generatedWhy+" "+otherLanguages, generatedWay)
	}
	return result
}

// gone makes the rule that an element of a kind stays where it is.
func gone(id string, kind schema.Kind, purpose string, axes Axes, why, wayOut string) *Rule {
	return &Rule{ID: id, Buf: true, Level: Break, Axes: axes, Purpose: purpose, Why: why, WayOut: wayOut,
		check: func(c *Comparison, change *schema.Change) []hit {
			if change.Element().Kind != kind {
				return nil
			}
			if change.Removed() {
				return []hit{{old: change.Before.Summary(), new: c.scattered(change.Before), text: "was deleted"}}
			}
			if moved, ok := change.Attr("file"); ok {
				return []hit{c.moved(moved.Old, moved.New)}
			}
			return nil
		}}
}

// moved is the hit of what moved to another file.
func (c *Comparison) moved(from, to string) hit {
	h := hit{attr: "file", old: from, new: to, axes: new(nothingElse), text: fmt.Sprintf("moved from %s to %s", from, to),
		why:    "Files that import the old file for it no longer compile; the wire, JSON and Go know nothing of files.",
		wayOut: fmt.Sprintf("Leave it where it is, or have the old file hand it on: import public %q.", to)}
	if was, is := c.Before.Find(from).Attr("go_package"), c.After.Find(to).Attr("go_package"); was != is {
		h.axes.Source = Breaks
		h.why = fmt.Sprintf("Files that import the old file for it no longer compile, nor does Go code that imports it from %s: it is in %s now.", quoted(was), quoted(is))
	}
	return h
}

// scattered says what became of what stood in a file that is gone: empty where all of it is gone too. An approval of a
// file that was moved is not one of a file that was deleted.
func (c *Comparison) scattered(e *schema.Element) string {
	if e.Kind != schema.File {
		return ""
	}
	places := map[string][]string{}
	for _, child := range e.Children {
		place := ""
		if now := c.After.Find(child.Name); now != nil && now.Kind == child.Kind {
			place = now.At.Path
		}
		places[place] = append(places[place], child.Name)
	}
	var parts []string
	for _, place := range sortedKeys(places) {
		slices.Sort(places[place])
		what := strings.Join(places[place], ", ")
		if len(places) == 1 {
			what = "all"
		}
		switch {
		case place != "":
			parts = append(parts, what+" in "+place)
		case len(places) > 1:
			parts = append(parts, what+" deleted")
		}
	}
	return strings.Join(parts, "; ")
}

// changed makes the rule that one attribute of a kind of element stays.
func changed(id string, kind schema.Kind, name, purpose string, axes Axes, why, wayOut string) *Rule {
	return &Rule{ID: id, Buf: true, Level: Break, Axes: axes, Purpose: purpose, Why: why, WayOut: wayOut, check: attr(kind, name)}
}

// ofStrings are the attributes that only strings have: a field that becomes a string, or no longer is one, changed its
// type, which has its own rule.
var ofStrings = map[string]bool{"cpp_string_type": true, "java_utf8_validation": true, "utf8_validation": true}

// attr finds a difference in one attribute.
func attr(kind schema.Kind, name string) func(*Comparison, *schema.Change) []hit {
	return func(_ *Comparison, change *schema.Change) []hit {
		is := change.Element().Kind
		if is != kind && (kind != schema.Field || is != schema.Extension) {
			return nil
		}
		a, ok := change.Attr(name)
		if !ok || ofStrings[name] && (a.Old == "" || a.New == "") {
			return nil
		}
		return []hit{{attr: name, old: a.Old, new: a.New, text: fmt.Sprintf("changed %s from %s to %s", name, quoted(a.Old), quoted(a.New))}}
	}
}

func attrBecame(change *schema.Change, kind schema.Kind, name, value string) []hit {
	if a, ok := change.Attr(name); ok && change.Element().Kind == kind && a.New == value {
		return []hit{{attr: name, old: a.Old, new: a.New, text: fmt.Sprintf("changed %s from %s to %s", name, quoted(a.Old), quoted(a.New))}}
	}
	return nil
}

func fieldGone(c *Comparison, change *schema.Change) []hit {
	if change.Element().Kind != schema.Field || !change.Removed() {
		return nil
	}
	h := hit{old: change.Before.Summary(), text: "was deleted"}
	message := c.After.Find(change.Before.Parent.Name)
	if now := change.Became; now != nil {
		h.new, h.text = now.Summary(), fmt.Sprintf("got number %d instead of %d", now.Number, change.Before.Number)
		if alike(change.Before, now) {
			h.axes = &Axes{Breaks, Safe, Safe, Breaks} // JSON and Go know it by its name
		}
		h.patch = fmt.Sprintf("  // in message %s: the number that it had\n- %s\n+ %s", now.Parent.Short(), now.Summary(), change.Before.Summary())
		return []hit{h}
	}
	h.patch = reserve(message, change.Before)
	return []hit{h}
}

// reserve is the patch that keeps the number and the name of a field or a value from being used again; empty where both
// are kept already, and where nothing is left to keep them.
func reserve(holder, e *schema.Element) string {
	if holder == nil {
		return ""
	}
	number, name := free(holder, e)
	patch := ""
	if number {
		patch += fmt.Sprintf("\n+ reserved %d;", e.Number)
	}
	if name {
		patch += fmt.Sprintf("\n+ reserved %s;", reservedName(e))
	}
	if patch == "" {
		return ""
	}
	return fmt.Sprintf("  // in %s %s: the least, where it must go%s", holder.Kind, holder.Short(), patch)
}

// reservedName writes a name as `reserved` takes it: editions take identifiers, and what was before them takes strings.
func reservedName(e *schema.Element) string {
	if e.Descriptor.ParentFile().Syntax() == protoreflect.Editions {
		return e.Short()
	}
	return strconv.Quote(e.Short())
}

// free tells whether the number and the name that a field or a value had can be used again. A name that lives on with
// another number is not free.
func free(holder, e *schema.Element) (number, name bool) {
	at := int64(e.Number)
	number = len(missing([]span{{at, at}}, spans(holder.Attr("reserved")))) > 0
	name = len(without([]string{e.Short()}, items(holder.Attr("reserved_names")))) > 0
	for _, sibling := range holder.Children {
		if sibling.Kind == e.Kind && sibling.Short() == e.Short() {
			name = false
		}
	}
	return number, name
}

// alike tells whether two fields are the same to those who know fields by their names.
func alike(a, b *schema.Element) bool {
	for _, name := range []string{"type", "label", "json_name", "oneof", "presence"} {
		if a.Attr(name) != b.Attr(name) {
			return false
		}
	}
	return true
}

func valueGone(c *Comparison, change *schema.Change) []hit {
	if change.Element().Kind != schema.EnumValue || !change.Removed() || aliasStays(c, change.Before) {
		return nil
	}
	return []hit{{old: change.Before.Summary(), text: "was deleted", patch: reserve(c.After.Find(change.Before.Parent.Name), change.Before)}}
}

// aliasStays tells whether the number of a value that is gone has another name, old or new.
func aliasStays(c *Comparison, value *schema.Element) bool {
	enum := c.After.Find(value.Parent.Name)
	return enum != nil && slices.ContainsFunc(enum.Children, func(e *schema.Element) bool { return e.Number == value.Number })
}

func valueRenamed(c *Comparison, change *schema.Change) []hit {
	if change.Element().Kind != schema.EnumValue {
		return nil
	}
	if change.Removed() && aliasStays(c, change.Before) {
		return []hit{{attr: "name", old: change.Before.Short(), text: "was deleted; its number keeps another name"}}
	}
	return attr(schema.EnumValue, "name")(c, change)
}

func requiredChanged(_ *Comparison, change *schema.Change) []hit {
	e := change.Element()
	if e.Kind != schema.Field || e.Parent == nil || change.Implied {
		return nil
	}
	const required = "required"
	was, is := change.Before.Attr("label") == required, change.After.Attr("label") == required
	switch {
	case !was && is:
		return []hit{{attr: "label", old: change.Before.Attr("label"), new: required, text: "is now required"}}
	case was && !is:
		return []hit{{attr: "label", old: required, new: change.After.Attr("label"), text: "is no longer required"}}
	default:
		return nil
	}
}
