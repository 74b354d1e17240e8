package schema_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/concordat-dev/concordat/tools/review/schema"
	"github.com/concordat-dev/concordat/tools/review/schema/schematest"
)

// files are the sources of a contract by path.
type files map[string]string

func image(t *testing.T, sources files) *schema.Image {
	t.Helper()
	return schematest.Compile(t, sources, nil).Image(t)
}

// one is a contract of one file.
func one(t *testing.T, text string) *schema.Image {
	t.Helper()
	return image(t, files{"acme/v1/thing.proto": "syntax = \"proto3\";\n\npackage acme.v1;\n\n" + text})
}

// told writes changes, one a line: what, of what, and its attributes.
func told(changes []schema.Change) []string {
	var list []string
	for n := range changes {
		c := &changes[n]
		what := "changed"
		switch {
		case c.Added():
			what = "added"
		case c.Removed():
			what = "removed"
		}
		if c.Implied {
			what += " with it"
		}
		text := fmt.Sprintf("%s %s %s", what, c.Element().Kind, c.Element().Name)
		for _, a := range c.Attrs {
			text += fmt.Sprintf(" %s: %s → %s", a.Name, a.Old, a.New)
		}
		if c.Became != nil {
			text += fmt.Sprintf(" (now %d)", c.Became.Number)
		}
		list = append(list, text)
	}
	return list
}

func TestEveryDifferenceIsOneChangeAndNothingElseIs(t *testing.T) {
	for _, row := range []struct {
		name, before, after string
		want                []string
	}{
		{"nothing", "message A { string a = 1; }", "message A { string a = 1; }", nil},
		{"the order of everything", "message A { string a = 1; int32 b = 2; } enum E { E_A = 0; E_B = 1; } message B {}",
			"message B {} enum E { E_A = 0; E_B = 1; } message A { int32 b = 2; string a = 1; }", nil},
		{"a message comes", "message A {}", "message A {} message B { string a = 1; oneof o { string b = 2; } enum E { E_A = 0; } }",
			[]string{"added message acme.v1.B", "added with it field acme.v1.B.a", "added with it field acme.v1.B.b", "added with it oneof acme.v1.B.o",
				"added with it enum acme.v1.B.E", "added with it enum value acme.v1.B.E.E_A"}},
		{"a message goes", "message A {} message B { string a = 1; message C { string b = 1; } }", "message A {}",
			[]string{"removed message acme.v1.B", "removed with it field acme.v1.B.a", "removed with it message acme.v1.B.C", "removed with it field acme.v1.B.C.b"}},
		{"a message becomes an enum", "message A {}", "enum A { A_A = 0; }", []string{"removed message acme.v1.A", "added enum acme.v1.A", "added with it enum value acme.v1.A.A_A"}},
		{"a field has another type", "message A { int32 a = 1; }", "message A { sint64 a = 1; }", []string{"changed field acme.v1.A.a type: int32 → sint64"}},
		{"a field has another name", "message A { int32 a = 1; }", "message A { int32 b = 1; }", []string{"changed field acme.v1.A.b json_name: a → b name: a → b"}},
		{"a field repeats", "message A { string a = 1; }", "message A { repeated string a = 1; }", []string{"changed field acme.v1.A.a label:  → repeated"}},
		{"a field knows absence", "message A { string a = 1; }", "message A { optional string a = 1; }", []string{"changed field acme.v1.A.a label:  → optional presence:  → true"}},
		{"a field enters a oneof", "message A { string a = 1; oneof o { string b = 2; } }", "message A { oneof o { string a = 1; string b = 2; } }",
			[]string{"changed field acme.v1.A.a oneof:  → o presence:  → true"}},
		{"a field has another number", "message A { string a = 1; }", "message A { string a = 2; }",
			[]string{"removed field acme.v1.A.a (now 2)", "added field acme.v1.A.a"}},
		{"a field has another number and type", "message A { string a = 1 [deprecated = true]; }", "message A { bytes a = 2; }",
			[]string{"removed field acme.v1.A.a cpp_string_type: STRING →  deprecated: true →  java_utf8_validation: DEFAULT →  type: string → bytes utf8_validation: VERIFY →  (now 2)", "added field acme.v1.A.a"}},
		{"two fields change places", "message A { string a = 1; string b = 2; }", "message A { string b = 1; string a = 2; }",
			[]string{"changed field acme.v1.A.b json_name: a → b name: a → b", "changed field acme.v1.A.a json_name: b → a name: b → a"}},
		{"a field takes the number of one that goes", "message A { string a = 1; string b = 2; }", "message A { string b = 1; }",
			[]string{"changed field acme.v1.A.b json_name: a → b name: a → b", "removed field acme.v1.A.b (now 1)"}},
		{"a map has other values", "message A { map<string, int32> a = 1; }", "message A { map<string, A> a = 1; }", []string{"changed field acme.v1.A.a type: map<string, int32> → map<string, acme.v1.A>"}},
		{"numbers and names are reserved", "message A { reserved 2; }", "message A { reserved 2, 4 to 6; reserved \"b\"; }",
			[]string{"changed message acme.v1.A reserved: 2 → 2, 4 to 6 reserved_names:  → b"}},
		{"a value has another name", "enum E { E_A = 0; E_B = 1; }", "enum E { E_A = 0; E_C = 1; }", []string{"changed enum value acme.v1.E.E_C name: E_B → E_C"}},
		{"a value has another number", "enum E { E_A = 0; E_B = 1; }", "enum E { E_A = 0; E_B = 2; }", []string{"removed enum value acme.v1.E.E_B", "added enum value acme.v1.E.E_B"}},
		{"one of two names of a value goes", "enum E { option allow_alias = true; E_A = 0; E_B = 0; }", "enum E { option allow_alias = true; E_B = 0; E_C = 0; }",
			[]string{"changed enum value acme.v1.E.E_C name: E_A → E_C"}},
		{"a oneof has another name", "message A { oneof o { string a = 1; } }", "message A { oneof p { string a = 1; } }",
			[]string{"changed field acme.v1.A.a oneof: o → p", "removed oneof acme.v1.A.o", "added oneof acme.v1.A.p"}},
		{"a method", "message A {} service S { rpc M(A) returns (A); }", "message A {} message B {} service S { rpc M(stream B) returns (A) { option deprecated = true; } }",
			[]string{"changed rpc acme.v1.S.M client_streaming:  → true deprecated:  → true request: acme.v1.A → acme.v1.B", "added message acme.v1.B"}},
		{"a comment", "// One.\nmessage A {}", "// Two.\nmessage A {}", []string{"changed message acme.v1.A comment: One. → Two."}},
	} {
		got := told(schema.Compare(one(t, row.before), one(t, row.after)))
		if !slices.Equal(got, row.want) {
			t.Errorf("%s: found\n%s\nwant\n%s", row.name, strings.Join(got, "\n"), strings.Join(row.want, "\n"))
		}
	}
}

