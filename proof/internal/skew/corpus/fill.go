package corpus

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// deepest is how many messages in messages are filled.
const deepest = 4

// full is how the entries begin that have every field set.
const full = "full"

// AddMissing adds an entry with every field set for each message of the contract that has none, and one more for each
// further choice of a oneof. It returns what it has added.
func AddMissing(dir string) ([]Entry, error) {
	entries, err := Load(dir)
	if err != nil {
		return nil, err
	}
	have := filled(entries)
	var added []Entry
	for _, md := range messages() {
		if have[string(md.FullName())] {
			continue
		}
		kind, err := protoregistry.GlobalTypes.FindMessageByName(md.FullName())
		if err != nil {
			return added, err
		}
		for choice := range choices(md) {
			m := kind.New()
			fill(m, choice, 0)
			name := full
			if choice > 0 {
				name = fmt.Sprintf("%s-%d", full, choice+1)
			}
			e, err := Add(dir, name, m.Interface())
			if err != nil {
				return added, fmt.Errorf("%s: %w", md.FullName(), err)
			}
			added = append(added, e)
		}
	}
	return added, nil
}

// messages returns the messages of the contract, in the order of their names.
func messages() []protoreflect.MessageDescriptor {
	var all []protoreflect.MessageDescriptor
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Messages().Len() {
			if slices.Contains(Packages(), string(f.Package())) {
				all = append(all, f.Messages().Get(i))
			}
		}
		return true
	})
	slices.SortFunc(all, func(a, b protoreflect.MessageDescriptor) int {
		return strings.Compare(string(a.FullName()), string(b.FullName()))
	})
	return all
}

// choices returns how many fields the largest oneof of a message has; 1 where it has none.
func choices(md protoreflect.MessageDescriptor) int {
	most := 1
	for i := range md.Oneofs().Len() {
		if o := md.Oneofs().Get(i); !o.IsSynthetic() {
			most = max(most, o.Fields().Len())
		}
	}
	return most
}

// fill sets every field, of a oneof the one that is chosen. Values differ from field to field, so that two that change
// places are seen.
func fill(m protoreflect.Message, choice, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if o := fd.ContainingOneof(); o != nil && !o.IsSynthetic() && o.Fields().Get(min(choice, o.Fields().Len()-1)) != fd {
			continue
		}
		if fd.Message() != nil && depth == deepest {
			continue
		}
		switch {
		case fd.IsMap():
			for n := range 2 {
				v := m.Mutable(fd).Map()
				v.Set(scalar(fd.MapKey(), n).MapKey(), element(fd.MapValue(), v.NewValue, n, depth))
			}
		case fd.IsList():
			list := m.Mutable(fd).List()
			for n := range 2 {
				list.Append(element(fd, list.NewElement, n, depth))
			}
		default:
			m.Set(fd, element(fd, func() protoreflect.Value { return m.NewField(fd) }, 0, depth))
		}
	}
}

func element(fd protoreflect.FieldDescriptor, empty func() protoreflect.Value, n, depth int) protoreflect.Value {
	if fd.Message() == nil {
		return scalar(fd, n)
	}
	v := empty()
	if !wellKnown(v.Message(), int64(fd.Number())+int64(n)) {
		fill(v.Message(), 0, depth+1)
	}
	return v
}

// wellKnown sets the messages of protobuf that JSON writes in a form of their own. It reports whether it has.
func wellKnown(m protoreflect.Message, n int64) bool {
	fields := m.Descriptor().Fields()
	switch m.Descriptor().FullName() {
	case "google.protobuf.Timestamp", "google.protobuf.Duration":
		m.Set(fields.ByName("seconds"), protoreflect.ValueOfInt64(1_700_000_000+n))
		m.Set(fields.ByName("nanos"), protoreflect.ValueOfInt32(123_456_000))
	case "google.protobuf.FieldMask":
		paths := m.Mutable(fields.ByName("paths")).List()
		paths.Append(protoreflect.ValueOfString("display_name"))
		paths.Append(protoreflect.ValueOfString("labels"))
	case "google.protobuf.Any": // empty: what it holds would be a message of somebody else
	default:
		return false
	}
	return true
}

func scalar(fd protoreflect.FieldDescriptor, n int) protoreflect.Value {
	number := int64(fd.Number())*100 + int64(n)
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		values := fd.Enum().Values()
		return protoreflect.ValueOfEnum(values.Get(values.Len() - 1).Number())
	case protoreflect.Int32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(int32(number))
	case protoreflect.Sint32Kind:
		return protoreflect.ValueOfInt32(-int32(number))
	case protoreflect.Int64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(math.MaxInt64 - number)
	case protoreflect.Sint64Kind:
		return protoreflect.ValueOfInt64(-number)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(uint32(number))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(math.MaxUint64 - uint64(number))
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(float32(number) + 0.5)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(float64(number) + 0.5)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte{0x00, 0xff, byte(fd.Number()), byte(n)})
	default:
		return protoreflect.ValueOfString(fmt.Sprintf("%s %d é", fd.Name(), n))
	}
}

// filled returns the messages of which there is an entry that has every field set, as fields were when it was frozen.
func filled(entries []Entry) map[string]bool {
	have := map[string]bool{}
	for _, e := range entries {
		if strings.HasPrefix(e.Name, full) {
			have[e.Message] = true
		}
	}
	return have
}

// Missing returns the names of the messages of the contract that have no entry with every field set.
func Missing(entries []Entry) []string {
	have := filled(entries)
	var none []string
	for _, md := range messages() {
		if name := string(md.FullName()); !have[name] {
			none = append(none, name)
		}
	}
	return none
}
