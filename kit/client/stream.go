package client

import (
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/concordat-dev/concordat/kit/policy"
)

// clientStream is a stream whose errors are faults. As grpc-go has it, SendMsg returns io.EOF once the call has ended, and
// RecvMsg says how.
type clientStream struct {
	grpc.ClientStream
	caller *caller
	keyed  *policy.Method // not nil where each message must carry its key
	cancel func()         // ends the call of a keyed stream

	observation *observation
	refused     atomic.Pointer[error] // why a message was not sent, which ended the call
}

func (s *clientStream) SendMsg(m any) error {
	if err := checkKey(s.keyed, m); err != nil {
		s.refused.CompareAndSwap(nil, &err)
		s.cancel()
		return err
	}
	err := s.ClientStream.SendMsg(m)
	if err == nil {
		s.observation.sent()
	}
	return s.caller.fault(err)
}

func (s *clientStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err == nil {
		s.observation.received()
		return nil
	}
	s.cancel()
	if refused := s.refused.Load(); refused != nil {
		return *refused
	}
	return s.caller.fault(err)
}

func (s *clientStream) CloseSend() error { return s.caller.fault(s.ClientStream.CloseSend()) }

func (s *clientStream) Header() (metadata.MD, error) {
	md, err := s.ClientStream.Header()
	return md, s.caller.fault(err)
}

// finished is called by grpc-go when the call has ended, from whichever side.
func (s *clientStream) finished(err error) {
	if refused := s.refused.Load(); refused != nil {
		err = *refused
	}
	s.observation.end(err)
	s.cancel() // one whose answer is its last message has no RecvMsg that fails
}
