// Package echo is a contract for tests of the kit, which knows none but policy.v1: echo.v1.EchoService, with a method for
// each kind of call and of caller. It is built here and not generated.
package echo

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

// The methods. Their one message is {string text = 1 (≤ 10 characters); string owner = 2; string secret = 3
// (debug_redact)}.
const (
	Public  = "/echo.v1.EchoService/Public"  // anybody; a client may send it three times
	Own     = "/echo.v1.EchoService/Own"     // users, of what is theirs
	Service = "/echo.v1.EchoService/Service" // services
	Limited = "/echo.v1.EchoService/Limited" // anybody, two at once, then one in ten seconds
	ByText  = "/echo.v1.EchoService/ByText"  // anybody, one for each text
	ByBoth  = "/echo.v1.EchoService/ByBoth"  // anybody, one for each text and address
	ByWho   = "/echo.v1.EchoService/ByWho"   // anybody, one for each caller
	Keyed   = "/echo.v1.EchoService/Keyed"   // anybody; a client may send it three times, when the server says so too; owner is the key
	Hedged  = "/echo.v1.EchoService/Hedged"  // anybody; a client sends it again after 20 ms, three times in all
	Packed  = "/echo.v1.EchoService/Packed"  // anybody; compressed, of 1000 bytes at most
	Watch   = "/echo.v1.EchoService/Watch"   // server stream
	Collect = "/echo.v1.EchoService/Collect" // client stream
	Feed    = "/echo.v1.EchoService/Feed"    // client stream of the handler Collect; a client may send it twice; owner is the key
	Chat    = "/echo.v1.EchoService/Chat"    // both
)

