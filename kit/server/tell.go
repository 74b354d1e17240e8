package server

import (
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/concordat-dev/concordat/kit/fanout"
)

// encoded is a message with its encoding, for more than one stream. Neither changes any more.
type encoded struct {
	message proto.Message
	data    mem.BufferSlice // that nobody has to free
}

// encode encodes a message. It returns errTooLarge for one that is larger than a server sends.
func encode(m proto.Message) (*encoded, error) {
	data, err := proto.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode a %T: %w", m, err)
	}
	if len(data) > maxMessageBytes {
		return nil, errTooLarge
	}
	return &encoded{m, mem.BufferSlice{mem.SliceBuffer(data)}}, nil
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
