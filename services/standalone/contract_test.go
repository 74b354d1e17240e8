package main_test

import (
	"regexp"
	"strings"
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	policyv1 "github.com/concordat-dev/concordat/gen/go/policy/v1"
)

// services calls f with each service of the contract.
func services(t *testing.T, f func(protoreflect.ServiceDescriptor)) {
	t.Helper()
	n := 0
	protoregistry.GlobalFiles.RangeFiles(func(fd protoreflect.FileDescriptor) bool {
		switch fd.Package() {
		case "auth.v1", "users.v1", "payments.v1":
			for i := range fd.Services().Len() {
				f(fd.Services().Get(i))
				n++
			}
		}
		return true
	})
	if n < 6 {
		t.Fatalf("only %d services are registered", n)
	}
}

// fields calls f with each field of a message and of those in it.
func fields(md protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool, f func(protoreflect.FieldDescriptor)) {
	if seen[md.FullName()] || strings.HasPrefix(string(md.FullName()), "google.") {
		return
	}
	seen[md.FullName()] = true
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		f(fd)
		if !fd.IsMap() && fd.Message() != nil {
			fields(fd.Message(), seen, f)
		}
	}
}

// secret says whether a field is one by its name. Tokens that only say where a stream or a list goes on are none, nor are the codes of
// places and of declines.
func secret(name string) bool {
	if strings.HasSuffix(name, "_at") || name == "resume_token" || name == "page_token" || name == "next_page_token" ||
		name == "country_code" || name == "postal_code" || name == "decline_code" {
		return false
	}
	return regexp.MustCompile(`(^|_)(password|secret|token|code|otp|pin)($|_)`).MatchString(name)
}

func TestWhatLooksSecretIsMarkedSecret(t *testing.T) {
	marked, seen := 0, map[protoreflect.FullName]bool{}
	check := func(fd protoreflect.FieldDescriptor) {
		if !secret(string(fd.Name())) {
			return
		}
		if opts, _ := fd.Options().(*descriptorpb.FieldOptions); !opts.GetDebugRedact() {
			t.Errorf("%s looks like a secret and has no debug_redact", fd.FullName())
		} else {
			marked++
		}
	}
	services(t, func(s protoreflect.ServiceDescriptor) {
		for i := range s.Methods().Len() {
			fields(s.Methods().Get(i).Input(), seen, check)
			fields(s.Methods().Get(i).Output(), seen, check)
		}
	})
	if marked < 9 {
		t.Errorf("only %d secrets are found", marked)
	}
}

func TestWhatARequestHoldsIsBounded(t *testing.T) {
	seen := map[protoreflect.FullName]bool{}
	services(t, func(s protoreflect.ServiceDescriptor) {
		for i := range s.Methods().Len() {
			fields(s.Methods().Get(i).Input(), seen, func(fd protoreflect.FieldDescriptor) {
				rules := &validate.FieldRules{}
				if proto.HasExtension(fd.Options(), validate.E_Field) {
					rules = proto.GetExtension(fd.Options(), validate.E_Field).(*validate.FieldRules)
				}
				switch {
				case fd.IsMap():
					m := rules.GetMap()
					if m.GetMaxPairs() == 0 || m.GetKeys().GetString().GetMaxLen() == 0 || m.GetValues().GetString().GetMaxLen() == 0 {
						t.Errorf("%s has no bound on its pairs, keys or values", fd.FullName())
					}
				case fd.IsList():
					if rules.GetRepeated().GetMaxItems() == 0 {
						t.Errorf("%s has no max_items", fd.FullName())
					}
				case fd.Kind() == protoreflect.StringKind:
					if rules.GetString().GetMaxLen() == 0 {
						t.Errorf("%s has no max_len", fd.FullName())
					}
				case fd.Kind() == protoreflect.BytesKind:
					if rules.GetBytes().GetMaxLen() == 0 {
						t.Errorf("%s has no max_len", fd.FullName())
					}
				}
			})
		}
	})
}

func TestEveryMethodSaysWhatARepetitionDoes(t *testing.T) {
	services(t, func(s protoreflect.ServiceDescriptor) {
		for i := range s.Methods().Len() {
			m := s.Methods().Get(i)
			opts := m.Options().(*descriptorpb.MethodOptions)
			if opts.IdempotencyLevel == nil {
				t.Errorf("%s states no idempotency_level", m.FullName())
			}
			policy, _ := proto.GetExtension(opts, policyv1.E_Method).(*policyv1.MethodPolicy)
			hasETag := m.Input().Fields().ByName("etag") != nil
			if opts.GetIdempotencyLevel() == descriptorpb.MethodOptions_IDEMPOTENT && policy.GetIdempotencyKey() == "" && !hasETag {
				t.Errorf("%s changes something, may be repeated, and has neither a key nor an etag", m.FullName())
			}
		}
	})
}
