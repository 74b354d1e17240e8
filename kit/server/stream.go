package server

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/grpcfault"
)

// serverStream is a stream whose messages go through the path: that of every call, unary ones included.
//
// It reads from the transport below grpc-go's own ServerStream, because that answers a message which it cannot take by
// itself, with a code and a text of its own, before anybody can say otherwise.
type serverStream struct {
	grpc.ServerStream
	call    *call
	wire    wire
	header  [5]byte         // of the message that is read
	request mem.BufferSlice // of a call that has one message, until it is decoded
	asked   bool            // it was taken
	told    bool            // the request id is in the headers
	out     frame           // the message that is sent
	direct  *outgoing       // of a method that streams to the client, once it has sent
}

// wire is what grpc-go's transport has for its own ServerStream to read from.
type wire interface {
	ReadMessageHeader(header []byte) error // io.EOF: the client has ended its side
	Read(n int) (mem.BufferSlice, error)
	RecvCompress() string
}

func (s *serverStream) open(ss grpc.ServerStream, c *call) {
	s.ServerStream, s.call = ss, c
	s.wire, _ = grpc.ServerTransportStreamFromContext(ss.Context()).(wire)
}

func (s *serverStream) Context() context.Context { return s.call }

var (
	errTooLarge = fault.New(fault.ResourceExhausted, "MESSAGE_TOO_LARGE", "a message is larger than the server takes").
			WithDomain(fault.Domain)
	errAnswerTooLarge = errTooLarge.WithText("the answer is larger than the server sends")
	errMalformed      = fault.New(fault.InvalidArgument, "MALFORMED_REQUEST", "the request cannot be decoded").WithDomain(fault.Domain)
)

// await reads the one message of a client that does not stream.
func (s *serverStream) await() error {
	request, err := s.receive()
	if errors.Is(err, io.EOF) {
		return errMalformed.Because(errors.New("there is no message"))
	}
	if err != nil {
		return err
	}
	s.request = request
	switch err := s.wire.ReadMessageHeader(s.header[:]); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return s.unread(err)
	default:
		return errMalformed.Because(errors.New("there is more than one message"))
	}
}

// receive reads one message. It returns io.EOF where there is none, and faults.
func (s *serverStream) receive() (mem.BufferSlice, error) {
	if err := s.wire.ReadMessageHeader(s.header[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		return nil, s.unread(err)
	}
	kind, size := s.header[0], binary.BigEndian.Uint32(s.header[1:])
	most := uint32(s.call.method.MaxRequestBytes)
	if size > maxMessageBytes || kind == 0 && size > most { // what is compressed may be longer than what it stands for
		return nil, errTooLarge
	}
	data, err := s.wire.Read(int(size))
	if err != nil {
		return nil, s.unread(err)
	}
	switch kind {
	case 0:
	case 1:
		compressed := data
		data, err = inflate(compressed, encoding.GetCompressor(s.wire.RecvCompress()), int(most))
		compressed.Free()
	default:
		data.Free()
		err = errMalformed.Because(fmt.Errorf("a message of kind %d", kind))
	}
	if err != nil {
		return nil, err
	}
	s.call.received.Add(1)
	s.call.receivedBytes.Add(int64(data.Len()))
	s.call.tell.Received()
	return data, nil
}

// inflate returns what was compressed, of most bytes at most.
func inflate(data mem.BufferSlice, by encoding.Compressor, most int) (mem.BufferSlice, error) {
	if by == nil {
		return nil, errMalformed.Because(errors.New("the message is compressed, and the call does not say how"))
	}
	from := data.Reader()
	defer from.Close()
	plain, err := by.Decompress(from)
	if err != nil {
		return nil, errMalformed.Because(err)
	}
	if c, ok := plain.(io.Closer); ok {
		defer c.Close()
	}
	out, err := mem.ReadAll(io.LimitReader(plain, int64(most)+1), mem.DefaultBufferPool())
	switch {
	case err != nil:
		err = errMalformed.Because(err)
	case out.Len() > most:
		err = errTooLarge
	default:
		return out, nil
	}
	out.Free()
	return nil, err
}

// unread returns the fault of a message that did not come.
func (s *serverStream) unread(err error) error {
	if f, ok := fault.As(context.Cause(s.call)); ok {
		return f
	}
	f := grpcfault.FromError(err)
	switch f.Kind() {
	case fault.Canceled, fault.DeadlineExceeded, fault.Unavailable:
		return f.WithText("the call was broken off").Because(err)
	default:
		return errMalformed.Because(err)
	}
}

// RecvMsg implements grpc.ServerStream.
func (s *serverStream) RecvMsg(m any) error {
	var data mem.BufferSlice
	if s.call.method.ClientStream { // perhaps on a goroutine that outlives the handler
		var err error
		if data, err = s.receive(); err != nil {
			return err
		}
	} else if s.asked {
		return io.EOF
	} else {
		data, s.request, s.asked = s.request, nil, true
	}
	err := protoCodec.Unmarshal(data, m)
	data.Free()
	if err != nil {
		return errMalformed.Because(err)
	}
	return s.call.server.check(s.call, m.(proto.Message)) // the codec decodes nothing else
}

// SendMsg implements grpc.ServerStream. The bytes of a grpc.PreparedMsg are not counted: nobody can see them; and when one is given
// up because the call ends, grpc-go answers for us.
func (s *serverStream) SendMsg(m any) error {
	message, _ := m.(proto.Message)
	switch known := m.(type) {
	case *grpc.PreparedMsg:
	case *encoded:
		s.call.sentBytes.Add(int64(known.size()))
		message = known.message
	default:
		data, err := protoCodec.Marshal(m)
		if err != nil {
			return fmt.Errorf("encode a %T: %w", m, err)
		}
		if data.Len() > maxMessageBytes {
			data.Free()
			return errAnswerTooLarge
		}
		s.call.sentBytes.Add(int64(data.Len()))
		s.out.data = data
		m = &s.out
	}
	if !s.told {
		s.told = true
		// One frame with all that the handler has set; it fails only where the handler has sent headers.
		_ = s.SendHeader(metadata.MD{RequestIDHeader: {s.call.RequestID}})
	}
	if err := s.pass(m); err != nil {
		return s.unsent(err)
	}
	s.call.sent.Add(1)
	s.call.tell.Sent()
	if message != nil {
		s.call.tally.Response(message)
	} else {
		s.call.tally.Opaque()
	}
	return nil
}

// pass gives a message to the transport, and to grpc-go where the call has but one answer, which nothing holds up, or where grpc-go
// alone can read the message.
func (s *serverStream) pass(m any) (err error) {
	if _, prepared := m.(*grpc.PreparedMsg); prepared || !s.call.method.ServerStream {
		return s.ServerStream.SendMsg(m)
	}
	if s.direct == nil {
		if s.direct, err = newOutgoing(grpc.ServerTransportStreamFromContext(s.ServerStream.Context())); err != nil {
			if f, ours := m.(*frame); ours {
				f.data.Free()
			}
			return err
		}
	}
	if shared, ok := m.(*encoded); ok {
		return s.direct.share(shared)
	}
	return s.direct.put(s.out.data)
}

// unsent turns an error of the transport into one whose text is ours.
func (s *serverStream) unsent(err error) error {
	if cause := context.Cause(s.call); cause != nil {
		return cause
	}
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	return grpcfault.FromStatus(st.Proto()).WithText("the stream is broken").Because(err)
}
