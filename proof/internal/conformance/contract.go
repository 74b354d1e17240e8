package conformance

import (
	"errors"
	"fmt"
	"time"

	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/durationpb"

	policyv1 "github.com/concordat-dev/concordat/gen/go/policy/v1"
)

// withPolicies returns the registry from with a policy on every method of grpc.testing.TestService, and all else as it is.
//
// The contract of the interoperability cases is grpc-go's, whose generated code knows no option of ours, and the kit does
// not start a server with a method that has no policy. A .proto of ours with the same names cannot be in one program with
// it: protobuf refuses two files with one name. So the one process that is the server under test (servePath) declares in
// its registry what a contract of ours would say. Names, messages and bytes stay grpc-go's, and the kit reads policies from
// the registry as it always does.
func withPolicies(from *protoregistry.Files) (*protoregistry.Files, error) {
	file := protodesc.ToFileDescriptorProto(testgrpc.File_grpc_testing_test_proto)
	declared := 0
	for _, service := range file.GetService() {
		if file.GetPackage()+"."+service.GetName() != testgrpc.TestService_ServiceDesc.ServiceName {
			continue
		}
		for _, method := range service.GetMethod() {
			if method.Options == nil {
				method.Options = &descriptorpb.MethodOptions{}
			}
			proto.SetExtension(method.Options, policyv1.E_Method, &policyv1.MethodPolicy{
				Audience:        []policyv1.Audience{policyv1.Audience_AUDIENCE_SERVICE},
				Callers:         []string{clientName},
				Timeout:         durationpb.New(time.Minute),
				MaxRequestBytes: 1 << 20, // the largest request of the cases has 271,828 bytes of payload
			})
			declared++
		}
	}
	if declared == 0 {
		return nil, fmt.Errorf("%s has no methods", testgrpc.TestService_ServiceDesc.ServiceName)
	}
	ours, err := protodesc.NewFile(file, from)
	if err != nil {
		return nil, fmt.Errorf("declare the policies of %s: %w", file.GetName(), err)
	}
	files := &protoregistry.Files{}
	var failed error
	from.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if f.Path() == ours.Path() {
			f = ours
		}
		failed = errors.Join(failed, files.RegisterFile(f))
		return true
	})
	return files, failed
}
