package schema

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// An Image is a compiled contract.
type Image struct {
	// Files are the elements of the files that the image was built for, without those that they only import, by path.
	Files []*Element

	top    map[string]*Element // by full name: messages, enums, services and extensions at the top of a file
	byName map[string]*Element
	files  *protoregistry.Files
	set    *descriptorpb.FileDescriptorSet
	// options decodes what the descriptors carry as options.
	options *options
}

// Parse reads an image as `buf build -o image.binpb` writes it, or a google.protobuf.FileDescriptorSet.
func Parse(data []byte) (*Image, error) {
	// Without a resolver that knows extensions, options stay as the bytes that they are until the image's own
	// descriptors can say what they mean.
	var set descriptorpb.FileDescriptorSet
	if err := (proto.UnmarshalOptions{Resolver: new(protoregistry.Types)}).Unmarshal(data, &set); err != nil {
		return nil, fmt.Errorf("read image: %w", err)
	}
	if len(set.GetFile()) == 0 {
		return nil, errors.New("read image: it holds no file")
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		return nil, fmt.Errorf("read image: %w", err)
	}
	image := &Image{
		top: map[string]*Element{}, byName: map[string]*Element{}, files: files, set: &set,
		options: &options{files: files, types: dynamicpb.NewTypes(files)},
	}
	for _, described := range set.GetFile() {
		if imported(described) {
			continue
		}
		fd, err := files.FindFileByPath(described.GetName())
		if err != nil {
			return nil, fmt.Errorf("read image: %w", err)
		}
		element, err := image.file(fd)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", fd.Path(), err)
		}
		image.Files = append(image.Files, element)
	}
	slices.SortFunc(image.Files, byName)
	for _, file := range image.Files {
		for _, element := range file.Children {
			image.top[element.Name] = element
		}
		file.Walk(func(e *Element) { image.byName[e.Name] = e })
	}
	return image, nil
}

// Find returns the element with a full name, or the file with a path; nil where the image has none.
func (i *Image) Find(name string) *Element {
	return i.byName[name]
}

// Descriptors returns the descriptors of all files, also of those that are only imported, each after those that it
// imports. It is not to be changed.
func (i *Image) Descriptors() []*descriptorpb.FileDescriptorProto {
	return i.set.GetFile()
}

// Walk calls visit with every element, files first among their own.
func (i *Image) Walk(visit func(*Element)) {
	for _, file := range i.Files {
		file.Walk(visit)
	}
}

// imageFile is the number of the field in which buf says of a file how it came into the image, and isImport that of the
// flag inside which says that only an import brought it.
const (
	imageFile = 8042
	isImport  = 1
)

// imported tells whether a file is in an image only because another one imports it.
func imported(file *descriptorpb.FileDescriptorProto) bool {
	var found bool
	fields(file.ProtoReflect().GetUnknown(), func(number protowire.Number, value []byte, _ uint64) {
		if number == imageFile {
			fields(value, func(number protowire.Number, _ []byte, flag uint64) {
				found = found || number == isImport && flag != 0
			})
		}
	})
	return found
}

// fields calls visit with each length-delimited field and each varint of a message.
func fields(message []byte, visit func(number protowire.Number, value []byte, varint uint64)) {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return
		}
		message = message[n:]
		size := protowire.ConsumeFieldValue(number, kind, message)
		if size < 0 {
			return
		}
		switch kind {
		case protowire.BytesType:
			value, _ := protowire.ConsumeBytes(message)
			visit(number, value, 0)
		case protowire.VarintType:
			value, _ := protowire.ConsumeVarint(message)
			visit(number, nil, value)
		}
		message = message[size:]
	}
}

// position returns where a descriptor stands.
func position(d protoreflect.Descriptor) Position {
	file := d.ParentFile()
	at := Position{Path: file.Path()}
	if loc := file.SourceLocations().ByDescriptor(d); loc.Path != nil {
		at.Line, at.Column, at.EndLine, at.EndColumn = loc.StartLine+1, loc.StartColumn+1, loc.EndLine+1, loc.EndColumn+1
	}
	return at
}

// comment returns what leads a descriptor in the source.
func comment(d protoreflect.Descriptor) string {
	text := d.ParentFile().SourceLocations().ByDescriptor(d).LeadingComments
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for n, line := range lines {
		lines[n] = strings.TrimRight(strings.TrimPrefix(line, " "), " \t")
	}
	return strings.Join(lines, "\n")
}

func byName(a, b *Element) int { return strings.Compare(a.Name, b.Name) }

func sorted(elements []*Element) []*Element {
	elements = slices.Clone(elements)
	slices.SortFunc(elements, func(a, b *Element) int {
		if order := strings.Compare(string(a.Kind), string(b.Kind)); order != 0 {
			return order
		}
		if order := int(a.Number) - int(b.Number); order != 0 {
			return order
		}
		return byName(a, b)
	})
	return elements
}
