// Package app builds the auth service from its settings and runs it: in a process of its own, or among others in one.
package app

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"google.golang.org/grpc"

	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/settings"
	"github.com/concordat-dev/concordat/kit/token"
	"github.com/concordat-dev/concordat/services/auth/internal/api"
	"github.com/concordat-dev/concordat/services/auth/internal/api/profiles"
	"github.com/concordat-dev/concordat/services/auth/internal/auth"
	"github.com/concordat-dev/concordat/services/auth/internal/password"
	"github.com/concordat-dev/concordat/services/auth/internal/signingkey"
	"github.com/concordat-dev/concordat/services/auth/internal/sqlstore"
)

// Name is the name of the service: in its certificate, in its settings and in the log.
const Name = "auth"

// keyFile is the name of the signing key in the data directory, where no other path is set.
const keyFile = "signing-key.pem"

// Settings are the service's own.
type Settings struct {
	Listen     settings.Address `help:"Address to serve gRPC on. Peers come with certificates, people through the gateway." default:"127.0.0.1:50051"`
	Data       string           `help:"Data directory. It is made when it is missing, and belongs to one process at a time." default:".concordat/auth"`
	Users      string           `help:"Where users is: it keeps the profiles of those who sign up. Asked when it is first needed, so users may start later." default:"dns:///127.0.0.1:50052"`
	SigningKey string           `help:"PEM file (PKCS #8) of the Ed25519 key that signs access tokens, which nobody else may read. Made when it is missing. Empty means signing-key.pem in the data directory."`

	kit.Database `embed:""`
	kit.Events   `embed:""`

	// Listener is used instead of Listen where it is set. New takes it over.
	Listener net.Listener `kong:"-"`
}

// Validate finds settings that cannot be meant.
func (s *Settings) Validate() []settings.Problem {
	return settings.Required(&s.Listen, &s.Data, &s.Users)
}

// Config is all settings of a process that runs the service.
type Config struct {
	Settings   `embed:""`
	kit.Common `embed:""`
	Admin      settings.Address `help:"Address of the admin port, for operators: metrics, checks and profiles over HTTP. An empty flag means none." default:"127.0.0.1:51051"`
}

// Validate finds settings that cannot be meant.
func (c *Config) Validate() []settings.Problem {
	return slices.Concat(c.Settings.Validate(), c.Common.Validate(), c.ValidateAdmin(&c.Admin))
}

// App is an auth service that is ready to run.
type App struct {
	*kit.Host
	adminCode string
}

// New builds the service with all that can fail: the listener is open, the data directory locked, its schema up to date
// and the signing key there. It serves once Run is called.
func New(ctx context.Context, cfg Config, deps kit.Deps) (*App, error) {
	a := &App{}
	var err error
	a.Host, err = kit.NewHost(ctx, kit.HostConfig{
		Name: Name, Listen: cfg.Listen, Listener: cfg.Listener, Admin: cfg.Admin, Common: cfg.Common, Deps: deps,
	}, func(h *kit.Host) error { return a.build(ctx, h, cfg) })
	if err != nil {
		return nil, err
	}
	return a, nil
}

func (a *App) build(ctx context.Context, h *kit.Host, cfg Config) error {
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
	users, err := profiles.Dial(cfg.Users, h.Identity, h.Signals)
	if err != nil {
		return fmt.Errorf("--users: %w", err)
	}
	h.OnClose(users.Close)
	signer, err := signer(h, cfg)
	if err != nil {
		return err
	}
	service, err := domain(h, store, users, signer)
	if err != nil {
		return err
	}
	h.Beside(func(ctx context.Context) error { service.RunSweeper(ctx, a.reportSweep); return nil })
	followed, err := store.Profiles(profiles.New(users).Changes(), service.Follow, service.FollowAnew, h.Random, func(err error) {
		h.Log.Warn("changes of profiles are not heard of", "cause", err)
	})
	if err != nil {
		return err
	}
	h.Beside(followed.Run)
	keys := []token.Key{signer.Key()}
	verifier := h.Verifier(func(context.Context) ([]token.Key, error) { return keys, nil })
	if err := h.FollowRevocations(verifier, api.Revocations(store.Log())); err != nil {
		return err
	}
	err = h.Serves(verifier, map[string]func(context.Context) error{"store": store.Healthy}, api.New(service, store.Log(), keys).Register)
	if err != nil {
		return err
	}
	// Last, because it voids the code of the start before.
	a.adminCode, err = service.RenewAdminCode(ctx)
	return err
}

// signer returns what signs access tokens, with the key of the settings.
func signer(h *kit.Host, cfg Config) (*token.Signer, error) {
	path := cfg.SigningKey
	if path == "" {
		// The store makes the directory only where it keeps its data there.
		if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
			return nil, fmt.Errorf("--data: %w", err)
		}
		path = filepath.Join(cfg.Data, keyFile)
	}
	key, err := signingkey.Load(path, h.Random)
	if err != nil {
		return nil, fmt.Errorf("--signing-key: %w", err)
	}
	return token.NewSigner(key, cfg.Issuer, cfg.Audience, h.Clock, h.NewID), nil
}

func domain(h *kit.Host, store *sqlstore.Store, users grpc.ClientConnInterface, signer *token.Signer) (*auth.Service, error) {
	passwords, err := password.New(password.Recommended(), password.Waiting, h.Random)
	if err != nil {
		return nil, err
	}
	return auth.New(auth.Deps{
		Store:        store,
		Profiles:     profiles.New(users),
		Passwords:    passwords,
		AccessTokens: api.NewAccessTokens(signer),
		Clock:        h.Clock,
		NewID:        h.NewID,
		Random:       h.Random,
	})
}

// AdminCode returns the one-time code with which a sign-up becomes the first administrator, or "" if there was one when
// the service was built. It is a secret: it is for the person who started the process, and not for a log.
func (a *App) AdminCode() string { return a.adminCode }

// reportSweep logs what a sweep did, if it did anything.
func (a *App) reportSweep(swept auth.Swept, err error) {
	switch {
	case err != nil:
		a.Log.Warn("sweep is not complete", "cause", err, "left", swept.Left, "finished", swept.Finished, "undone", swept.Undone)
	case swept.Finished+swept.Undone > 0:
		a.Log.Info("sign-ups swept", "finished", swept.Finished, "undone", swept.Undone)
	}
}

// Run builds the service and runs it until ctx ends. While there is no administrator, it tells deps.Out how to become one
// as soon as the service can be used.
func Run(ctx context.Context, cfg Config, deps kit.Deps) error {
	a, err := New(ctx, cfg, deps)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	var told sync.WaitGroup
	told.Go(func() { a.tellAdminCode(ctx) })
	err = a.Run(ctx)
	stop()
	told.Wait()
	return err
}

// tellAdminCode prints the code for the first administrator, on one line.
func (a *App) tellAdminCode(ctx context.Context) {
	if a.adminCode == "" {
		return
	}
	select {
	case <-a.Ready():
		// Whoever started the process without an output does without the line.
		_, _ = fmt.Fprintf(a.Out, "There is no administrator yet: sign up with \"admin_code\": \"%s\" to be the first. It works once, until the next start.\n", a.adminCode)
	case <-ctx.Done():
	}
}
