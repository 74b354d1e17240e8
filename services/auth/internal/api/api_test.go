package api_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"log/slog"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/id"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/token"
	"github.com/concordat-dev/concordat/services/auth/internal/api"
	"github.com/concordat-dev/concordat/services/auth/internal/api/profiles"
	"github.com/concordat-dev/concordat/services/auth/internal/api/userstest"
	"github.com/concordat-dev/concordat/services/auth/internal/auth"
	"github.com/concordat-dev/concordat/services/auth/internal/password"
	"github.com/concordat-dev/concordat/services/auth/internal/sqlstore"
)

// Users of the tests.
const (
	nobody   = "0197a000-0000-7000-8000-0000000000ff"
	imported = "0197a000-0000-7000-8000-0000000000aa"
)

const secret = "correct horse battery"

// service is a running auth service beside a users.v1.
type service struct {
	*kittest.Harness
	t     *testing.T
	auth  *auth.Service
	users *userstest.Server
	clock *clocktest.Manual
	key   token.Key
	log   *eventlog.Log
}

func start(t *testing.T) *service {
	t.Helper()
	s := &service{t: t, clock: clocktest.New(time.Date(2026, 3, 1, 9, 30, 0, 123456789, time.UTC))}
	store, err := sqlstore.Open(t.Context(), sqlstore.Options{Dir: t.TempDir(), Clock: s.clock, Random: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	s.log = store.Log()
	logCtx, stopLog := context.WithCancel(context.Background())
	logEnded := make(chan error, 1)
	go func() { logEnded <- store.Log().Run(logCtx) }()
	t.Cleanup(func() { // after the harness, which registers its own cleanup later
		stopLog()
		if err := <-logEnded; err != nil {
			t.Errorf("event log: %v", err)
		}
		if err := store.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	})

	dir := t.TempDir()
	s.users = userstest.Start(t, dir)
	conn, err := profiles.Dial(s.users.Target(), s.users.Identity("auth"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	passwords, err := password.New(password.Params{MemoryKiB: 64, Passes: 1, Lanes: 1}, 1000, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	newID := id.Generator(s.clock, rand.Reader)
	signer := token.NewSigner(private, kittest.Issuer, kittest.Audience, s.clock, newID)
	s.key = signer.Key()
	s.auth, err = auth.New(auth.Deps{
		Store: store, Profiles: profiles.New(conn), Passwords: passwords, AccessTokens: api.NewAccessTokens(signer),
		Clock: s.clock, NewID: newID, Random: rand.Reader,
	})
	if err != nil {
		t.Fatal(err)
	}
	server := api.New(s.auth, store.Log(), []token.Key{s.key})
	verifier := token.NewVerifier(token.VerifierConfig{
		Issuer: kittest.Issuer, Audience: kittest.Audience, Clock: s.clock,
		// The tokens of the service itself, and those that the harness makes up.
		Keys: func(ctx context.Context) ([]token.Key, error) {
			made, err := s.Keys(ctx)
			return append(made, s.key), err
		},
	})
	follower := token.NewFollower(token.FollowerConfig{
		Open: api.Revocations(store.Log()), Verifier: verifier, Clock: s.clock, Random: func() float64 { return 0 },
		Log: slog.New(slog.DiscardHandler),
	})
	following := make(chan struct{})
	go func() { follower.Run(logCtx); close(following) }()
	t.Cleanup(func() { stopLog(); <-following })
	s.Harness = kittest.Start(t, server.Register, func(o *kittest.Options) {
		o.Name, o.Dir, o.Clock, o.Tokens = "auth", dir, s.clock, verifier
	})
	return s
}

// sessions returns what anybody can call through the edge.
func (s *service) sessions() authv1.SessionServiceClient {
	return authv1.NewSessionServiceClient(s.Anonymous())
}

// asService returns what another service can call.
func (s *service) asService() authv1.AuthServiceClient {
	return authv1.NewAuthServiceClient(s.AsService("payments"))
}

func signUp(n int) *authv1.SignUpRequest {
	return &authv1.SignUpRequest{
		Email: fmt.Sprintf("User%d@example.com", n), Password: secret, DisplayName: fmt.Sprintf("User %d", n),
		RequestId: fmt.Sprintf("7d9a0000-0000-4000-8000-%012x", n),
	}
}

// member signs the n-th user up.
func (s *service) member(n int) *authv1.Account {
	s.t.Helper()
	resp, err := s.sessions().SignUp(s.t.Context(), signUp(n))
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.GetAccount()
}

// admin signs the n-th user up as the first administrator.
func (s *service) admin(n int) *authv1.Account {
	s.t.Helper()
	req := signUp(n)
	var err error
	if req.AdminCode, err = s.auth.RenewAdminCode(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	resp, err := s.sessions().SignUp(s.t.Context(), req)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.GetAccount()
}

// signIn opens a session of the n-th user.
func (s *service) signIn(n int) *authv1.SessionTokens {
	s.t.Helper()
	resp, err := s.sessions().SignIn(s.t.Context(), &authv1.SignInRequest{Email: signUp(n).Email, Password: secret})
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.GetTokens()
}

// admins returns what the n-th user, an administrator, can call.
func (s *service) admins(n int) authv1.AdminServiceClient {
	return authv1.NewAdminServiceClient(s.WithToken(s.signIn(n).GetAccessToken()))
}

// recorder notes what is registered.
type recorder struct{ services map[string]any }

func (r recorder) RegisterService(desc *grpc.ServiceDesc, impl any) {
	r.services[desc.ServiceName] = impl
}

func TestEveryDeclaredMethodIsOverridden(t *testing.T) {
	t.Parallel()
	r := recorder{services: make(map[string]any)}
	api.New(nil, nil, nil).Register(r)
	for _, file := range []protoreflect.FileDescriptor{
		authv1.File_auth_v1_auth_service_proto, authv1.File_auth_v1_session_service_proto,
		authv1.File_auth_v1_admin_service_proto, authv1.File_auth_v1_key_service_proto,
	} {
		for i := range file.Services().Len() {
			declared := file.Services().Get(i)
			impl := r.services[string(declared.FullName())]
			if impl == nil {
				t.Errorf("%s is not registered", declared.FullName())
				continue
			}
			for j := range declared.Methods().Len() {
				name := string(declared.Methods().Get(j).Name())
				m, ok := reflect.TypeOf(impl).MethodByName(name)
				if !ok {
					t.Errorf("%s.%s is not there", declared.FullName(), name)
					continue
				}
				// A method that is only promoted from the embedded Unimplemented server has no source of its own.
				if source, _ := runtime.FuncForPC(m.Func.Pointer()).FileLine(m.Func.Pointer()); strings.Contains(source, "autogenerated") {
					t.Errorf("%s.%s is not overridden", declared.FullName(), name)
				}
			}
		}
	}
}

func TestEveryReasonOfTheDomainIsInTheContractAndEveryOneOfTheContractIsUsed(t *testing.T) {
	t.Parallel()
	kittest.WantReasons(t, authv1.File_auth_v1_error_reason_proto.Enums().ByName("ErrorReason"), auth.Faults())
}

func TestTheValuesOfTheDomainAreThoseOfTheContract(t *testing.T) {
	t.Parallel()
	var events []string
	for _, e := range auth.EventTypes() {
		events = append(events, string(e))
	}
	for _, row := range []struct {
		prefix string
		enum   map[string]int32
		values []string
	}{
		{"ROLE_", authv1.Role_value, []string{string(auth.RoleMember), string(auth.RoleAdmin)}},
		{"ACCOUNT_STATE_", authv1.AccountState_value, []string{
			string(auth.StatePending), string(auth.StateActive), string(auth.StateLocked), string(auth.StateDeactivated)}},
		{"USER_EVENT_TYPE_", authv1.UserEventType_value, events},
	} {
		for _, v := range row.values {
			if _, ok := row.enum[row.prefix+v]; !ok {
				t.Errorf("the contract lacks %s%s", row.prefix, v)
			}
		}
		if len(row.values) != len(row.enum)-1 { // all but UNSPECIFIED
			t.Errorf("%s: %d values here, %d in the contract", row.prefix, len(row.values), len(row.enum)-1)
		}
	}
}
