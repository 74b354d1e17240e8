// Package app runs all services in one process. They talk to each other as they would across machines: over mutual TLS,
// on ports, through the contract. It promises that they start together or not at all, and that the gateway stops first, so
// that what it has let in is finished by services that are still there.
package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/admin"
	"github.com/concordat-dev/concordat/kit/id"
	"github.com/concordat-dev/concordat/kit/settings"
	auth "github.com/concordat-dev/concordat/services/auth/app"
	gateway "github.com/concordat-dev/concordat/services/gateway/app"
	payments "github.com/concordat-dev/concordat/services/payments/app"
	"github.com/concordat-dev/concordat/services/standalone/internal/demo"
	users "github.com/concordat-dev/concordat/services/users/app"
)

// Name is the name of the program.
const Name = "standalone"

// service is what the four have in common.
type service interface {
	Run(context.Context) error
	Ready() <-chan struct{}
	Checks() []admin.Check
	ContractDigest() string
	Close() error
}

// App is all services, ready to run.
type App struct {
	deps kit.Deps
	cfg  Config

	auth                  *auth.App
	users, payments, edge service
	operations            *kit.Operations
	at                    addresses
}

type addresses struct{ auth, users, payments, http, grpc net.Addr }

// New builds all services with all that can fail: every listener is open and every data directory locked. An App that is
// not run is closed with Close.
func New(ctx context.Context, cfg Config, deps kit.Deps) (*App, error) {
	cfg.place()
	a := &App{deps: deps}
	err := listen(&cfg)
	if err == nil {
		a.at = addresses{
			cfg.Auth.Listener.Addr(), cfg.Users.Listener.Addr(), cfg.Payments.Listener.Addr(),
			cfg.Gateway.HTTPListener.Addr(), cfg.Gateway.GRPCListener.Addr(),
		}
		cfg.connect(a.at.auth, a.at.users, a.at.payments)
		a.cfg = cfg
		err = a.build(ctx)
	}
	if err != nil {
		a.Close()
		closeAll(cfg)
		return nil, err
	}
	return a, nil
}

// listen opens every listener that was not given, before anything else: a port that is taken is the commonest reason not
// to start, and the ports decide where the services find each other.
func listen(cfg *Config) error {
	for _, l := range []struct {
		setting  string
		address  settings.Address
		listener *net.Listener
	}{
		{"--auth-listen", cfg.Auth.Listen, &cfg.Auth.Listener},
		{"--users-listen", cfg.Users.Listen, &cfg.Users.Listener},
		{"--payments-listen", cfg.Payments.Listen, &cfg.Payments.Listener},
		{"--gateway-http", cfg.Gateway.HTTP, &cfg.Gateway.HTTPListener},
		{"--gateway-grpc", cfg.Gateway.GRPC, &cfg.Gateway.GRPCListener},
	} {
		if *l.listener != nil {
			continue
		}
		var err error
		if *l.listener, err = kit.Listen(l.setting, l.address); err != nil {
			return err
		}
	}
	return nil
}

func closeAll(cfg Config) {
	for _, l := range []net.Listener{
		cfg.Auth.Listener, cfg.Users.Listener, cfg.Payments.Listener, cfg.Gateway.HTTPListener, cfg.Gateway.GRPCListener,
	} {
		if l != nil {
			_ = l.Close()
		}
	}
}

