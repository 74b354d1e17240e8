// Package api serves payments.v1. What the contract says of a call (who, how long, which values) was
// enforced before a handler runs; a handler converts, asks the domain, and converts.
package api

import (
	"log/slog"

	"google.golang.org/grpc"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/seal"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

const (
	// domain is whose reasons the faults of the service are.
	domain = "payments.v1"
	// scopeAdmin is what a user needs to see payments of others.
	scopeAdmin = "payments.admin"
)

// Server answers the calls of payments.v1.
type Server struct {
	paymentsv1.UnimplementedPaymentServiceServer

	payments *payments.Service
	pages    *seal.Sealer
	log      *slog.Logger
}

var _ paymentsv1.PaymentServiceServer = (*Server)(nil)

// New returns a server on the domain. pageKey seals page tokens: random, at least 16 bytes, and the same in each
// process that may be given a token of another. log gets what breaks inside of a stream that goes on.
func New(service *payments.Service, pageKey []byte, log *slog.Logger) *Server {
	return &Server{payments: service, pages: seal.New(pageKey), log: log}
}

// Register adds the services to a gRPC server.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	paymentsv1.RegisterPaymentServiceServer(r, s)
	paymentsv1.RegisterLedgerServiceServer(r, ledgerServer{Server: s})
}

// viewer returns on whose behalf a caller looks at payments.
func viewer(caller identity.Caller) payments.Viewer {
	if caller.Service() != "" || caller.Has(scopeAdmin) {
		return payments.Everyone()
	}
	return payments.Only(payments.CustomerID(caller.UserID()))
}
