// Package schematest compiles contracts for tests, as `buf build` would.
package schematest

import (
	"maps"
	"slices"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/concordat-dev/concordat/tools/review/schema"
)

// Contract is what Compile makes.
type Contract struct {
	// Set holds all files, each behind those it imports. What is imported and no source is marked so, as buf marks it.
	Set *descriptorpb.FileDescriptorSet
	// Files are the same by path.
	Files map[string]protoreflect.FileDescriptor
}

// Compile compiles sources by path. What they import and is neither there nor in the standard library comes from imports, which may
// be nil.
func Compile(t testing.TB, sources map[string]string, imports protocompile.Resolver) *Contract {
	t.Helper()
	resolvers := protocompile.CompositeResolver{&protocompile.SourceResolver{Accessor: protocompile.SourceAccessorFromMap(sources)}}
	if imports != nil {
		resolvers = append(resolvers, imports)
	}
	compiler := protocompile.Compiler{SourceInfoMode: protocompile.SourceInfoStandard, Resolver: protocompile.WithStandardImports(resolvers)}
	linked, err := compiler.Compile(t.Context(), slices.Sorted(maps.Keys(sources))...)
	if err != nil {
		t.Fatal(err)
	}
	c := &Contract{Set: new(descriptorpb.FileDescriptorSet), Files: map[string]protoreflect.FileDescriptor{}}
	for _, file := range linked {
		c.add(file, sources)
	}
	return c
}

func (c *Contract) add(file protoreflect.FileDescriptor, sources map[string]string) {
	if c.Files[file.Path()] != nil {
		return
	}
	c.Files[file.Path()] = file
	for n := range file.Imports().Len() {
		c.add(file.Imports().Get(n).FileDescriptor, sources)
	}
	described := protodesc.ToFileDescriptorProto(file)
	if _, own := sources[file.Path()]; !own {
		// Field 8042 with field 1 set, as buf marks what is only imported.
		described.ProtoReflect().SetUnknown(append(described.ProtoReflect().GetUnknown(), 0xd2, 0xf6, 0x03, 0x02, 0x08, 0x01))
	}
	c.Set.File = append(c.Set.File, described)
}

// Image returns what the review reads of it.
func (c *Contract) Image(t testing.TB) *schema.Image {
	t.Helper()
	data, err := proto.Marshal(c.Set)
	if err != nil {
		t.Fatal(err)
	}
	image, err := schema.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return image
}