func (a *App) build(ctx context.Context) error {
	part := func(name string) kit.Deps {
		d := a.deps
		d.Log = d.Log.With("service", name)
		return d
	}
	var errs []error
	add := func(name string, err error) {
		if err != nil {
			errs = append(errs, named(name, err))
		}
	}
	build := func(name string, make func() (service, error)) service {
		if len(errs) > 0 {
			return nil // one line says why; what follows from it would not
		}
		s, err := make()
		add(name, err)
		if err != nil {
			return nil
		}
		return s
	}
	cfg := a.cfg
	var err error
	if a.operations, err = kit.NewOperations(ctx, Name, cfg.Admin, cfg.Common, a.deps); err != nil {
		return err
	}
	a.deps.Telemetry, a.deps.Usage = a.operations.Telemetry, a.operations.Usage
	a.users = build(users.Name, func() (service, error) {
		return users.New(ctx, users.Config{Settings: cfg.Users, Common: cfg.Common}, part(users.Name))
	})
	build(auth.Name, func() (_ service, err error) {
		a.auth, err = auth.New(ctx, auth.Config{Settings: cfg.Auth, Common: cfg.Common}, part(auth.Name))
		return a.auth, err
	})
	a.payments = build(payments.Name, func() (service, error) {
		return payments.New(ctx, payments.Config{Settings: cfg.Payments, Common: cfg.Common}, part(payments.Name))
	})
	a.edge = build(kit.Edge, func() (service, error) {
		return gateway.New(ctx, gateway.Config{Settings: cfg.Gateway, Common: cfg.Common}, part(kit.Edge))
	})
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	return a.operations.Start(a.checks, a.contracts)
}

