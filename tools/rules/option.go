package rules

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A record is an option, or a message in one, read by the names in its own schema. A field that the schema does not
// have, or has with another type, reads as not set; the zero record has nothing set.
type record struct{ m protoreflect.Message }

// get returns a field that is set and has one of the kinds.
func (r record) get(name protoreflect.Name, list bool, kinds ...protoreflect.Kind) (protoreflect.FieldDescriptor, protoreflect.Value, bool) {
	if r.m == nil {
		return nil, protoreflect.Value{}, false
	}
	fd := r.m.Descriptor().Fields().ByName(name)
	if fd == nil || fd.IsMap() || fd.IsList() != list || !slices.Contains(kinds, fd.Kind()) || !r.m.Has(fd) {
		return nil, protoreflect.Value{}, false
	}
	return fd, r.m.Get(fd), true
}

// has reports whether any of the fields is set, whatever its type.
func (r record) has(names ...protoreflect.Name) bool {
	if r.m == nil {
		return false
	}
	return slices.ContainsFunc(names, func(name protoreflect.Name) bool {
		fd := r.m.Descriptor().Fields().ByName(name)
		return fd != nil && r.m.Has(fd)
	})
}

func (r record) text(name protoreflect.Name) string {
	if _, v, ok := r.get(name, false, protoreflect.StringKind); ok {
		return v.String()
	}
	return ""
}

func (r record) texts(name protoreflect.Name) []string {
	var texts []string
	if _, v, ok := r.get(name, true, protoreflect.StringKind); ok {
		for i := range v.List().Len() {
			texts = append(texts, v.List().Get(i).String())
		}
	}
	return texts
}

func (r record) number(name protoreflect.Name) uint64 {
	if _, v, ok := r.get(name, false, protoreflect.Uint32Kind, protoreflect.Uint64Kind); ok {
		return v.Uint()
	}
	return 0
}

func (r record) float(name protoreflect.Name) float64 {
	if _, v, ok := r.get(name, false, protoreflect.DoubleKind); ok {
		return v.Float()
	}
	return 0
}

// word returns the name of an enum's value, or its number where the enum has no name for it; "" where it is not set.
func (r record) word(name protoreflect.Name) string {
	if fd, v, ok := r.get(name, false, protoreflect.EnumKind); ok {
		return word(fd.Enum(), v.Enum())
	}
	return ""
}

func (r record) words(name protoreflect.Name) []string {
	var words []string
	if fd, v, ok := r.get(name, true, protoreflect.EnumKind); ok {
		for i := range v.List().Len() {
			words = append(words, word(fd.Enum(), v.List().Get(i).Enum()))
		}
	}
	return words
}

func word(ed protoreflect.EnumDescriptor, n protoreflect.EnumNumber) string {
	if v := ed.Values().ByNumber(n); v != nil {
		return string(v.Name())
	}
	return strconv.Itoa(int(n))
}

func (r record) message(name protoreflect.Name) record {
	if _, v, ok := r.get(name, false, protoreflect.MessageKind); ok {
		return record{v.Message()}
	}
	return record{}
}

func (r record) messages(name protoreflect.Name) []record {
	var messages []record
	if _, v, ok := r.get(name, true, protoreflect.MessageKind); ok {
		for i := range v.List().Len() {
			messages = append(messages, record{v.List().Get(i).Message()})
		}
	}
	return messages
}

// duration returns a google.protobuf.Duration, zero where it is not set. One that is none by its own rules (nanos of
// another sign, or of a second and more) and one that is too long for Go are -1.
func (r record) duration(name protoreflect.Name) time.Duration {
	d := r.message(name)
	integer := func(name protoreflect.Name, kind protoreflect.Kind) int64 {
		if _, v, ok := d.get(name, false, kind); ok {
			return v.Int()
		}
		return 0
	}
	seconds, nanos := integer("seconds", protoreflect.Int64Kind), integer("nanos", protoreflect.Int32Kind)
	const longest = int64(1<<63-1) / int64(time.Second)
	if seconds < 0 || nanos < 0 || seconds >= longest || nanos >= int64(time.Second) {
		return -1
	}
	return time.Duration(seconds)*time.Second + time.Duration(nanos)
}

// unknown returns the numbers of the fields of m that its schema does not have, in the order of their bytes. It looks
// at m alone and not at messages inside.
func unknown(m protoreflect.Message) []protoreflect.FieldNumber {
	var numbers []protoreflect.FieldNumber
	for raw := m.GetUnknown(); len(raw) > 0; {
		number, _, n := protowire.ConsumeField(raw)
		if n < 0 {
			return append(numbers, 0)
		}
		if !slices.Contains(numbers, number) {
			numbers = append(numbers, number)
		}
		raw = raw[n:]
	}
	return numbers
}