// Contract returns the service's descriptor.
var Contract = sync.OnceValue(func() protoreflect.ServiceDescriptor {
	str, one := descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(), descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()
	text := &descriptorpb.FieldOptions{}
	rules := &validate.FieldRules{}
	rules.SetString(&validate.StringRules{})
	rules.GetString().SetMaxLen(10)
	proto.SetExtension(text, validate.E_Field, rules)
	method := func(name string, in, out bool, p *policyv1.MethodPolicy) *descriptorpb.MethodDescriptorProto {
		opts := &descriptorpb.MethodOptions{IdempotencyLevel: descriptorpb.MethodOptions_NO_SIDE_EFFECTS.Enum()}
		if p.GetIdempotencyKey() != "" {
			opts.IdempotencyLevel = descriptorpb.MethodOptions_IDEMPOTENT.Enum()
		}
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
			{Name: proto.String("secret"), Number: proto.Int32(3), Type: str, Label: one, Options: &descriptorpb.FieldOptions{DebugRedact: proto.Bool(true)}},
		}}},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("EchoService"), Method: []*descriptorpb.MethodDescriptorProto{
			method("Public", false, false, &policyv1.MethodPolicy{Audience: public, Retry: &policyv1.Retry{Attempts: 3}}),
			method("Own", false, false, &policyv1.MethodPolicy{Audience: users, Scopes: []string{"echo"}, Self: &policyv1.Self{Field: "owner", OrScope: "echo.admin"}}),
			method("Service", false, false, &policyv1.MethodPolicy{Audience: []policyv1.Audience{policyv1.Audience_AUDIENCE_SERVICE}, Callers: []string{"orders", "gateway"}}),
			method("Limited", false, false, &policyv1.MethodPolicy{Audience: public, Rate: []*policyv1.Rate{{PerSecond: 0.1, Burst: 2, Per: policyv1.RateKey_RATE_KEY_ADDRESS}}}),
			method("ByText", false, false, &policyv1.MethodPolicy{Audience: public, Rate: []*policyv1.Rate{{PerSecond: 0.1, Burst: 1, Per: policyv1.RateKey_RATE_KEY_FIELD, Field: "text"}}}),
			method("ByBoth", false, false, &policyv1.MethodPolicy{Audience: public, Rate: []*policyv1.Rate{{PerSecond: 0.1, Burst: 1, Per: policyv1.RateKey_RATE_KEY_FIELD_AND_ADDRESS, Field: "text"}}}),
			method("ByWho", false, false, &policyv1.MethodPolicy{Audience: []policyv1.Audience{policyv1.Audience_AUDIENCE_PUBLIC, policyv1.Audience_AUDIENCE_USER, policyv1.Audience_AUDIENCE_SERVICE}, Rate: []*policyv1.Rate{{PerSecond: 0.1, Burst: 1, Per: policyv1.RateKey_RATE_KEY_CALLER}}}),
			method("Keyed", false, false, &policyv1.MethodPolicy{Audience: public, IdempotencyKey: "owner", Retry: &policyv1.Retry{
				Attempts: 3, InitialBackoff: durationpb.New(time.Millisecond), MaxBackoff: durationpb.New(2 * time.Millisecond), Multiplier: 1.5,
				Codes: []policyv1.RetryCode{policyv1.RetryCode_RETRY_CODE_UNAVAILABLE, policyv1.RetryCode_RETRY_CODE_RESOURCE_EXHAUSTED, policyv1.RetryCode_RETRY_CODE_ABORTED},
			}}),
			method("Hedged", false, false, &policyv1.MethodPolicy{Audience: public, Hedge: &policyv1.Hedge{Attempts: 3, Delay: durationpb.New(20 * time.Millisecond)}}),
			method("Packed", false, false, &policyv1.MethodPolicy{Audience: public, Compression: policyv1.Compression_COMPRESSION_GZIP, MaxRequestBytes: 1000}),
			method("Watch", false, true, &policyv1.MethodPolicy{Audience: append(users, public...)}),
			method("Collect", true, false, &policyv1.MethodPolicy{Audience: public, Timeout: durationpb.New(300 * time.Millisecond)}),
			method("Feed", true, false, &policyv1.MethodPolicy{Audience: public, IdempotencyKey: "owner", Retry: &policyv1.Retry{Attempts: 2}}),
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

// Message makes an echo.v1.Message.
func Message(text, owner string) *dynamicpb.Message {
	md := Contract().Methods().Get(0).Input()
	m := dynamicpb.NewMessage(md)
	m.Set(md.Fields().ByName("text"), protoreflect.ValueOfString(text))
	m.Set(md.Fields().ByName("owner"), protoreflect.ValueOfString(owner))
	return m
}

// TextOf returns the text of an echo.v1.Message.
func TextOf(m proto.Message) string {
	r := m.ProtoReflect()
	return r.Get(r.Descriptor().Fields().ByName("text")).String()
}

// Handlers are what the service does. A nil Unary echoes; the others are needed where they are called.
type Handlers struct {
	Unary   func(ctx context.Context, req proto.Message) (proto.Message, error)
	Watch   func(req proto.Message, s grpc.ServerStream) error
	Collect func(s grpc.ServerStream) error
	Chat    func(s grpc.ServerStream) error
}

// Register adds the service.
func (h Handlers) Register(r grpc.ServiceRegistrar) {
	if h.Unary == nil {
		h.Unary = func(_ context.Context, req proto.Message) (proto.Message, error) { return req, nil }
	}
	desc := &grpc.ServiceDesc{ServiceName: "echo.v1.EchoService", HandlerType: (*any)(nil), Metadata: "echo/v1/echo.proto"}
	for i := range Contract().Methods().Len() {
		md := Contract().Methods().Get(i)
		name := string(md.Name())
		full := "/echo.v1.EchoService/" + name
		switch name {
		case "Watch":
			desc.Streams = append(desc.Streams, grpc.StreamDesc{StreamName: name, ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
				req := Message("", "")
				if err := s.RecvMsg(req); err != nil {
					return err
				}
				return h.Watch(req, s)
			}})
		case "Collect", "Feed":
			desc.Streams = append(desc.Streams, grpc.StreamDesc{StreamName: name, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error { return h.Collect(s) }})
		case "Chat":
			desc.Streams = append(desc.Streams, grpc.StreamDesc{StreamName: name, ClientStreams: true, ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error { return h.Chat(s) }})
		default:
			desc.Methods = append(desc.Methods, grpc.MethodDesc{MethodName: name, Handler: func(srv any, ctx context.Context, dec func(any) error, in grpc.UnaryServerInterceptor) (any, error) {
				req := Message("", "")
				if err := dec(req); err != nil {
					return nil, err
				}
				call := func(ctx context.Context, req any) (any, error) { return h.Unary(ctx, req.(proto.Message)) }
				if in == nil {
					return call(ctx, req)
				}
				return in(ctx, req, &grpc.UnaryServerInfo{Server: srv, FullMethod: full}, call)
			}})
		}
	}
	r.RegisterService(desc, struct{}{})
}

// Back is a Chat that returns what it gets.
func Back(s grpc.ServerStream) error {
	for {
		m := Message("", "")
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

// Call calls a unary method.
func Call(t testing.TB, conn *grpc.ClientConn, method, text, owner string, opts ...grpc.CallOption) (string, error) {
	t.Helper()
	resp := Message("", "")
	err := conn.Invoke(t.Context(), method, Message(text, owner), resp, opts...)
	return TextOf(resp), err
}
