package telemetry

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	policyv1 "github.com/concordat-dev/concordat/gen/go/policy/v1"
)

// Reasons returns the reasons that a method of the package may answer with: those of its enum ErrorReason, as far as the
// program knows it, and those of the path.
func Reasons(pkg string) map[string]struct{} {
	reasons := make(map[string]struct{})
	add := func(e protoreflect.EnumDescriptor) {
		for i := range e.Values().Len() {
			reasons[strings.TrimPrefix(string(e.Values().Get(i).Name()), "ERROR_REASON_")] = struct{}{}
		}
	}
	add(policyv1.ErrorReason(0).Descriptor())
	if d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(pkg + ".ErrorReason")); err == nil {
		if e, ok := d.(protoreflect.EnumDescriptor); ok {
			add(e)
		}
	}
	return reasons
}
