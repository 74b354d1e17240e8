package selftest

import "strings"

// A mutation breaks the contract in one way.
type mutation struct {
	rule, name string
	// make does it; it returns false where the contract has nothing to do it to.
	make func(*source) (bool, error)
}

// The files of the fixture.
const (
	current    = "selftest.proto"
	legacy     = "legacy.proto"
	edition    = "edition.proto"
	doomed     = "doomed.proto"
	predefined = "predefined.proto"
)

// swap makes the mutation that replaces one text of a file of the fixture by another.
func swap(rule, name, file, old, new string) mutation {
	return mutation{rule, name, func(s *source) (bool, error) {
		return s.edit(fixtureFolder+"/"+file, func(text string) string {
			if strings.Contains(new, "(buf.validate.") && !strings.Contains(text, "buf/validate/validate.proto") {
				return text // the contract has no such rules
			}
			return strings.Replace(text, old, new, 1)
		})
	}}
}

// cut makes the mutation that takes a text out of a file of the fixture, what leads it by way of comment included.
func cut(rule, name, file, text string) mutation {
	return swap(rule, name, file, text, "")
}

// labels is a field of a request with a rule of protovalidate: where the contract has no such rules, it is not there
// as it stands here.
const labels = "map<string, string> labels = 7 [(buf.validate.field).map.max_pairs = 10];"

// beside makes the mutation that adds a field, or a oneof, to a request.
func beside(rule, name, added string) mutation {
	return swap(rule, name, current, labels, labels+"\n\n  "+added)
}

// block makes the mutation that takes out the statement which a text begins.
func block(rule, name, file, begins string) mutation {
	return mutation{rule, name, func(s *source) (bool, error) {
		return s.edit(fixtureFolder+"/"+file, func(text string) string {
			at := strings.Index(text, begins)
			if at < 0 {
				return text
			}
			return text[:at] + text[bodyEnd(text, at):]
		})
	}}
}

// bodyEnd returns where the message, enum, service or method that begins at a place ends: with its brace, or with its
// semicolon where it has no body.
func bodyEnd(text string, at int) int {
	depth := 0
	for ; at < len(text); at++ {
		switch text[at] {
		case '{', '[':
			depth++
		case '}':
			if depth--; depth == 0 {
				return at + 1
			}
		case ']':
			depth--
		case ';':
			if depth == 0 {
				return at + 1
			}
		}
	}
	return len(text)
}

// edit changes a file of a module by its path as imports say it; false where that changes nothing.
func (s *source) edit(file string, change func(string) string) (bool, error) {
	path := s.path(file)
	text, err := s.read(path)
	if err != nil {
		return false, nil // the contract does not have the file
	}
	changed := change(text)
	if changed == text {
		return false, nil
	}
	return true, s.write(path, changed)
}

// option sets the value of an option of a file.
func option(rule, name, old, new string) mutation {
	return swap(rule, "a file with another "+name, legacy, "option "+name+" = "+old+";", "option "+name+" = "+new+";")
}

