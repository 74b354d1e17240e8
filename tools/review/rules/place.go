package rules

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/concordat-dev/concordat/tools/review/schema"
)

// placeRules are about where things are found: by number, and by import.
var placeRules = []*Rule{
	{ID: "EXTENSION_NUMBER_CHANGED", Level: Break, Axes: Axes{Breaks, Safe, Safe, Breaks}, Purpose: "an extension got another number, or extends another message",
		Why:    "What was said with it is not understood under the new number, and what else was said under that is taken for it.",
		WayOut: "Leave it, and declare another extension beside it.", check: extensionRenumbered},
	{ID: "PUBLIC_IMPORT_REMOVED", Level: Break, Axes: sourceOnly, Purpose: "a file no longer hands on what it imported publicly",
		Why:    "Files that import it and name what it handed on no longer compile, nor does Go code that names it in its package.",
		WayOut: "Leave the public import; deprecate the file, and import the other one where it is needed.", check: publicImportRemoved},
}

func extensionRenumbered(_ *Comparison, change *schema.Change) []hit {
	if change.Element().Kind != schema.Extension {
		return nil
	}
	var hits []hit
	if a, ok := change.Attr("extendee"); ok {
		hits = append(hits, hit{attr: a.Name, old: a.Old, new: a.New, axes: new(everywhere), text: fmt.Sprintf("extends %s, and extended %s", a.New, a.Old)})
	}
	if a, ok := change.Attr("number"); ok {
		hits = append(hits, hit{attr: a.Name, old: a.Old, new: a.New, text: fmt.Sprintf("got number %s instead of %s", a.New, a.Old),
			patch: fmt.Sprintf("- %s\n+ %s", change.After.Summary(), change.Before.Summary())})
	}
	return hits
}

func publicImportRemoved(c *Comparison, change *schema.Change) []hit {
	a, ok := change.Attr("public_imports")
	if !ok || change.Element().Kind != schema.File || change.After == nil {
		return nil
	}
	now := handedOn(change.After)
	var hits []hit
	for _, path := range without(items(a.Old), items(a.New)) {
		var lost []string
		for _, name := range declared(imported(change.Before, path), map[string]bool{}) {
			// What is gone altogether is said where it was.
			if !now[name] && (c.Before.Find(name) == nil || c.After.Find(name) != nil) {
				lost = append(lost, name)
			}
		}
		if len(lost) > 0 {
			hits = append(hits, hit{attr: "public_imports." + path, old: path, text: fmt.Sprintf("no longer hands on %s: %s", path, few(lost)), patch: fmt.Sprintf("+ import public %q;", path)})
		}
	}
	return hits
}

// imported returns a file that another one imports, by its path.
func imported(file *schema.Element, path string) protoreflect.FileDescriptor {
	imports := file.Descriptor.ParentFile().Imports()
	for n := range imports.Len() {
		if imports.Get(n).Path() == path {
			return imports.Get(n).FileDescriptor
		}
	}
	return nil
}

// handedOn are the names that a file gives to who imports it: its own, and those of what it imports publicly.
func handedOn(file *schema.Element) map[string]bool {
	names := map[string]bool{}
	for _, name := range declared(file.Descriptor.ParentFile(), map[string]bool{}) {
		names[name] = true
	}
	return names
}

// declared returns the full names at the top of a file and of the files that it imports publicly. seen are the files
// that were looked at.
func declared(file protoreflect.FileDescriptor, seen map[string]bool) []string {
	if file == nil || seen[file.Path()] {
		return nil
	}
	seen[file.Path()] = true
	var names []string
	for n := range file.Messages().Len() {
		names = append(names, string(file.Messages().Get(n).FullName()))
	}
	for n := range file.Enums().Len() {
		names = append(names, string(file.Enums().Get(n).FullName()))
	}
	for n := range file.Extensions().Len() {
		names = append(names, string(file.Extensions().Get(n).FullName()))
	}
	for n := range file.Imports().Len() {
		if i := file.Imports().Get(n); i.IsPublic {
			names = append(names, declared(i.FileDescriptor, seen)...)
		}
	}
	return names
}

// few writes the first of some names and how many more there are.
func few(names []string) string {
	const shown = 3
	if len(names) <= shown {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:shown], ", "), len(names)-shown)
}
