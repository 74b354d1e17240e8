package schema

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// features are the features of an edition in force at one place (https://protobuf.dev/editions/features), as far as
// they were set; each element inherits them from what it lies in.
type features map[string]string

// with returns the features after those that an element sets itself.
func (f features) with(attrs []Attr) features {
	own := maps.Clone(f)
	for _, a := range attrs {
		if name, ok := strings.CutPrefix(a.Name, "features."); ok {
			own[name] = a.Value
		}
	}
	return own
}

// or returns a feature, or what it is where nobody set it.
func (f features) or(name, otherwise string) string {
	if value, ok := f[name]; ok {
		return value
	}
	return otherwise
}

// begin makes an element with its options read.
func (i *Image) begin(kind Kind, d protoreflect.Descriptor, parent *Element, inherited features) (*Element, features, error) {
	attrs, err := i.options.read(d)
	if err != nil {
		return nil, nil, err
	}
	e := &Element{
		Kind: kind, Name: string(d.FullName()), Package: string(d.ParentFile().Package()), Parent: parent,
		Shape: attrs, Comment: comment(d), At: position(d), Descriptor: d,
	}
	return e, inherited.with(attrs), nil
}

func (e *Element) say(name, value string) {
	e.Shape = append(e.Shape, Attr{name, value})
}

// flag says an attribute only where it holds, so that shapes stay short.
func (e *Element) flag(name string, holds bool) {
	if holds {
		e.say(name, "true")
	}
}

// end sorts what was said and hangs the element below its parent.
func (e *Element) end() *Element {
	e.Shape = finish(e.Shape)
	if e.Parent != nil {
		e.Parent.Children = append(e.Parent.Children, e)
	}
	return e
}

func (i *Image) file(fd protoreflect.FileDescriptor) (*Element, error) {
	file, set, err := i.begin(File, fd, nil, features{})
	if err != nil {
		return nil, err
	}
	file.Name, file.At.Line, file.At.Column = fd.Path(), 1, 1
	syntax := fd.Syntax().String()
	if fd.Syntax() == protoreflect.Editions {
		syntax = "edition " + strings.TrimPrefix(protodesc.ToFileDescriptorProto(fd).GetEdition().String(), "EDITION_")
	}
	file.say("syntax", syntax)
	file.say("package", string(fd.Package()))
	var handedOn []string
	for n := range fd.Imports().Len() {
		if i := fd.Imports().Get(n); i.IsPublic {
			handedOn = append(handedOn, i.Path())
		}
	}
	slices.Sort(handedOn)
	file.say("public_imports", strings.Join(handedOn, ", "))
	file.end()
	if err := i.inside(fd, file, set); err != nil {
		return nil, err
	}
	for n := range fd.Services().Len() {
		if err := i.service(fd.Services().Get(n), file, set); err != nil {
			return nil, err
		}
	}
	// What stands at the top of a file has no parent: it keeps its name where it moves to another file.
	for _, child := range file.Children {
		child.Parent = nil
	}
	return file, nil
}

// holder is what messages, enums and extensions may lie in.
type holder interface {
	Messages() protoreflect.MessageDescriptors
	Enums() protoreflect.EnumDescriptors
	Extensions() protoreflect.ExtensionDescriptors
}

func (i *Image) inside(in holder, parent *Element, set features) error {
	for n := range in.Messages().Len() {
		if md := in.Messages().Get(n); !md.IsMapEntry() {
			if err := i.message(md, parent, set); err != nil {
				return err
			}
		}
	}
	for n := range in.Enums().Len() {
		if err := i.enum(in.Enums().Get(n), parent, set); err != nil {
			return err
		}
	}
	for n := range in.Extensions().Len() {
		if err := i.field(in.Extensions().Get(n), Extension, parent, set); err != nil {
			return err
		}
	}
	return nil
}

func (i *Image) message(md protoreflect.MessageDescriptor, parent *Element, set features) error {
	e, set, err := i.begin(Message, md, parent, set)
	if err != nil {
		return err
	}
	e.say("json_format", set.or("json_format", jsonFormat(md)))
	e.say("reserved", ranges(md.ReservedRanges().Len(), func(n int) (int64, int64) {
		r := md.ReservedRanges().Get(n)
		return int64(r[0]), int64(r[1]) - 1
	}))
	e.say("reserved_names", names(md.ReservedNames()))
	e.say("extensions", ranges(md.ExtensionRanges().Len(), func(n int) (int64, int64) {
		r := md.ExtensionRanges().Get(n)
		return int64(r[0]), int64(r[1]) - 1
	}))
	e.end()
	for n := range md.Fields().Len() {
		if err := i.field(md.Fields().Get(n), Field, e, set); err != nil {
			return err
		}
	}
	for n := range md.Oneofs().Len() {
		od := md.Oneofs().Get(n)
		if od.IsSynthetic() {
			continue
		}
		oneof, _, err := i.begin(Oneof, od, e, set)
		if err != nil {
			return err
		}
		oneof.end()
	}
	return i.inside(md, e, set)
}

