package faults

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

// auth is auth.v1 as far as payments needs it, behind the request path of our services: everybody is there, and active
// unless they were locked. What it knows outlives each time that it is served; its resume tokens say how many events
// were told.
type auth struct {
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

func newAuth() *auth {
	a := &auth{asked: make(map[string]bool), locked: make(map[string]bool), changed: make(chan struct{}), held: make(chan struct{})}
	close(a.held)
	return a
}

// lock locks a user, and tells whoever listens.
func (a *auth) lock(user string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.set(true, user)
}

// lockAll locks everybody who was asked about, or unlocks them.
func (a *auth) lockAll(on bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.set(on, slices.Collect(maps.Keys(a.asked))...)
}

// set locks or unlocks users; mu is held.
func (a *auth) set(locked bool, users ...string) {
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

// hold keeps streams that are opened from now on from telling more than where they begin, until release.
func (a *auth) hold() (release func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	held := make(chan struct{})
	a.held = held
	return sync.OnceFunc(func() { close(held) })
}

// streams returns how many streams have been told where they begin.
func (a *auth) streams() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.opened
}

// beat is how often auth says that nothing has happened.
const beat = 5 * time.Second

// GetUser implements authv1.AuthServiceServer.
func (a *auth) GetUser(_ context.Context, req *authv1.GetUserRequest) (*authv1.GetUserResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked[req.GetUserId()] = true
	active := !a.locked[req.GetUserId()]
	return &authv1.GetUserResponse{UserId: req.GetUserId(), Active: active, Role: authv1.Role_ROLE_MEMBER}, nil
}

// GetJwks implements authv1.KeyServiceServer: nobody here has an access token.
func (*auth) GetJwks(context.Context, *authv1.GetJwksRequest) (*authv1.GetJwksResponse, error) {
	return &authv1.GetJwksResponse{}, nil
}

// WatchUserEvents implements authv1.AuthServiceServer.
func (a *auth) WatchUserEvents(req *authv1.WatchUserEventsRequest, stream grpc.ServerStreamingServer[authv1.WatchUserEventsResponse]) error {
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

// running is a service that runs in this process.
type running struct {
	address string // where it is
	end     context.CancelFunc
	ended   chan error
}

// target is how a service is told where it is.
func (r *running) target() string { return "passthrough:///" + r.address }

// serve serves auth.v1 on an address, with a certificate of the PKI in that directory.
func (a *auth) serve(ctx context.Context, pki, address string) (*running, error) {
	ctx, cancel := context.WithCancel(ctx)
	host, err := kit.NewHost(ctx, kit.HostConfig{
		Name: "auth", Listen: settings.Address(address), Common: kit.Common{PKI: pki, TrustDomain: trustDomain, DrainTimeout: 100 * time.Millisecond},
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
	r := &running{address: host.Addr().String(), end: cancel, ended: make(chan error, 1)}
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
