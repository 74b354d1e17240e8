package rules

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"buf.build/go/bufplugin/check"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/concordat-dev/concordat/tools/internal/repo"
)

func TestEveryRuleIsProven(t *testing.T) {
	for _, rule := range Lint() {
		t.Run(rule.ID, func(t *testing.T) {
			sources, good, bad := proof(t, rule.ID)
			if found := compile(t, sources, good...).lint(t, rule.ID); len(found) > 0 {
				t.Errorf("what keeps the rule is found to break it:\n%s", strings.Join(found, "\n"))
			}
			want, err := os.ReadFile(filepath.Join("testdata", rule.ID, "want.txt"))
			if err != nil {
				t.Fatal(err)
			}
			if len(want) == 0 {
				t.Error("want.txt is empty: a rule that finds nothing proves nothing")
			}
			got := strings.Join(compile(t, sources, bad...).lint(t, rule.ID), "\n") + "\n"
			if got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestEveryProofIsOfARule(t *testing.T) {
	entries, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.ContainsFunc(Lint(), func(r Rule) bool { return r.ID == e.Name() }) {
			t.Errorf("testdata/%s: there is no such rule", e.Name())
		}
	}
}

func TestEveryRuleIsExplained(t *testing.T) {
	root, err := repo.Root(".")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "contract.md"))
	if err != nil {
		t.Fatal(err)
	}
	var explained []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\|").FindAllStringSubmatch(string(page), -1) {
		explained = append(explained, row[1])
	}
	var rules []string
	for _, r := range Lint() {
		rules = append(rules, r.ID)
	}
	slices.Sort(explained)
	slices.Sort(rules)
	if !slices.Equal(explained, rules) {
		t.Errorf("docs/contract.md explains\n%q\nand the rules are\n%q", explained, rules)
	}
}

func TestThePluginIsSound(t *testing.T) {
	if err := check.ValidateSpec(Spec()); err != nil {
		t.Error(err)
	}
	more := &check.RuleSpec{
		ID: "POLICY_NOT_TIGHTENED", CategoryIDs: []string{Category}, Default: true, Purpose: "Checks two contracts.",
		Type:    check.RuleTypeBreaking,
		Handler: check.RuleHandlerFunc(func(context.Context, check.ResponseWriter, check.Request) error { return nil }),
	}
	spec := Spec(more)
	if err := check.ValidateSpec(spec); err != nil || spec.Rules[len(spec.Rules)-1] != more {
		t.Errorf("a rule of another package does not join: %v", err)
	}
}

// everythingWrong breaks nearly every rule, where it is a contract of ours.
const everythingWrong = `
message Request {
  string password = 1;
  google.protobuf.Timestamp create_time = 2;
}
message Response {}
enum ErrorReason {
  ERROR_REASON_UNSPECIFIED = 0;
  ERROR_REASON_ANY = 1;
}
service Wrong {
  rpc ListThings(Request) returns (Response);
  rpc WatchThings(Request) returns (Response);
}`

func TestContractsOfOthersAreLeftAlone(t *testing.T) {
	const head = `syntax = "proto3"; package shop.v1; import "google/protobuf/timestamp.proto";`
	theirs := compile(t, map[string]string{"a.proto": head + everythingWrong}, "a.proto")
	if found := theirs.lint(t); len(found) > 0 {
		t.Errorf("a contract without policies:\n%s", strings.Join(found, "\n"))
	}
	namesake := compile(t, map[string]string{
		"a.proto": head + `import "policy/v1/policy.proto";` + everythingWrong,
		"policy/v1/policy.proto": `syntax = "proto3"; package policy.v1; import "google/protobuf/descriptor.proto";
extend google.protobuf.FieldOptions { string method = 51000; }`,
	}, "a.proto")
	if found := namesake.lint(t); len(found) > 0 {
		t.Errorf("a contract with another option of that name:\n%s", strings.Join(found, "\n"))
	}
	ours := compile(t, map[string]string{"a.proto": head + `import "policy/v1/policy.proto";` + everythingWrong}, "a.proto")
	if found := ours.lint(t); len(found) < 10 {
		t.Errorf("the same with policies, for comparison:\n%s", strings.Join(found, "\n"))
	}
}

func TestImportsAreNotChecked(t *testing.T) {
	sources := map[string]string{
		"a.proto": `syntax = "proto3"; package shop.v1; import "google/protobuf/timestamp.proto"; import "policy/v1/policy.proto";` + everythingWrong,
		"b.proto": `syntax = "proto3"; package shop.v1; import "a.proto"; message B { Response response = 1; }`,
	}
	if found := compile(t, sources, "b.proto").lint(t); len(found) > 0 {
		t.Errorf("what is only imported is found to break rules:\n%s", strings.Join(found, "\n"))
	}
}

const understood = `syntax = "proto3"; package shop.v1;
import "buf/validate/validate.proto";
import "policy/v1/policy.proto";
message Request {
  string name = 1 [(buf.validate.field).string.max_len = 10];
}
message Response {}
service A {
  rpc Get(Request) returns (Response) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (policy.v1.method) = {audience: [AUDIENCE_PUBLIC] timeout: {seconds: 5}};
  }
}`

