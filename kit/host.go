package kit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"google.golang.org/grpc"

	"github.com/concordat-dev/concordat/kit/admin"
	"github.com/concordat-dev/concordat/kit/id"
	"github.com/concordat-dev/concordat/kit/pki"
	"github.com/concordat-dev/concordat/kit/server"
	"github.com/concordat-dev/concordat/kit/settings"
	"github.com/concordat-dev/concordat/kit/telemetry"
	"github.com/concordat-dev/concordat/kit/token"
)

// HostConfig is what a Host is made of; every field but Listener and Admin is required.
type HostConfig struct {
	// Name is the name of the service: in its certificate and in the log.
	Name string
	// Listen is the address of the setting --listen.
	Listen settings.Address
	// Listener is used instead of Listen where it is set. The Host takes it over.
	Listener net.Listener
	// Admin is the address of the admin port, the setting --admin; "" means none. A process whose services share their
	// telemetry (Deps) has one admin port for all, which is not a Host's.
	Admin  settings.Address
	Common Common
	Deps   Deps
}

// Host is one gRPC service in a process: its listener, certificate and server, what runs beside it, and what is to be
// closed when it ends.
type Host struct {
	Deps
	// Identity is the certificate of the service.
	Identity *pki.Identity
	// NewID makes the ids of the service's things.
	NewID func() string
	// Signals is the service's part of the telemetry: what its calls to others (client.Config) and its metrics are told by.
	Signals *telemetry.Service

	cfg      HostConfig
	listener net.Listener
	own      *Operations // nil where the process has them
	server   *server.Server
	beside   []func(context.Context) error
	closers  []func() error

	closing sync.Once
	closed  error
}

// NewHost opens the listener and the certificate and has build make the service, which ends with Serves. All that can
// fail fails here; what was opened until then is closed. A Host that is not run is closed with Close.
func NewHost(ctx context.Context, cfg HostConfig, build func(*Host) error) (*Host, error) {
	h := &Host{Deps: cfg.Deps, NewID: id.Generator(cfg.Deps.Clock, cfg.Deps.Random), cfg: cfg, listener: cfg.Listener}
	var err error
	if h.listener == nil {
		if h.listener, err = Listen("--listen", cfg.Listen); err != nil {
			return nil, err
		}
	}
	if err = h.make(ctx, build); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

func (h *Host) make(ctx context.Context, build func(*Host) error) (err error) {
	if h.Telemetry == nil {
		if h.own, err = NewOperations(ctx, h.cfg.Name, h.cfg.Admin, h.cfg.Common, h.Deps); err != nil {
			return err
		}
		h.Telemetry, h.Usage = h.own.Telemetry, h.own.Usage
		h.OnClose(h.own.Close) // first added, last called
	}
	if h.Signals, err = h.Telemetry.Service(h.cfg.Name); err != nil {
		return err
	}
	if h.Identity, err = h.cfg.Common.Identity(ctx, h.cfg.Name, h.Clock, h.Log); err != nil {
		return err
	}
	h.Beside(func(ctx context.Context) error { h.Identity.Renew(ctx); return nil })
	h.Beside(func(ctx context.Context) error { h.cfg.Common.KeepDeveloper(ctx, h.Clock, h.Log); return nil })
	if err := build(h); err != nil {
		return err
	}
	if h.own != nil {
		return h.own.Start(h.Checks, func() map[string]string { return map[string]string{h.cfg.Name: h.ContractDigest()} })
	}
	return nil
}

// Checks returns what the checks of the service found when they were last asked; see server.Server.Readiness.
func (h *Host) Checks() []admin.Check {
	var list []admin.Check
	for _, c := range h.server.Readiness() {
		list = append(list, admin.Check(c))
	}
	return list
}

// ContractDigest returns the digest of the contract that the service serves; see telemetry.ContractDigest.
func (h *Host) ContractDigest() string { return h.server.ContractDigest() }

// AdminAddr returns the address of the admin port, nil where the service has none of its own.
func (h *Host) AdminAddr() net.Addr {
	if h.own == nil {
		return nil
	}
	return h.own.Addr()
}

// OnClose has f called when the service ends, last added first.
func (h *Host) OnClose(f func() error) { h.closers = append(h.closers, f) }

// Beside has f run while the service serves, until the last call has ended: its context ends after that. An error of f
// stops the service.
func (h *Host) Beside(f func(context.Context) error) { h.beside = append(h.beside, f) }

// Verifier returns what verifies the access tokens that the settings speak of, with keys that are asked for when they are
// needed.
func (h *Host) Verifier(keys func(context.Context) ([]token.Key, error)) *token.Verifier {
	return token.NewVerifier(token.VerifierConfig{
		Issuer: h.cfg.Common.Issuer, Audience: h.cfg.Common.Audience, Keys: keys, Clock: h.Clock,
	})
}

// Serves makes the server of what register adds; checks are those of server.Config. It is the last step of a build.
func (h *Host) Serves(tokens server.Tokens, checks map[string]func(context.Context) error, register func(grpc.ServiceRegistrar)) (err error) {
	h.server, err = server.New(server.Config{
		Listener: h.listener, Identity: h.Identity, Tokens: tokens, Edge: Edge, Log: h.Log, Clock: h.Clock, NewID: h.NewID,
		DrainTimeout: h.cfg.Common.DrainTimeout, ShedLoad: h.cfg.Common.ShedLoad, Checks: checks,
		ConnectionsPerAddress: h.cfg.Common.ConnectionsPerAddress, Telemetry: h.Telemetry, Usage: h.Usage,
	}, register)
	return err
}

// Addr returns the address that the service listens on.
func (h *Host) Addr() net.Addr { return h.listener.Addr() }

// Ready returns a channel that is closed once the service serves and its checks have passed.
func (h *Host) Ready() <-chan struct{} { return h.server.Ready() }

// Run serves until ctx ends, lets the calls under way finish within the drain timeout, and closes everything. It returns
// nil after a stop that was asked for, and otherwise what ended the service.
func (h *Host) Run(ctx context.Context) error {
	serving, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	// What runs beside goes on until the last stream has been told where to resume, and so beyond ctx.
	besides, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var wg sync.WaitGroup
	for _, f := range h.beside {
		wg.Go(func() {
			if err := f(besides); err != nil && besides.Err() == nil {
				stop(err)
			}
		})
	}
	wg.Go(func() {
		select {
		case <-h.Ready():
			h.Log.Info(h.cfg.Name+" is ready", "address", h.Addr().String())
		case <-serving.Done():
		}
	})
	err := h.server.Serve(serving)
	if cause := context.Cause(serving); err == nil && ctx.Err() == nil && cause != nil {
		err = cause
	}
	stop(nil)
	end()
	wg.Wait()
	if err != nil {
		err = fmt.Errorf("run: %w", err)
	}
	return errors.Join(err, h.Close())
}

// Close gives everything free without having served. Run does it by itself. Closing twice is allowed.
func (h *Host) Close() error {
	h.closing.Do(func() {
		if h.server != nil {
			h.server.Close()
		} else {
			_ = h.listener.Close() // it never served
		}
		var errs []error
		for _, f := range slices.Backward(h.closers) {
			errs = append(errs, f())
		}
		h.closed = errors.Join(errs...)
	})
	return h.closed
}
