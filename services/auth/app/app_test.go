package app_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/pki"
	"github.com/concordat-dev/concordat/kit/settings"
	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/auth/app"
	"github.com/concordat-dev/concordat/services/auth/internal/api/userstest"
	"github.com/concordat-dev/concordat/services/auth/internal/auth"
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
		"--listen=127.0.0.1:0", "--admin=", "--data=" + filepath.Join(dir, "auth"), "--pki=" + filepath.Join(dir, "pki"),
	}, args...), nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// deps returns what a process gives, with a log that the test can read.
func deps() (kit.Deps, *kittest.Log) {
	log := &kittest.Log{}
	return kit.Deps{
		Clock: clock.System(), Random: rand.Reader, Log: slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), Out: io.Discard,
	}, log
}

// run starts the service and returns how to stop it; stopping twice is allowed.
func run(t *testing.T, cfg app.Config, deps kit.Deps) (a *app.App, stop func()) {
	t.Helper()
	a, err := app.New(t.Context(), cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	stop = started(t, a.Run)
	select {
	case <-a.Ready():
	case <-time.After(patience):
		t.Fatal("the service does not become ready")
	}
	return a, stop
}

// started calls fn beside the test and returns how to end it.
func started(t *testing.T, fn func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- fn(ctx) }()
	stop = func() {
		cancel()
		if err, first := <-done; err != nil {
			t.Errorf("run: %v", err)
		} else if first {
			close(done)
		}
	}
	t.Cleanup(stop)
	return stop
}