func TestOnlyAChangeOfTheCommentIsCommented(t *testing.T) {
	for _, row := range []struct {
		before, after string
		want          bool
	}{
		{"// One.\nmessage A {}", "// Two.\nmessage A {}", true},
		{"// One.\nmessage A {}", "// Two.\nmessage A { reserved 1; }", false},
		{"message A {\n// One.\nstring a = 1; }", "message A {\n// Two.\nstring a = 2; }", false},
	} {
		changes := schema.Compare(one(t, row.before), one(t, row.after))
		if got := changes[0].Commented(); got != row.want {
			t.Errorf("%s → %s: commented is %v", row.before, row.after, got)
		}
	}
}

// Extensions are known by their names wherever they stand, and by their numbers to those who read bytes.
func TestAnExtensionIsFollowedToAnotherNumberAndAnotherMessage(t *testing.T) {
	file := func(text string) *schema.Image {
		return image(t, files{"acme/v1/x.proto": "syntax = \"proto2\";\n\npackage acme.v1;\n\nmessage A { extensions 1 to 99; }\n\nmessage B { extensions 1 to 99; }\n\n" + text})
	}
	for _, row := range []struct{ before, after, want string }{
		{"extend A { optional int32 x = 5; }", "extend A { optional int32 x = 6; }", "changed extension acme.v1.x number: 5 → 6"},
		{"extend A { optional int32 x = 5; }", "extend B { optional int32 x = 5; }", "changed extension acme.v1.x extendee: acme.v1.A → acme.v1.B"},
		{"message M { extend A { optional int32 x = 5; } }", "message M { extend A { optional int32 x = 6; } }", "changed extension acme.v1.M.x number: 5 → 6"},
		{"message M { extend A { optional int32 x = 5; } }", "message M { extend B { optional int32 x = 5; } }", "changed extension acme.v1.M.x extendee: acme.v1.A → acme.v1.B"},
		{"extend A { optional int32 x = 5; optional int32 y = 6; }", "extend A { optional int32 x = 6; optional int32 y = 5; }",
			"changed extension acme.v1.x number: 5 → 6; changed extension acme.v1.y number: 6 → 5"},
		{"extend A { optional string x = 5 [deprecated = true]; }", "extend A { optional string x = 5; }", "changed extension acme.v1.x deprecated: true → "},
	} {
		if got := strings.Join(told(schema.Compare(file(row.before), file(row.after))), "; "); got != row.want {
			t.Errorf("%s → %s\nfound %s\nwant  %s", row.before, row.after, got, row.want)
		}
	}
}

