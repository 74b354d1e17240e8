package api_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/grpcfault"
	"github.com/concordat-dev/concordat/kit/id"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/services/users/internal/api"
	"github.com/concordat-dev/concordat/services/users/internal/sqlstore"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

const (
	adminID    = "0195f000-0000-7000-8000-0000000000ad"
	strangerID = "0195f000-0000-7000-8000-00000000057a"
)

// start serves the API on a new store, behind the real request path.
func start(t *testing.T, options ...func(*kittest.Options)) *kittest.Harness {
	t.Helper()
	store, err := sqlstore.Open(t.Context(), sqlstore.Options{Dir: t.TempDir(), Clock: clock.System(), Random: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	service := users.NewService(store, clock.System(), id.Generator(clock.System(), rand.Reader))
	return kittest.Start(t, api.New(service, store.PageKey()).Register, append([]func(*kittest.Options){
		func(o *kittest.Options) { o.Name = "users" },
	}, options...)...)
}

// admin returns a client whose calls are an administrator's.
func admin(h *kittest.Harness) usersv1.UserServiceClient {
	return usersv1.NewUserServiceClient(h.As(adminID, "users.read", "users.admin"))
}

// callTimeout ends a test that hangs.
const callTimeout = 30 * time.Second

func timeout(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	t.Cleanup(cancel)
	return ctx
}

// request returns the n-th request of a test.
func request(n int) *usersv1.CreateUserRequest {
	return &usersv1.CreateUserRequest{
		UserId:      fmt.Sprintf("0195f000-0000-7000-9000-%012x", n),
		Email:       fmt.Sprintf("Person.%d@example.com", n),
		DisplayName: fmt.Sprintf("Person %d", n),
		FirstName:   "Per",
		LastName:    "Son",
		RequestId:   fmt.Sprintf("7d9a0000-0000-4000-8000-%012x", n),
	}
}

func create(t *testing.T, c usersv1.UserServiceClient, req *usersv1.CreateUserRequest) *usersv1.User {
	t.Helper()
	resp, err := c.CreateUser(timeout(t), req)
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	return resp.GetUser()
}

// total returns how many users the service says there are.
func total(t *testing.T, c usersv1.UserServiceClient) int {
	t.Helper()
	resp, err := c.ListUsers(timeout(t), &usersv1.ListUsersRequest{PageSize: 1})
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	return int(resp.GetTotalSize())
}

// calls has one valid call for each method of the service.
func calls() map[string]func(context.Context, usersv1.UserServiceClient) error {
	return map[string]func(context.Context, usersv1.UserServiceClient) error{
		"CreateUser": func(ctx context.Context, c usersv1.UserServiceClient) error {
			_, err := c.CreateUser(ctx, request(2))
			return err
		},
		"GetUser": func(ctx context.Context, c usersv1.UserServiceClient) error {
			_, err := c.GetUser(ctx, &usersv1.GetUserRequest{UserId: request(1).GetUserId()})
			return err
		},
		"ListUsers": func(ctx context.Context, c usersv1.UserServiceClient) error {
			_, err := c.ListUsers(ctx, &usersv1.ListUsersRequest{})
			return err
		},
		"StreamUsers": func(ctx context.Context, c usersv1.UserServiceClient) error {
			stream, err := c.StreamUsers(ctx, &usersv1.StreamUsersRequest{})
			if err != nil {
				return err
			}
			_, err = stream.Recv() // there is a user
			return err
		},
		"CreateUsers": func(ctx context.Context, c usersv1.UserServiceClient) error {
			stream, err := c.CreateUsers(ctx)
			if err != nil {
				return err
			}
			_, err = stream.CloseAndRecv()
			return err
		},
	}
}

func TestVerdictsOnEveryMethodAndKindOfCaller(t *testing.T) {
	t.Parallel()
	h := start(t)
	create(t, admin(h), request(1))
	self := request(1).GetUserId()

	type verdict struct {
		code   codes.Code
		reason string
	}
	var (
		yes     = verdict{codes.OK, ""}
		noName  = verdict{codes.Unauthenticated, "CREDENTIALS_MISSING"}
		noScope = verdict{codes.PermissionDenied, "SCOPE_MISSING"}
		notSelf = verdict{codes.PermissionDenied, "NOT_SELF"}
		badly   = verdict{codes.Unauthenticated, "TOKEN_INVALID"}
	)
	// all is the verdict on every method that the row does not name.
	for _, row := range []struct {
		name string
		conn *grpc.ClientConn
		all  verdict
		but  map[string]verdict
	}{
		{"nobody, through the gateway", h.Anonymous(), noName, nil},
		{"a token that is none", h.WithToken("x.y.z"), badly, nil},
		{"a user without scopes", h.As(self), noScope, nil},
		{"the user themselves", h.As(self, "users.read"), noScope, map[string]verdict{"GetUser": yes}},
		{"another user", h.As(strangerID, "users.read"), noScope, map[string]verdict{"GetUser": notSelf}},
		{"an administrator", h.As(adminID, "users.read", "users.admin"), yes, nil},
		{"a service", h.AsService("auth"), yes, map[string]verdict{"CreateUser": {codes.AlreadyExists, "USER_ID_TAKEN"}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			methods := usersv1.UserService_ServiceDesc
			if len(calls()) != len(methods.Methods)+len(methods.Streams) {
				t.Fatalf("%d calls for %d methods", len(calls()), len(methods.Methods)+len(methods.Streams))
			}
			for method, call := range calls() {
				want, named := row.but[method]
				if !named {
					want = row.all
				}
				err := call(timeout(t), usersv1.NewUserServiceClient(row.conn))
				if want.code == codes.OK {
					// It also says that the method is ours: one that is not overridden is Unimplemented.
					if err != nil {
						t.Errorf("%s: %v, want OK", method, err)
					}
					continue
				}
				if err == nil {
					t.Errorf("%s: OK, want %v %s", method, want.code, want.reason)
					continue
				}
				if f := grpcfault.FromError(err); grpcfault.Code(f.Kind()) != want.code || f.Reason() != want.reason {
					t.Errorf("%s: %v, want %v %s", method, err, want.code, want.reason)
				}
			}
		})
	}
}

func TestEveryDeclaredMethodHasACall(t *testing.T) {
	t.Parallel()
	have := calls()
	methods := usersv1.File_users_v1_user_service_proto.Services().ByName("UserService").Methods()
	for i := range methods.Len() {
		if name := string(methods.Get(i).Name()); have[name] == nil {
			t.Errorf("%s is not called by the table of verdicts", name)
		}
	}
}

func TestReasonsOfTheDomainAreThoseOfTheContract(t *testing.T) {
	t.Parallel()
	kittest.WantReasons(t, usersv1.File_users_v1_error_reason_proto.Enums().ByName("ErrorReason"),
		append(users.Faults(), api.ErrPageToken))
}
