package forward

import (
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip"  // callers may compress
	_ "google.golang.org/grpc/encoding/proto" // the codec below wraps it
	"google.golang.org/grpc/mem"
)

// frame is one message as it came off the wire, uncompressed and not decoded. It owns a reference to its buffers until
// free.
type frame struct{ data mem.BufferSlice }

// free gives the buffers back. What was sent keeps references of its own, for as long as a retry may need them.
func (f *frame) free() {
	f.data.Free()
	f.data = nil
}

// codec passes frames through and leaves messages, which health and reflection have, to grpc's own codec.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2("proto")} }

// Marshal returns the bytes of a frame with a reference for the caller, who frees it.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*frame)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	f.data.Ref()
	return f.data, nil
}

// Unmarshal takes a reference of its own: the caller frees data when it returns.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*frame)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	f.free()
	data.Ref()
	f.data = data
	return nil
}
