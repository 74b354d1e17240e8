package app_test

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/pki"
	"github.com/concordat-dev/concordat/kit/settings"
	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/kit/token"
	"github.com/concordat-dev/concordat/services/users/app"
)

// patience ends a test that hangs.
const patience = 30 * time.Second

func program() settings.Program { return settings.Program{Name: app.Name, Description: "A test."} }

// config returns settings as the command line gives them, with all files in a temporary directory.
func config(t *testing.T, args ...string) app.Config {
	t.Helper()
	dir := t.TempDir()
	var cfg app.Config
	err := settings.Parse(program(), &cfg, append([]string{
		"--listen=127.0.0.1:0", "--admin=", "--data=" + filepath.Join(dir, "users"), "--pki=" + filepath.Join(dir, "pki"),
		"--issuer=" + kittest.Issuer, "--audience=" + kittest.Audience,
	}, args...), nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func deps() kit.Deps {
	return kit.Deps{Clock: clock.System(), Random: rand.Reader, Log: slog.New(slog.DiscardHandler), Out: io.Discard}
}

// run starts the service and returns how to stop it; stopping twice is allowed.
func run(t *testing.T, cfg app.Config) (a *kit.Host, stop func()) {
	t.Helper()
	a, err := app.New(t.Context(), cfg, deps())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		defer close(done)
		done <- a.Run(ctx)
	}()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
	t.Cleanup(stop)
	select {
	case <-a.Ready():
	case <-time.After(patience):
		t.Fatal("the service does not become ready")
	}
	return a, stop
}

// call returns a client with the certificate of that name.
func call(t *testing.T, a *kit.Host, cfg app.Config, name string) usersv1.UserServiceClient {
	t.Helper()
	dev, err := pki.NewDevelopment(cfg.PKI, cfg.TrustDomain, clock.System())
	if err != nil {
		t.Fatal(err)
	}
	identity, err := dev.Identity(t.Context(), name, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(a.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(identity.ClientTLS(app.Name))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return usersv1.NewUserServiceClient(conn)
}

func ada() *usersv1.CreateUserRequest {
	return &usersv1.CreateUserRequest{Email: "ada@example.com", DisplayName: "Ada", RequestId: "7d9a0000-0000-4000-8000-000000000001"}
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func TestARestartKeepsUsersAndPageTokens(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	a, stop := run(t, cfg)
	c := call(t, a, cfg, "auth")
	made, err := c.CreateUser(within(t), ada())
	if err != nil {
		t.Fatal(err)
	}
	other := ada()
	other.Email, other.RequestId = "bob@example.com", "7d9a0000-0000-4000-8000-000000000002"
	if _, err := c.CreateUser(within(t), other); err != nil {
		t.Fatal(err)
	}
	first, err := c.ListUsers(within(t), &usersv1.ListUsersRequest{PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	stop()

	a, _ = run(t, cfg)
	c = call(t, a, cfg, "auth")
	got, err := c.GetUser(within(t), &usersv1.GetUserRequest{UserId: made.GetUser().GetUserId()})
	if err != nil || !proto.Equal(got.GetUser(), made.GetUser()) {
		t.Errorf("after the restart: %v, %v; want %v", got.GetUser(), err, made.GetUser())
	}
	again, err := c.CreateUser(within(t), ada())
	if err != nil || !proto.Equal(again, made) {
		t.Errorf("the request sent again after the restart: %v, %v; want %v", again, err, made)
	}
	second, err := c.ListUsers(within(t), &usersv1.ListUsersRequest{PageSize: 1, PageToken: first.GetNextPageToken()})
	if err != nil || second.GetTotalSize() != 2 || second.GetUsers()[0].GetEmail() != "bob@example.com" {
		t.Errorf("the second page after the restart: %v, %v", second, err)
	}
}

func TestADeletedUserIsErasedWhenItsTimeHasComeAndWatchersAreTold(t *testing.T) {
	t.Parallel()
	cfg := config(t, "--purge-after=1us")
	a, stop := run(t, cfg)
	c := call(t, a, cfg, "auth")
	made, err := c.CreateUser(within(t), ada())
	if err != nil {
		t.Fatal(err)
	}
	id := made.GetUser().GetUserId()
	gone, err := c.DeleteUser(within(t), &usersv1.DeleteUserRequest{UserId: id, RequestId: "7d9a0000-0000-4000-8000-000000000002"})
	if err != nil || gone.GetUser().GetPurgeAt() == nil {
		t.Fatalf("delete: %v, %v", gone, err)
	}
	first, err := c.WatchUsers(within(t), &usersv1.WatchUsersRequest{Filter: "verified"})
	if err != nil {
		t.Fatal(err)
	}
	point, err := first.Recv()
	if err != nil {
		t.Fatal(err)
	}
	stop()

	a, _ = run(t, cfg) // which sweeps at once
	c = call(t, a, cfg, "auth")
	watch, err := c.WatchUsers(within(t), &usersv1.WatchUsersRequest{Filter: "verified", ResumeToken: point.GetResumeToken()})
	if err != nil {
		t.Fatal(err)
	}
	var event *usersv1.UserEvent
	for event == nil {
		msg, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		event = msg.GetEvent()
	}
	if event.GetEventType() != usersv1.UserEventType_USER_EVENT_TYPE_ERASED || event.GetUserId() != id || event.GetMatches() {
		t.Errorf("the watch was told %v", event)
	}
	got, err := c.GetUser(within(t), &usersv1.GetUserRequest{UserId: id})
	if err != nil || got.GetUser().GetErasedAt() == nil || got.GetUser().GetEmail() != "" {
		t.Errorf("left is %v, %v", got, err)
	}
	export, err := c.ExportUserData(within(t), &usersv1.ExportUserDataRequest{UserId: id})
	for err == nil {
		var msg *usersv1.ExportUserDataResponse
		if msg, err = export.Recv(); err == nil && strings.Contains(strings.ToLower(msg.String()), "ada") {
			t.Errorf("still kept: %v", msg)
		}
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("export: %v", err)
	}
}

// keyService is auth as far as users knows it.
type keyService struct {
	authv1.UnimplementedKeyServiceServer
	keys func(context.Context) ([]token.Key, error)
}

func (s *keyService) GetJwks(ctx context.Context, _ *authv1.GetJwksRequest) (*authv1.GetJwksResponse, error) {
	keys, err := s.keys(ctx)
	if err != nil {
		return nil, err
	}
	resp := &authv1.GetJwksResponse{Keys: []*authv1.Jwk{{Kty: "RSA", Kid: "of another kind"}}}
	for _, k := range keys {
		resp.Keys = append(resp.Keys, &authv1.Jwk{Kty: "OKP", Crv: "Ed25519", X: k.X(), Kid: k.ID, Alg: "EdDSA", Use: "sig"})
	}
	return resp, nil
}

func TestTokensAreVerifiedWithTheKeysOfAuthWhichMayStartLater(t *testing.T) {
	t.Parallel()
	// An address that is ours and where nobody listens yet.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(t, "--auth=dns:///"+listener.Addr().String())
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	a, _ := run(t, cfg)

	// The harness makes tokens; it serves their keys under the name of auth only later.
	var maker *kittest.Harness
	auth := &keyService{keys: func(ctx context.Context) ([]token.Key, error) { return maker.Keys(ctx) }}
	register := func(r grpc.ServiceRegistrar) { authv1.RegisterKeyServiceServer(r, auth) }
	asAuth := func(o *kittest.Options) { o.Name, o.Dir = "auth", cfg.PKI }
	maker = kittest.Start(t, register, asAuth)

	gateway := call(t, a, cfg, kit.Edge)
	withToken := func() context.Context {
		bearer := "Bearer " + maker.Token("0195f000-0000-7000-8000-0000000000ad", "users.admin")
		return metadata.AppendToOutgoingContext(within(t), "authorization", bearer)
	}
	_, err = gateway.ListUsers(withToken(), &usersv1.ListUsersRequest{})
	f := kittest.WantFault(t, err, codes.Unavailable, "UPSTREAM_UNAVAILABLE")
	if f.Metadata()["upstream"] != "auth" {
		t.Errorf("metadata %v", f.Metadata())
	}
	if _, err := call(t, a, cfg, "auth").ListUsers(within(t), &usersv1.ListUsersRequest{}); err != nil {
		t.Errorf("a service needs no token: %v", err)
	}

	if listener, err = net.Listen("tcp", listener.Addr().String()); err != nil {
		t.Skipf("the address was taken meanwhile: %v", err)
	}
	kittest.Start(t, register, asAuth, func(o *kittest.Options) { o.Listener = listener })
	for ctx := within(t); ; {
		_, err := gateway.ListUsers(withToken(), &usersv1.ListUsersRequest{})
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("with auth there: %v", err)
		}
	}
	_, err = gateway.ListUsers(within(t), &usersv1.ListUsersRequest{})
	kittest.WantFault(t, err, codes.Unauthenticated, "CREDENTIALS_MISSING")
}

// feed is auth's events, of which there are none.
type feed struct {
	authv1.UnimplementedAuthServiceServer
	watched chan struct{} // closed when somebody does
	once    sync.Once
}

func (f *feed) WatchUserEvents(_ *authv1.WatchUserEventsRequest, stream grpc.ServerStreamingServer[authv1.WatchUserEventsResponse]) error {
	f.once.Do(func() { close(f.watched) })
	<-stream.Context().Done()
	return stream.Context().Err()
}

// The keys of tokens and the sessions that ended are asked for over one connection, however many calls there are.
func TestAuthIsAskedForEverythingOverOneConnection(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &kittest.Counted{Listener: listener}
	cfg := config(t, "--auth=dns:///"+listener.Addr().String())
	var auth *kittest.Harness
	var asked atomic.Int64
	keys := &keyService{keys: func(ctx context.Context) ([]token.Key, error) { asked.Add(1); return auth.Keys(ctx) }}
	events := &feed{watched: make(chan struct{})}
	auth = kittest.Start(t, func(r grpc.ServiceRegistrar) {
		authv1.RegisterKeyServiceServer(r, keys)
		authv1.RegisterAuthServiceServer(r, events)
	}, func(o *kittest.Options) { o.Name, o.Dir, o.Listener, o.DrainTimeout = "auth", cfg.PKI, l, time.Second })
	a, _ := run(t, cfg)
	gateway := call(t, a, cfg, kit.Edge)
	ctx := metadata.AppendToOutgoingContext(within(t), "authorization", "Bearer "+auth.Token("0195f000-0000-7000-8000-0000000000ad", "users.admin"))
	var calls sync.WaitGroup
	for range 20 {
		calls.Go(func() {
			if _, err := gateway.ListUsers(ctx, &usersv1.ListUsersRequest{}); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	select {
	case <-events.watched:
	case <-ctx.Done():
		t.Fatal("nobody listens to the events")
	}
	if n := l.Accepted(); n != 1 || asked.Load() == 0 {
		t.Errorf("%d connections were made, and the keys asked for %d times", n, asked.Load())
	}
}

func TestAServiceThatCannotStartSaysWhyInOneLine(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		spoil func(t *testing.T, cfg *app.Config)
		is    error
		says  string
	}{
		{"a busy port", func(t *testing.T, cfg *app.Config) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
			cfg.Listen = settings.Address(l.Addr().String())
		}, nil, "--listen: "},
		{"a data directory that is open already", func(t *testing.T, cfg *app.Config) {
			run(t, *cfg)
		}, sqldb.ErrLocked, "--data: "},
		{"a data directory that is a file", func(t *testing.T, cfg *app.Config) {
			if err := os.WriteFile(cfg.Data, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, nil, "--data: "},
		{"a data directory of a newer version", func(t *testing.T, cfg *app.Config) {
			kittest.NewerDatabase(t, cfg.Data, "users.db", "users")
		}, sqldb.ErrNewerSchema, "--data: "},
		{"a certificate that is not there", func(t *testing.T, cfg *app.Config) {
			cfg.TLSCA, cfg.TLSCert, cfg.TLSKey = cfg.Data+".ca", cfg.Data+".pem", cfg.Data+".key"
		}, os.ErrNotExist, "--tls-cert"},
		{"a target that cannot be", func(t *testing.T, cfg *app.Config) { cfg.Auth = "dns:///%zz" }, nil, "--auth: "},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			cfg := config(t)
			row.spoil(t, &cfg)
			err := app.Run(within(t), cfg, deps())
			if err == nil {
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), row.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("it says %q, want one line with %q", err, row.says)
			}
			if row.is != nil && !errors.Is(err, row.is) {
				t.Errorf("got %v, want %v", err, row.is)
			}
		})
	}
}

func TestAStartThatFailedGivesEverythingFree(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	broken := cfg
	broken.Auth = "dns:///%zz"
	var err error
	if broken.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if _, err := app.New(t.Context(), broken, deps()); err == nil {
		t.Fatal("it started")
	}
	if _, err := broken.Listener.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is still open: %v", err)
	}
	run(t, cfg) // the data directory is free
}

func TestAnAppThatIsNotRunIsClosed(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	a, err := app.New(t.Context(), cfg, deps())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := a.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	run(t, cfg)
}

func TestSettingsHaveTheDocumentedDefaults(t *testing.T) {
	t.Parallel()
	var cfg app.Config
	if err := settings.Parse(program(), &cfg, nil, nil, io.Discard); err != nil {
		t.Fatal(err)
	}
	if cfg.Listen != "127.0.0.1:50052" || cfg.Data != ".concordat/users" || cfg.Auth != "dns:///127.0.0.1:50051" || cfg.PKI != ".concordat/pki" ||
		cfg.PurgeAfter != 30*24*time.Hour {
		t.Errorf("got %+v", cfg)
	}
}

func TestEveryWrongSettingIsNamed(t *testing.T) {
	t.Parallel()
	var cfg app.Config
	err := settings.Parse(program(), &cfg, []string{"--listen=nowhere", "--data=", "--auth=", "--drain-timeout=-1s", "--purge-after=0s", "--nonsense"},
		[]string{"CONCORDAT_USERS_NONSENSE=1"}, io.Discard)
	var wrong *settings.Error
	if !errors.As(err, &wrong) {
		t.Fatalf("got %v", err)
	}
	for _, name := range []string{"--listen", "--data", "--auth", "--drain-timeout", "--purge-after", "--nonsense", "CONCORDAT_USERS_NONSENSE"} {
		if !slices.ContainsFunc(wrong.Problems, func(p string) bool { return strings.Contains(p, name) }) {
			t.Errorf("%s is not named in %q", name, wrong.Problems)
		}
	}
}
