package review

import (
	"slices"

	"github.com/concordat-dev/concordat/tools/review/rules"
	"github.com/concordat-dev/concordat/tools/review/schema"
)

// A Change is one element that differs, as a report shows it.
type Change struct {
	// What is added, removed or changed.
	What    string      `json:"what"`
	Kind    schema.Kind `json:"kind"`
	Element string      `json:"element"`
	Package string      `json:"package"`
	Path    string      `json:"path"`
	Line    int         `json:"line"`
	// Old and New are the element in one line; empty where it was not there.
	Old string `json:"old,omitempty"`
	New string `json:"new,omitempty"`
	// Attrs are the differences of an element that was changed.
	Attrs []Attr `json:"attrs,omitempty"`
	// Comment is set where only the comment changed.
	Comment bool `json:"comment_only,omitempty"`
	// Inside counts the elements that came or went with it.
	Inside int `json:"inside,omitempty"`
	// Methods are the methods that carry the element.
	Methods []string `json:"methods,omitempty"`
}

// An Attr is one thing that is said differently. Empty means not said.
type Attr struct {
	Name string `json:"name"`
	Old  string `json:"old,omitempty"`
	New  string `json:"new,omitempty"`
}

// describe lists the changes since a baseline for a report: what came or went with something around it is counted there.
func (r *run) describe(b *Baseline) []Change {
	was, is := b.before.Reach(), r.after.Reach()
	list := []Change{}
	for n := range b.changes {
		c := &b.changes[n]
		e := c.Element()
		if c.Implied {
			for m := len(list) - 1; m >= 0; m-- {
				if list[m].What != "changed" {
					list[m].Inside++
					break
				}
			}
			continue
		}
		change := Change{
			What: "changed", Kind: e.Kind, Element: e.Name, Package: e.Package, Path: r.disk.path(e.At.Path), Line: e.At.Line,
			Old: c.Before.Summary(), New: c.After.Summary(), Comment: c.Commented(), Methods: is.Methods(e),
		}
		if c.Before != nil {
			change.Element = c.Before.Name // as findings name it
		}
		switch {
		case c.Added():
			change.What = "added"
		case c.Removed():
			change.What, change.Line, change.Methods = "removed", 0, was.Methods(e)
		}
		for _, a := range c.Attrs {
			change.Attrs = append(change.Attrs, Attr(a))
		}
		list = append(list, change)
	}
	return list
}

// bump says which part of a semantic version has to go up for changes: major where something breaks, minor where
// something is new, patch where something is different, and nothing at all (semver.org).
func bump(changes []schema.Change, findings []*rules.Finding) string {
	if slices.ContainsFunc(findings, func(f *rules.Finding) bool {
		for _, v := range []rules.Verdict{f.Axes.Wire, f.Axes.JSON, f.Axes.Source, f.Axes.Semantics} {
			if v == rules.Breaks && f.Level != rules.Note {
				return true
			}
		}
		return false
	}) {
		return "major"
	}
	switch {
	case slices.ContainsFunc(changes, func(c schema.Change) bool { return c.Added() || slices.ContainsFunc(c.Attrs, deprecates) }):
		return "minor"
	case len(changes) > 0:
		return "patch"
	default:
		return "none"
	}
}

func deprecates(a schema.AttrChange) bool { return a.Name == "deprecated" }
