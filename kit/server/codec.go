package server

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// protoCodec is grpc's own.
var protoCodec = encoding.GetCodecV2(proto.Name)

// frame is a message that is encoded already.
type frame struct{ data mem.BufferSlice }

// codec is what grpc-go encodes with: nothing but what is encoded already, because our streams encode and decode by themselves
// (stream.go), and for grpc.PreparedMsg messages.
type codec struct{ encoding.CodecV2 }

// Marshal implements encoding.CodecV2. The data of a frame is freed by whom it is given to.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	switch known := v.(type) {
	case *frame:
		return known.data, nil
	case *encoded:
		return known.data(), nil
	}
	return c.CodecV2.Marshal(v)
}
