// Package consumers finds who uses what of a contract: every use of generated Go code, type-checked, in every module of
// a tree. It reads the generated code's names from the contract itself, the way protoc-gen-go makes them, so that it
// also recognizes the use of something that is no longer generated.
//
// What could not be analysed is said, never taken for unused: a module that does not load, a package that does not
// compile.
package consumers

import (
	"cmp"
	"slices"
)

// A Use is one place in Go code that uses an element of a contract.
type Use struct {
	// Element is the full name of the element, as package schema names it.
	Element string `json:"element"`
	// Kind says how it is used.
	Kind Kind `json:"kind"`
	// Path is the file, from the root of the tree, with slashes.
	Path   string `json:"path"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	// Module and Package are the Go import paths.
	Module  string `json:"module"`
	Package string `json:"package"`
	// Test is set for a file that only tests compile.
	Test bool `json:"test,omitempty"`
	// Error is what the compiler says of the statement that the use is in; empty where it compiles.
	Error string `json:"error,omitempty"`
	// Missing is set where the generated code does not have the element (any more).
	Missing bool `json:"missing,omitempty"`
	// LeftOut is set for a file that is not built here: its build tags, or the system and processor that it is for, are
	// others.
	LeftOut bool `json:"left_out,omitempty"`
}

// Kind is how an element is used.
type Kind string

// The kinds of uses.
const (
	Reads        Kind = "reads"         // a field, or its getter
	Writes       Kind = "writes"        // a field, on the left of an assignment or by a setter
	Literal      Kind = "sets"          // a field in a composite literal
	OneofCase    Kind = "switches over" // a member of a oneof in a type switch
	Constant     Kind = "names"         // a value of an enum, or a type
	Calls        Kind = "calls"         // a method, by a client
	Serves       Kind = "serves"        // a method, by a server
	Undefaulted  Kind = "switches without default over"
	NamedInText  Kind = "names in a string" // a field, such as in a field mask
	Dynamic      Kind = "reads all of"      // a message that is handed to code which reads it by reflection
	Instantiates Kind = "makes"             // a message, by a composite literal
	// ThroughInterface is a field of a message that becomes an interface, or the argument of a type parameter, which asks
	// for its getter.
	ThroughInterface Kind = "reads through an interface"
	// Perhaps is a place that may use the element, or another one of the same Go name: what it names it by is not known.
	Perhaps Kind = "may use"
)

// A Problem is a part of the tree that could not be analysed, or not fully.
type Problem struct {
	// Where is a module or a package, by its import path or its folder.
	Where string `json:"where"`
	// What says why, in one line.
	What string `json:"what"`
}

// NoModules is the problem of a tree that has no Go module.
const NoModules = "no go.work and no go.mod: no Go consumers were looked for"

// An Index holds every use of a contract in one tree.
type Index struct {
	// Modules are the import paths of the modules that were looked at.
	Modules []string `json:"modules"`
	// Packages counts the packages that were type-checked.
	Packages int `json:"packages"`
	// Uses are all uses, sorted by element, path and line.
	Uses []Use `json:"uses"`
	// Problems are what could not be analysed.
	Problems []Problem `json:"problems"`
	// Generated are the Go packages of generated code, by import path: the .proto files that each was made from.
	Generated map[string][]string `json:"generated"`
	// LeftOut are the files that may use the contract and are not built here, by their paths from the root of the tree.
	// They are read beside those of their folder that are built; what is not known of a name in them is a use by Perhaps.
	LeftOut []string `json:"left_out,omitempty"`
}

// Of returns the uses of elements.
func (x *Index) Of(elements ...string) []Use {
	var found []Use
	for _, element := range elements {
		at, _ := slices.BinarySearchFunc(x.Uses, element, func(u Use, name string) int { return cmp.Compare(u.Element, name) })
		for ; at < len(x.Uses) && x.Uses[at].Element == element; at++ {
			found = append(found, x.Uses[at])
		}
	}
	return found
}

func (x *Index) sort() {
	slices.SortFunc(x.Uses, func(a, b Use) int {
		return cmp.Or(cmp.Compare(a.Element, b.Element), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column), cmp.Compare(a.Kind, b.Kind))
	})
	// A file of a package is also part of the package that its tests make.
	x.Uses = slices.CompactFunc(x.Uses, func(a, b Use) bool {
		return a.Element == b.Element && a.Path == b.Path && a.Line == b.Line && a.Column == b.Column && a.Kind == b.Kind
	})
	slices.SortFunc(x.Problems, func(a, b Problem) int { return cmp.Or(cmp.Compare(a.Where, b.Where), cmp.Compare(a.What, b.What)) })
	x.Problems = slices.Compact(x.Problems)
	slices.Sort(x.LeftOut)
}
