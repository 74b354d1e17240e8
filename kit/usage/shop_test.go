package usage_test

import (
	"context"
	"io"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	_ "google.golang.org/protobuf/types/known/structpb"    // the contract refers to it
	_ "google.golang.org/protobuf/types/known/timestamppb" // the contract refers to it

	_ "github.com/concordat-dev/concordat/gen/go/policy/v1" // the contract has its options
)

// contract is one with every kind of field: shop.v1.ShopService.
const contract = `
name: "shop/v1/shop.proto" package: "shop.v1" syntax: "proto3"
dependency: ["google/protobuf/struct.proto", "google/protobuf/timestamp.proto", "policy/v1/policy.proto"]
enum_type { name: "Size" value { name: "SIZE_UNSPECIFIED" number: 0 } value { name: "SIZE_LARGE" number: 1 } }
message_type {
  name: "Item"
  field { name: "sku"   number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "size"  number: 2 type: TYPE_ENUM type_name: ".shop.v1.Size" label: LABEL_OPTIONAL }
  field { name: "parts" number: 3 type: TYPE_MESSAGE type_name: ".shop.v1.Item" label: LABEL_REPEATED }
}
message_type {
  name: "Order"
  field { name: "id"      number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "items"   number: 2 type: TYPE_MESSAGE type_name: ".shop.v1.Item" label: LABEL_REPEATED }
  field { name: "gifts"   number: 3 type: TYPE_MESSAGE type_name: ".shop.v1.Order.GiftsEntry" label: LABEL_REPEATED }
  field { name: "labels"  number: 4 type: TYPE_MESSAGE type_name: ".shop.v1.Order.LabelsEntry" label: LABEL_REPEATED }
  field { name: "made_at" number: 5 type: TYPE_MESSAGE type_name: ".google.protobuf.Timestamp" label: LABEL_OPTIONAL }
  field { name: "notes"   number: 6 type: TYPE_MESSAGE type_name: ".google.protobuf.Struct" label: LABEL_OPTIONAL }
  field { name: "card"    number: 7 type: TYPE_STRING label: LABEL_OPTIONAL oneof_index: 0 }
  field { name: "voucher" number: 8 type: TYPE_STRING label: LABEL_OPTIONAL oneof_index: 0 }
  field { name: "secret"  number: 9 type: TYPE_BYTES label: LABEL_OPTIONAL options { debug_redact: true } }
  field { name: "count"   number: 10 type: TYPE_INT64 label: LABEL_OPTIONAL oneof_index: 1 proto3_optional: true }
  oneof_decl { name: "payment" }
  oneof_decl { name: "_count" }
  nested_type {
    name: "GiftsEntry" options { map_entry: true }
    field { name: "key"   number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
    field { name: "value" number: 2 type: TYPE_MESSAGE type_name: ".shop.v1.Item" label: LABEL_OPTIONAL }
  }
  nested_type {
    name: "LabelsEntry" options { map_entry: true }
    field { name: "key"   number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
    field { name: "value" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL }
  }
}
message_type { name: "PlaceRequest"  field { name: "order" number: 1 type: TYPE_MESSAGE type_name: ".shop.v1.Order" label: LABEL_OPTIONAL } }
message_type { name: "PlaceResponse" field { name: "order" number: 1 type: TYPE_MESSAGE type_name: ".shop.v1.Order" label: LABEL_OPTIONAL } }
service {
  name: "ShopService"
  method {
    name: "Place" input_type: ".shop.v1.PlaceRequest" output_type: ".shop.v1.PlaceResponse"
    options { idempotency_level: NO_SIDE_EFFECTS [policy.v1.method] { audience: [AUDIENCE_PUBLIC, AUDIENCE_USER] timeout { seconds: 5 } } }
  }
  method {
    name: "PlaceMany" input_type: ".shop.v1.PlaceRequest" output_type: ".shop.v1.PlaceResponse" client_streaming: true server_streaming: true
    options { idempotency_level: NO_SIDE_EFFECTS [policy.v1.method] { audience: [AUDIENCE_PUBLIC, AUDIENCE_USER] timeout { seconds: 5 } } }
  }
  method {
    name: "Refuse" input_type: ".shop.v1.PlaceRequest" output_type: ".shop.v1.PlaceResponse"
    options { idempotency_level: NO_SIDE_EFFECTS [policy.v1.method] { audience: AUDIENCE_SERVICE callers: "nobody" timeout { seconds: 5 } } }
  }
}`

const (
	place     = "/shop.v1.ShopService/Place"
	placeMany = "/shop.v1.ShopService/PlaceMany"
	refuse    = "/shop.v1.ShopService/Refuse"
)

// messages makes messages of the contract.
type messages struct{ file protoreflect.FileDescriptor }

// shop returns what makes messages of the contract, which is registered from then on, as generated code would be.
func shop(t testing.TB) messages {
	t.Helper()
	if d, err := protoregistry.GlobalFiles.FindFileByPath("shop/v1/shop.proto"); err == nil {
		return messages{d}
	}
	var file descriptorpb.FileDescriptorProto
	if err := prototext.Unmarshal([]byte(contract), &file); err != nil {
		t.Fatal(err)
	}
	d, err := protodesc.NewFile(&file, protoregistry.GlobalFiles)
	if err == nil {
		err = protoregistry.GlobalFiles.RegisterFile(d)
	}
	if err != nil {
		t.Fatal(err)
	}
	return messages{d}
}

// make returns a message of the type, with the fields of the text.
func (m messages) make(t testing.TB, name protoreflect.Name, text string) *dynamicpb.Message {
	t.Helper()
	out := dynamicpb.NewMessage(m.file.Messages().ByName(name))
	if err := prototext.Unmarshal([]byte(text), out); err != nil {
		t.Fatal(err)
	}
	return out
}

// request returns a PlaceRequest with an order.
func (m messages) request(t testing.TB, order string) *dynamicpb.Message {
	t.Helper()
	return m.make(t, "PlaceRequest", "order {"+order+"}")
}

// with adds fields that the contract does not have, as they are encoded, to the order of a request.
func with(req *dynamicpb.Message, raw []byte) *dynamicpb.Message {
	order := req.Mutable(req.Descriptor().Fields().ByName("order")).Message()
	order.SetUnknown(append(order.GetUnknown(), raw...))
	return req
}

// register adds the service. It answers each request with the response that it is given.
func (m messages) register(respond proto.Message) func(grpc.ServiceRegistrar) {
	request := func() proto.Message { return dynamicpb.NewMessage(m.file.Messages().ByName("PlaceRequest")) }
	unary := func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		if err := decode(request()); err != nil {
			return nil, err
		}
		return respond, nil
	}
	return func(r grpc.ServiceRegistrar) {
		r.RegisterService(&grpc.ServiceDesc{
			ServiceName: "shop.v1.ShopService", HandlerType: (*any)(nil), Metadata: "shop/v1/shop.proto",
			Methods: []grpc.MethodDesc{{MethodName: "Place", Handler: unary}, {MethodName: "Refuse", Handler: unary}},
			Streams: []grpc.StreamDesc{{StreamName: "PlaceMany", ServerStreams: true, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
				for {
					if err := s.RecvMsg(request()); err == io.EOF {
						return nil
					} else if err != nil {
						return err
					}
					if err := s.SendMsg(respond); err != nil {
						return err
					}
				}
			}}},
		}, struct{}{})
	}
}
