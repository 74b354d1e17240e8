// Package app builds the gateway from its settings and runs it.
package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/concordat-dev/concordat/gen"
	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/id"
	"github.com/concordat-dev/concordat/kit/pki"
	"github.com/concordat-dev/concordat/kit/server"
	"github.com/concordat-dev/concordat/kit/settings"
	"github.com/concordat-dev/concordat/kit/telemetry"
	"github.com/concordat-dev/concordat/services/gateway/internal/contract"
	"github.com/concordat-dev/concordat/services/gateway/internal/edge"
	"github.com/concordat-dev/concordat/services/gateway/internal/forward"
	"github.com/concordat-dev/concordat/services/gateway/internal/upstream"
)

// App is the gateway: two listeners in front of the services of the contract. Make it with New.
type App struct {
	cfg       Config
	deps      kit.Deps
	identity  *pki.Identity
	own       *kit.Operations // nil where the process has them
	signals   *telemetry.Service
	digest    func() string // of the contract
	contract  *contract.Contract
	upstreams *upstream.Set
	forwarder *forward.Forwarder
	health    *health.Server

	httpListener, grpcListener net.Listener
	http                       *http.Server
	grpc                       *grpc.Server
	behindHTTP                 *grpc.Server // the forwarding server that the HTTP side hands its calls to
	secure                     bool

	draining context.Context
	drain    context.CancelFunc
	closing  sync.Once
	closed   error
}

