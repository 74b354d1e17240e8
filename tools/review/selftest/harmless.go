package selftest

import (
	"regexp"
	"strings"

	"github.com/concordat-dev/concordat/tools/review/schema"
)

// harmless are edits after which every reader, writer and caller goes on as before.
func harmless() []mutation {
	in := func(name, file, old, new string) mutation { return swap("", name, file, old, new) }
	text := func(name string, change func(string) string) mutation {
		return mutation{"", name, func(s *source) (bool, error) { return s.edit(fixtureFolder+"/"+current, change) }}
	}
	contract := func(name string, kind schema.Kind, change func(string) string) mutation {
		return mutation{"", name, func(s *source) (bool, error) {
			return s.element(kind, func(e *schema.Element) bool { return e.Parent == nil || e.Parent.Kind != schema.Oneof }, change)
		}}
	}
	return []mutation{
		in("the comment of a message", current, "// What is to be done.", "// What has to be done."),
		in("the comment of a field", current, "// The key.", "// The key of it."),
		in("the comment of a method", current, "// Does what it is told.", "// Does it."),
		in("the comment of a value", current, "// It can wait.", "// It may wait."),
		in("a comment after a field", current, "string key = 2;", "string key = 2; // the key"),
		in("a comment in a list of options", current, "(buf.validate.field).int32.gte = 1,", "(buf.validate.field).int32.gte = 1, // from one"),
		in("a comment at the top of a file", current, "syntax = \"proto3\";", "// About trials.\nsyntax = \"proto3\";"),
		in("a comment of the other kind", current, "// How many.", "/* How many. */"),
		in("a comment less", current, "  // Who did it.\n", ""),
		text("blank lines", func(s string) string { return strings.ReplaceAll(s, "\n\n", "\n\n\n") }),
		text("tabs", func(s string) string { return strings.ReplaceAll(s, "\n  ", "\n\t") }),
		text("spaces at ends of lines", func(s string) string { return strings.ReplaceAll(s, ";\n", ";  \n") }),
		text("no line break at the end", func(s string) string { return strings.TrimRight(s, "\n") }),
		text("line ends of Windows", func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }),
		in("two imports in another order", current, "import \"google/protobuf/duration.proto\";\nimport \"google/protobuf/timestamp.proto\";", "import \"google/protobuf/timestamp.proto\";\nimport \"google/protobuf/duration.proto\";"),
		in("an import that is not used", current, "import \"google/protobuf/duration.proto\";", "import \"google/protobuf/duration.proto\";\nimport \"google/protobuf/empty.proto\";"),
		in("an import with other quotes", current, `import "google/protobuf/duration.proto";`, `import 'google/protobuf/duration.proto';`),
		in("two fields in another order", current, "  // The key.\n  string key = 2;\n\n  // How many.\n  int32 count = 3 [\n    (buf.validate.field).int32.gte = 1,\n    (buf.validate.field).int32.lte = 10\n  ];", "  // How many.\n  int32 count = 3 [\n    (buf.validate.field).int32.gte = 1,\n    (buf.validate.field).int32.lte = 10\n  ];\n\n  // The key.\n  string key = 2;"),
		in("two values in another order", current, "  // It can wait.\n  URGENCY_LOW = 1;\n\n  // It cannot.\n  URGENCY_HIGH = 2;", "  // It cannot.\n  URGENCY_HIGH = 2;\n\n  // It can wait.\n  URGENCY_LOW = 1;"),
		in("two messages in another order", current, "// Asks.\nmessage LookRequest {\n  // What to look for.\n  string query = 1;\n}\n\n// Answers.\nmessage LookResponse {\n  // What was found.\n  repeated Item items = 1;\n}",
			"// Answers.\nmessage LookResponse {\n  // What was found.\n  repeated Item items = 1;\n}\n\n// Asks.\nmessage LookRequest {\n  // What to look for.\n  string query = 1;\n}"),
		in("two options of a field in another order", current, "(buf.validate.field).int32.gte = 1,\n    (buf.validate.field).int32.lte = 10", "(buf.validate.field).int32.lte = 10,\n    (buf.validate.field).int32.gte = 1"),
		in("options of a field as one message", current, "(buf.validate.field).int32.gte = 1,\n    (buf.validate.field).int32.lte = 10", "(buf.validate.field).int32 = {gte: 1, lte: 10}"),
		in("an audience in another order", current, "[AUDIENCE_USER, AUDIENCE_SERVICE]", "[AUDIENCE_SERVICE, AUDIENCE_USER]"),
		in("a time said in another unit", current, "timeout: {seconds: 60}", "timeout: {seconds: 59, nanos: 1000000000}"),
		in("a number in hexadecimal", current, "string key = 2;", "string key = 0x2;"),
		in("a type by its full name", current, "  Item item = 5;", "  .concordatselftest.v1.Item item = 5;"),
		in("a string in two parts", current, `post: "/v1/trials"`, `post: "/v1" "/trials"`),
		in("a semicolon more", current, "message LookRequest {", "message LookRequest {\n  ;"),
		in("a name in JSON that it has anyway", current, "string query = 1;", "string query = 1 [json_name = \"query\"];"),
		in("what is false said to be false", current, "string query = 1;", "string query = 1 [deprecated = false];"),
		in("reserved numbers in two parts", current, "reserved 20 to 29;", "reserved 20 to 24, 25 to 29;"),
		in("a field more", current, "string query = 1;", "string query = 1;\n  string more = 2;"),
		in("a message more", current, "// Asks.", "// More.\nmessage More {}\n\n// Asks."),
		in("a method more", current, "rpc Nothing(LookRequest) returns (LookResponse);", "rpc Nothing(LookRequest) returns (LookResponse);\n  rpc More(LookRequest) returns (LookResponse);"),
		in("an enum more", current, "// Why something failed.", "enum More {\n  MORE_UNSPECIFIED = 0;\n}\n\n// Why something failed."),
		in("a number reserved more", current, "reserved 20 to 29;", "reserved 20 to 30;"),
		in("a route more", current, `option (google.api.http) = {get: "/v1/trials"};`, "option (google.api.http) = {\n      get: \"/v1/trials\"\n      additional_bindings {get: \"/v1/looks\"}\n    };"),
		in("more time", current, "timeout: {seconds: 60}", "timeout: {seconds: 90}"),
		in("a request that may be longer", current, "max_len: 100", "max_len: 200"),
		in("a deprecation that says what to use and until when", current, "  // The key.\n  string key = 2;", "  // Deprecated: use name instead. Sunset: 2099-12-31.\n  string key = 2 [deprecated = true];"),
		{"", "a file more", func(s *source) (bool, error) {
			return true, s.write(s.path(fixtureFolder+"/more.proto"), "syntax = \"proto3\";\n\npackage concordatselftest.v1;\n\noption go_package = \"example.com/selftest/v1;selftestv1\";\n\nmessage InMore {}\n")
		}},
		{"", "an import by a file that hands on the same", func(s *source) (bool, error) {
			const timestamp = "google/protobuf/timestamp.proto"
			if err := s.write(s.path(fixtureFolder+"/times.proto"), "syntax = \"proto3\";\n\npackage concordatselftest.v1;\n\nimport public \""+timestamp+"\";\n\noption go_package = \"example.com/selftest/v1;selftestv1\";\n"); err != nil {
				return false, err
			}
			return s.edit(fixtureFolder+"/"+current, func(text string) string {
				return strings.Replace(text, "\""+timestamp+"\"", "\""+fixtureFolder+"/times.proto\"", 1)
			})
		}},
		in("a limit said in another way", current, "(buf.validate.field).int32.gte = 1,", "(buf.validate.field).int32.gt = 0,"),
		in("a field more that has to be something where it is", current, labels, labels+"\n  optional string more = 15 [(buf.validate.field).string.min_len = 3];"),
		contract("a comment in a message of the contract", schema.Message, func(text string) string {
			return regexp.MustCompile(`\{`).ReplaceAllStringFunc(text, func() func(string) string {
				first := true
				return func(brace string) string {
					if !first {
						return brace
					}
					first = false
					return "{ // said of it\n"
				}
			}())
		}),
		contract("a comment before a field of the contract", schema.Field, func(text string) string { return "/* said of it */ " + text }),
		contract("a comment in a method of the contract", schema.Method, func(text string) string { return strings.Replace(text, "returns", "/* gives */ returns", 1) }),
	}
}