// checks returns the checks of every service, under its name.
func (a *App) checks() []admin.Check {
	var list []admin.Check
	for name, s := range a.byName() {
		for _, c := range s.Checks() {
			list = append(list, admin.Check{Name: name + "/" + c.Name, Err: c.Err})
		}
	}
	slices.SortStableFunc(list, func(a, b admin.Check) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// contracts returns the digest of the contract of every service.
func (a *App) contracts() map[string]string {
	digests := make(map[string]string)
	for name, s := range a.byName() {
		digests[name] = s.ContractDigest()
	}
	return digests
}

// named says which service an error is of. One that begins with the service's own flag begins with ours for it.
func named(service string, err error) error {
	if rest, ok := strings.CutPrefix(err.Error(), "--"); ok {
		return errors.New("--" + service + "-" + rest)
	}
	return fmt.Errorf("%s: %w", service, err)
}

// services returns what has been built.
func (a *App) services() []service { return slices.Collect(maps.Values(a.byName())) }

// byName returns what has been built, by name.
func (a *App) byName() map[string]service {
	all := make(map[string]service)
	for name, s := range map[string]service{users.Name: a.users, payments.Name: a.payments, kit.Edge: a.edge} {
		if s != nil {
			all[name] = s
		}
	}
	if a.auth != nil {
		all[auth.Name] = a.auth
	}
	return all
}

// Close gives everything free without having run.
func (a *App) Close() {
	for _, s := range a.services() {
		if err := s.Close(); err != nil {
			a.deps.Log.Warn("close", "cause", err)
		}
	}
	a.closeOperations()
}

// closeOperations ends what is told to operators, when there is nothing left to tell.
func (a *App) closeOperations() {
	if a.operations == nil {
		return
	}
	if err := a.operations.Close(); err != nil {
		a.deps.Log.Warn("close", "cause", err)
	}
}

// HTTPAddr and GRPCAddr return where the gateway listens.
func (a *App) HTTPAddr() net.Addr { return a.at.http }

// GRPCAddr returns where the gateway listens for gRPC.
func (a *App) GRPCAddr() net.Addr { return a.at.grpc }

// AdminCode returns the one-time code for the first administrator, "" where there is one already.
func (a *App) AdminCode() string { return a.auth.AdminCode() }

// Run serves until ctx ends or a service fails, then stops the gateway, then the rest. ready is called once every service
// serves; its error ends the run.
func (a *App) Run(ctx context.Context, ready func(context.Context) error) error {
	edgeCtx, stopEdge := context.WithCancel(ctx)
	defer stopEdge()
	restCtx, stopRest := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRest()
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	run := func(ctx context.Context, name string, s service, after func()) {
		wg.Go(func() {
			err := s.Run(ctx)
			if err != nil {
				mu.Lock()
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
				mu.Unlock()
			}
			after()
		})
	}
	run(edgeCtx, kit.Edge, a.edge, stopRest)
	run(restCtx, users.Name, a.users, stopEdge)
	run(restCtx, auth.Name, a.auth, stopEdge)
	run(restCtx, payments.Name, a.payments, stopEdge)
	wg.Go(func() {
		for _, s := range a.services() {
			select {
			case <-s.Ready():
			case <-edgeCtx.Done():
				return
			}
		}
		if err := ready(edgeCtx); err != nil {
			mu.Lock()
			errs = append(errs, err)
			mu.Unlock()
			stopEdge()
		}
	})
	wg.Wait()
	a.closeOperations()
	return errors.Join(errs...)
}

// errDone ends a run whose demo has been played.
var errDone = errors.New("done")

// Run builds all services and runs them until ctx ends. With --demo it plays the demo and ends.
func Run(ctx context.Context, cfg Config, deps kit.Deps) error {
	started := time.Now()
	newID := id.Generator(deps.Clock, deps.Random)
	if cfg.DemoAt != "" {
		return demo.Run(ctx, demo.Config{GRPC: cfg.DemoAt.String(), HTTP: cfg.DemoHTTP.String(), NewID: newID, Out: deps.Out})
	}
	a, err := New(ctx, cfg, deps)
	if err != nil {
		return err
	}
	err = a.Run(ctx, func(ctx context.Context) error {
		if !cfg.Demo {
			_, err := fmt.Fprint(deps.Out, a.panel(time.Since(started)))
			return err
		}
		if err := demo.Run(ctx, demo.Config{
			GRPC: reachable(a.at.grpc), HTTP: reachable(a.at.http), NewID: newID, Out: deps.Out,
		}); err != nil {
			return fmt.Errorf("demo: %w", err)
		}
		return errDone
	})
	if errors.Is(err, errDone) {
		return nil
	}
	return err
}

// adminAt says where the admin port is.
func (a *App) adminAt() string {
	at := a.operations.Addr()
	if at == nil {
		return "off"
	}
	return "http://" + reachable(at) + "  (metrics, checks, profiles)"
}

// panel is what the person at the keyboard sees once all is healthy.
func (a *App) panel(took time.Duration) string {
	var b strings.Builder
	web, rpc, plain := "http://"+reachable(a.at.http), reachable(a.at.grpc), "-plaintext "
	if a.cfg.Gateway.EdgeCert != "" {
		web, plain = "https://"+reachable(a.at.http), ""
	}
	fmt.Fprintf(&b, "\nConcordat is ready (%s)\n\n", took.Round(time.Millisecond))
	for _, row := range [][2]string{
		{"HTTP", web + "  (REST, Connect, gRPC-Web; what runs where, and lines to try)"},
		{"gRPC", rpc + "  (every public method, with reflection)"},
		{"auth", a.at.auth.String() + "  (services: gRPC over mutual TLS)"},
		{"users", a.at.users.String()},
		{"payments", a.at.payments.String()},
		{"admin", a.adminAt()},
		{"data", a.cfg.Dir + "  (databases, keys, and certificates under pki)"},
	} {
		fmt.Fprintf(&b, "  %-9s %s\n", row[0], row[1])
	}
	if code := a.AdminCode(); code != "" {
		fmt.Fprintf(&b, "\n  No administrator yet: sign up with \"admin_code\": %q to be the first. It works once, until the next start.\n", code)
	}
	fmt.Fprintf(&b, "\nTry:\n  go tool grpcurl %s%s list\n  curl %s/readyz\n", plain, rpc, web)
	if plain != "" { // the demo speaks to this machine alone, without TLS
		fmt.Fprintf(&b, "  go run ./services/standalone --demo --demo-at %s --demo-http %s\n", rpc, reachable(a.at.http))
	}
	b.WriteString("\n")
	return b.String()
}
