package server

import (
	"context"

	"google.golang.org/grpc/stats"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/identity"
)

// Observer returns what sees the calls of the server.
func Observer(s *Server) stats.Handler { return observer{s} }

// SetCaller says who the call of ctx is from, as the path does.
func SetCaller(ctx context.Context, c identity.Caller) { callFrom(ctx).Caller = c }

// Steps returns the names of the steps, outermost first.
func Steps() []string {
	var names []string
	for _, st := range new(Server).path() {
		names = append(names, st.name)
	}
	return names
}

// Faults are what the path answers by itself.
var Faults = []*fault.Fault{errTooLarge, errHopeless, errTimeout, errUnknownMethod, errInvalid, errRate, errMalformed, errOverloaded}