// optionUnderstood reports options that cannot be read by the image's own schema, and what a policy says that the rules
// do not know.
func optionUnderstood(c *Contract, report Report) {
	c.everything(func(d protoreflect.Descriptor) {
		options := d.Options().ProtoReflect().New().Interface()
		if err := c.decode(d.Options(), options); err != nil {
			report(d, "has options that cannot be read: %v", errors.Unwrap(err))
			return
		}
		for _, where := range strangers(options.ProtoReflect(), "") {
			report(d, "has the option %s, and nothing in the image says what it means: build the image with its imports", where)
		}
	})
	for _, m := range c.methods {
		if m.hasPolicy() {
			for _, problem := range strange(m.policy.m, "") {
				report(m, "has a policy with %s: the rules of the plugin must learn it first", problem)
			}
		} else if xt, err := c.types.FindExtensionByName(policyOption); err == nil && m.options.ProtoReflect().Has(xt.TypeDescriptor()) {
			report(m, "has a policy that is no message, which the rules of the plugin do not know")
		}
	}
}

// everything calls f with each element of the files that can have options.
func (c *Contract) everything(f func(protoreflect.Descriptor)) {
	fields := func(fields protoreflect.ExtensionDescriptors) {
		for i := range fields.Len() {
			f(fields.Get(i))
		}
	}
	for _, file := range c.files {
		f(file)
		fields(file.Extensions())
	}
	for _, s := range c.services() {
		f(s)
		for i := range s.Methods().Len() {
			f(s.Methods().Get(i))
		}
	}
	c.messages(func(md protoreflect.MessageDescriptor) {
		f(md)
		for i := range md.Fields().Len() {
			f(md.Fields().Get(i))
		}
		for i := range md.Oneofs().Len() {
			f(md.Oneofs().Get(i))
		}
		fields(md.Extensions())
	})
	c.enums(func(ed protoreflect.EnumDescriptor) {
		f(ed)
		for i := range ed.Values().Len() {
			f(ed.Values().Get(i))
		}
	})
}

// strangers returns the unknown fields of m and of the messages in it, as paths that end in the field's number.
func strangers(m protoreflect.Message, path string) []string {
	var found []string
	for _, number := range unknown(m) {
		found = append(found, path+strconv.Itoa(int(number)))
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		name := string(fd.Name())
		if fd.IsExtension() {
			name = "(" + string(fd.FullName()) + ")"
		}
		inside := func(v protoreflect.Value) { found = append(found, strangers(v.Message(), path+name+".")...) }
		switch {
		case fd.IsMap():
			if fd.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool { inside(v); return true })
			}
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				inside(v.List().Get(i))
			}
		default:
			inside(v)
		}
		return true
	})
	slices.Sort(found)
	return slices.Compact(found)
}

// policyShapes is the schema that the rules read, by message and field: "repeated" or not, and the kind.
func policyShapes() map[protoreflect.FullName]map[protoreflect.Name]string {
	return map[protoreflect.FullName]map[protoreflect.Name]string{
		"policy.v1.MethodPolicy": {
			"audience": "repeated enum", "scopes": "repeated string", "callers": "repeated string", "self": "message",
			"timeout": "message", "retry": "message", "rate": "repeated message", "idempotency_key": "string",
			"hedge": "message", "compression": "enum", "max_request_bytes": "uint32",
		},
		"policy.v1.Self": {"field": "string", "or_scope": "string"},
		"policy.v1.Retry": {
			"attempts": "uint32", "initial_backoff": "message", "max_backoff": "message", "multiplier": "double",
			"codes": "repeated enum",
		},
		"policy.v1.Hedge":          {"attempts": "uint32", "delay": "message"},
		"policy.v1.Rate":           {"per_second": "double", "burst": "uint32", "per": "enum", "field": "string"},
		"google.protobuf.Duration": {"seconds": "int64", "nanos": "int32"},
	}
}

// shape says the type of a field in the words of policyShapes.
func shape(fd protoreflect.FieldDescriptor) string {
	if fd.IsList() {
		return "repeated " + fd.Kind().String()
	}
	if fd.IsMap() {
		return "map"
	}
	return fd.Kind().String()
}

// strange returns what is set in a policy, or in a message of one, that is not as policyShapes has it.
func strange(m protoreflect.Message, path string) []string {
	var found []string
	known, ok := policyShapes()[m.Descriptor().FullName()]
	if !ok {
		return []string{fmt.Sprintf("%s, a message %s", strings.TrimSuffix(path, "."), m.Descriptor().FullName())}
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		here := path + string(fd.Name())
		switch {
		case known[fd.Name()] != shape(fd):
			found = append(found, fmt.Sprintf("%s (%s)", here, shape(fd)))
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				found = append(found, strange(v.List().Get(i).Message(), here+".")...)
			}
		default:
			found = append(found, strange(v.Message(), here+".")...)
		}
		return true
	})
	slices.Sort(found)
	return slices.Compact(found)
}
