package server

import (
	"encoding/binary"
	"errors"
	"reflect"
	"unsafe"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
)

// headerBytes is how long what stands before each message is: whether it is compressed, and its length (gRPC over HTTP/2,
// Length-Prefixed-Message).
const headerBytes = 5

// outgoing is where a server stream writes its messages: to the transport, below grpc-go's own ServerStream. That ends the call
// by itself, with CANCELLED, when a message that waits for the client is given up, and a call that is cut while its client takes
// nothing would not say why, nor where to resume.
type outgoing struct {
	stream  unsafe.Pointer
	options unsafe.Pointer // none set
	write   transportWrite
	by      encoding.Compressor
}

// transportWrite is (*transport.ServerStream).Write, with pointers to what they are without their types: that of its options has no
// name outside of grpc-go.
type transportWrite = func(stream unsafe.Pointer, header []byte, data mem.BufferSlice, options unsafe.Pointer) error

// errTransport: the transport's streams have no such Write any more.
var errTransport = errors.New("grpc-go's transport has changed: docs/adr/0005")

// writeOf returns the Write of the streams of a type, and its options, of which none is set. It looks at each of the parameters and
// results, because the compiler cannot.
func writeOf(stream reflect.Type) (_ transportWrite, options unsafe.Pointer, _ error) {
	write, ok := stream.MethodByName("Write")
	if !ok || stream.Kind() != reflect.Pointer {
		return nil, nil, errTransport
	}
	has, wants := write.Type, reflect.TypeFor[transportWrite]()
	if has.NumIn() != wants.NumIn() || has.NumOut() != wants.NumOut() || has.Out(0) != wants.Out(0) ||
		has.In(1) != wants.In(1) || has.In(2) != wants.In(2) || has.In(3).Kind() != reflect.Pointer {
		return nil, nil, errTransport
	}
	// A function value is a pointer to where the address of its code is, and a function is called in the same way whatever its
	// pointers point to.
	code := write.Func.UnsafePointer()
	value := unsafe.Pointer(&code)
	return *(*transportWrite)(unsafe.Pointer(&value)), reflect.New(has.In(3).Elem()).UnsafePointer(), nil
}

// newOutgoing returns where the stream of a call writes.
func newOutgoing(to grpc.ServerTransportStream) (*outgoing, error) {
	s, ok := to.(interface{ SendCompress() string })
	if !ok {
		return nil, errTransport
	}
	write, options, err := writeOf(reflect.TypeOf(to))
	if err != nil {
		return nil, err
	}
	o := &outgoing{stream: reflect.ValueOf(to).UnsafePointer(), options: options, write: write}
	if name := s.SendCompress(); name != "" && name != encoding.Identity {
		o.by = encoding.GetCompressor(name)
	}
	return o, nil
}

// put writes one message, which is either written as a whole or not at all, and waits until there is room for it or the call
// ends. It frees data. It is not for concurrent use, as SendMsg is not.
func (o *outgoing) put(data mem.BufferSlice) error {
	header := make([]byte, headerBytes) // which the transport keeps
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
	return told(o.write(o.stream, header, data, o.options))
}

// share writes a message that goes to others as well, as put does.
func (o *outgoing) share(m *encoded) error {
	framed, err := m.by(o.by)
	if err != nil {
		return err
	}
	return told(o.write(o.stream, nil, framed, o.options))
}

// told returns what an error of the transport's means.
func told(err error) error {
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
