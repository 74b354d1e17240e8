package server

import (
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/token"
)

// Revoking is what Tokens that can be revoked implement as well; token.Verifier does. Streams then end with
// token.ErrRevoked as soon as their token is revoked. A call with one message each way goes on: it is over soon.
type Revoking interface {
	// WhenRevoked calls f once, when the token is revoked that the user came out of, at once where that has happened. stop
	// ends it.
	WhenRevoked(user *identity.User, f func()) (stop func())
}

// untilRevoked ends the stream when the token that it is judged by is revoked. It is for the steps before the handler; stop
// is called when the call has ended.
func (s *Server) untilRevoked(c *call) (stop func()) {
	tokens, ok := s.cfg.Tokens.(Revoking)
	if !ok {
		return func() {}
	}
	return tokens.WhenRevoked(c.Caller.User, func() { c.cancel(token.ErrRevoked) })
}