func TestWhatMovesToAnotherFileOrPackageIsFollowed(t *testing.T) {
	const a = "syntax = \"proto3\";\n\npackage acme.v1;\n\nmessage A { string a = 1; }\n"
	const b = "syntax = \"proto3\";\n\npackage acme.v1;\n\nmessage B {}\n"
	both := a + "\nmessage B {}\n"
	for _, row := range []struct {
		name          string
		before, after files
		want          []string
	}{
		{"a message to another file", files{"a.proto": both}, files{"a.proto": a, "b.proto": b}, []string{"changed message acme.v1.B file: a.proto → b.proto", "added file b.proto"}},
		{"a file with all in it", files{"a.proto": a}, files{"z.proto": a}, []string{"removed file a.proto", "changed message acme.v1.A file: a.proto → z.proto", "added file z.proto"}},
		{"a file that is gone", files{"a.proto": a, "b.proto": b}, files{"a.proto": a}, []string{"removed file b.proto", "removed with it message acme.v1.B"}},
		{"a package that is renamed", files{"a.proto": both}, files{"a.proto": strings.Replace(strings.Replace(both, "acme.v1", "acme.v2", 1), "string a", "bytes a", 1)}, []string{
			"changed file a.proto package: acme.v1 → acme.v2", "changed message acme.v2.A full_name: acme.v1.A → acme.v2.A",
			"changed field acme.v2.A.a cpp_string_type: STRING →  java_utf8_validation: DEFAULT →  type: string → bytes utf8_validation: VERIFY → ",
			"changed message acme.v2.B full_name: acme.v1.B → acme.v2.B"}},
		{"a file that no longer hands on another", files{"a.proto": a, "b.proto": strings.Replace(b, "package", "import public \"a.proto\";\n\npackage", 1)},
			files{"a.proto": a, "b.proto": strings.Replace(strings.Replace(b, "package", "import \"a.proto\";\n\npackage", 1), "B {}", "B { A a = 1; }", 1)},
			[]string{"changed file b.proto public_imports: a.proto → ", "added field acme.v1.B.a"}},
	} {
		if got := told(schema.Compare(image(t, row.before), image(t, row.after))); !slices.Equal(got, row.want) {
			t.Errorf("%s: found\n%s\nwant\n%s", row.name, strings.Join(got, "\n"), strings.Join(row.want, "\n"))
		}
	}
}

// A digest is of what is said, and of all of that: approvals are bound to it.
func TestADigestIsOfWhatIsSaidAndNotOfHow(t *testing.T) {
	digest := func(text string) string { return one(t, text).Find("acme.v1.A").Digest() }
	was := digest("message A { string a = 1; message B { int32 b = 1; } }")
	for _, same := range []string{
		"// A comment.\nmessage A {\n  // And one more.\n  string a = 1;\n  message B { int32 b = 1; }\n}",
		"message A { message B { int32 b = 1; } string a = 1; }",
		"message Z {} message A { string a = 1; message B { int32 b = 1; } }",
	} {
		if digest(same) != was {
			t.Errorf("another digest for %s", same)
		}
	}
	for _, other := range []string{
		"message A { string a = 2; message B { int32 b = 1; } }",
		"message A { string a = 1; message B { int32 b = 2; } }",
		"message A { string a = 1 [deprecated = true]; message B { int32 b = 1; } }",
		"message A { string a = 1; message B { int32 c = 1; } }",
		"message A { string a = 1; }",
		"message A { reserved 9; string a = 1; message B { int32 b = 1; } }",
	} {
		if digest(other) == was {
			t.Errorf("the same digest for %s", other)
		}
	}
}

func TestAnImageThatCannotBeReadIsRefused(t *testing.T) {
	broken := schematest.Compile(t, files{"a.proto": "syntax = \"proto3\";\nmessage A { A a = 1; }\n"}, nil).Set
	broken.File[0].MessageType[0].Field[0].TypeName = proto.String(".Nowhere")
	unresolved, err := proto.Marshal(broken)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"nothing": nil, "something else": []byte("not an image"), "a type that nobody declares": unresolved} {
		if parsed, err := schema.Parse(data); err == nil {
			t.Errorf("%s: read as %d files", name, len(parsed.Files))
		}
	}
}
