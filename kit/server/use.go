package server

import (
	"google.golang.org/protobuf/proto"

	"github.com/concordat-dev/concordat/kit/policy"
	"github.com/concordat-dev/concordat/kit/usage"
)

// use counts which fields of the contract are filled in: of the requests that reach a handler here, of what is sent
// where it is sent (stream.go). Callers are told apart by the name of their certificate, never by who the user is.
// Where nothing is counted the step does nothing.
func use(s *Server) step {
	byMethod := make(map[*policy.Method]*usage.Method)
	for name, m := range s.policies {
		if u := s.cfg.Usage.Method(name); u != nil && !m.Framework {
			byMethod[m] = u
		}
	}
	if len(byMethod) == 0 {
		return step{name: "use"}
	}
	return step{
		name: "use",
		around: func(next handler) handler {
			return func(c *call) error {
				if u := byMethod[c.method]; u != nil {
					c.tally = u.From(c.conn.peer)
				}
				return next(c)
			}
		},
		message: func(c *call, m proto.Message) error {
			c.tally.Request(m)
			return nil
		},
	}
}
