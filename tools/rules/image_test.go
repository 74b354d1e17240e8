package rules

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	checkv1 "buf.build/gen/go/bufbuild/bufplugin/protocolbuffers/go/buf/plugin/check/v1"
	descriptorv1 "buf.build/gen/go/bufbuild/bufplugin/protocolbuffers/go/buf/plugin/descriptor/v1"
	"buf.build/go/bufplugin/check"
	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/concordat-dev/concordat/tools/internal/repo"
)

// An image is what buf sends to a plugin: files, each as a target or as an import.
type image []*descriptorv1.FileDescriptor

// compile makes the image of the files that targets names. Files are looked for in sources, by path, then in proto/ and
// third_party/ of the repository.
func compile(t *testing.T, sources map[string]string, targets ...string) image {
	t.Helper()
	root, err := repo.Root(".")
	if err != nil {
		t.Fatal(err)
	}
	ours := &protocompile.SourceResolver{Accessor: protocompile.SourceAccessorFromMap(sources)}
	theirs := &protocompile.SourceResolver{ImportPaths: []string{filepath.Join(root, "proto"), filepath.Join(root, "third_party")}}
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(protocompile.CompositeResolver{ours, theirs}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := compiler.Compile(t.Context(), targets...)
	if err != nil {
		t.Fatal(err)
	}
	var img image
	seen := map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(fd protoreflect.FileDescriptor) {
		if seen[fd.Path()] {
			return
		}
		seen[fd.Path()] = true
		for i := range fd.Imports().Len() {
			add(fd.Imports().Get(i).FileDescriptor)
		}
		img = append(img, &descriptorv1.FileDescriptor{
			FileDescriptorProto: protodesc.ToFileDescriptorProto(fd),
			IsImport:            !slices.Contains(targets, fd.Path()),
		})
	}
	for _, file := range files {
		add(file)
	}
	return img
}

// without returns the image as if it had been built without some files, whose types nothing but options needs.
func (img image) without(paths ...string) image {
	var kept image
	for _, f := range img {
		if slices.Contains(paths, f.GetFileDescriptorProto().GetName()) {
			continue
		}
		f = proto.CloneOf(f)
		f.FileDescriptorProto.Dependency = slices.DeleteFunc(f.GetFileDescriptorProto().GetDependency(), func(path string) bool {
			return slices.Contains(paths, path)
		})
		kept = append(kept, f)
	}
	return kept
}

// lint runs rules on an image as the plugin does for buf, all rules where none is named. It returns the findings as buf
// prints them, sorted, with the rule after the place.
func (img image) lint(t *testing.T, ids ...string) []string {
	t.Helper()
	// Through the bytes that buf sends: options that the sender knows are bytes again for the plugin.
	raw, err := proto.Marshal(&checkv1.CheckRequest{FileDescriptors: img, RuleIds: ids})
	if err != nil {
		t.Fatal(err)
	}
	sent := new(checkv1.CheckRequest)
	if err := proto.Unmarshal(raw, sent); err != nil {
		t.Fatal(err)
	}
	request, err := check.RequestForProtoRequest(sent)
	if err != nil {
		t.Fatal(err)
	}
	client, err := check.NewClientForSpec(Spec())
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Check(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	annotations := slices.Clone(response.Annotations())
	slices.SortStableFunc(annotations, func(a, b check.Annotation) int {
		x, y := a.FileLocation(), b.FileLocation()
		return cmp.Or(
			cmp.Compare(x.FileDescriptor().ProtoreflectFileDescriptor().Path(), y.FileDescriptor().ProtoreflectFileDescriptor().Path()),
			cmp.Compare(x.StartLine(), y.StartLine()), cmp.Compare(a.Message(), b.Message()))
	})
	var lines []string
	for _, a := range annotations {
		at := a.FileLocation()
		path := at.FileDescriptor().ProtoreflectFileDescriptor().Path()
		lines = append(lines, fmt.Sprintf("%s:%d:%d: %s: %s", path, at.StartLine()+1, at.StartColumn()+1, a.RuleID(), a.Message()))
	}
	return lines
}

// proof reads the .proto files of a rule's folder by their paths, and sorts out which are checked with good.proto and
// which with bad.proto: both, but for those whose names begin with the other word.
func proof(t *testing.T, id string) (sources map[string]string, good, bad []string) {
	t.Helper()
	folder := filepath.Join("testdata", id)
	sources = map[string]string{}
	err := fs.WalkDir(os.DirFS(folder), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".proto") {
			return err
		}
		text, err := os.ReadFile(filepath.Join(folder, path))
		if err != nil {
			return err
		}
		sources[path] = string(text)
		if !strings.HasPrefix(path, "bad") {
			good = append(good, path)
		}
		if !strings.HasPrefix(path, "good") {
			bad = append(bad, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"good.proto", "bad.proto"} {
		if sources[name] == "" {
			t.Fatalf("%s has no %s", folder, name)
		}
	}
	return sources, good, bad
}
