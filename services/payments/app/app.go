// Package app builds the payments service from its settings and runs it: in a process of its own, or among others in
// one.
package app

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/settings"
	"github.com/concordat-dev/concordat/services/payments/internal/api"
	"github.com/concordat-dev/concordat/services/payments/internal/customers"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
	"github.com/concordat-dev/concordat/services/payments/internal/simulator"
	"github.com/concordat-dev/concordat/services/payments/internal/sqlstore"
)

// Name is the name of the service: in its certificate, in its settings and in the log.
const Name = "payments"

// Settings are the service's own.
type Settings struct {
	Listen settings.Address `help:"Address to serve gRPC on. Peers come with certificates, people through the gateway." default:"127.0.0.1:50053"`
	Data   string           `help:"Data directory. It is made when it is missing, and belongs to one process at a time." default:".concordat/payments"`
	Auth   string           `help:"Where auth is: it says who may be charged, and its keys verify the access tokens of users. Asked when it is first needed, so auth may start later." default:"dns:///127.0.0.1:50051"`
	Users  string           `help:"Where users is: what it erases is erased here as well. Followed when it is there, so users may start later." default:"dns:///127.0.0.1:50052"`

	AuthorizationExpiry time.Duration `help:"How long an authorization holds that is not captured." default:"168h"`
	KeyRetention        time.Duration `help:"How long idempotency keys are kept, at least 24h: a charge that is repeated later is another charge." default:"24h"`
	CustomerStaleness   time.Duration `help:"How long customers who were charged before are charged while auth is not heard. After that, and for everybody else, a charge fails. At least 30s: on a quiet connection auth is heard every 15s." default:"1m"`

	kit.Database `embed:""`
	kit.Events   `embed:""`

	// Listener is used instead of Listen where it is set. New takes it over.
	Listener net.Listener `kong:"-"`
}

// Validate finds settings that cannot be meant.
func (s *Settings) Validate() []settings.Problem {
	problems := settings.Required(&s.Listen, &s.Data, &s.Auth, &s.Users)
	for _, d := range []struct {
		setting *time.Duration
		least   time.Duration
	}{
		{&s.AuthorizationExpiry, time.Second}, {&s.KeyRetention, 24 * time.Hour}, {&s.CustomerStaleness, 30 * time.Second},
	} {
		if *d.setting < d.least {
			problems = append(problems, settings.Wrong(d.setting, "must be at least %s", d.least))
		}
	}
	return problems
}

// Config is all settings of a process that runs the service.
type Config struct {
	Settings   `embed:""`
	kit.Common `embed:""`
	Admin      settings.Address `help:"Address of the admin port, for operators: metrics, checks and profiles over HTTP. An empty flag means none." default:"127.0.0.1:51053"`
}

// Validate finds settings that cannot be meant.
func (c *Config) Validate() []settings.Problem {
	return slices.Concat(c.Settings.Validate(), c.Common.Validate(), c.ValidateAdmin(&c.Admin))
}

// mostCustomers is how many customers are remembered, at about 300 bytes each.
const mostCustomers = 100_000

// New builds the service with all that can fail: the listener is open, the data directory locked and its schema up to
// date. It serves once Run is called.
func New(ctx context.Context, cfg Config, deps kit.Deps) (*kit.Host, error) {
	return kit.NewHost(ctx, kit.HostConfig{
		Name: Name, Listen: cfg.Listen, Listener: cfg.Listener, Admin: cfg.Admin, Common: cfg.Common, Deps: deps,
	}, func(h *kit.Host) error {
		store, err := sqlstore.Open(ctx, sqlstore.Options{
			URL: cfg.URL(), Connections: cfg.DatabaseConnections, Dir: cfg.Data, Clock: h.Clock, Random: h.Random, NewID: h.NewID,
			Retention: cfg.Retention(),
		})
		if err != nil {
			return fmt.Errorf("%s: %w", cfg.Setting(), err)
		}
		h.OnClose(store.Close)
		h.Beside(store.Run)
		if err := h.Signals.Collect(store.Metrics()...); err != nil {
			return err
		}
		auth, err := dialAuth(cfg.Auth, h.Identity, h.Signals)
		if err != nil {
			return fmt.Errorf("--auth: %w", err)
		}
		h.OnClose(auth.Close)
		directory := customers.New(customers.Options{
			Source: source{authv1.NewAuthServiceClient(auth)}, Clock: h.Clock, Staleness: cfg.CustomerStaleness, Most: mostCustomers,
		})
		service, err := payments.NewService(payments.Deps{
			Store: store, Customers: directory, Processor: simulator.New(h.Clock), Clock: h.Clock, NewID: h.NewID,
			AuthorizationExpiry: cfg.AuthorizationExpiry,
		})
		if err != nil {
			return err
		}
		tend(h, service, cfg.KeyRetention)
		verifier := h.Verifier(keys(auth))
		if err := h.FollowRevocations(verifier, userEvents(auth, directory)); err != nil {
			return err
		}
		if err := followErasures(h, cfg.Users, store); err != nil {
			return err
		}
		return h.Serves(verifier, map[string]func(context.Context) error{"store": store.Healthy},
			api.New(service, store.PageKey(), h.Log).Register)
	})
}

// Run builds the service and runs it until ctx ends.
func Run(ctx context.Context, cfg Config, deps kit.Deps) error {
	h, err := New(ctx, cfg, deps)
	if err != nil {
		return err
	}
	return h.Run(ctx)
}