// mutations are the breaks of the fixture: at least one for every rule.
func mutations() []mutation {
	list := []mutation{
		{"FILE_NO_DELETE", "a file is deleted", func(s *source) (bool, error) {
			return true, s.remove(s.path(fixtureFolder + "/" + doomed))
		}},
		block("MESSAGE_NO_DELETE", "a message is deleted", doomed, "message Doomed"),
		{"MESSAGE_NO_DELETE", "a message moves to another file", func(s *source) (bool, error) {
			const doom = "\n// It goes with its file.\nmessage Doomed {\n  // Its name.\n  string name = 1;\n}\n"
			if done, err := s.edit(fixtureFolder+"/"+doomed, func(text string) string { return strings.Replace(text, doom, "", 1) }); !done || err != nil {
				return done, err
			}
			return s.edit(fixtureFolder+"/"+edition, func(text string) string { return text + doom })
		}},
		block("ENUM_NO_DELETE", "an enum is deleted", edition, "enum ModernColour"),
		block("SERVICE_NO_DELETE", "a service is deleted", current, "service SpareService"),
		block("EXTENSION_NO_DELETE", "an extension is deleted", legacy, "extend Legacy"),
		block("RPC_NO_DELETE", "a method is deleted", current, "rpc Nothing"),
		cut("FIELD_NO_DELETE", "a field is deleted", current, "  string query = 1;\n"),
		swap("FIELD_NO_DELETE", "a field is deleted, its number and name reserved", current, "  string query = 1;\n", "  reserved 1;\n  reserved \"query\";\n"),
		swap("FIELD_NO_DELETE", "a field gets another number", current, "string query = 1;", "string query = 2;"),
		cut("ENUM_VALUE_NO_DELETE", "a value is deleted", current, "  URGENCY_HIGH = 2;\n"),
		swap("ONEOF_NO_DELETE", "a oneof is dissolved", current, "  oneof way {\n    // By road.\n    string road = 10;\n\n    // By rail.\n    string rail = 11;\n  }", "  string road = 10;\n  string rail = 11;"),
		swap("FIELD_SAME_TYPE", "an int64 becomes a string", current, "int32 count = 3 [\n    (buf.validate.field).int32.gte = 1,\n    (buf.validate.field).int32.lte = 10\n  ];", "string count = 3;"),
		swap("FIELD_SAME_TYPE", "a string becomes bytes", current, "string key = 2;", "bytes key = 2;"),
		swap("FIELD_SAME_TYPE", "a message becomes another", current, "Item item = 5;", "LookRequest item = 5;"),
		swap("FIELD_SAME_CARDINALITY", "a field repeats", current, "string query = 1;", "repeated string query = 1;"),
		swap("FIELD_SAME_CARDINALITY", "a field loses its presence", current, "optional string note = 12;", "string note = 12;"),
		swap("FIELD_SAME_NAME", "a field is renamed", current, "string key = 2;", "string token = 2;"),
		swap("FIELD_SAME_JSON_NAME", "a field has another name in JSON", current, "string key = 2;", "string key = 2 [json_name = \"theKey\"];"),
		swap("FIELD_SAME_ONEOF", "a field leaves its oneof", current, "\n    // By rail.\n    string rail = 11;\n  }", "  }\n\n  // By rail.\n  string rail = 11;"),
		swap("FIELD_SAME_DEFAULT", "a default changes", legacy, "[default = 3]", "[default = 5]"),
		swap("FIELD_SAME_JSTYPE", "a type in JavaScript changes", current, "jstype = JS_STRING", "jstype = JS_NUMBER"),
		swap("FIELD_SAME_CPP_STRING_TYPE", "a string type in C++ changes", legacy, "[ctype = CORD]", "[ctype = STRING]"),
		swap("FIELD_SAME_JAVA_UTF8_VALIDATION", "Java checks UTF-8", legacy, "option java_multiple_files = true;", "option java_multiple_files = true;\noption java_string_check_utf8 = true;"),
		swap("FIELD_SAME_UTF8_VALIDATION", "UTF-8 is not checked", edition, "features.utf8_validation = VERIFY", "features.utf8_validation = NONE"),
		swap("ENUM_VALUE_SAME_NAME", "a value is renamed", current, "URGENCY_HIGH = 2;", "URGENCY_URGENT = 2;"),
		swap("ENUM_SAME_TYPE", "an enum is closed", edition, "enum_type = OPEN;\n\n  // Not said.\n  MODERN_KIND_UNSPECIFIED = 0;", "enum_type = CLOSED;\n\n  // Not said.\n  MODERN_KIND_UNSPECIFIED = 0;"),
		swap("ENUM_SAME_JSON_FORMAT", "an enum does not support JSON", edition, "enum ModernColour {", "enum ModernColour {\n  option features.json_format = LEGACY_BEST_EFFORT;"),
		swap("MESSAGE_SAME_JSON_FORMAT", "a message does not support JSON", edition, "message Modern {", "message Modern {\n  option features.json_format = LEGACY_BEST_EFFORT;"),
		swap("MESSAGE_NO_REMOVE_STANDARD_DESCRIPTOR_ACCESSOR", "a message has no descriptor accessor", legacy, "no_standard_descriptor_accessor = false", "no_standard_descriptor_accessor = true"),
		swap("MESSAGE_SAME_REQUIRED_FIELDS", "a required field comes", legacy, "optional string text = 3 [ctype = CORD];", "optional string text = 3 [ctype = CORD];\n  required string more = 4;"),
		cut("RESERVED_MESSAGE_NO_DELETE", "reserved numbers are free", current, "  reserved 20 to 29;\n"),
		cut("RESERVED_MESSAGE_NO_DELETE", "a reserved name is free", current, "  reserved \"old_name\";\n"),
		cut("RESERVED_ENUM_NO_DELETE", "a reserved number is free", current, "  reserved 9;\n"),
		cut("RESERVED_ENUM_NO_DELETE", "a reserved name is free", current, "  reserved \"URGENCY_OLD\";\n"),
		swap("EXTENSION_MESSAGE_NO_DELETE", "a message has fewer extension numbers", legacy, "extensions 100 to 199;", "extensions 100 to 149;"),
		swap("RPC_SAME_REQUEST_TYPE", "a method takes another message", current, "rpc Nothing(LookRequest)", "rpc Nothing(DoRequest)"),
		swap("RPC_SAME_RESPONSE_TYPE", "a method returns another message", current, "rpc Nothing(LookRequest) returns (LookResponse)", "rpc Nothing(LookRequest) returns (DoResponse)"),
		swap("RPC_SAME_CLIENT_STREAMING", "a client streams", current, "rpc Nothing(LookRequest)", "rpc Nothing(stream LookRequest)"),
		swap("RPC_SAME_SERVER_STREAMING", "a server streams", current, "rpc Nothing(LookRequest) returns (LookResponse)", "rpc Nothing(LookRequest) returns (stream LookResponse)"),
		swap("RPC_SAME_IDEMPOTENCY_LEVEL", "a method is no longer idempotent", current, "    option idempotency_level = IDEMPOTENT;\n", ""),
		swap("FILE_SAME_PACKAGE", "a file moves to another package", doomed, "package concordatselftest.v1;", "package concordatselftest.v2;"),
		swap("FILE_SAME_SYNTAX", "a file has another syntax", doomed, "syntax = \"proto3\";", "edition = \"2023\";"),
		swap("FILE_SAME_GO_PACKAGE", "a file has another Go package", doomed, "example.com/selftest/v1;selftestv1", "example.com/other/v1;otherv1"),

		block("POLICY_REMOVED", "a method has no policy", current, "option (policy.v1.method) = {\n      audience: [AUDIENCE_SERVICE]"),
		swap("POLICY_AUDIENCE_WIDENED", "anybody may call", current, "audience: [AUDIENCE_SERVICE]", "audience: [AUDIENCE_SERVICE, AUDIENCE_PUBLIC]"),
		swap("POLICY_AUDIENCE_NARROWED", "services may not call", current, "audience: [AUDIENCE_USER, AUDIENCE_SERVICE]", "audience: [AUDIENCE_USER]"),
		swap("POLICY_SCOPE_ADDED", "one more scope", current, `scopes: ["trials.write"]`, `scopes: ["trials.write", "trials.admin"]`),
		cut("POLICY_SCOPE_REMOVED", "no scope", current, "      scopes: [\"trials.write\"]\n"),
		swap("POLICY_CALLER_REMOVED", "one caller less", current, `callers: ["gateway", "orders"]`, `callers: ["gateway"]`),
		swap("POLICY_CALLER_REMOVED", "a list of callers where every service might call", current, "audience: [AUDIENCE_SERVICE]\n      timeout", "audience: [AUDIENCE_SERVICE]\n      callers: [\"orders\"]\n      timeout"),
		swap("POLICY_CALLER_ADDED", "one more caller", current, `callers: ["gateway", "orders"]`, `callers: ["gateway", "orders", "reports"]`),
		swap("POLICY_SELF_ADDED", "users only for themselves", current, "audience: [AUDIENCE_USER, AUDIENCE_SERVICE]", "audience: [AUDIENCE_USER, AUDIENCE_SERVICE]\n      self: {field: \"query\"}"),
		block("POLICY_SELF_REMOVED", "users for others", current, "self: {"),
		swap("POLICY_SELF_SCOPE_CHANGED", "another scope acts for others", current, `or_scope: "trials.admin"`, `or_scope: "trials.write"`),
		swap("POLICY_TIMEOUT_SHORTENED", "less time", current, "timeout: {seconds: 60}", "timeout: {seconds: 30}"),
		swap("POLICY_RETRY_LOST", "fewer attempts", current, "attempts: 4", "attempts: 2"),
		swap("POLICY_RETRY_LOST", "fewer codes", current, "codes: [RETRY_CODE_UNAVAILABLE, RETRY_CODE_ABORTED]", "codes: [RETRY_CODE_UNAVAILABLE]"),
		swap("POLICY_IDEMPOTENCY_KEY_CHANGED", "another key", current, `idempotency_key: "key"`, `idempotency_key: "name"`),
		swap("POLICY_IDEMPOTENCY_KEY_REQUIRED", "a key", current, "audience: [AUDIENCE_USER, AUDIENCE_SERVICE]", "audience: [AUDIENCE_USER, AUDIENCE_SERVICE]\n      idempotency_key: \"query\""),
		swap("POLICY_RATE_LOWERED", "fewer calls", current, "per_second: 50", "per_second: 5"),
		swap("POLICY_RATE_LOWERED", "a rate where there was none", current, "audience: [AUDIENCE_SERVICE]", "audience: [AUDIENCE_SERVICE]\n      rate: {per_second: 1, burst: 1, per: RATE_KEY_CALLER}"),
		swap("POLICY_REQUEST_SIZE_LOWERED", "smaller requests", current, "max_request_bytes: 65536", "max_request_bytes: 4096"),
		swap("POLICY_HEDGE_ADDED", "two calls at once", current, "audience: [AUDIENCE_USER, AUDIENCE_SERVICE]", "audience: [AUDIENCE_USER, AUDIENCE_SERVICE]\n      hedge: {attempts: 2, delay: {nanos: 50000000}}"),

		swap("VALIDATE_REQUIRED_ADDED", "what could be left out is required", current, "string key = 2;", "string key = 2 [(buf.validate.field).required = true];"),
		swap("VALIDATE_REQUEST_TIGHTENED", "a longer shortest length", current, "min_len: 1\n", "min_len: 3\n"),
		swap("VALIDATE_REQUEST_TIGHTENED", "a shorter longest length", current, "max_len: 100", "max_len: 50"),
		swap("VALIDATE_REQUEST_TIGHTENED", "a lower bound", current, "int32.lte = 10", "int32.lte = 5"),
		swap("VALIDATE_REQUEST_TIGHTENED", "a shorter duration", current, "duration.lte = {seconds: 60}", "duration.lte = {seconds: 30}"),
		swap("VALIDATE_REQUEST_TIGHTENED", "a format", current, "string key = 2;", "string key = 2 [(buf.validate.field).string.uuid = true];"),
		swap("VALIDATE_REQUEST_TIGHTENED", "one more value that is refused", current, "enum.not_in = 0", "enum = {not_in: [0, 1]}"),
		swap("VALIDATE_REQUEST_TIGHTENED", "fewer items", current, "repeated.max_items = 10", "repeated.max_items = 5"),
		swap("VALIDATE_RESPONSE_LOOSENED", "a longer string", current, "(buf.validate.field).string.max_len = 36\n", "(buf.validate.field).string.max_len = 360\n"),
		swap("VALIDATE_RESPONSE_LOOSENED", "what was always there may be missing", current, "(buf.validate.field).required = true,\n", ""),
		swap("VALIDATE_CEL_CHANGED", "another expression", current, "this % 2 == 0", "this % 4 == 0"),
		swap("VALIDATE_CEL_CHANGED", "another pattern", current, "^[a-z]+$", "^[a-z0-9]+$"),

		swap("HTTP_ROUTE_REMOVED", "another path", current, `get: "/v1/trials"`, `get: "/v1/trial"`),
		swap("HTTP_ROUTE_REMOVED", "another verb", current, `post: "/v1/trials"`, `patch: "/v1/trials"`),
		block("HTTP_ROUTE_REMOVED", "one route less", current, "additional_bindings {"),
		swap("HTTP_BODY_CHANGED", "another body", current, `body: "*"`, `body: "item"`),
		swap("HTTP_BODY_CHANGED", "another response body", current, "      response_body: \"item\"\n", ""),

		cut("FIELD_NOT_RESERVED", "a field goes, and its number is free", current, "  string query = 1;\n"),
		cut("ENUM_VALUE_NOT_RESERVED", "a value goes, and its number is free", current, "  URGENCY_HIGH = 2;\n"),
		swap("ERROR_REASON_REMOVED", "a reason goes, reserved", current, "  ERROR_REASON_TRIAL_NOT_FOUND = 1;\n", "  reserved 1;\n  reserved \"ERROR_REASON_TRIAL_NOT_FOUND\";\n"),
		swap("REDACT_REMOVED", "a secret with another number is logged", current, "string secret = 4 [debug_redact = true];", "string secret = 15;"),
		swap("REDACT_REMOVED", "a secret is logged", current, " [debug_redact = true]", ""),
		swap("DEPRECATED_WITHOUT_REPLACEMENT", "a field is deprecated without a word", current, "string key = 2;", "string key = 2 [deprecated = true];"),
		swap("DEPRECATED_WITHOUT_SUNSET", "a field is deprecated for ever", current, "  // The key.\n  string key = 2;", "  // Deprecated: use name instead.\n  string key = 2 [deprecated = true];"),
		swap("SUNSET_NOT_REACHED", "a field goes before its day", current, "  string going = 14 [deprecated = true];", "  reserved 14;\n  reserved \"going\";"),
		swap("SUNSET_MOVED_FORWARD", "a sunset comes sooner", current, "Sunset: 2099-12-31", "Sunset: 2030-01-01"),
		swap("ENUM_VALUE_ADDED", "one more value", current, "URGENCY_HIGH = 2;", "URGENCY_HIGH = 2;\n  URGENCY_HIGHEST = 3;"),
		swap("EXTENSION_NUMBER_CHANGED", "an extension has another number", legacy, "optional string added = 100;", "optional string added = 101;"),
		swap("PUBLIC_IMPORT_REMOVED", "an import is no longer public", legacy, "import public", "import"),
		swap("VALIDATE_CEL_CHANGED", "a predefined rule is another one", predefined, "this.size() > 1", "this.size() > 100"),
		beside("VALIDATE_REQUIRED_ADDED", "a new field is required", "string more = 15 [(buf.validate.field).required = true];"),
		beside("VALIDATE_REQUIRED_ADDED", "a new field may not be empty", "string more = 15 [(buf.validate.field).string.min_len = 3];"),
		beside("VALIDATE_REQUIRED_ADDED", "a new oneof is required", "oneof must {\n    option (buf.validate.oneof).required = true;\n    string more = 15;\n  }"),
		beside("VALIDATE_CEL_CHANGED", "a new field is checked by an expression", "string more = 15 [(buf.validate.field).cel_expression = \"this.size() > 1\"];"),
		swap("VALIDATE_REQUEST_TIGHTENED", "a field with another number takes less", current, labels, "map<string, string> labels = 15 [(buf.validate.field).map.max_pairs = 5];"),
		swap("ENUM_ZERO_CHANGED", "another zero", current, "URGENCY_UNSPECIFIED = 0;", "URGENCY_NONE = 0;"),
	}
	for _, o := range [][3]string{
		{"cc_enable_arenas", "true", "false"}, {"cc_generic_services", "false", "true"}, {"csharp_namespace", `"Concordat.SelfTest"`, `"Other"`},
		{"java_generic_services", "false", "true"}, {"java_multiple_files", "true", "false"}, {"java_outer_classname", `"Legacy"`, `"Other"`},
		{"java_package", `"dev.concordat.selftest"`, `"other"`}, {"objc_class_prefix", `"CST"`, `"OTH"`}, {"optimize_for", "SPEED", "CODE_SIZE"},
		{"php_class_prefix", `"CST"`, `"OTH"`}, {"php_metadata_namespace", `"Concordat\\Meta"`, `"Other"`}, {"php_namespace", `"Concordat\\SelfTest"`, `"Other"`},
		{"py_generic_services", "false", "true"}, {"ruby_package", `"Concordat::SelfTest"`, `"Other"`}, {"swift_prefix", `"CST"`, `"OTH"`},
	} {
		list = append(list, option("FILE_SAME_"+strings.ToUpper(o[0]), o[0], o[1], o[2]))
	}
	return list
}