// connect returns a connection with the certificate of that name.
func connect(t *testing.T, address string, cfg app.Config, name string) *grpc.ClientConn {
	t.Helper()
	dev, err := pki.NewDevelopment(cfg.PKI, cfg.TrustDomain, clock.System())
	if err != nil {
		t.Fatal(err)
	}
	identity, err := dev.Identity(t.Context(), name, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(identity.ClientTLS(app.Name))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

const secret = "canary-kV7q2-password"

func ada() *authv1.SignUpRequest {
	return &authv1.SignUpRequest{Email: "ada@example.com", Password: secret, DisplayName: "Ada", RequestId: "7d9a0000-0000-4000-8000-000000000001"}
}

func TestTheFirstAdministratorSignsUpAndARestartKeepsEverything(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	users := userstest.Start(t, cfg.PKI)
	cfg.Users = users.Target()
	d, log := deps()
	a, stop := run(t, cfg, d)
	code := a.AdminCode()
	sessions := authv1.NewSessionServiceClient(connect(t, a.Addr().String(), cfg, kit.Edge))
	up := ada()
	up.AdminCode = code
	made, err := sessions.SignUp(within(t), up)
	if err != nil || made.GetAccount().GetRole() != authv1.Role_ROLE_ADMIN {
		t.Fatalf("got %v, %v", made, err)
	}
	in, err := sessions.SignIn(within(t), &authv1.SignInRequest{Email: up.Email, Password: secret})
	if err != nil {
		t.Fatal(err)
	}
	asService := authv1.NewAuthServiceClient(connect(t, a.Addr().String(), cfg, "payments"))
	stream, err := asService.WatchUserEvents(within(t), &authv1.WatchUserEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	stop()
	_, err = stream.Recv()
	kittest.WantFault(t, err, codes.Unavailable, "DRAINING")

	a, _ = run(t, cfg, d)
	if a.AdminCode() != "" {
		t.Error("there is an administrator and a code for the first")
	}
	gateway := connect(t, a.Addr().String(), cfg, kit.Edge)
	sessions = authv1.NewSessionServiceClient(gateway)
	again, err := sessions.SignUp(within(t), up)
	if err != nil || !proto.Equal(again, made) {
		t.Errorf("the sign-up sent again after the restart: %v, %v; want %v", again, err, made)
	}
	fresh, err := sessions.RefreshSession(within(t), &authv1.RefreshSessionRequest{RefreshToken: in.GetTokens().GetRefreshToken()})
	if err != nil {
		t.Fatal(err)
	}
	// The key is the same, so that a token of the former process is good.
	withToken := metadata.AppendToOutgoingContext(within(t), "authorization", "Bearer "+in.GetTokens().GetAccessToken())
	_, err = authv1.NewAdminServiceClient(gateway).LockUser(withToken, &authv1.LockUserRequest{UserId: made.GetAccount().GetUserId()})
	kittest.WantFault(t, err, codes.FailedPrecondition, "LAST_ADMIN")
	asService = authv1.NewAuthServiceClient(connect(t, a.Addr().String(), cfg, "payments"))
	stream, err = asService.WatchUserEvents(within(t), &authv1.WatchUserEventsRequest{ResumeToken: first.GetResumeToken()})
	if err != nil {
		t.Fatal(err)
	}
	if resumed, err := stream.Recv(); err != nil || resumed.GetResumeToken() != first.GetResumeToken() {
		t.Errorf("resumed with %v, %v", resumed, err)
	}

	logged := log.String()
	if !strings.Contains(logged, "/auth.v1.SessionService/SignUp") {
		t.Fatalf("the log is not that of the calls: %s", logged)
	}
	for _, s := range []string{secret, code, strings.ReplaceAll(code, "-", ""), in.GetTokens().GetAccessToken(), in.GetTokens().GetRefreshToken(), fresh.GetTokens().GetRefreshToken()} {
		if strings.Contains(logged, s) {
			t.Errorf("%q is in the log", s)
		}
	}
}

func TestTheCodeIsPrintedOnceTheServiceCanBeUsed(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	users := userstest.Start(t, cfg.PKI)
	cfg.Users = users.Target()
	var err error
	if cfg.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	address := cfg.Listener.Addr().String()
	d, log := deps()
	out, in := io.Pipe()
	d.Out = in
	started(t, func(ctx context.Context) error { return app.Run(ctx, cfg, d) })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	code := regexp.MustCompile(`([A-Z2-7]{4}-){7}[A-Z2-7]{4}`).FindString(line)
	if code == "" || !strings.Contains(line, "admin_code") {
		t.Fatalf("printed %q", line)
	}
	up := ada()
	up.AdminCode = code
	made, err := authv1.NewSessionServiceClient(connect(t, address, cfg, kit.Edge)).SignUp(within(t), up)
	if err != nil || made.GetAccount().GetRole() != authv1.Role_ROLE_ADMIN {
		t.Errorf("got %v, %v", made, err)
	}
	if strings.Contains(log.String(), code) {
		t.Error("the code is in the log")
	}
}

func TestEachStartVoidsTheCodeOfTheOneBefore(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Users = userstest.Start(t, cfg.PKI).Target()
	d, _ := deps()
	a, stop := run(t, cfg, d)
	old := a.AdminCode()
	stop()
	a, _ = run(t, cfg, d)
	if old == "" || a.AdminCode() == "" || a.AdminCode() == old {
		t.Errorf("codes %q and %q", old, a.AdminCode())
	}
	sessions := authv1.NewSessionServiceClient(connect(t, a.Addr().String(), cfg, kit.Edge))
	up := ada()
	up.AdminCode = old
	_, err := sessions.SignUp(within(t), up)
	kittest.WantFault(t, err, codes.PermissionDenied, "ADMIN_CODE_INVALID")
	up.AdminCode = a.AdminCode()
	if _, err := sessions.SignUp(within(t), up); err != nil {
		t.Error(err)
	}
}

// sweeps is a clock that stands still and tells when the sweeper waits for it.
type sweeps struct {
	*clocktest.Manual
	waits chan struct{}
}

func (s sweeps) After(d time.Duration) <-chan time.Time {
	c := s.Manual.After(d)
	if d == auth.SweepInterval {
		s.waits <- struct{}{}
	}
	return c
}

func TestASignUpWithoutUsersIsFinishedOnceUsersIsThere(t *testing.T) {
	t.Parallel()
	// An address that is ours and where nobody listens yet.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(t, "--users=dns:///"+listener.Addr().String())
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	d, _ := deps()
	clk := sweeps{clocktest.New(time.Now()), make(chan struct{}, 100)}
	d.Clock = clk
	a, _ := run(t, cfg, d)
	sessions := authv1.NewSessionServiceClient(connect(t, a.Addr().String(), cfg, kit.Edge))
	_, err = sessions.SignUp(within(t), ada())
	if f := kittest.WantFault(t, err, codes.Unavailable, "UPSTREAM_UNAVAILABLE"); f.Metadata()["upstream"] != "users" {
		t.Errorf("metadata %v", f.Metadata())
	}
	stream, err := authv1.NewAuthServiceClient(connect(t, a.Addr().String(), cfg, "payments")).WatchUserEvents(within(t), &authv1.WatchUserEventsRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}

	if listener, err = net.Listen("tcp", listener.Addr().String()); err != nil {
		t.Skipf("the address was taken meanwhile: %v", err)
	}
	users := userstest.StartOn(t, cfg.PKI, listener)
	events := make(chan *authv1.UserEvent, 1)
	go func() {
		resp, err := stream.Recv()
		if err != nil {
			t.Errorf("watch: %v", err)
		}
		events <- resp.GetEvent()
	}()
	// The connection may wait a while before it is tried again, so one sweep may come too early.
	for {
		select {
		case <-clk.waits:
			clk.Advance(auth.SweepInterval)
			continue
		case e := <-events:
			if e.GetEventType() != authv1.UserEventType_USER_EVENT_TYPE_SIGNED_UP || len(users.Users()) != 1 {
				t.Errorf("got %v", e)
			}
		case <-within(t).Done():
			t.Fatal("the sign-up is not finished")
		}
		break
	}
	if _, err := sessions.SignIn(within(t), &authv1.SignInRequest{Email: ada().Email, Password: secret}); err != nil {
		t.Error(err)
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
			d, _ := deps()
			run(t, *cfg, d)
		}, sqldb.ErrLocked, "--data: "},
		{"a data directory that is a file", func(t *testing.T, cfg *app.Config) {
			write(t, cfg.Data, 0o600)
		}, nil, "--data: "},
		{"a data directory of a newer version", func(t *testing.T, cfg *app.Config) {
			kittest.NewerDatabase(t, cfg.Data, "auth.db", "auth")
		}, sqldb.ErrNewerSchema, "--data: "},
		{"a certificate that is not there", func(t *testing.T, cfg *app.Config) {
			cfg.TLSCA, cfg.TLSCert, cfg.TLSKey = cfg.Data+".ca", cfg.Data+".pem", cfg.Data+".key"
		}, os.ErrNotExist, "--tls-cert"},
		{"a target that cannot be", func(t *testing.T, cfg *app.Config) { cfg.Users = "dns:///%zz" }, nil, "--users: "},
		{"a signing key that others can read", func(t *testing.T, cfg *app.Config) {
			cfg.SigningKey = cfg.Data + ".pem"
			write(t, cfg.SigningKey, 0o644)
		}, nil, "--signing-key: "},
		{"a signing key that is none", func(t *testing.T, cfg *app.Config) {
			cfg.SigningKey = cfg.Data + ".pem"
			write(t, cfg.SigningKey, 0o600)
		}, nil, "--signing-key: "},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			cfg := config(t)
			row.spoil(t, &cfg)
			d, _ := deps()
			err := app.Run(within(t), cfg, d)
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

func write(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path, []byte("text"), 0o600), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
}

func TestTheSigningKeyIsMadeForItsOwnerAlone(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		path func(cfg *app.Config) string
	}{
		{"in the data directory", func(cfg *app.Config) string { return filepath.Join(cfg.Data, "signing-key.pem") }},
		{"where the setting says", func(cfg *app.Config) string { cfg.SigningKey = cfg.Data + ".pem"; return cfg.SigningKey }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			cfg := config(t)
			path := row.path(&cfg)
			d, _ := deps()
			a, err := app.New(t.Context(), cfg, d)
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			info, err := os.Stat(path)
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("got %v, %v", info, err)
			}
		})
	}
}

