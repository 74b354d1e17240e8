package rules_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/tools/review/rules"
	"github.com/concordat-dev/concordat/tools/review/schema"
)

// asked is a contract with a method, and with what stands in its request, in its response and beside them.
func asked(t *testing.T, request, response, beside string) *schema.Image {
	t.Helper()
	return compileText(t, "acme/v1/thing.proto", `edition = "2023";

package acme.v1;

import "buf/validate/validate.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/timestamp.proto";

option features.field_presence = IMPLICIT;

service ThingService {
  rpc Do(DoRequest) returns (DoResponse);
}

message DoRequest {
`+request+`
}

message DoResponse {
`+response+`
}

enum Colour {
  COLOUR_UNSPECIFIED = 0;
  COLOUR_RED = 1;
}

`+beside)
}

// ids lists what the rules find, each rule once for each attribute.
func ids(before, after *schema.Image) []string {
	var list []string
	for _, f := range rules.Check(before, after, schema.Compare(before, after), now) {
		list = append(list, f.Rule)
	}
	slices.Sort(list)
	return list
}

func TestANewFieldIsABreakWhereARequestWithoutItIsRefused(t *testing.T) {
	const required, changed = "VALIDATE_REQUIRED_ADDED", "VALIDATE_CEL_CHANGED"
	const sku = `extend buf.validate.StringRules { bool sku = 80048952 [(buf.validate.predefined).cel = {id: "sku" message: "m" expression: "this != ''"}]; }`
	before := asked(t, "", "", sku)
	for _, row := range []struct {
		field, want string
	}{
		{`string n = 9 [(buf.validate.field).required = true];`, required},
		{`string n = 9 [features.field_presence = EXPLICIT, (buf.validate.field).required = true];`, required},
		{`DoRequest n = 9 [(buf.validate.field).required = true];`, required},
		{`oneof must { option (buf.validate.oneof).required = true; string m = 9; }`, required},
		{`string n = 9 [(buf.validate.field).string.min_len = 3];`, required},
		{`string n = 9 [(buf.validate.field).string.uuid = true];`, required},
		{`string n = 9 [(buf.validate.field).string.pattern = "^[a-z]+$"];`, required},
		{`string n = 9 [(buf.validate.field).string = {in: ["a", "b"]}];`, required},
		{`bytes n = 9 [(buf.validate.field).bytes.prefix = "x"];`, required},
		{`bool n = 9 [(buf.validate.field).bool.const = true];`, required},
		{`int32 n = 9 [(buf.validate.field).int32.gt = 0];`, required},
		{`int32 n = 9 [(buf.validate.field).int32 = {lt: -5, gt: 5}];`, required},
		{`double n = 9 [(buf.validate.field).double.gt = 0];`, required},
		{`Colour n = 9 [(buf.validate.field).enum.not_in = 0];`, required},
		{`repeated string n = 9 [(buf.validate.field).repeated.min_items = 1];`, required},
		{`map<string, string> n = 9 [(buf.validate.field).map.min_pairs = 1];`, required},
		{`string n = 9 [(buf.validate.field).cel = {id: "n" message: "m" expression: "this != ''"}];`, changed},
		{`string n = 9 [(buf.validate.field).string.(sku) = true];`, changed},

		{`string n = 9;`, ""},
		{`string n = 9 [(buf.validate.field).string.max_len = 3];`, ""},
		{`string n = 9 [(buf.validate.field).string.pattern = "^[a-z]*$"];`, ""},
		{`string n = 9 [features.field_presence = EXPLICIT, (buf.validate.field).string.min_len = 3];`, ""},
		{`string n = 9 [(buf.validate.field).string.min_len = 3, (buf.validate.field).ignore = IGNORE_IF_ZERO_VALUE];`, ""},
		{`string n = 9 [(buf.validate.field).required = true, (buf.validate.field).ignore = IGNORE_ALWAYS];`, ""},
		{`string n = 9 [features.field_presence = EXPLICIT, (buf.validate.field).cel = {id: "n" message: "m" expression: "this != ''"}];`, ""},
		{`string n = 9 [(buf.validate.field).string.uri_ref = true];`, ""},
		{`int32 n = 9 [(buf.validate.field).int32.gte = 0, (buf.validate.field).int32.lte = 10];`, ""},
		{`int32 n = 9 [(buf.validate.field).int32 = {in: [0, 1]}];`, ""},
		{`Colour n = 9 [(buf.validate.field).enum.defined_only = true];`, ""},
		{`repeated string n = 9 [(buf.validate.field).repeated.items.string.min_len = 1];`, ""},
		{`google.protobuf.Duration n = 9 [(buf.validate.field).duration.gt = {seconds: 1}];`, ""},
		{`oneof may { string m = 9; }`, ""},
	} {
		if got := strings.Join(ids(before, asked(t, row.field, "", sku)), " "); got != row.want {
			t.Errorf("in a request, %s\nfound %q; want %q", row.field, got, row.want)
		}
		if got := ids(before, asked(t, "", row.field, sku)); len(got) > 0 {
			t.Errorf("in a response, %s\nfound %v", row.field, got)
		}
	}
}

