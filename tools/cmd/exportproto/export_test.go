package main

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/concordat-dev/concordat/tools/internal/repo"
)

func renderForTest(t *testing.T) (root string, files []exported) {
	t.Helper()
	root, err := repo.Root(".")
	if err != nil {
		t.Fatal(err)
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		t.Fatal("the test binary carries no build information")
	}
	files, err = render(t.Context(), info, formatter{dir: filepath.Join(root, "tools")})
	if err != nil {
		t.Fatal(err)
	}
	return root, files
}

func TestThirdPartyIsWhatThePinnedModulesSay(t *testing.T) {
	root, files := renderForTest(t)
	diff, err := compare(filepath.Join(root, "third_party"), files)
	if err != nil {
		t.Fatal(err)
	}
	if len(diff) > 0 {
		t.Error(diff)
	}
}

func TestEveryExportedFileCompilesToTheDescriptorThatTheRuntimeRegisters(t *testing.T) {
	_, files := renderForTest(t)
	text := map[string]string{}
	for _, f := range files {
		text[f.path] = string(f.text)
	}
	compiler := protocompile.Compiler{Resolver: protocompile.WithStandardImports(
		&protocompile.SourceResolver{Accessor: protocompile.SourceAccessorFromMap(text)},
	)}
	for _, s := range sources() {
		t.Run(s.file.Path(), func(t *testing.T) {
			compiled, err := compiler.Compile(t.Context(), s.file.Path())
			if err != nil {
				t.Fatal(err)
			}
			got := normal(t, protoutil.ProtoFromFileDescriptor(compiled[0]))
			want := normal(t, protodesc.ToFileDescriptorProto(s.file))
			if !proto.Equal(got, want) {
				t.Errorf("compiled descriptor differs from the registered one\n got: %v\nwant: %v", got, want)
			}
		})
	}
}

// normal reads a descriptor through the registry of this process, so that options have the same
// form whoever made it, and clears the JSON names: a compiler may leave those it can compute out.
func normal(t *testing.T, fd *descriptorpb.FileDescriptorProto) *descriptorpb.FileDescriptorProto {
	t.Helper()
	raw, err := proto.Marshal(fd)
	if err != nil {
		t.Fatal(err)
	}
	var out descriptorpb.FileDescriptorProto
	if err := proto.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	var clearNames func(messages []*descriptorpb.DescriptorProto)
	clearNames = func(messages []*descriptorpb.DescriptorProto) {
		for _, m := range messages {
			for _, f := range append(m.GetField(), m.GetExtension()...) {
				f.JsonName = nil
			}
			clearNames(m.GetNestedType())
		}
	}
	clearNames(out.GetMessageType())
	for _, f := range out.GetExtension() {
		f.JsonName = nil
	}
	return &out
}

func TestEachLicenceAndCopyrightIsTheOneInTheModule(t *testing.T) {
	root, files := renderForTest(t)
	for i, s := range sources() {
		t.Run(s.file.Path(), func(t *testing.T) {
			dir, err := repo.Output(t.Context(), filepath.Join(root, "tools"), "go", "list", "-m", "-f", "{{.Dir}}", s.module)
			if err != nil {
				t.Fatal(err)
			}
			licence, err := os.ReadFile(filepath.Join(dir, "LICENSE"))
			if err != nil {
				t.Fatal(err)
			}
			if s.licence != "Apache-2.0" || !strings.Contains(string(licence), "Apache License\n                           Version 2.0, January 2004") {
				t.Errorf("%s: the header says %s, the LICENSE of the module does not", s.module, s.licence)
			}
			if !statesCopyright(t, dir, s) {
				t.Errorf("%s: no source of %s with %q", s.module, s.file.Path(), s.copyright)
			}
			if !bytes.HasPrefix(files[i].text, []byte("// "+s.copyright+"\n")) {
				t.Errorf("%s does not begin with its copyright line", files[i].path)
			}
		})
	}
}

// statesCopyright tells whether the Go source that was generated from s begins with its copyright line.
func statesCopyright(t *testing.T, dir string, s source) bool {
	t.Helper()
	found := false
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || found || !strings.HasSuffix(path, ".pb.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		found = bytes.HasPrefix(text, []byte("// "+s.copyright+"\n")) && bytes.Contains(text, []byte("// source: "+s.file.Path()+"\n"))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestCompareNamesWhatDiffersAndWriteMendsIt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "third_party")
	files := []exported{{"a/one.proto", []byte("one")}, {"a/two.proto", []byte("two")}, {"b/three.proto", []byte("three")}}

	diff, err := compare(dir, files)
	if err != nil || len(diff) != 3 || diff[0] != (difference{"a/one.proto", missing}) {
		t.Fatalf("a folder that does not exist: %v, %v; want three missing files", diff, err)
	}
	if err := write(dir, files, diff); err != nil {
		t.Fatal(err)
	}
	if diff, err = compare(dir, files); err != nil || len(diff) != 0 {
		t.Fatalf("after writing: %v, %v; want no difference", diff, err)
	}

	for path, text := range map[string]string{"a/two.proto": "edited by hand", "c/old.proto": "no longer exported"} {
		if err := writeFile(filepath.Join(dir, path), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	diff, err = compare(dir, files)
	want := differences{{"a/two.proto", changed}, {"c/old.proto", leftOver}}
	if err != nil || len(diff) != len(want) || diff[0] != want[0] || diff[1] != want[1] {
		t.Fatalf("got %v, %v; want %v", diff, err, want)
	}
	if err := write(dir, files, diff); err != nil {
		t.Fatal(err)
	}
	if diff, err = compare(dir, files); err != nil || len(diff) != 0 {
		t.Fatalf("after mending: %v, %v; want no difference", diff, err)
	}
}

func TestAVersionIsOnlyTakenFromAPinnedRelease(t *testing.T) {
	info := &debug.BuildInfo{Deps: []*debug.Module{
		{Path: "example.com/pinned", Version: "v1.2.3"},
		{Path: "example.com/local", Version: "v1.2.3", Replace: &debug.Module{Path: "../local"}},
	}}
	if got, err := linkedVersion(info, "example.com/pinned"); err != nil || got != "v1.2.3" {
		t.Errorf("pinned module: %q, %v; want v1.2.3", got, err)
	}
	for _, module := range []string{"example.com/local", "example.com/absent"} {
		if got, err := linkedVersion(info, module); err == nil {
			t.Errorf("%s: got %q; want an error", module, got)
		}
	}
}
