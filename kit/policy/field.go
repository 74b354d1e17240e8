package policy

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Field is a compiled path to a string field of a request, such as "charge.customer_id".
type Field struct {
	// Path is the path as the contract writes it.
	Path string

	fields []protoreflect.FieldDescriptor
}

func compileField(md protoreflect.MessageDescriptor, path string) (*Field, error) {
	f := &Field{Path: path}
	names := strings.Split(path, ".")
	for i, name := range names {
		fd := md.Fields().ByName(protoreflect.Name(name))
		switch {
		case fd == nil:
			return nil, fmt.Errorf("%s has no field %q (of %q)", md.FullName(), name, path)
		case fd.Cardinality() == protoreflect.Repeated:
			return nil, fmt.Errorf("%q in %q is repeated", name, path)
		case i == len(names)-1 && fd.Kind() != protoreflect.StringKind:
			return nil, fmt.Errorf("%q is no string", path)
		case i < len(names)-1 && fd.Message() == nil:
			return nil, fmt.Errorf("%q in %q is no message", name, path)
		}
		f.fields = append(f.fields, fd)
		md = fd.Message()
	}
	return f, nil
}

// Get returns the value of the field in m, "" where it or a message on the way is not set. m may be of another version
// of the message: then its fields are found by name.
func (f *Field) Get(m protoreflect.Message) string {
	for i, fd := range f.fields {
		if fd.ContainingMessage() != m.Descriptor() {
			if fd = sameField(m.Descriptor(), fd); fd == nil {
				return ""
			}
		}
		if i == len(f.fields)-1 {
			return m.Get(fd).String()
		}
		if !m.Has(fd) {
			return ""
		}
		m = m.Get(fd).Message()
	}
	return ""
}

// sameField returns the field of md that has the name and kind of fd, nil where there is none.
func sameField(md protoreflect.MessageDescriptor, fd protoreflect.FieldDescriptor) protoreflect.FieldDescriptor {
	other := md.Fields().ByName(fd.Name())
	if other == nil || other.Kind() != fd.Kind() || other.Cardinality() == protoreflect.Repeated {
		return nil
	}
	return other
}