func TestWhatANewMessageRequiresBreaksNobody(t *testing.T) {
	const must = "message New { string n = 1 [(buf.validate.field).required = true]; oneof o { option (buf.validate.oneof).required = true; string m = 2; } }"
	if got := ids(asked(t, "", "", ""), asked(t, "New new = 9;", "", must)); len(got) > 0 {
		t.Errorf("found %v", got)
	}
	// Who had to have one of two may have one of three.
	one := "oneof o { option (buf.validate.oneof).required = true; string a = 1; string b = 2; %s }"
	if got := ids(asked(t, fmt.Sprintf(one, ""), "", ""), asked(t, strings.Replace(fmt.Sprintf(one, "string c = 3;"), "oneof o", "oneof p", 1), "", "")); slices.Contains(got, "VALIDATE_REQUIRED_ADDED") {
		t.Errorf("another name for a oneof that was required: found %v", got)
	}
}

func TestLimitsAreJudgedTogetherAndExactly(t *testing.T) {
	const tighter, looser = "VALIDATE_REQUEST_TIGHTENED", "VALIDATE_RESPONSE_LOOSENED"
	for _, row := range []struct {
		kind, old, now string
		request        string
		response       string
	}{
		{"int32", "gt: 0", "gte: 0", "", looser},
		{"int32", "gte: 0", "gt: 0", tighter, ""},
		{"int32", "gt: 0", "gte: 1", "", ""},
		{"int32", "lt: 10", "lte: 10", "", looser},
		{"int32", "lte: 10", "lt: 11", "", ""},
		{"double", "gt: 0", "gte: 1", tighter, ""},
		{"double", "gt: 0", "gte: 0", "", looser},
		{"int32", "gte: 0, lte: 10", "gte: 5, lte: 15", tighter, looser},
		{"int32", "lt: 5", "lt: 5, gt: 10", "", looser},
		{"int32", "lt: 5, gt: 10", "lt: 5, gt: 12", tighter, ""},
		{"uint64", "gte: 9007199254740992", "gte: 9007199254740993", tighter, ""},
		{"int64", "lte: 9007199254740993", "lte: 9007199254740992", tighter, ""},
		{"uint32", "", "gte: 0", "", ""},
		{"uint32", "", "lte: 4294967295", "", ""},
		{"uint32", "gte: 1", "", "", looser},
		{"duration", "gt: {seconds: 1}", "gte: {seconds: 1}", "", looser},
		{"duration", "lte: {seconds: 9000000, nanos: 2}", "lte: {seconds: 9000000, nanos: 1}", tighter, ""},
		{"timestamp", "gt: {seconds: 1}", "gt: {seconds: 1, nanos: 1}", tighter, ""},
		{"duration", "lte: {seconds: 100000000000}", "lte: {seconds: 200000000000}", "VALIDATE_CEL_CHANGED", "VALIDATE_CEL_CHANGED"},
	} {
		field := func(limits string) string {
			kind := map[string]string{"duration": "google.protobuf.Duration", "timestamp": "google.protobuf.Timestamp"}[row.kind]
			if kind == "" {
				kind = row.kind
			}
			if limits == "" {
				return kind + " n = 1;"
			}
			return fmt.Sprintf("%s n = 1 [(buf.validate.field).%s = {%s}];", kind, row.kind, limits)
		}
		if got := strings.Join(ids(asked(t, field(row.old), "", ""), asked(t, field(row.now), "", "")), " "); got != row.request {
			t.Errorf("in a request, %s {%s} → {%s}: found %q; want %q", row.kind, row.old, row.now, got, row.request)
		}
		if got := strings.Join(ids(asked(t, "", field(row.old), ""), asked(t, "", field(row.now), "")), " "); got != row.response {
			t.Errorf("in a response, %s {%s} → {%s}: found %q; want %q", row.kind, row.old, row.now, got, row.response)
		}
	}
}

