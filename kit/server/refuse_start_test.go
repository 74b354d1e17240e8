package server_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/durationpb"

	policyv1 "github.com/concordat-dev/concordat/gen/go/policy/v1"
	"github.com/concordat-dev/concordat/kit/server"
)

// declare makes a contract known whose one method has the policy, nil for none, and whose request has a field that is held
// against an expression, "" for none.
func declare(t *testing.T, pkg string, p *policyv1.MethodPolicy, expression string) *grpc.ServiceDesc {
	t.Helper()
	method, field := &descriptorpb.MethodOptions{}, &descriptorpb.FieldOptions{}
	if p != nil {
		proto.SetExtension(method, policyv1.E_Method, p)
	}
	if expression != "" {
		rule, rules := &validate.Rule{}, &validate.FieldRules{}
		rule.SetId("test")
		rule.SetExpression(expression)
		rules.SetCel([]*validate.Rule{rule})
		proto.SetExtension(field, validate.E_Field, rules)
	}
	message := proto.String("." + pkg + ".Message")
	fd, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String(pkg + ".proto"), Package: proto.String(pkg), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("Message"), Field: []*descriptorpb.FieldDescriptorProto{{
			Name: proto.String("text"), Number: proto.Int32(1), Options: field,
			Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
		}}}},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("Service"), Method: []*descriptorpb.MethodDescriptorProto{
			{Name: proto.String("Do"), InputType: message, OutputType: message, Options: method},
		}}},
	}, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := protoregistry.GlobalFiles.FindFileByPath(fd.Path()); err != nil { // with -count it was declared before
		if err := protoregistry.GlobalFiles.RegisterFile(fd); err != nil {
			t.Fatal(err)
		}
	}
	return &grpc.ServiceDesc{ServiceName: pkg + ".Service", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{MethodName: "Do"}}}
}

// What nobody has decided about is not served: the process ends as it starts, and says which method it is.
func TestAServerDoesNotStartWithAMethodOfWhichTheContractIsNotWhole(t *testing.T) {
	good := func() *policyv1.MethodPolicy {
		return &policyv1.MethodPolicy{Audience: []policyv1.Audience{policyv1.Audience_AUDIENCE_PUBLIC}, Timeout: durationpb.New(time.Second)}
	}
	endless := good()
	endless.Timeout = nil
	for name, row := range map[string]struct {
		service *grpc.ServiceDesc
		want    string // in the error; "" where there is none
	}{
		"a contract that is whole":           {declare(t, "whole.v1", good(), "this.size() < 5"), ""},
		"a method without a policy":          {declare(t, "lawless.v1", nil, ""), "lawless.v1.Service.Do"},
		"a policy without a timeout":         {declare(t, "endless.v1", endless, ""), "endless.v1.Service.Do"},
		"an expression that is none":         {declare(t, "unruly.v1", good(), "this <"), "unruly.v1"},
		"a service that nobody has declared": {&grpc.ServiceDesc{ServiceName: "nobody.v1.Service", HandlerType: (*any)(nil)}, "nobody.v1.Service"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := server.New(quietConfig(t, slog.New(slog.DiscardHandler)), func(r grpc.ServiceRegistrar) { r.RegisterService(row.service, new(any)) })
			if s != nil {
				defer s.Close()
			}
			if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v; want an error that says %q", err, row.want)
			}
		})
	}
}