func (i *Image) field(fd protoreflect.FieldDescriptor, kind Kind, parent *Element, set features) error {
	e, set, err := i.begin(kind, fd, parent, set)
	if err != nil {
		return err
	}
	e.Number = int32(fd.Number())
	e.say("name", string(fd.Name()))
	if kind == Extension { // it is paired by its name, so that these are what may differ
		e.say("extendee", string(fd.ContainingMessage().FullName()))
		e.say("number", strconv.Itoa(int(fd.Number())))
	}
	e.say("type", typeName(fd))
	e.say("label", label(fd))
	e.say("json_name", fd.JSONName())
	e.flag("presence", fd.HasPresence())
	e.flag("packed", fd.IsPacked())
	if fd.HasDefault() {
		e.say("default", scalar(fd, fd.Default()))
	}
	if od := fd.ContainingOneof(); od != nil && !od.IsSynthetic() {
		e.say("oneof", string(od.Name()))
	}
	if fd.Kind() == protoreflect.StringKind {
		verify := "VERIFY"
		if fd.ParentFile().Syntax() == protoreflect.Proto2 {
			verify = "NONE"
		}
		verify = set.or("utf8_validation", verify)
		e.say("utf8_validation", verify)
		cpp := e.Attr("ctype")
		if cpp == "" {
			cpp = "STRING"
		}
		e.say("cpp_string_type", set.or("(pb.cpp).string_type", cpp))
		java := "DEFAULT"
		for _, a := range i.fileOptions(fd) {
			if a.Name == "java_string_check_utf8" && a.Value == "true" {
				java = "VERIFY"
			}
		}
		e.say("java_utf8_validation", set.or("(pb.java).utf8_validation", java))
	}
	e.end()
	return nil
}

// fileOptions returns the options of the file of a descriptor. That they can be read was seen when the file was.
func (i *Image) fileOptions(d protoreflect.Descriptor) []Attr {
	attrs, _ := i.options.read(d.ParentFile())
	return attrs
}

func (i *Image) enum(ed protoreflect.EnumDescriptor, parent *Element, set features) error {
	e, set, err := i.begin(Enum, ed, parent, set)
	if err != nil {
		return err
	}
	e.flag("closed", ed.IsClosed())
	e.say("json_format", set.or("json_format", jsonFormat(ed)))
	e.say("reserved", ranges(ed.ReservedRanges().Len(), func(n int) (int64, int64) {
		r := ed.ReservedRanges().Get(n)
		return int64(r[0]), int64(r[1])
	}))
	e.say("reserved_names", names(ed.ReservedNames()))
	e.end()
	for n := range ed.Values().Len() {
		vd := ed.Values().Get(n)
		value, _, err := i.begin(EnumValue, vd, e, set)
		if err != nil {
			return err
		}
		value.Name, value.Number = e.Name+"."+string(vd.Name()), int32(vd.Number())
		value.say("name", string(vd.Name()))
		value.end()
	}
	return nil
}

func (i *Image) service(sd protoreflect.ServiceDescriptor, file *Element, set features) error {
	e, set, err := i.begin(Service, sd, file, set)
	if err != nil {
		return err
	}
	e.end()
	for n := range sd.Methods().Len() {
		md := sd.Methods().Get(n)
		method, _, err := i.begin(Method, md, e, set)
		if err != nil {
			return err
		}
		method.say("request", string(md.Input().FullName()))
		method.say("response", string(md.Output().FullName()))
		method.flag("client_streaming", md.IsStreamingClient())
		method.flag("server_streaming", md.IsStreamingServer())
		method.end()
	}
	return nil
}

// jsonFormat is the feature where nobody set it.
func jsonFormat(d protoreflect.Descriptor) string {
	if d.ParentFile().Syntax() == protoreflect.Proto2 {
		return "LEGACY_BEST_EFFORT"
	}
	return "ALLOW"
}

// typeName writes the type of a field as a .proto file does, named types in full.
func typeName(fd protoreflect.FieldDescriptor) string {
	switch {
	case fd.IsMap():
		return fmt.Sprintf("map<%s, %s>", typeName(fd.MapKey()), typeName(fd.MapValue()))
	case fd.Kind() == protoreflect.GroupKind:
		return "group " + string(fd.Message().FullName())
	case fd.Message() != nil:
		return string(fd.Message().FullName())
	case fd.Enum() != nil:
		return string(fd.Enum().FullName())
	default:
		return fd.Kind().String()
	}
}

// label is what stands before the type. `optional` is said wherever a scalar knows absence, as proto3 writes it.
func label(fd protoreflect.FieldDescriptor) string {
	switch {
	case fd.IsMap():
		return "map"
	case fd.IsList():
		return "repeated"
	case fd.Cardinality() == protoreflect.Required:
		return "required"
	case fd.HasPresence() && fd.Message() == nil && (fd.ContainingOneof() == nil || fd.ContainingOneof().IsSynthetic()):
		return "optional"
	default:
		return ""
	}
}

// ranges writes ranges with both ends included, as a .proto file does.
func ranges(count int, get func(int) (int64, int64)) string {
	texts := make([]string, count)
	for n := range texts {
		first, last := get(n)
		texts[n] = strconv.FormatInt(first, 10)
		if last != first {
			texts[n] += " to " + strconv.FormatInt(last, 10)
		}
	}
	return strings.Join(texts, ", ")
}

func names(list protoreflect.Names) string {
	texts := make([]string, list.Len())
	for n := range texts {
		texts[n] = string(list.Get(n))
	}
	return strings.Join(texts, ", ")
}
