package server

import (
	"encoding/binary"
	"errors"
	"reflect"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
)

// outgoing is where a server stream writes its messages: to the transport, below grpc-go's own ServerStream. That ends the call
// by itself, with CANCELLED, when a message that waits for the client is given up, and a call that is cut while its client takes
// nothing would not say why, nor where to resume.
type outgoing struct {
	write  reflect.Value   // the transport's Write; the type of its last parameter has no name outside of grpc-go
	args   []reflect.Value // its receiver, the two fields that follow, and a nil of that type
	header []byte
	data   mem.BufferSlice
	by     encoding.Compressor
}

// newOutgoing returns where the stream of a call writes.
func newOutgoing(to grpc.ServerTransportStream) (*outgoing, error) {
	s, ok := to.(interface{ SendCompress() string })
	write, has := reflect.TypeOf(to).MethodByName("Write")
	if !ok || !has || write.Type.NumIn() != 4 || write.Type.NumOut() != 1 {
		return nil, errors.New("grpc-go's transport has changed: docs/adr/0005")
	}
	o := &outgoing{write: write.Func}
	o.args = []reflect.Value{
		reflect.ValueOf(to), reflect.ValueOf(&o.header).Elem(), reflect.ValueOf(&o.data).Elem(), reflect.Zero(write.Type.In(3)),
	}
	if name := s.SendCompress(); name != "" && name != encoding.Identity {
		o.by = encoding.GetCompressor(name)
	}
	return o, nil
}

// put writes one message, which is either written as a whole or not at all, and waits until there is room for it or the call
// ends. It frees data. It is not for concurrent use, as SendMsg is not.
func (o *outgoing) put(data mem.BufferSlice) error {
	header := make([]byte, 5) // which the transport keeps
	if o.by != nil && data.Len() > 0 {
		packed, err := deflate(data, o.by)
		data.Free()
		if err != nil {
			return err
		}
		header[0], data = 1, packed
	}
	defer data.Free()
	binary.BigEndian.PutUint32(header[1:], uint32(data.Len()))
	o.header, o.data = header, data
	out := o.write.Call(o.args)
	o.header, o.data = nil, nil
	err, _ := out[0].Interface().(error)
	if _, ok := status.FromError(err); !ok {
		return status.Error(codes.Unavailable, err.Error()) // the connection is gone
	}
	return err
}

// deflate returns data compressed.
func deflate(data mem.BufferSlice, by encoding.Compressor) (mem.BufferSlice, error) {
	var out mem.BufferSlice
	w, err := by.Compress(mem.NewWriter(&out, mem.DefaultBufferPool()))
	for _, b := range data {
		if err == nil {
			_, err = w.Write(b.ReadOnlyData())
		}
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		out.Free()
		return nil, err
	}
	return out, nil
}
