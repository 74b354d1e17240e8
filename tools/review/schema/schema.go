// Package schema compares two compiled contracts. An Image is what the compiler says of one; its elements are every
// file, message, field, oneof, enum, enum value, service, method and extension, each with a shape: all that was said of
// it, options of others included, as sorted attributes. Compare is a pure function over two images and leaves nothing
// out; what a difference means is for package rules to say.
//
// Options are read with the image's own descriptors. Read with those of this program, an option that it does not know
// would be bytes, and two different values of a newer one would look equal.
package schema

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Kind is what an element is.
type Kind string

// The kinds of elements.
const (
	File      Kind = "file"
	Message   Kind = "message"
	Field     Kind = "field"
	Oneof     Kind = "oneof"
	Enum      Kind = "enum"
	EnumValue Kind = "enum value"
	Service   Kind = "service"
	Method    Kind = "rpc"
	Extension Kind = "extension"
)

// A Position is where something stands in a source file. Lines and columns count from 1; zero means unknown.
type Position struct {
	// Path is relative to the root of the buf module, as imports say it.
	Path                             string
	Line, Column, EndLine, EndColumn int
}

// An Attr is one thing that is said of an element.
type Attr struct {
	Name, Value string
}

// An Element is one named part of a contract.
type Element struct {
	Kind Kind
	// Name is the full name. That of a file is its path; that of an enum value ends in the name of its enum and its own,
	// unlike in protobuf, where values stand beside their enum.
	Name string
	// Number is the number of a field, an extension or an enum value, and zero otherwise.
	Number int32
	// Package is the protobuf package that the element lies in.
	Package string
	// Parent is the element that this one lies in. Files have none, nor has what stands at the top of a file.
	Parent *Element
	// Children are the elements inside, in the order of the source. Those of a file are what stands at its top.
	Children []*Element
	// Shape is all that is said of the element itself, sorted by name.
	Shape []Attr
	// Comment is the comment that leads the element, without comment signs.
	Comment string
	// At is where the element stands; Path alone where the image has no source information.
	At Position
	// Descriptor is the element as the compiler sees it.
	Descriptor protoreflect.Descriptor
}

// Short returns the last part of the name.
func (e *Element) Short() string {
	if e.Kind == File {
		return e.Name
	}
	return e.Name[strings.LastIndexByte(e.Name, '.')+1:]
}

// Attr returns the value of an attribute, or the empty string where it is not said.
func (e *Element) Attr(name string) string {
	if e == nil {
		return ""
	}
	for _, a := range e.Shape {
		if a.Name == name {
			return a.Value
		}
	}
	return ""
}

// Digest returns a digest of the element and of everything inside it: the same for two elements of which the same is
// said, wherever they stand and whatever their comments say.
func (e *Element) Digest() string {
	sum := sha256.New()
	e.write(sum)
	return "sha256:" + hex.EncodeToString(sum.Sum(nil))
}

func (e *Element) write(w io.Writer) {
	fmt.Fprintf(w, "%s %q %d {", e.Kind, e.Name, e.Number)
	for _, a := range e.Shape {
		fmt.Fprintf(w, "%q=%q;", a.Name, a.Value)
	}
	for _, child := range sorted(e.Children) {
		child.write(w)
	}
	io.WriteString(w, "}")
}

// Walk calls visit with the element and everything inside it, outermost first.
func (e *Element) Walk(visit func(*Element)) {
	visit(e)
	for _, child := range e.Children {
		child.Walk(visit)
	}
}

// Summary says what the element is, in one line as a .proto file would.
func (e *Element) Summary() string {
	if e == nil {
		return ""
	}
	switch e.Kind {
	case Field, Extension:
		text := fmt.Sprintf("%s %s = %d", e.Attr("type"), e.Short(), e.Number)
		if label := e.Attr("label"); label != "" && label != "map" {
			text = label + " " + text
		}
		return text
	case EnumValue:
		return fmt.Sprintf("%s = %d", e.Short(), e.Number)
	case Method:
		stream := func(attr string) string {
			if e.Attr(attr) == "true" {
				return "stream "
			}
			return ""
		}
		return fmt.Sprintf("rpc %s(%s%s) returns (%s%s)", e.Short(), stream("client_streaming"), e.Attr("request"), stream("server_streaming"), e.Attr("response"))
	default:
		return string(e.Kind) + " " + e.Short()
	}
}
