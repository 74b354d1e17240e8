// Package app builds the users service from its settings and runs it: in a process of its own, or among others in one.
package app

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/settings"
	"github.com/concordat-dev/concordat/services/users/internal/api"
	"github.com/concordat-dev/concordat/services/users/internal/sqlstore"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// Name is the name of the service: in its certificate, in its settings and in the log.
const Name = "users"

// Settings are the service's own.
type Settings struct {
	Listen settings.Address `help:"Address to serve gRPC on. Peers come with certificates, people through the gateway." default:"127.0.0.1:50052"`
	Data   string           `help:"Data directory. It is made when it is missing, and belongs to one process at a time." default:".concordat/users"`
	Auth   string           `help:"Where auth is: its keys verify the access tokens of users. Fetched when the first token comes, so auth may start later." default:"dns:///127.0.0.1:50051"`

	PurgeAfter time.Duration `help:"How long a deleted user can be brought back before everything personal is erased." default:"720h"`

	kit.Database `embed:""`
	kit.Events   `embed:""`

	// Listener is used instead of Listen where it is set. New takes it over.
	Listener net.Listener `kong:"-"`
}

// Validate finds settings that cannot be meant.
func (s *Settings) Validate() []settings.Problem {
	problems := settings.Required(&s.Listen, &s.Data, &s.Auth)
	if s.PurgeAfter <= 0 {
		problems = append(problems, settings.Wrong(&s.PurgeAfter, "must be above zero"))
	}
	return problems
}

// Config is all settings of a process that runs the service.
type Config struct {
	Settings   `embed:""`
	kit.Common `embed:""`
	Admin      settings.Address `help:"Address of the admin port, for operators: metrics, checks and profiles over HTTP. An empty flag means none." default:"127.0.0.1:51052"`
}

// Validate finds settings that cannot be meant.
func (c *Config) Validate() []settings.Problem {
	return slices.Concat(c.Settings.Validate(), c.Common.Validate(), c.ValidateAdmin(&c.Admin))
}

// New builds the service with all that can fail: the listener is open, the data directory locked and its schema up to
// date. It serves once Run is called.
func New(ctx context.Context, cfg Config, deps kit.Deps) (*kit.Host, error) {
	return kit.NewHost(ctx, kit.HostConfig{
		Name: Name, Listen: cfg.Listen, Listener: cfg.Listener, Admin: cfg.Admin, Common: cfg.Common, Deps: deps,
	}, func(h *kit.Host) error {
		store, err := sqlstore.Open(ctx, sqlstore.Options{
			URL: cfg.URL(), Connections: cfg.DatabaseConnections, Dir: cfg.Data, Clock: h.Clock, Random: h.Random,
			Retention: cfg.Retention(),
		})
		if err != nil {
			return fmt.Errorf("%s: %w", cfg.Setting(), err)
		}
		h.OnClose(store.Close)
		h.Beside(store.Run)
		if err := h.Signals.Collect(store.Metrics()); err != nil {
			return err
		}
		auth, err := dialAuth(cfg.Auth, h.Identity, h.Signals)
		if err != nil {
			return fmt.Errorf("--auth: %w", err)
		}
		h.OnClose(auth.Close)
		verifier := h.Verifier(keys(auth))
		if err := h.FollowRevocations(verifier, revocations(auth)); err != nil {
			return err
		}
		service := users.NewService(users.Deps{Store: store, Clock: h.Clock, NewID: h.NewID, PurgeAfter: cfg.PurgeAfter})
		h.Beside(func(ctx context.Context) error { service.RunSweeper(ctx, reportSweep(h.Log)); return nil })
		return h.Serves(verifier, map[string]func(context.Context) error{"store": store.Healthy},
			api.New(service, store.PageKey()).Register)
	})
}

// reportSweep logs what a sweep did, if it did anything.
func reportSweep(log *slog.Logger) func(users.Swept, error) {
	return func(swept users.Swept, err error) {
		switch {
		case err != nil:
			log.Warn("sweep is not complete", "cause", err, "left", swept.Left, "erased", swept.Erased)
		case swept.Erased > 0:
			log.Info("deleted users erased", "erased", swept.Erased)
		}
	}
}

// Run builds the service and runs it until ctx ends.
func Run(ctx context.Context, cfg Config, deps kit.Deps) error {
	h, err := New(ctx, cfg, deps)
	if err != nil {
		return err
	}
	return h.Run(ctx)
}
