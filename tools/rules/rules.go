// Package rules holds what a contract of this repository must keep beyond buf's own lint rules: the policy that every
// method states, bounds on what a request holds, secrets that are marked, and the shapes that lists, watches and errors
// have in common. `buf lint` runs the rules through the plugin tools/cmd/concordat-rules.
//
// A rule is data, and testdata/<ID> is its proof: good.proto, which it has nothing to say about, bad.proto, which breaks
// it, and want.txt, which is all that it says about that. A rule without that folder fails a test, and so does one that
// docs/contract.md does not explain.
//
// The rules speak about contracts that hold the extension policy.v1.method, and say nothing at all about others:
// whoever runs the plugin over a contract that is not written this way finds it green.
//
// Options are decoded by the descriptors of the image that is checked, never by compiled ones, so that the plugin needs
// no generated code and judges an option by the schema that it was written in. What cannot be decoded so is a finding
// (OPTION_UNDERSTOOD), not an option that is absent.
//
// The tests read proto/ and third_party/ of the repository, which Go's test cache does not see: run them with -count=1.
package rules

import (
	"context"
	"errors"
	"fmt"

	"buf.build/go/bufplugin/check"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Category is what buf.yaml names in lint.use to have every rule of the plugin.
const Category = "CONCORDAT"

// A Rule is one thing that a contract keeps.
type Rule struct {
	// ID is the name of the rule in buf.yaml and in findings, in capitals. buf has no rule of that name.
	ID string
	// Purpose says in a sentence what the rule checks.
	Purpose string
	// Check looks at the whole contract and reports each element that breaks the rule. It may run beside the checks of
	// other rules, and changes nothing.
	Check func(*Contract, Report)
}

// Report says what is wrong with an element of the contract, and how to mend it. The message begins with a verb: the
// element's kind and name come before it.
type Report func(at protoreflect.Descriptor, format string, args ...any)

// Lint returns the rules that look at one contract.
func Lint() []Rule {
	return []Rule{
		{"OPTION_UNDERSTOOD", "Checks that every option can be read, and that the rules know every field of a policy.", optionUnderstood},

		{"RPC_POLICY_PRESENT", "Checks that every RPC has a policy.", policyPresent},
		{"RPC_IDEMPOTENCY_LEVEL_PRESENT", "Checks that every RPC states its idempotency_level.", levelPresent},
		{"RPC_REPETITION_GUARDED", "Checks that an RPC that changes something and may be repeated has an idempotency key or an etag.", repetitionGuarded},
		{"RPC_HTTP_UNARY", "Checks that RPCs that stream have no google.api.http.", httpUnary},
		{"RPC_HTTP_GET_SAFE", "Checks that what is reached by GET has no side effects.", httpGetSafe},
		{"RPC_HTTP_SECRET_IN_BODY", "Checks that secrets travel in the body of an HTTP request and never in its URL.", httpSecretInBody},

		{"POLICY_AUDIENCE", "Checks that a policy names its audience.", policyAudience},
		{"POLICY_SCOPES", "Checks that scopes are names, each once, and bind users.", policyScopes},
		{"POLICY_CALLERS", "Checks that callers are names of peers, each once.", policyCallers},
		{"POLICY_SELF", "Checks that self binds users by a string field of the request.", policySelf},
		{"POLICY_TIMEOUT", "Checks that a policy has a timeout above zero.", policyTimeout},
		{"POLICY_RETRY", "Checks that only what may be repeated is, and within the bounds that clients keep.", policyRetry},
		{"POLICY_HEDGE", "Checks that only unary RPCs without side effects are hedged, and within the bounds that clients keep.", policyHedge},
		{"POLICY_RATE", "Checks that a rate can be counted: how often, how many at once, and by what.", policyRate},
		{"POLICY_IDEMPOTENCY_KEY", "Checks that idempotency_key names a string field of the request of an IDEMPOTENT RPC.", policyIdempotencyKey},
		{"POLICY_COMPRESSION", "Checks that clients know how to compress, and do not compress secrets.", policyCompression},
		{"POLICY_MAX_REQUEST_BYTES", "Checks that max_request_bytes is no more than servers take.", policyMaxRequestBytes},

		{"REQUEST_FIELD_BOUNDED", "Checks that protovalidate bounds every string, bytes, list and map of a request.", requestFieldBounded},
		{"FIELD_SECRET_REDACTED", "Checks that a field whose name is one of a secret has debug_redact.", fieldSecretRedacted},
		{"FIELD_TIME_NAME", "Checks that the names of times end in _at.", fieldTimeName},

		{"LIST_PAGED", "Checks that every List is paged.", listPaged},
		{"WATCH_RESUMABLE", "Checks that every Watch is a stream that can be resumed.", watchResumable},
		{"WATCH_EVENT_SHAPE", "Checks that an event says its type and when it was written.", watchEventShape},

		{"SERVICE_OWN_FILE", "Checks that every service has a file of its own, named after it.", serviceOwnFile},
		{"PACKAGE_ISOLATED", "Checks that packages do not import each other.", packageIsolated},
		{"PACKAGE_ERROR_REASON", "Checks that every package with services has one ErrorReason.", packageErrorReason},
		{"ERROR_REASON_CODE", "Checks that the comment of every error reason begins with its status code.", errorReasonCode},
		{"RPC_ERRORS_KNOWN", "Checks that the errors in the comment of an RPC are status codes and error reasons that exist.", rpcErrorsKnown},
	}
}

// Spec returns the plugin: the rules of Lint and then more, rules of other packages such as those that compare two
// contracts. They may belong to Category. check.ValidateSpec tells whether the whole is sound.
func Spec(more ...*check.RuleSpec) *check.Spec {
	spec := &check.Spec{
		Categories: []*check.CategorySpec{{ID: Category, Purpose: "Checks what contracts with policy.v1 keep."}},
		Before:     before,
	}
	for _, r := range Lint() {
		spec.Rules = append(spec.Rules, r.spec())
	}
	spec.Rules = append(spec.Rules, more...)
	return spec
}

// contractKey is where before leaves the contract for the rules. A value of the context is the only way that bufplugin
// has from one to the other.
type contractKey struct{}

// before decodes the contract once for all rules.
func before(ctx context.Context, request check.Request) (context.Context, check.Request, error) {
	c, err := newContract(request.FileDescriptors())
	if err != nil {
		return nil, nil, fmt.Errorf("read contract: %w", err)
	}
	return context.WithValue(ctx, contractKey{}, c), request, nil
}

func (r Rule) spec() *check.RuleSpec {
	handle := func(ctx context.Context, out check.ResponseWriter, _ check.Request) error {
		c, ok := ctx.Value(contractKey{}).(*Contract)
		if !ok {
			return errors.New("the plugin has not read the contract")
		}
		if !c.ours {
			return nil
		}
		r.Check(c, func(at protoreflect.Descriptor, format string, args ...any) {
			out.AddAnnotation(location(at), check.WithMessage(subject(at)+" "+fmt.Sprintf(format, args...)+"."))
		})
		return nil
	}
	return &check.RuleSpec{
		ID:          r.ID,
		CategoryIDs: []string{Category},
		Default:     true,
		Purpose:     r.Purpose,
		Type:        check.RuleTypeLint,
		Handler:     check.RuleHandlerFunc(handle),
	}
}

// importOf is one import of a file, as the place of a finding.
type importOf struct {
	protoreflect.FileDescriptor
	index int
}

// importsNumber is the number of the field dependency in FileDescriptorProto.
const importsNumber = 3

func location(at protoreflect.Descriptor) check.AddAnnotationOption {
	if i, ok := at.(importOf); ok {
		return check.WithFileNameAndSourcePath(i.Path(), protoreflect.SourcePath{importsNumber, int32(i.index)})
	}
	return check.WithDescriptor(at)
}

// subject names an element as a sentence begins.
func subject(d protoreflect.Descriptor) string {
	switch d := d.(type) {
	case protoreflect.FileDescriptor:
		return fmt.Sprintf("File %q", d.Path())
	case protoreflect.MethodDescriptor:
		return fmt.Sprintf("RPC %q", string(d.Parent().Name()+"."+d.Name()))
	case protoreflect.ServiceDescriptor:
		return fmt.Sprintf("Service %q", d.Name())
	case protoreflect.FieldDescriptor:
		if d.IsExtension() {
			return fmt.Sprintf("Extension %q", d.FullName())
		}
		return fmt.Sprintf("Field %q", string(d.Parent().Name()+"."+d.Name()))
	case protoreflect.EnumValueDescriptor:
		return fmt.Sprintf("Enum value %q", d.Name())
	case protoreflect.EnumDescriptor:
		return fmt.Sprintf("Enum %q", d.Name())
	case protoreflect.OneofDescriptor:
		return fmt.Sprintf("Oneof %q", string(d.Parent().Name()+"."+d.Name()))
	default:
		return fmt.Sprintf("Message %q", d.Name())
	}
}
