// Package auth serves auth.v1 as far as payments needs it, in the process of a harness: everybody is there, and active unless
// the harness has locked them.
package auth

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/server"
	"github.com/concordat-dev/concordat/kit/settings"
	"github.com/concordat-dev/concordat/kit/token"
)

// Auth is auth.v1 behind the request path of our services. What it knows outlives each time that it is served; its resume
// tokens say how many events were told. It is safe for concurrent use.
type Auth struct {
	authv1.UnimplementedAuthServiceServer
	authv1.UnimplementedKeyServiceServer

	mu      sync.Mutex
	asked   map[string]bool // users who were asked about
	locked  map[string]bool
	events  []*authv1.UserEvent
	changed chan struct{} // closed and replaced when there are more
	opened  int           // streams, so far
	held    chan struct{} // closed when streams may tell more than where they begin
}

// New returns an Auth that has locked nobody.
func New() *Auth {
	a := &Auth{asked: make(map[string]bool), locked: make(map[string]bool), changed: make(chan struct{}), held: make(chan struct{})}
	close(a.held)
	return a
}

// Lock locks a user, and tells whoever listens.
func (a *Auth) Lock(user string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.set(true, user)
}

// LockAll locks everybody who was asked about, or unlocks them.
func (a *Auth) LockAll(on bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.set(on, slices.Collect(maps.Keys(a.asked))...)
}

// set locks or unlocks users; mu is held.
func (a *Auth) set(locked bool, users ...string) {
	what := authv1.UserEventType_USER_EVENT_TYPE_ACCOUNT_UNLOCKED
	if locked {
		what = authv1.UserEventType_USER_EVENT_TYPE_ACCOUNT_LOCKED
	}
	for _, user := range users {
		a.locked[user] = locked
		a.events = append(a.events, &authv1.UserEvent{UserId: user, EventType: what})
	}
	close(a.changed)
	a.changed = make(chan struct{})
}

// Hold keeps streams that are opened from now on from telling more than where they begin, until release.
func (a *Auth) Hold() (release func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	held := make(chan struct{})
	a.held = held
	return sync.OnceFunc(func() { close(held) })
}

// Streams returns how many streams have been told where they begin.
func (a *Auth) Streams() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.opened
}

// Name is the name in its certificate.
const Name = "auth"

// beat is how often auth says that nothing has happened.
const beat = 5 * time.Second

// GetUser implements authv1.AuthServiceServer.
func (a *Auth) GetUser(_ context.Context, req *authv1.GetUserRequest) (*authv1.GetUserResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked[req.GetUserId()] = true
	active := !a.locked[req.GetUserId()]
	return &authv1.GetUserResponse{UserId: req.GetUserId(), Active: active, Role: authv1.Role_ROLE_MEMBER}, nil
}

// GetJwks implements authv1.KeyServiceServer: nobody here has an access token.
func (*Auth) GetJwks(context.Context, *authv1.GetJwksRequest) (*authv1.GetJwksResponse, error) {
	return &authv1.GetJwksResponse{}, nil
}

// WatchUserEvents implements authv1.AuthServiceServer.
func (a *Auth) WatchUserEvents(req *authv1.WatchUserEventsRequest, stream grpc.ServerStreamingServer[authv1.WatchUserEventsResponse]) error {
	ctx := stream.Context()
	told, _ := strconv.Atoi(req.GetResumeToken()) // without one, from the first event on
	if err := stream.Send(&authv1.WatchUserEventsResponse{ResumeToken: strconv.Itoa(told)}); err != nil {
		return err
	}
	a.mu.Lock()
	a.opened++
	held := a.held
	a.mu.Unlock()
	select {
	case <-held:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for {
		a.mu.Lock()
		missed, changed := a.events[told:], a.changed
		a.mu.Unlock()
		for _, event := range missed {
			told++
			if err := stream.Send(&authv1.WatchUserEventsResponse{Event: event, ResumeToken: strconv.Itoa(told)}); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-time.After(beat):
			if err := stream.Send(&authv1.WatchUserEventsResponse{ResumeToken: strconv.Itoa(told)}); err != nil {
				return err
			}
		case <-server.Draining(ctx):
			return server.ErrDraining
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Server serves auth.v1 until it is closed.
type Server struct {
	// Address is where it is, and Target the same as the setting of payments says it.
	Address, Target string

	end   context.CancelFunc
	ended chan error
}

// Start serves auth.v1 with a certificate of the development PKI in that directory, and nobody locked. The caller ends it
// with Close.
func Start(ctx context.Context, pki, trustDomain string) (*Server, error) {
	return New().Serve(ctx, pki, trustDomain, "127.0.0.1:0")
}

// Serve serves auth.v1 on an address, such as that of a server that was closed. The caller ends it with Close.
func (a *Auth) Serve(ctx context.Context, pki, trustDomain, address string) (*Server, error) {
	ctx, cancel := context.WithCancel(ctx)
	host, err := kit.NewHost(ctx, kit.HostConfig{
		Name: Name, Listen: settings.Address(address), Common: kit.Common{PKI: pki, TrustDomain: trustDomain, DrainTimeout: 100 * time.Millisecond},
		Deps: kit.Deps{Clock: clock.System(), Random: rand.Reader, Log: slog.New(slog.DiscardHandler), Out: io.Discard},
	}, func(h *kit.Host) error {
		nobody := func(context.Context) ([]token.Key, error) { return nil, nil }
		return h.Serves(h.Verifier(nobody), nil, func(r grpc.ServiceRegistrar) {
			authv1.RegisterAuthServiceServer(r, a)
			authv1.RegisterKeyServiceServer(r, a)
		})
	})
	if err != nil {
		cancel()
		return nil, err
	}
	s := &Server{Address: host.Addr().String(), Target: "passthrough:///" + host.Addr().String(), end: cancel, ended: make(chan error, 1)}
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
