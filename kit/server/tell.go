package server

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/concordat-dev/concordat/kit/fanout"
)

// encoded is a message with its encoding, for more than one stream. Neither changes any more.
type encoded struct {
	message proto.Message
	framed  mem.BufferSlice // the encoding behind its header, in one buffer that nobody has to free
}

// data returns the encoding alone.
func (e *encoded) data() mem.BufferSlice {
	return mem.BufferSlice{mem.SliceBuffer(e.framed[0].ReadOnlyData()[headerBytes:])}
}

// size returns the length of the encoding alone, in bytes.
func (e *encoded) size() int { return e.framed.Len() - headerBytes }

// encode encodes a message. It returns errTooLarge for one that is larger than a server sends.
func encode(m proto.Message) (*encoded, error) {
	framed, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, headerBytes, headerBytes+proto.Size(m)), m)
	if err != nil {
		return nil, fmt.Errorf("encode a %T: %w", m, err)
	}
	size := len(framed) - headerBytes
	if size > maxMessageBytes {
		return nil, errTooLarge
	}
	binary.BigEndian.PutUint32(framed[1:], uint32(size))
	return &encoded{m, mem.BufferSlice{mem.SliceBuffer(framed)}}, nil
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
