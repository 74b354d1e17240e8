package schema

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// A Reach says where messages and enums travel.
type Reach struct {
	requests, responses, streamed map[string][]string // by full name of the type: full names of methods
}

// Reach follows every method of the image to the messages and enums inside its request and its response.
func (i *Image) Reach() *Reach {
	r := &Reach{map[string][]string{}, map[string][]string{}, map[string][]string{}}
	i.Walk(func(e *Element) {
		md, ok := e.Descriptor.(protoreflect.MethodDescriptor)
		if !ok {
			return
		}
		follow(md.Input(), r.requests, e.Name)
		follow(md.Output(), r.responses, e.Name)
		if md.IsStreamingServer() {
			follow(md.Output(), r.streamed, e.Name)
		}
	})
	return r
}

func follow(md protoreflect.MessageDescriptor, into map[string][]string, method string) {
	name := string(md.FullName())
	if last := into[name]; len(last) > 0 && last[len(last)-1] == method {
		return
	}
	into[name] = append(into[name], method)
	for n := range md.Fields().Len() {
		fd := md.Fields().Get(n)
		if fd.IsMap() {
			fd = fd.MapValue()
		}
		switch {
		case fd.Message() != nil:
			follow(fd.Message(), into, method)
		case fd.Enum() != nil:
			name := string(fd.Enum().FullName())
			if methods := into[name]; len(methods) == 0 || methods[len(methods)-1] != method {
				into[name] = append(methods, method)
			}
		}
	}
}

// typeOf returns the message or enum that an element belongs to: itself, or what it lies in.
func typeOf(e *Element) string {
	for ; e != nil; e = e.Parent {
		if e.Kind == Message || e.Kind == Enum {
			return e.Name
		}
	}
	return ""
}

// Requests returns the methods whose requests carry an element, by full name and sorted; a method carries itself.
func (r *Reach) Requests(e *Element) []string { return r.of(e, r.requests) }

// Responses returns the methods whose responses carry an element.
func (r *Reach) Responses(e *Element) []string { return r.of(e, r.responses) }

// Streamed returns the methods that stream responses which carry an element, or of a file anything that stands in it:
// who reads a stream may be told what was written long ago, by an older version.
func (r *Reach) Streamed(e *Element) []string {
	if e.Kind != File {
		return r.of(e, r.streamed)
	}
	var all []string
	for _, child := range e.Children {
		child.Walk(func(inside *Element) {
			if inside.Kind != Method {
				all = append(all, r.of(inside, r.streamed)...)
			}
		})
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (r *Reach) of(e *Element, in map[string][]string) []string {
	switch e.Kind {
	case Method:
		return []string{e.Name}
	case Extension: // a part of what it extends, wherever it was declared
		return slices.Clone(in[e.Attr("extendee")])
	default:
		return slices.Clone(in[typeOf(e)])
	}
}

// Methods returns all methods that an element is part of, sorted.
func (r *Reach) Methods(e *Element) []string {
	all := map[string]bool{}
	for _, list := range [][]string{r.Requests(e), r.Responses(e)} {
		for _, name := range list {
			all[name] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}
