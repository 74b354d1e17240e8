package server

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/tap"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/identity"
)

// Observe announces a call, as the transport does, has it be from the caller, and tells that it ended well.
func Observe(ctx context.Context, s *Server, info *tap.Info, caller identity.Caller) error {
	announced, err := s.announce(ctx, info)
	if err != nil {
		return err
	}
	c := callFrom(announced)
	s.arrivals.take(c)
	c.Context = s.telemetry.Begin(announced, &c.trace, c.tell, c.header, c.started)
	c.Caller = caller
	c.end()
	c.tellEnd(codes.OK, c.server.cfg.Clock.Now())
	return nil
}

// Lose announces a call that ends before a handler has taken it up, by end or by its deadline, and returns the reason that is
// told of it.
func Lose(ctx context.Context, s *Server, info *tap.Info, end func()) (string, error) {
	announced, err := s.announce(ctx, info)
	if err != nil {
		return "", err
	}
	end()
	<-announced.Done()
	s.lost(s.arrivals.over(0, s.cfg.Clock.Now()))
	return callFrom(announced).fault.Reason(), nil
}

// Steps returns the names of the steps, outermost first.
func Steps() []string {
	var names []string
	for _, st := range new(Server).path() {
		names = append(names, st.name)
	}
	return names
}

// Faults are what the path answers by itself.
var Faults = []*fault.Fault{errTooLarge, errHopeless, errTimeout, errUnknownMethod, errInvalid, errRate, errMalformed, errCompression, errOverloaded}

// Answers returns what the writes of one connection pass through.
func Answers() func(p []byte) []byte { return new(answers).pass }
