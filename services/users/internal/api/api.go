// Package api serves users.v1.UserService. What the contract says of a call (who, how long, which values) was
// enforced before a handler runs; a handler converts, asks the domain, and converts.
package api

import (
	"google.golang.org/grpc"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/seal"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// domain is whose reasons the faults of the service are.
const domain = "users.v1"

// Server answers the calls of users.v1.UserService.
type Server struct {
	usersv1.UnimplementedUserServiceServer

	users *users.Service
	pages *seal.Sealer
}

var _ usersv1.UserServiceServer = (*Server)(nil)

// New returns a server on the domain. pageKey seals page tokens: random, at least 16 bytes, and the same in each process
// that may be given a token of another.
func New(service *users.Service, pageKey []byte) *Server {
	return &Server{users: service, pages: seal.New(pageKey)}
}

// Register adds the service to a gRPC server.
func (s *Server) Register(r grpc.ServiceRegistrar) { usersv1.RegisterUserServiceServer(r, s) }
