package schema_test

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/concordat-dev/concordat/tools/review/schema"
	"github.com/concordat-dev/concordat/tools/review/schema/schematest"
)

// policies declares options that this program does not know.
const policies = `syntax = "proto3";

package policy;

import "google/protobuf/descriptor.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/timestamp.proto";

message Policy {
  google.protobuf.Duration timeout = 1;
  repeated string scopes = 2;
  repeated Rule rules = 3;
  map<string, int32> rates = 4;
  Kind kind = 5;
  bytes seal = 6;
  double share = 7;
  Policy inner = 8;
  google.protobuf.Timestamp until = 9;
}

message Rule {
  string id = 1;
  string text = 2;
}

enum Kind {
  KIND_NONE = 0;
  KIND_HARD = 1;
}

extend google.protobuf.MessageOptions {
  Policy policy = 50001;
}
`

// optioned returns what is said of a message with an option.
func optioned(t *testing.T, value string) *schema.Element {
	t.Helper()
	found := image(t, files{"policy.proto": policies, "a.proto": "syntax = \"proto3\";\n\nimport \"policy.proto\";\n\nmessage A {\n  option (policy.policy) = {" + value + "};\n}\n"}).Find("A")
	if found == nil {
		t.Fatal("the message is not found")
	}
	return found
}

// Options are read with the descriptors of the image: a value that this program has no type for is a value all the same.
func TestOptionsAreReadWithTheImagesOwnDescriptors(t *testing.T) {
	for _, row := range []struct{ said, name, want string }{
		{"timeout: {seconds: 5}", "(policy.policy).timeout", "5s"},
		{"timeout: {seconds: 59, nanos: 1000000000}", "(policy.policy).timeout", "1m0s"},
		{"timeout: {seconds: 315576000000, nanos: 1}", "(policy.policy).timeout", "315576000000.000000001 seconds"},
		{"until: {seconds: 86400}", "(policy.policy).until", "1970-01-02T00:00:00Z"},
		{`scopes: ["a", "b"]`, "(policy.policy).scopes", "a, b"},
		{`rules: [{id: "one" text: "t"}]`, "(policy.policy).rules[one].text", "t"},
		{`rules: [{text: "t"}]`, "(policy.policy).rules[0].text", "t"},
		{`rates: {key: "x" value: 3}`, "(policy.policy).rates[x]", "3"},
		{"kind: KIND_HARD", "(policy.policy).kind", "KIND_HARD"},
		{`seal: "\x01"`, "(policy.policy).seal", `"\x01"`},
		{"share: 0.5", "(policy.policy).share", "0.5"},
		{"inner: {}", "(policy.policy).inner", "{}"},
		{"inner: {kind: KIND_HARD}", "(policy.policy).inner.kind", "KIND_HARD"},
	} {
		e := optioned(t, row.said)
		if got := e.Attr(row.name); got != row.want {
			t.Errorf("%s: %s is %q; want %q; all: %v", row.said, row.name, got, row.want, e.Shape)
		}
		if !slices.IsSortedFunc(e.Shape, func(a, b schema.Attr) int { return strings.Compare(a.Name, b.Name) }) {
			t.Errorf("%s: the shape is not sorted: %v", row.said, e.Shape)
		}
	}
}

// What no descriptor explains is still said, so that two values of it differ.
func TestAnOptionThatNobodyDeclaresIsSaidAsBytes(t *testing.T) {
	shape := func(value byte) *schema.Element {
		described := schematest.Compile(t, files{"a.proto": "syntax = \"proto3\";\nmessage A {}\n"}, nil).Set
		options := new(descriptorpb.MessageOptions)
		options.ProtoReflect().SetUnknown([]byte{0x8a, 0xb5, 0x18, 0x01, value}) // field 50001, one byte
		described.File[0].MessageType[0].Options = options
		data, err := proto.Marshal(described)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := schema.Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		return parsed.Find("A")
	}
	one, two := shape(1), shape(2)
	if one.Attr("(unknown).50001") == "" || one.Attr("(unknown).50001") == two.Attr("(unknown).50001") || one.Digest() == two.Digest() {
		t.Errorf("got %v and %v", one.Shape, two.Shape)
	}
}