func TestAStartThatFailedGivesEverythingFree(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	broken := cfg
	broken.Users = "dns:///%zz"
	var err error
	if broken.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	d, _ := deps()
	if _, err := app.New(t.Context(), broken, d); err == nil {
		t.Fatal("it started")
	}
	if _, err := broken.Listener.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is still open: %v", err)
	}
	run(t, cfg, d) // the data directory is free
}

func TestAnAppThatIsNotRunIsClosed(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	d, _ := deps()
	a, err := app.New(t.Context(), cfg, d)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := a.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	run(t, cfg, d)
}

func TestSettingsHaveTheDocumentedDefaults(t *testing.T) {
	t.Parallel()
	var cfg app.Config
	if err := settings.Parse(program(), &cfg, nil, nil, io.Discard); err != nil {
		t.Fatal(err)
	}
	if cfg.Listen != "127.0.0.1:50051" || cfg.Data != ".concordat/auth" || cfg.Users != "dns:///127.0.0.1:50052" || cfg.SigningKey != "" || cfg.PKI != ".concordat/pki" {
		t.Errorf("got %+v", cfg)
	}
}

func TestEveryWrongSettingIsNamed(t *testing.T) {
	t.Parallel()
	var cfg app.Config
	err := settings.Parse(program(), &cfg, []string{"--listen=nowhere", "--data=", "--users=", "--drain-timeout=-1s", "--nonsense"},
		[]string{"CONCORDAT_AUTH_NONSENSE=1"}, io.Discard)
	var wrong *settings.Error
	if !errors.As(err, &wrong) {
		t.Fatalf("got %v", err)
	}
	for _, name := range []string{"--listen", "--data", "--users", "--drain-timeout", "--nonsense", "CONCORDAT_AUTH_NONSENSE"} {
		if !slices.ContainsFunc(wrong.Problems, func(p string) bool { return strings.Contains(p, name) }) {
			t.Errorf("%s is not named in %q", name, wrong.Problems)
		}
	}
}
