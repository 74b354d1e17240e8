package faults

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

// auth is auth.v1 as far as payments needs it, behind the request path of our services: everybody is there and active, and nothing
// happens to anybody.
type auth struct {
	authv1.UnimplementedAuthServiceServer
	authv1.UnimplementedKeyServiceServer
}

// beat is how often auth says that nothing has happened.
const beat = 5 * time.Second

// GetUser implements authv1.AuthServiceServer.
func (auth) GetUser(_ context.Context, req *authv1.GetUserRequest) (*authv1.GetUserResponse, error) {
	return &authv1.GetUserResponse{UserId: req.GetUserId(), Active: true, Role: authv1.Role_ROLE_MEMBER}, nil
}

// GetJwks implements authv1.KeyServiceServer: nobody here has an access token.
func (auth) GetJwks(context.Context, *authv1.GetJwksRequest) (*authv1.GetJwksResponse, error) {
	return &authv1.GetJwksResponse{}, nil
}

// WatchUserEvents implements authv1.AuthServiceServer.
func (auth) WatchUserEvents(_ *authv1.WatchUserEventsRequest, stream grpc.ServerStreamingServer[authv1.WatchUserEventsResponse]) error {
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

// running is a service that runs in this process.
type running struct {
	target string // where it is
	end    context.CancelFunc
	ended  chan error
}

// startAuth serves auth.v1 with a certificate of the PKI in that directory.
func startAuth(ctx context.Context, pki string) (*running, error) {
	ctx, cancel := context.WithCancel(ctx)
	host, err := kit.NewHost(ctx, kit.HostConfig{
		Name: "auth", Listen: "127.0.0.1:0", Common: kit.Common{PKI: pki, TrustDomain: trustDomain, DrainTimeout: 100 * time.Millisecond},
		Deps: kit.Deps{Clock: clock.System(), Random: rand.Reader, Log: slog.New(slog.DiscardHandler), Out: io.Discard},
	}, func(h *kit.Host) error {
		nobody := func(context.Context) ([]token.Key, error) { return nil, nil }
		return h.Serves(h.Verifier(nobody), nil, func(r grpc.ServiceRegistrar) {
			authv1.RegisterAuthServiceServer(r, auth{})
			authv1.RegisterKeyServiceServer(r, auth{})
		})
	})
	if err != nil {
		cancel()
		return nil, err
	}
	r := &running{target: "passthrough:///" + host.Addr().String(), end: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- host.Run(ctx) }()
	select {
	case <-host.Ready():
		return r, nil
	case err := <-r.ended:
		cancel()
		return nil, errors.Join(errors.New("auth ended before it was ready"), err)
	}
}

// close ends it.
func (r *running) close() error {
	r.end()
	return <-r.ended
}
