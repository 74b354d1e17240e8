package server

import (
	"encoding/binary"
	"fmt"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/concordat-dev/concordat/kit/fanout"
)

// encoded is a message with its encoding, for more than one stream. Neither changes any more.
type encoded struct {
	message proto.Message
	framed  mem.BufferSlice // the encoding behind its header, in one buffer that nobody has to free

	mu     sync.Mutex
	packed map[string]mem.BufferSlice // the same, compressed, by the name of how
}

// data returns the encoding alone.
func (e *encoded) data() mem.BufferSlice {
	return mem.BufferSlice{mem.SliceBuffer(e.framed[0].ReadOnlyData()[headerBytes:])}
}

// size returns the length of the encoding alone, in bytes.
func (e *encoded) size() int { return e.framed.Len() - headerBytes }

// by returns the message behind its header, compressed once for all whose streams compress in that way; nil is not at all.
func (e *encoded) by(compressor encoding.Compressor) (mem.BufferSlice, error) {
	if compressor == nil || e.size() == 0 {
		return e.framed, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if framed := e.packed[compressor.Name()]; framed != nil {
		return framed, nil
	}
	packed, err := deflate(e.data(), compressor)
	if err != nil {
		return nil, err
	}
	defer packed.Free()
	text := make([]byte, headerBytes+packed.Len())
	text[0] = 1
	binary.BigEndian.PutUint32(text[1:], uint32(packed.Len()))
	packed.CopyTo(text[headerBytes:])
	if e.packed == nil {
		e.packed = make(map[string]mem.BufferSlice)
	}
	framed := mem.BufferSlice{mem.SliceBuffer(text)}
	e.packed[compressor.Name()] = framed
	return framed, nil
}

// encode encodes a message. It returns errAnswerTooLarge for one that is larger than a server sends.
func encode(m proto.Message) (*encoded, error) {
	framed, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, headerBytes, headerBytes+proto.Size(m)), m)
	if err != nil {
		return nil, fmt.Errorf("encode a %T: %w", m, err)
	}
	size := len(framed) - headerBytes
	if size > maxMessageBytes {
		return nil, errAnswerTooLarge
	}
	binary.BigEndian.PutUint32(framed[1:], uint32(size))
	return &encoded{message: m, framed: mem.BufferSlice{mem.SliceBuffer(framed)}}, nil
}

// sharer is a subscription whose events come to others too, as those of eventlog do.
type sharer interface {
	// Memo returns that of the event which Next returned last, nil where nobody else gets it.
	Memo() *fanout.Memo
}

// Tell sends the message of the event that Next of the subscription has returned last, with its token. All who watch
// the same thing get the same message, which is made and encoded once for all of them: a token is of one event and of
// what is watched, so message must depend on nothing else, and nobody may change what it returns. A subscription that
// shares nothing has the message made for it alone.
func Tell[E any](stream grpc.ServerStream, sub Subscription[E], token string, message func() proto.Message) error {
	var memo *fanout.Memo
	if s, ok := sub.(sharer); ok {
		memo = s.Memo()
	}
	m, err := fanout.Get(memo, token, func() (*encoded, error) { return encode(message()) })
	if err != nil {
		return err
	}
	return stream.SendMsg(m)
}
