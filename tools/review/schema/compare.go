package schema

import (
	"slices"
	"strings"
)

// A Change is one element that is not what it was. At least one of Before and After is set.
type Change struct {
	// Before is the element in the baseline; nil where it was added.
	Before *Element
	// After is the element now; nil where it was removed.
	After *Element
	// Attrs are the differences between two elements that are both there, sorted by name. The attribute "full_name" is
	// the name where it changed, and "file" the file where what stands at its top moved to another one;
	// "comment" is the leading comment, which is no part of a shape. Of a field that was removed they are the differences
	// from Became.
	Attrs []AttrChange
	// Became is the field that has the name of a removed one now, with another number: a stranger on the wire, and the same
	// to JSON and to Go. Nil where there is none.
	Became *Element
	// Implied is set where everything is said by the change of what the element lies in: it was added or removed with it.
	Implied bool
}

// An AttrChange is one thing that is said differently. Empty means not said.
type AttrChange struct {
	Name, Old, New string
}

// Element returns the element now, or what it was where it is gone.
func (c *Change) Element() *Element {
	if c.After != nil {
		return c.After
	}
	return c.Before
}

// Added tells whether the element is new.
func (c *Change) Added() bool { return c.Before == nil }

// Removed tells whether the element is gone.
func (c *Change) Removed() bool { return c.After == nil }

// Commented tells whether nothing changed but the comment.
func (c *Change) Commented() bool {
	return !c.Removed() && len(c.Attrs) == 1 && c.Attrs[0].Name == "comment"
}

// Attr returns the difference in one attribute.
func (c *Change) Attr(name string) (AttrChange, bool) {
	for _, a := range c.Attrs {
		if a.Name == name {
			return a, true
		}
	}
	return AttrChange{}, false
}

// Compare returns everything in which two images differ, the oldest order of elements kept: files by path, what is in
// them as the source has it, what was removed before what stands after it.
//
// Fields and enum values are the same where their numbers are, as they are on the wire; everything else where its name
// is. A field that has its name and another number was removed and added. What stands at the top of a file whose package
// was renamed is followed to the new package.
func Compare(before, after *Image) []Change {
	c := comparison{before: before, after: after, taken: map[*Element]bool{}}
	for _, file := range before.Files {
		now := after.Find(file.Name)
		if now != nil && now.Kind != File {
			now = nil
		}
		c.pair(file, now, false)
		for _, element := range file.Children {
			c.pair(element, c.follow(element, now), now == nil)
		}
	}
	for _, file := range after.Files {
		if was := before.Find(file.Name); was == nil || was.Kind != File {
			c.changes = append(c.changes, Change{After: file})
		}
		for _, element := range file.Children {
			if !c.taken[element] {
				c.add(element, false)
			}
		}
	}
	return c.changes
}

type comparison struct {
	before, after *Image
	taken         map[*Element]bool // elements of after that have a pair
	changes       []Change
}

// follow finds what has become of an element at the top of a file; nil where it is gone. now is the file with the same
// path.
func (c *comparison) follow(element, now *Element) *Element {
	if found := c.after.top[element.Name]; found != nil && found.Kind == element.Kind {
		return found
	}
	if now == nil || now.Package == element.Package {
		return nil
	}
	renamed := now.Package + strings.TrimPrefix(element.Name, element.Package)
	if found := c.after.top[renamed]; found != nil && found.Kind == element.Kind && found.At.Path == now.Name {
		return found
	}
	return nil
}

// pair records the differences between two elements and goes on inside them. after may be nil.
func (c *comparison) pair(before, after *Element, implied bool) {
	if after == nil {
		c.changes = append(c.changes, Change{Before: before, Implied: implied})
		if before.Kind != File {
			for _, child := range before.Children {
				c.pair(child, nil, true)
			}
		}
		return
	}
	c.taken[after] = true
	attrs := differences(before.Shape, after.Shape)
	moved := before.Kind != File && before.Parent == nil && before.At.Path != after.At.Path
	if moved {
		attrs = append(attrs, AttrChange{"file", before.At.Path, after.At.Path})
	}
	if before.Parent == nil && before.Name != after.Name {
		attrs = append(attrs, AttrChange{"full_name", before.Name, after.Name})
	}
	if before.Comment != after.Comment {
		attrs = append(attrs, AttrChange{"comment", before.Comment, after.Comment})
	}
	if len(attrs) > 0 {
		slices.SortFunc(attrs, func(a, b AttrChange) int { return strings.Compare(a.Name, b.Name) })
		c.changes = append(c.changes, Change{Before: before, After: after, Attrs: attrs})
	}
	if before.Kind == File {
		return
	}
	pairs, added := match(before.Children, after.Children)
	for _, p := range pairs {
		if p[1] == nil && p[0].Kind == Field {
			c.changes = append(c.changes, removedField(p[0], after))
			continue
		}
		c.pair(p[0], p[1], false)
	}
	for _, child := range added {
		c.add(child, false)
	}
}

// removedField is the change of a field whose number is gone from a message.
func removedField(field, message *Element) Change {
	change := Change{Before: field}
	for _, e := range message.Children {
		if e.Kind == Field && e.Short() == field.Short() {
			change.Became, change.Attrs = e, differences(field.Shape, e.Shape)
		}
	}
	return change
}

// add records an element that was not there and everything inside it.
func (c *comparison) add(element *Element, implied bool) {
	c.changes = append(c.changes, Change{After: element, Implied: implied})
	for _, child := range element.Children {
		c.add(child, true)
	}
}

// match pairs the elements inside two versions of one element. An element of before without a pair is paired with nil.
func match(before, after []*Element) (pairs [][2]*Element, added []*Element) {
	free := slices.Clone(after)
	take := func(same func(*Element) bool) *Element {
		n := slices.IndexFunc(free, func(e *Element) bool { return e != nil && same(e) })
		if n < 0 {
			return nil
		}
		found := free[n]
		free[n] = nil
		return found
	}
	pairs = make([][2]*Element, len(before))
	// Two enum values may share a number: equal names first.
	for n, e := range before {
		pairs[n] = [2]*Element{e, take(func(o *Element) bool {
			return o.Kind == e.Kind && o.Number == e.Number && o.Short() == e.Short()
		})}
	}
	for n, e := range before {
		switch {
		case pairs[n][1] != nil:
		case e.Kind == Field || e.Kind == EnumValue:
			pairs[n][1] = take(func(o *Element) bool { return o.Kind == e.Kind && o.Number == e.Number })
		case e.Kind == Extension: // known by its name wherever it stands
			pairs[n][1] = take(func(o *Element) bool { return o.Kind == e.Kind && o.Short() == e.Short() })
		}
	}
	return pairs, slices.DeleteFunc(free, func(e *Element) bool { return e == nil })
}

// differences compares two shapes, both sorted by name.
func differences(before, after []Attr) []AttrChange {
	var result []AttrChange
	for len(before) > 0 || len(after) > 0 {
		switch {
		case len(after) == 0 || len(before) > 0 && before[0].Name < after[0].Name:
			result = append(result, AttrChange{before[0].Name, before[0].Value, ""})
			before = before[1:]
		case len(before) == 0 || after[0].Name < before[0].Name:
			result = append(result, AttrChange{after[0].Name, "", after[0].Value})
			after = after[1:]
		default:
			if before[0].Value != after[0].Value {
				result = append(result, AttrChange{before[0].Name, before[0].Value, after[0].Value})
			}
			before, after = before[1:], after[1:]
		}
	}
	return result
}
