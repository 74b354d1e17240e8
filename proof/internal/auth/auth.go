// Package auth serves auth.v1 as far as payments needs it, in the process of a harness: everybody is there and active, and nothing
// happens to anybody.
package auth

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/token"
)

// Name is the name in its certificate.
const Name = "auth"

// known is auth.v1 behind the request path of our services.
type known struct {
	authv1.UnimplementedAuthServiceServer
	authv1.UnimplementedKeyServiceServer
}

// beat is how often auth says that nothing has happened.
const beat = 5 * time.Second

// GetUser implements authv1.AuthServiceServer.
func (known) GetUser(_ context.Context, req *authv1.GetUserRequest) (*authv1.GetUserResponse, error) {
	return &authv1.GetUserResponse{UserId: req.GetUserId(), Active: true, Role: authv1.Role_ROLE_MEMBER}, nil
}

// GetJwks implements authv1.KeyServiceServer: nobody here has an access token.
func (known) GetJwks(context.Context, *authv1.GetJwksRequest) (*authv1.GetJwksResponse, error) {
	return &authv1.GetJwksResponse{}, nil
}

// WatchUserEvents implements authv1.AuthServiceServer.
func (known) WatchUserEvents(_ *authv1.WatchUserEventsRequest, stream grpc.ServerStreamingServer[authv1.WatchUserEventsResponse]) error {
	for {
		if err := stream.Send(&authv1.WatchUserEventsResponse{ResumeToken: "quiet"}); err != nil {
			return err
		}
		select {
		case <-time.After(beat):
		case <-stream.Context().Done():
			return context.Cause(stream.Context())
		}
	}
}

// Server serves auth.v1 until it is closed.
type Server struct {
	// Target is where it is, as the setting of payments says it.
	Target string

	end   context.CancelFunc
	ended chan error
}

// Start serves auth.v1 with a certificate of the development PKI in that directory. The caller ends it with Close.
func Start(ctx context.Context, pki, trustDomain string) (*Server, error) {
	ctx, cancel := context.WithCancel(ctx)
	host, err := kit.NewHost(ctx, kit.HostConfig{
		Name: Name, Listen: "127.0.0.1:0", Common: kit.Common{PKI: pki, TrustDomain: trustDomain, DrainTimeout: 100 * time.Millisecond},
		Deps: kit.Deps{Clock: clock.System(), Random: rand.Reader, Log: slog.New(slog.DiscardHandler), Out: io.Discard},
	}, func(h *kit.Host) error {
		nobody := func(context.Context) ([]token.Key, error) { return nil, nil }
		return h.Serves(h.Verifier(nobody), nil, func(r grpc.ServiceRegistrar) {
			authv1.RegisterAuthServiceServer(r, known{})
			authv1.RegisterKeyServiceServer(r, known{})
		})
	})
	if err != nil {
		cancel()
		return nil, err
	}
	s := &Server{Target: "passthrough:///" + host.Addr().String(), end: cancel, ended: make(chan error, 1)}
	go func() { s.ended <- host.Run(ctx) }()
	select {
	case <-host.Ready():
		return s, nil
	case err := <-s.ended:
		cancel()
		return nil, errors.Join(errors.New("auth ended before it was ready"), err)
	}
}

// Close ends it.
func (s *Server) Close() error {
	s.end()
	return <-s.ended
}