// A predefined rule is said once and used by many: whoever changes it changes what all of them accept.
func TestAChangedPredefinedRuleIsFoundAndSaysWhoIsConcerned(t *testing.T) {
	const use = "string n = 1 [(buf.validate.field).string.(sku) = true];"
	sku := func(options string) string {
		return "extend buf.validate.StringRules { bool sku = 80048952 [deprecated = false" + options + "]; }"
	}
	cel := func(expression string) string {
		return `, (buf.validate.predefined).cel = {id: "sku" message: "m" expression: "` + expression + `"}`
	}
	for _, row := range []struct{ name, old, now, want string }{
		{"its expression", sku(cel("this.size() > 1")), sku(cel("this.size() > 100")), "VALIDATE_CEL_CHANGED"},
		{"one that comes", sku(""), sku(cel("this.size() > 1")), "VALIDATE_REQUEST_TIGHTENED"},
		{"what it says", sku(cel("this.size() > 1")), strings.Replace(sku(cel("this.size() > 1")), `"m"`, `"too short"`, 1), ""},
		{"its number", sku(cel("true")), strings.Replace(sku(cel("true")), "80048952", "80048953", 1), "EXTENSION_NUMBER_CHANGED"},
		{"its type", sku(cel("true")), strings.Replace(sku(cel("true")), "bool sku", "int32 sku", 1), "FIELD_SAME_TYPE"},
	} {
		use := use
		if strings.Contains(row.now, "int32 sku") {
			use = strings.Replace(use, "true", "1", 1)
		}
		before, after := asked(t, strings.Replace(use, "= 1]", "= true]", 1), "", row.old), asked(t, use, "", row.now)
		found := rules.Check(before, after, schema.Compare(before, after), now)
		at := slices.IndexFunc(found, func(f *rules.Finding) bool { return f.Element == "acme.v1.sku" })
		switch {
		case row.want == "" && at >= 0:
			t.Errorf("%s: found %s", row.name, found[at].Rule)
		case row.want != "" && (at < 0 || found[at].Rule != row.want || !slices.Equal(found[at].Methods, []string{"acme.v1.ThingService.Do"})):
			t.Errorf("%s: found %+v; want %s of acme.v1.sku, which Do carries", row.name, found, row.want)
		}
	}
	// A response that is checked by a rule less may hold what it never held.
	before, after := asked(t, "", use, sku(cel("true"))), asked(t, "", use, sku(""))
	if got := strings.Join(ids(before, after), " "); got != "VALIDATE_RESPONSE_LOOSENED" {
		t.Errorf("a rule less on a response: found %q", got)
	}
}

// A field that has another number is deleted for the wire; to JSON and Go it is the same one, and everything that
// changed of it counts.
func TestARenumberedFieldKeepsItsOtherVerdicts(t *testing.T) {
	for _, row := range []struct{ old, now, want string }{
		{"string pw = 5 [debug_redact = true];", "string pw = 8; reserved 5;", "FIELD_NO_DELETE REDACT_REMOVED"},
		{"string pw = 5 [(buf.validate.field).string.max_len = 10];", "string pw = 8 [(buf.validate.field).string.max_len = 1]; reserved 5;", "FIELD_NO_DELETE VALIDATE_REQUEST_TIGHTENED"},
		{"string pw = 5 [(buf.validate.field).required = true];", "string pw = 8 [(buf.validate.field).required = true]; reserved 5;", "FIELD_NO_DELETE"},
		{"string pw = 5;", "string pw = 8 [(buf.validate.field).required = true]; reserved 5;", "FIELD_NO_DELETE VALIDATE_REQUIRED_ADDED"},
		{"string pw = 5;", "string pw = 8 [json_name = \"secret\"]; reserved 5;", "FIELD_NO_DELETE FIELD_SAME_JSON_NAME"},
		{"string a = 1; string pw = 2 [debug_redact = true];", "string pw = 1; reserved 2;", "FIELD_NO_DELETE FIELD_SAME_JSON_NAME FIELD_SAME_NAME REDACT_REMOVED"},
		{"string pw = 5 [debug_redact = true];", "string pw = 8 [debug_redact = true]; reserved 5;", "FIELD_NO_DELETE"},
	} {
		if got := strings.Join(ids(asked(t, row.old, "", ""), asked(t, row.now, "", "")), " "); got != row.want {
			t.Errorf("%s → %s\nfound %q; want %q", row.old, row.now, got, row.want)
		}
	}
}

// What is kept already is not asked for again.
func TestAPatchReservesWhatIsFree(t *testing.T) {
	for kept, want := range map[string]string{
		"":                                "+ reserved 5;\n+ reserved gone;",
		"reserved 5;":                     "+ reserved gone;",
		"reserved gone;":                  "+ reserved 5;",
		"reserved 4 to 6; reserved gone;": "",
	} {
		before, after := asked(t, "string gone = 5;", "", ""), asked(t, kept, "", "")
		for _, f := range rules.Check(before, after, schema.Compare(before, after), now) {
			if f.Rule == "FIELD_NO_DELETE" && (want == "" && f.Patch != "" || !strings.HasSuffix(f.Patch, want)) {
				t.Errorf("with %q the patch is\n%s\nwant %q", kept, f.Patch, want)
			}
		}
	}
}