// An edition's features count where they are in force, not where they are written.
func TestFeaturesAreInherited(t *testing.T) {
	at := func(file, message string) *schema.Element {
		return image(t, files{"a.proto": "edition = \"2023\";\n" + file + "\nmessage A {\n" + message + "\n  string a = 1;\n}\n"}).Find("A.a")
	}
	if got := at("option features.utf8_validation = NONE;", "").Attr("utf8_validation"); got != "NONE" {
		t.Errorf("said of the file: %q", got)
	}
	if got := at("", "").Attr("utf8_validation"); got != "VERIFY" {
		t.Errorf("said of nothing: %q", got)
	}
	if at("option features.field_presence = IMPLICIT;", "").Attr("presence") != "" || at("", "").Attr("presence") != "true" {
		t.Error("presence is not what the edition says")
	}
}

// Files that are only imported are no part of a contract, and describe options and types all the same.
func TestImportsAreNoElements(t *testing.T) {
	contract := image(t, files{"a.proto": "syntax = \"proto3\";\nimport \"google/protobuf/timestamp.proto\";\nmessage A { google.protobuf.Timestamp at = 1; }\n"})
	if len(contract.Files) != 1 || contract.Find("google.protobuf.Timestamp") != nil {
		t.Errorf("%d files, and Timestamp is %v", len(contract.Files), contract.Find("google.protobuf.Timestamp"))
	}
	if len(contract.Descriptors()) != 2 {
		t.Errorf("%d descriptors; want that of the import as well", len(contract.Descriptors()))
	}
	// The same files without buf's marks: everything is the contract.
	all := contract.Descriptors()
	again, err := schema.New(all, func(*descriptorpb.FileDescriptorProto) bool { return false })
	if err != nil || again.Find("google.protobuf.Timestamp") == nil {
		t.Errorf("a plain set of descriptors: %v", err)
	}
	if _, err := protodesc.NewFiles(&descriptorpb.FileDescriptorSet{File: all}); err != nil {
		t.Error(err)
	}
}

func TestReachSaysWhichMethodsCarryWhat(t *testing.T) {
	contract := image(t, files{"a.proto": `edition = "2023";

package acme.v1;

service S {
  rpc Put(Put_) returns (Done);
  rpc Watch(Asked) returns (stream Event);
}

message Put_ { Deep deep = 1; }
message Deep { map<string, Leaf> leaves = 1; Deep again = 2; }
message Leaf { Kind kind = 1; }
message Done {}
message Asked {}
message Event { extensions 10 to 20; Inner inner = 1; message Inner { oneof o { string a = 1; } } }
message Nobody {}
enum Kind { KIND_NONE = 0; }
extend Event { string more = 10; }
`})
	list := func(methods []string) string { return strings.ReplaceAll(strings.Join(methods, " "), "acme.v1.S.", "") }
	reach := contract.Reach()
	for name, want := range map[string][3]string{
		"acme.v1.Put_": {"Put"}, "acme.v1.Leaf": {"Put"}, "acme.v1.Kind.KIND_NONE": {"Put"}, "acme.v1.Done": {"", "Put"}, "acme.v1.Asked": {"Watch"},
		"acme.v1.Event.Inner.a": {"", "Watch", "Watch"}, "acme.v1.Event.Inner.o": {"", "Watch", "Watch"}, "acme.v1.more": {"", "Watch", "Watch"},
		"acme.v1.Nobody": {}, "a.proto": {"", "", "Watch"},
	} {
		e := contract.Find(name)
		if e == nil {
			t.Errorf("%s is not found", name)
			continue
		}
		if got := [3]string{list(reach.Requests(e)), list(reach.Responses(e)), list(reach.Streamed(e))}; got != want {
			t.Errorf("%s travels in %q; want %q", name, got, want)
		}
	}
}

func TestASummaryIsWhatAProtoFileSays(t *testing.T) {
	contract := image(t, files{"a.proto": "syntax = \"proto3\";\npackage p;\nmessage A { optional string a = 1; map<string, A> m = 2; repeated A r = 3; }\nenum E { E_A = 0; }\nservice S { rpc M(stream A) returns (A); }\n"})
	for name, want := range map[string]string{
		"p.A": "message A", "p.A.a": "optional string a = 1", "p.A.m": "map<string, p.A> m = 2", "p.A.r": "repeated p.A r = 3",
		"p.E.E_A": "E_A = 0", "p.S.M": "rpc M(stream p.A) returns (p.A)", "a.proto": "file a.proto",
	} {
		if got := contract.Find(name).Summary(); got != want {
			t.Errorf("%s is %q; want %q", name, got, want)
		}
	}
	if at := contract.Find("p.A.a").At; at.Path != "a.proto" || at.Line != 3 || at.Column != 13 {
		t.Errorf("p.A.a stands at %+v", at)
	}
}
