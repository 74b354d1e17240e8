package server

import (
	"bytes"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec below wraps it
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/concordat-dev/concordat/kit/fault"
)

var errMalformed = fault.New(fault.InvalidArgument, "MALFORMED_REQUEST", "the request cannot be decoded").WithDomain(fault.Domain)

// malformed marks a message that could not be decoded. Field number 0 cannot come off the wire: the decoder refuses it.
var malformed = []byte{0x00}

// codec decodes like grpc's own, except that an error does not end the call before the path sees it, with Internal and
// the decoder's text, but travels in the message until the path refuses it.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2("proto")} }

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	err := c.CodecV2.Unmarshal(data, v)
	m, ok := v.(proto.Message)
	if err == nil || !ok {
		return err
	}
	proto.Reset(m)
	m.ProtoReflect().SetUnknown(malformed)
	return nil
}

// undecoded refuses a message that the codec could not decode.
func undecoded(m proto.Message) error {
	if bytes.Equal(m.ProtoReflect().GetUnknown(), malformed) {
		return errMalformed
	}
	return nil
}
