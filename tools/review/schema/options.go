package schema

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
)

// options reads options with the descriptors of one image.
type options struct {
	files *protoregistry.Files
	types *dynamicpb.Types
}

// read returns the options of a descriptor as attributes. The name of an attribute is the path of what was set, as a
// .proto file writes it after `option`: `deprecated`, `(google.api.http).get`, `(buf.validate.field).string.max_len`.
// A list of scalars is one attribute, its values joined by ", "; of a list of messages each has an index, or its id
// where it has a field of that name.
func (o *options) read(d protoreflect.Descriptor) ([]Attr, error) {
	set := d.Options()
	if set == nil || !set.ProtoReflect().IsValid() {
		return nil, nil
	}
	data, err := proto.Marshal(set)
	if err != nil || len(data) == 0 {
		return nil, err
	}
	kind := set.ProtoReflect().Descriptor()
	// An image in which nobody extends options need not hold descriptor.proto.
	if found, err := o.files.FindDescriptorByName(kind.FullName()); err == nil {
		own, ok := found.(protoreflect.MessageDescriptor)
		if !ok {
			return nil, fmt.Errorf("%s is not a message in this image", kind.FullName())
		}
		kind = own
	}
	message := dynamicpb.NewMessage(kind)
	if err := (proto.UnmarshalOptions{Resolver: o.types}).Unmarshal(data, message); err != nil {
		return nil, fmt.Errorf("options of %s: %w", d.FullName(), err)
	}
	return flatten("", message, nil), nil
}

// flatten appends everything that is set in a message, each as one attribute below path.
func flatten(path string, message protoreflect.Message, attrs []Attr) []Attr {
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		name := string(field.Name())
		if field.IsExtension() {
			name = "(" + string(field.FullName()) + ")"
		}
		if path != "" {
			name = path + "." + name
		}
		switch {
		case field.IsMap():
			value.Map().Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
				attrs = one(fmt.Sprintf("%s[%s]", name, key), field.MapValue(), value, attrs)
				return true
			})
		case field.IsList() && field.Message() != nil:
			for n := range value.List().Len() {
				item := value.List().Get(n)
				attrs = one(fmt.Sprintf("%s[%s]", name, identity(item.Message(), n)), field, item, attrs)
			}
		case field.IsList():
			values := make([]string, value.List().Len())
			for n := range values {
				values[n] = scalar(field, value.List().Get(n))
			}
			attrs = append(attrs, Attr{name, strings.Join(values, ", ")})
		default:
			attrs = one(name, field, value, attrs)
		}
		return true
	})
	fieldsOf := message.GetUnknown()
	for len(fieldsOf) > 0 {
		number, _, n := protowire.ConsumeField(fieldsOf)
		if n < 0 {
			break
		}
		attrs = append(attrs, Attr{strings.TrimPrefix(fmt.Sprintf("%s.(unknown).%d", path, number), "."), fmt.Sprintf("%x", fieldsOf[:n])})
		fieldsOf = fieldsOf[n:]
	}
	return attrs
}

// one appends one value that is no list.
func one(name string, field protoreflect.FieldDescriptor, value protoreflect.Value, attrs []Attr) []Attr {
	if field.Message() == nil {
		return append(attrs, Attr{name, scalar(field, value)})
	}
	if text, ok := wellKnown(value.Message()); ok {
		return append(attrs, Attr{name, text})
	}
	inside := flatten(name, value.Message(), nil)
	if len(inside) == 0 {
		// That an empty message is there may mean something, as for `(policy.v1.method).retry = {}`.
		return append(attrs, Attr{name, "{}"})
	}
	return append(attrs, inside...)
}

// scalar writes a value as a .proto file does, but strings without quotes.
func scalar(field protoreflect.FieldDescriptor, value protoreflect.Value) string {
	switch field.Kind() {
	case protoreflect.EnumKind:
		if named := field.Enum().Values().ByNumber(value.Enum()); named != nil {
			return string(named.Name())
		}
		return strconv.Itoa(int(value.Enum()))
	case protoreflect.BytesKind:
		return fmt.Sprintf("%q", value.Bytes())
	case protoreflect.DoubleKind, protoreflect.FloatKind:
		return strconv.FormatFloat(value.Float(), 'g', -1, 64)
	default:
		return value.String()
	}
}

// longest is how many seconds fit into a time.Duration; protobuf knows durations of ten thousand years.
const longest = int64(math.MaxInt64/time.Second) - 1

// wellKnown writes a duration as Go does and a time by RFC 3339.
func wellKnown(message protoreflect.Message) (string, bool) {
	get := func(name protoreflect.Name) int64 {
		return message.Get(message.Descriptor().Fields().ByName(name)).Int()
	}
	switch message.Descriptor().FullName() {
	case "google.protobuf.Duration":
		if seconds := get("seconds"); seconds > longest || seconds < -longest {
			return fmt.Sprintf("%d.%09d seconds", seconds, get("nanos")), true
		}
		return (time.Duration(get("seconds"))*time.Second + time.Duration(get("nanos"))).String(), true
	case "google.protobuf.Timestamp":
		return time.Unix(get("seconds"), get("nanos")).UTC().Format(time.RFC3339Nano), true
	default:
		return "", false
	}
}

// identity names one message of a list: by its id where it has one, so that a new one before it does not change it.
func identity(message protoreflect.Message, n int) string {
	if field := message.Descriptor().Fields().ByName("id"); field != nil && field.Kind() == protoreflect.StringKind && message.Has(field) {
		return message.Get(field).String()
	}
	return strconv.Itoa(n)
}

// finish sorts attributes and drops those that say nothing.
func finish(attrs []Attr) []Attr {
	attrs = slices.DeleteFunc(attrs, func(a Attr) bool { return a.Value == "" })
	slices.SortStableFunc(attrs, func(a, b Attr) int { return strings.Compare(a.Name, b.Name) })
	return attrs
}
