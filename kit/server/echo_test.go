package server_test

import (
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"

	policyv1 "github.com/concordat-dev/concordat/gen/go/policy/v1"
)

// The contract of the tests: echo.v1.EchoService, whose message is {string text = 1 (≤ 10 characters); string owner = 2}.
// It is built here and not generated, because the kit knows no contract but policy.v1.
const (
	echoPublic  = "/echo.v1.EchoService/Public"  // anybody
	echoOwn     = "/echo.v1.EchoService/Own"     // users, of what is theirs
	echoService = "/echo.v1.EchoService/Service" // services
	echoLimited = "/echo.v1.EchoService/Limited" // anybody, two at once, then one in ten seconds
	echoByText  = "/echo.v1.EchoService/ByText"  // anybody, one for each text
	echoWatch   = "/echo.v1.EchoService/Watch"   // server stream
	echoCollect = "/echo.v1.EchoService/Collect" // client stream
	echoChat    = "/echo.v1.EchoService/Chat"    // both
)

var echo = sync.OnceValue(func() protoreflect.ServiceDescriptor {
	str, one := descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(), descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()
	text := &descriptorpb.FieldOptions{}
	rules := &validate.FieldRules{}
	rules.SetString(&validate.StringRules{})
	rules.GetString().SetMaxLen(10)
	proto.SetExtension(text, validate.E_Field, rules)
	method := func(name string, in, out bool, p *policyv1.MethodPolicy) *descriptorpb.MethodDescriptorProto {
		opts := &descriptorpb.MethodOptions{IdempotencyLevel: descriptorpb.MethodOptions_NO_SIDE_EFFECTS.Enum()}
		if p.GetTimeout() == nil {
			p.Timeout = durationpb.New(2 * time.Second)
		}
		proto.SetExtension(opts, policyv1.E_Method, p)
		return &descriptorpb.MethodDescriptorProto{
			Name: proto.String(name), InputType: proto.String(".echo.v1.Message"), OutputType: proto.String(".echo.v1.Message"),
			ClientStreaming: proto.Bool(in), ServerStreaming: proto.Bool(out), Options: opts,
		}
	}
	public := []policyv1.Audience{policyv1.Audience_AUDIENCE_PUBLIC}
	users := []policyv1.Audience{policyv1.Audience_AUDIENCE_USER}
	fd, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("echo/v1/echo.proto"), Package: proto.String("echo.v1"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("Message"), Field: []*descriptorpb.FieldDescriptorProto{
			{Name: proto.String("text"), Number: proto.Int32(1), Type: str, Label: one, Options: text},
			{Name: proto.String("owner"), Number: proto.Int32(2), Type: str, Label: one},
		}}},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("EchoService"), Method: []*descriptorpb.MethodDescriptorProto{
			method("Public", false, false, &policyv1.MethodPolicy{Audience: public}),
			method("Own", false, false, &policyv1.MethodPolicy{Audience: users, Scopes: []string{"echo"}, Self: &policyv1.Self{Field: "owner", OrScope: "echo.admin"}}),
			method("Service", false, false, &policyv1.MethodPolicy{Audience: []policyv1.Audience{policyv1.Audience_AUDIENCE_SERVICE}, Callers: []string{"orders", "gateway"}}),
			method("Limited", false, false, &policyv1.MethodPolicy{Audience: public, Rate: &policyv1.Rate{PerSecond: 0.1, Burst: 2, Per: policyv1.RateKey_RATE_KEY_ADDRESS}}),
			method("ByText", false, false, &policyv1.MethodPolicy{Audience: public, Rate: &policyv1.Rate{PerSecond: 0.1, Burst: 1, Per: policyv1.RateKey_RATE_KEY_FIELD, Field: "text"}}),
			method("Watch", false, true, &policyv1.MethodPolicy{Audience: append(users, public...)}),
			method("Collect", true, false, &policyv1.MethodPolicy{Audience: public, Timeout: durationpb.New(300 * time.Millisecond)}),
			method("Chat", true, true, &policyv1.MethodPolicy{Audience: append(users, public...), Self: &policyv1.Self{Field: "owner"}}),
		}}},
	}, protoregistry.GlobalFiles)
	if err != nil {
		panic(err)
	}
	if err := protoregistry.GlobalFiles.RegisterFile(fd); err != nil {
		panic(err)
	}
	return fd.Services().Get(0)
})

// message makes an echo.v1.Message.
func message(text, owner string) *dynamicpb.Message {
	md := echo().Methods().Get(0).Input()
	m := dynamicpb.NewMessage(md)
	m.Set(md.Fields().ByName("text"), protoreflect.ValueOfString(text))
	m.Set(md.Fields().ByName("owner"), protoreflect.ValueOfString(owner))
	return m
}

func textOf(m proto.Message) string {
	r := m.ProtoReflect()
	return r.Get(r.Descriptor().Fields().ByName("text")).String()
}

// handlers are what the service does; a nil one echoes.
type handlers struct {
	unary   func(ctx context.Context, req proto.Message) (proto.Message, error)
	watch   func(req proto.Message, s grpc.ServerStream) error
	collect func(s grpc.ServerStream) error
	chat    func(s grpc.ServerStream) error
}

func (h handlers) register(r grpc.ServiceRegistrar) {
	if h.unary == nil {
		h.unary = func(_ context.Context, req proto.Message) (proto.Message, error) { return req, nil }
	}
	desc := &grpc.ServiceDesc{ServiceName: "echo.v1.EchoService", HandlerType: (*any)(nil), Metadata: "echo/v1/echo.proto"}
	for i := range echo().Methods().Len() {
		md := echo().Methods().Get(i)
		name := string(md.Name())
		full := "/echo.v1.EchoService/" + name
		switch name {
		case "Watch":
			desc.Streams = append(desc.Streams, grpc.StreamDesc{StreamName: name, ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
				req := message("", "")
				if err := s.RecvMsg(req); err != nil {
					return err
				}
				return h.watch(req, s)
			}})
		case "Collect":
			desc.Streams = append(desc.Streams, grpc.StreamDesc{StreamName: name, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error { return h.collect(s) }})
		case "Chat":
			desc.Streams = append(desc.Streams, grpc.StreamDesc{StreamName: name, ClientStreams: true, ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error { return h.chat(s) }})
		default:
			desc.Methods = append(desc.Methods, grpc.MethodDesc{MethodName: name, Handler: func(srv any, ctx context.Context, dec func(any) error, in grpc.UnaryServerInterceptor) (any, error) {
				req := message("", "")
				if err := dec(req); err != nil {
					return nil, err
				}
				call := func(ctx context.Context, req any) (any, error) { return h.unary(ctx, req.(proto.Message)) }
				return in(ctx, req, &grpc.UnaryServerInfo{Server: srv, FullMethod: full}, call)
			}})
		}
	}
	r.RegisterService(desc, struct{}{})
}

// echoBack is the chat and the collect that return what they get.
func echoBack(s grpc.ServerStream) error {
	for {
		m := message("", "")
		if err := s.RecvMsg(m); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := s.SendMsg(m); err != nil {
			return err
		}
	}
}

func call(t testing.TB, conn *grpc.ClientConn, method, text, owner string, opts ...grpc.CallOption) (string, error) {
	t.Helper()
	resp := message("", "")
	err := conn.Invoke(t.Context(), method, message(text, owner), resp, opts...)
	return textOf(resp), err
}