// New builds the gateway: everything that can fail before it serves fails here, its listeners included. The services
// behind it need not be there yet. An App that is not run is closed with Close.
func New(ctx context.Context, cfg Config, deps kit.Deps) (*App, error) {
	a := &App{cfg: cfg, deps: deps, httpListener: cfg.HTTPListener, grpcListener: cfg.GRPCListener, health: health.NewServer()}
	a.draining, a.drain = context.WithCancel(context.Background())
	if err := a.build(ctx); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

func (a *App) build(ctx context.Context) (err error) {
	if a.contract, err = contract.Load(); err != nil {
		return err
	}
	if err := a.listen(); err != nil {
		return err
	}
	if a.deps.Telemetry == nil {
		if a.own, err = kit.NewOperations(ctx, kit.Edge, a.cfg.Admin, a.cfg.Common, a.deps); err != nil {
			return err
		}
		a.deps.Telemetry = a.own.Telemetry
	}
	if a.signals, err = a.deps.Telemetry.Service(kit.Edge); err != nil {
		return err
	}
	if a.identity, err = a.cfg.Common.Identity(ctx, kit.Edge, a.deps.Clock, a.deps.Log); err != nil {
		return err
	}
	targets := map[string]string{
		contract.Auth: a.cfg.Auth, contract.Users: a.cfg.Users, contract.Payments: a.cfg.Payments,
	}
	if a.upstreams, err = upstream.Dial(upstream.Config{
		Contract: a.contract, Targets: targets, Identity: a.identity, Telemetry: a.signals, Clock: a.deps.Clock, Log: a.deps.Log,
	}); err != nil {
		return err
	}
	bounds, err := a.bound()
	if err != nil {
		return err
	}
	newID := id.Generator(a.deps.Clock, a.deps.Random)
	if a.forwarder, err = forward.New(forward.Config{
		Contract: a.contract, Conn: a.upstreams.Conn, Proxies: forward.Proxies(a.cfg.TrustedProxy),
		Telemetry: a.signals, CallerTraces: a.cfg.callerTraces(), Log: a.deps.Log, Clock: a.deps.Clock, NewID: newID,
	}); err != nil {
		return err
	}
	reflection, err := forward.NewReflection(a.contract)
	if err != nil {
		return err
	}
	httpTLS, grpcCreds, err := a.credentials()
	if err != nil {
		return err
	}
	a.grpc = a.forwarder.Server(bounds.Hear(grpcCreds)...)
	a.behindHTTP = a.forwarder.Server() // it has no listener
	for _, s := range []*grpc.Server{a.grpc, a.behindHTTP} {
		healthpb.RegisterHealthServer(s, a.health)
		reflection.Register(s)
	}
	a.initHealth()
	handler, err := edge.New(edge.Config{
		Contract: a.contract, Forwarder: a.forwarder, RPC: a.behindHTTP, Conn: a.upstreams.Conn, Check: a.upstreams.Check,
		Draining: func() bool { return a.draining.Err() != nil },
		OpenAPI:  gen.OpenAPI, Issuer: a.cfg.Issuer, Page: a.page(targets),
		AllowedOrigins: a.cfg.AllowedOrigin, MaxBodyBytes: a.cfg.MaxBody, Secure: a.secure,
		Telemetry: a.signals, Log: a.deps.Log, Clock: a.deps.Clock, NewID: newID,
	})
	if err != nil {
		return err
	}
	a.http = edge.NewServer(handler, httpTLS, a.deps.Log)
	return a.operate()
}

// listen opens what was not given, and refuses to be reached from other machines without a certificate.
func (a *App) listen() (err error) {
	a.secure = a.cfg.EdgeCert != ""
	for _, l := range []struct {
		setting  string
		address  settings.Address
		listener *net.Listener
	}{
		{"--http", a.cfg.HTTP, &a.httpListener},
		{"--grpc", a.cfg.GRPC, &a.grpcListener},
	} {
		if *l.listener == nil {
			if *l.listener, err = kit.Listen(l.setting, l.address); err != nil {
				return err
			}
		}
		if address := (*l.listener).Addr(); !a.secure && !loopback(address) {
			return fmt.Errorf("%s: %s can be reached from other machines, which needs a certificate: --edge-cert and --edge-key", l.setting, address)
		}
	}
	return nil
}

// bound gives each address its share of the connections of each listener; those of proxies are many callers'.
func (a *App) bound() (*server.Bounds, error) {
	bounds, err := server.NewBounds(server.BoundsConfig{
		ConnectionsPerAddress: a.cfg.ConnectionsPerAddress, Exempt: a.cfg.TrustedProxy,
		Telemetry: a.signals, Log: a.deps.Log, Clock: a.deps.Clock,
	})
	if err != nil {
		return nil, err
	}
	a.httpListener, a.grpcListener = bounds.Listen(a.httpListener), bounds.Listen(a.grpcListener)
	return bounds, nil
}

func loopback(address net.Addr) bool {
	ap, err := netip.ParseAddrPort(address.String())
	return err == nil && ap.Addr().Unmap().IsLoopback()
}

func (a *App) credentials() (*tls.Config, credentials.TransportCredentials, error) {
	if !a.secure {
		return nil, insecure.NewCredentials(), nil
	}
	c, err := openCertificate(a.cfg.EdgeCert, a.cfg.EdgeKey, a.deps.Clock, a.deps.Log)
	if err != nil {
		return nil, nil, err
	}
	return c.config("h2", "http/1.1"), credentials.NewTLS(c.config("h2")), nil
}

// page says what the landing page shows: where this machine alone can see it, everything; else the address under which
// the edge is known, and nothing of what is behind it.
func (a *App) page(targets map[string]string) edge.Page {
	p := edge.Page{Issuer: a.cfg.Issuer, Secure: a.secure}
	if !loopback(a.HTTPAddr()) {
		p.HTTP = strings.TrimRight(a.cfg.Issuer, "/")
		if u, err := url.Parse(a.cfg.Issuer); err == nil {
			p.GRPC = fmt.Sprintf("%s:%d", u.Hostname(), portOf(a.GRPCAddr()))
		}
		return p
	}
	scheme := "http://"
	if a.secure {
		scheme = "https://"
	}
	p.HTTP, p.GRPC, p.Targets = scheme+shown(a.HTTPAddr()), shown(a.GRPCAddr()), targets
	return p
}

// shown returns an address as a person types it.
func shown(address net.Addr) string {
	ap, err := netip.ParseAddrPort(address.String())
	if err == nil && ap.Addr().Unmap() == netip.AddrFrom4([4]byte{127, 0, 0, 1}) {
		return fmt.Sprintf("localhost:%d", ap.Port())
	}
	return address.String()
}

func portOf(address net.Addr) uint16 {
	ap, err := netip.ParseAddrPort(address.String())
	if err != nil {
		return 0
	}
	return ap.Port()
}

// HTTPAddr returns the address of the HTTP listener.
func (a *App) HTTPAddr() net.Addr { return a.httpListener.Addr() }

// GRPCAddr returns the address of the gRPC listener.
func (a *App) GRPCAddr() net.Addr { return a.grpcListener.Addr() }

// Ready returns a channel that is closed once the gateway serves and has found every service behind it serving.
func (a *App) Ready() <-chan struct{} { return a.upstreams.Ready() }

// initHealth says of everything that it does not serve yet.
func (a *App) initHealth() {
	a.health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	for _, u := range a.contract.Upstreams() {
		a.setHealth(u, healthpb.HealthCheckResponse_NOT_SERVING)
	}
}

func (a *App) setHealth(u contract.Upstream, state healthpb.HealthCheckResponse_ServingStatus) {
	for _, s := range u.Services {
		a.health.SetServingStatus(string(s.FullName()), state)
	}
}

// watchHealth keeps the health service true until ctx ends: a service of the contract serves where what is behind it
// does, and the gateway as a whole where everything does.
func (a *App) watchHealth(ctx context.Context) {
	var mu sync.Mutex
	up := make(map[string]bool)
	a.upstreams.Watch(ctx, func(h upstream.Health) {
		mu.Lock()
		defer mu.Unlock()
		up[h.Name] = h.State == upstream.Serving
		all := healthpb.HealthCheckResponse_SERVING
		for _, u := range a.contract.Upstreams() {
			state := healthpb.HealthCheckResponse_SERVING
			if !up[u.Name] {
				state = healthpb.HealthCheckResponse_NOT_SERVING
				all = state
			}
			a.setHealth(u, state)
		}
		a.health.SetServingStatus("", all)
	})
}

// Run serves until ctx ends, then stops in order: readiness goes down, open streams end, calls in flight finish, and
// after the drain timeout what is left is cut. It returns nil after a stop that was asked for.
func (a *App) Run(ctx context.Context) error {
	beside, end := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { a.identity.Renew(beside) })
	wg.Go(func() { a.watchHealth(beside) })
	wg.Go(func() {
		select {
		case <-a.Ready():
			a.deps.Log.Info("gateway is ready", "http", a.HTTPAddr().String(), "grpc", a.GRPCAddr().String())
		case <-beside.Done():
		}
	})
	served := make(chan error, 2)
	go func() { served <- a.serveHTTP() }()
	go func() { served <- a.grpc.Serve(a.grpcListener) }()
	var err error
	select {
	case err = <-served:
		err = fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	a.stop()
	end()
	wg.Wait()
	return errors.Join(err, a.Close())
}

func (a *App) serveHTTP() error {
	l := edge.Watch(a.httpListener)
	if a.secure {
		return a.http.ServeTLS(l, "", "")
	}
	return a.http.Serve(l)
}

// stop ends what is served.
func (a *App) stop() {
	a.drain()
	a.health.Shutdown()
	a.forwarder.Drain()
	ctx, cancel := context.WithTimeout(context.Background(), a.cfg.DrainTimeout)
	defer cancel()
	cut := context.AfterFunc(ctx, func() {
		a.deps.Log.Warn("drain timed out: cutting what is left", "after", a.cfg.DrainTimeout)
		a.grpc.Stop()
	})
	defer cut()
	var wg sync.WaitGroup
	wg.Go(a.grpc.GracefulStop)
	wg.Go(func() {
		if err := a.http.Shutdown(ctx); err != nil {
			_ = a.http.Close() // what is left is cut
		}
		a.behindHTTP.Stop() // its calls have ended, or their connections have
	})
	wg.Wait()
}

// Close gives everything free without having served. Run does it by itself. Closing twice is allowed.
func (a *App) Close() error {
	a.closing.Do(func() {
		var errs []error
		for _, l := range []net.Listener{a.httpListener, a.grpcListener} {
			if l != nil {
				if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
					errs = append(errs, err)
				}
			}
		}
		for _, s := range []*grpc.Server{a.grpc, a.behindHTTP} {
			if s != nil {
				s.Stop()
			}
		}
		if a.upstreams != nil {
			errs = append(errs, a.upstreams.Close())
		}
		a.drain()
		if a.own != nil {
			errs = append(errs, a.own.Close()) // last: it tells of all the rest
		}
		a.closed = errors.Join(errs...)
	})
	return a.closed
}

// Run builds the gateway and serves until ctx ends.
func Run(ctx context.Context, cfg Config, deps kit.Deps) error {
	a, err := New(ctx, cfg, deps)
	if err != nil {
		return err
	}
	return a.Run(ctx)
}