// judge are the rules that read the options of understood.
func judge() []string {
	return []string{"OPTION_UNDERSTOOD", "RPC_POLICY_PRESENT", "POLICY_AUDIENCE", "POLICY_TIMEOUT", "REQUEST_FIELD_BOUNDED"}
}

func TestAnOptionThatCannotBeReadIsNotAnOptionThatIsAbsent(t *testing.T) {
	img := compile(t, map[string]string{"a.proto": understood}, "a.proto")
	for _, row := range []struct {
		name   string
		remove []string
		want   []string // rules, in the order of the file
	}{
		{"with everything", nil, nil},
		// The plugin links a schema of protovalidate of its own, and must not judge by it.
		{"without the schema of the validation", []string{"buf/validate/validate.proto"}, []string{"OPTION_UNDERSTOOD", "REQUEST_FIELD_BOUNDED"}},
		{"without the schema of the policy", []string{"policy/v1/policy.proto"}, []string{"RPC_POLICY_PRESENT", "OPTION_UNDERSTOOD"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			found := img.without(row.remove...).lint(t, judge()...)
			var got []string
			for _, line := range found {
				got = append(got, strings.Split(line, ": ")[1])
			}
			slices.Sort(got)
			slices.Sort(row.want)
			if !slices.Equal(got, row.want) {
				t.Errorf("got:\n%s\nwant %v", strings.Join(found, "\n"), row.want)
			}
		})
	}
}

func TestAnOptionIsReadByTheSchemaOfItsImage(t *testing.T) {
	sources := map[string]string{
		"a.proto": understood,
		// Every number is another one than the repository's policy has.
		"policy/v1/policy.proto": `syntax = "proto3"; package policy.v1;
import "google/protobuf/descriptor.proto";
import "google/protobuf/duration.proto";
extend google.protobuf.MethodOptions { MethodPolicy method = 60000; }
message MethodPolicy { google.protobuf.Duration timeout = 1; repeated Audience audience = 7; }
enum Audience { AUDIENCE_UNSPECIFIED = 0; AUDIENCE_PUBLIC = 9; }`,
	}
	if found := compile(t, sources, "a.proto").lint(t, judge()...); len(found) > 0 {
		t.Errorf("an option by another schema is misread:\n%s", strings.Join(found, "\n"))
	}
	sources["a.proto"] = strings.Replace(understood, "timeout: {seconds: 5}", "", 1)
	found := compile(t, sources, "a.proto").lint(t, judge()...)
	if len(found) != 1 || !strings.Contains(found[0], "POLICY_TIMEOUT") {
		t.Errorf("an option by another schema is not read:\n%s", strings.Join(found, "\n"))
	}
}

func TestAPackageThatIsCheckedInPartMayHaveItsReasonsElsewhere(t *testing.T) {
	sources := map[string]string{
		"part.proto": `syntax = "proto3"; package shop.v1; message Request {} message Response {}`,
		"a.proto": `syntax = "proto3"; package shop.v1; import "part.proto"; import "policy/v1/policy.proto";
service A { rpc Get(Request) returns (Response); }`,
	}
	if found := compile(t, sources, "a.proto").lint(t, "PACKAGE_ERROR_REASON"); len(found) > 0 {
		t.Errorf("a part of the package: %s", strings.Join(found, "\n"))
	}
	if found := compile(t, sources, "a.proto", "part.proto").lint(t, "PACKAGE_ERROR_REASON"); len(found) != 1 {
		t.Errorf("the whole package: %q, want one finding", found)
	}
}

func TestCommentsThatAnImageDoesNotHaveAreNotMissed(t *testing.T) {
	sources, _, bad := proof(t, "ERROR_REASON_CODE")
	img := compile(t, sources, bad...)
	for _, f := range img {
		f.FileDescriptorProto.SourceCodeInfo = nil
	}
	if found := img.lint(t, "ERROR_REASON_CODE"); len(found) > 0 {
		t.Errorf("got:\n%s", strings.Join(found, "\n"))
	}
}

// The rules read policies by these names: a new field is learnt there, and gets a rule where it can be wrong.
func TestTheRulesKnowEveryFieldOfAPolicy(t *testing.T) {
	img := compile(t, nil, "policy/v1/policy.proto")
	set := new(descriptorpb.FileDescriptorSet)
	for _, f := range img {
		set.File = append(set.File, f.GetFileDescriptorProto())
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		t.Fatal(err)
	}
	file, err := files.FindFileByPath("policy/v1/policy.proto")
	if err != nil {
		t.Fatal(err)
	}
	shapes := policyShapes()
	for i := range file.Messages().Len() {
		md := file.Messages().Get(i)
		for j := range md.Fields().Len() {
			if fd := md.Fields().Get(j); shapes[md.FullName()][fd.Name()] != shape(fd) {
				t.Errorf("%s is %s, and the rules know it as %q", fd.FullName(), shape(fd), shapes[md.FullName()][fd.Name()])
			}
		}
		if md.Fields().Len() != len(shapes[md.FullName()]) {
			t.Errorf("the rules know fields of %s that it does not have", md.FullName())
		}
	}
}
