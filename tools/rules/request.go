package rules

import (
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// requestFieldBounded looks at the messages that methods take and at the messages in them. A message of others cannot
// carry rules of ours: where it has something without a bound, the field that holds it needs a cel rule, which is
// trusted to be the bound.
func requestFieldBounded(c *Contract, report Report) {
	seen := map[protoreflect.FullName]bool{}
	var walk func(protoreflect.MessageDescriptor)
	walk = func(md protoreflect.MessageDescriptor) {
		if seen[md.FullName()] {
			return
		}
		seen[md.FullName()] = true
		for i := range md.Fields().Len() {
			fd := md.Fields().Get(i)
			_, rules := c.fieldOptions(fd)
			for _, lack := range lacks(fd, rules) {
				report(fd, "of a request has no bound on %s", lack)
			}
			switch inside := content(fd); {
			case inside == nil || isWrapper(inside):
			case !c.isImported(inside):
				walk(inside)
			case c.unbounded(inside, nil) != "" && !rules.has("cel", "cel_expression"):
				report(fd, "of a request holds %s, which is unbounded: add a cel rule that bounds it", c.unbounded(inside, nil))
			}
		}
	}
	for _, m := range c.methods {
		if !c.isImported(m.Input()) {
			walk(m.Input())
		}
	}
}

// content returns the message that a field holds, also in a list or as the value of a map; nil where it holds none.
func content(fd protoreflect.FieldDescriptor) protoreflect.MessageDescriptor {
	if fd.IsMap() {
		return fd.MapValue().Message()
	}
	return fd.Message()
}

// isWrapper reports whether a message is a string or bytes that can be unset, to which the rules of those apply.
func isWrapper(md protoreflect.MessageDescriptor) bool {
	return md.FullName() == "google.protobuf.StringValue" || md.FullName() == "google.protobuf.BytesValue"
}

// lacks returns what a field has no bound for, and which rule would be one.
func lacks(fd protoreflect.FieldDescriptor, rules record) []string {
	holds := fd.IsMap() || fd.IsList() || element(fd) != protoreflect.MessageKind
	if holds && rules.word("ignore") == "IGNORE_ALWAYS" {
		rules = record{} // what is ignored bounds nothing
	}
	var lacks []string
	switch {
	case fd.IsMap():
		m := rules.message("map")
		if !m.has("max_pairs") {
			lacks = append(lacks, "its pairs: add map.max_pairs")
		}
		lacks = append(lacks, lacksElement(fd.MapKey(), m.message("keys"), "its keys", "map.keys.")...)
		lacks = append(lacks, lacksElement(fd.MapValue(), m.message("values"), "its values", "map.values.")...)
	case fd.IsList():
		r := rules.message("repeated")
		if !r.has("max_items") {
			lacks = append(lacks, "its items: add repeated.max_items")
		}
		lacks = append(lacks, lacksElement(fd, r.message("items"), "the length of an item", "repeated.items.")...)
	default:
		lacks = lacksElement(fd, rules, "its length", "")
	}
	return lacks
}

// lacksElement looks at one value of a field, by the rules of values.
func lacksElement(fd protoreflect.FieldDescriptor, rules record, what, prefix string) []string {
	if rules.word("ignore") == "IGNORE_ALWAYS" {
		rules = record{}
	}
	switch element(fd) {
	case protoreflect.StringKind:
		if !rules.message("string").has("max_len", "len", "max_bytes", "len_bytes", "const", "in") {
			return []string{what + ": add " + prefix + "string.max_len"}
		}
	case protoreflect.BytesKind:
		if !rules.message("bytes").has("max_len", "len", "const", "in") {
			return []string{what + ": add " + prefix + "bytes.max_len"}
		}
	}
	return nil
}

// element returns the kind of one value of a field; that of a wrapper is what it wraps.
func element(fd protoreflect.FieldDescriptor) protoreflect.Kind {
	if md := fd.Message(); md != nil && !fd.IsMap() {
		switch md.FullName() {
		case "google.protobuf.StringValue":
			return protoreflect.StringKind
		case "google.protobuf.BytesValue":
			return protoreflect.BytesKind
		}
	}
	return fd.Kind()
}

// unbounded returns the first field, in a message of others or one in it, that can be as large as one likes; "" where
// there is none. outer are the messages that it is looked for from.
func (c *Contract) unbounded(md protoreflect.MessageDescriptor, outer []protoreflect.FullName) string {
	if slices.Contains(outer, md.FullName()) {
		return "" // looked at already, further out
	}
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		_, rules := c.fieldOptions(fd)
		if len(lacks(fd, rules)) > 0 {
			return string(fd.FullName())
		}
		if inside := content(fd); inside != nil && !isWrapper(inside) {
			if found := c.unbounded(inside, append(outer, md.FullName())); found != "" {
				return found
			}
		}
	}
	return ""
}
