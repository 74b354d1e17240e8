// Package api serves auth.v1. What the contract says of a call (who, how long, which values) was enforced before a
// handler runs; a handler converts, asks the domain, and converts.
package api

import (
	"google.golang.org/grpc"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/token"
	"github.com/concordat-dev/concordat/services/auth/internal/auth"
)

// Server answers the calls of the four services of auth.v1.
type Server struct {
	users    userServer
	sessions sessionServer
	admins   adminServer
	keys     keyServer
}

// New returns a server on the domain, with the log of its events and the public keys of its tokens, newest first.
func New(service *auth.Service, events *eventlog.Log, keys []token.Key) *Server {
	return &Server{
		users:    userServer{auth: service, events: events},
		sessions: sessionServer{auth: service},
		admins:   adminServer{auth: service},
		keys:     keyServer{keys: keys},
	}
}

// Register adds the services to a gRPC server.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	authv1.RegisterAuthServiceServer(r, &s.users)
	authv1.RegisterSessionServiceServer(r, &s.sessions)
	authv1.RegisterAdminServiceServer(r, &s.admins)
	authv1.RegisterKeyServiceServer(r, &s.keys)
}

var (
	_ authv1.AuthServiceServer    = (*userServer)(nil)
	_ authv1.SessionServiceServer = (*sessionServer)(nil)
	_ authv1.AdminServiceServer   = (*adminServer)(nil)
	_ authv1.KeyServiceServer     = (*keyServer)(nil)
)
