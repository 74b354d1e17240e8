package api_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

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
	return serve(t, clock.System(), options...)
}

// purgeAfter is how long a deleted user can be brought back in the tests.
const purgeAfter = time.Hour

// serve is start with a clock of the domain.
func serve(t *testing.T, at clock.Clock, options ...func(*kittest.Options)) *kittest.Harness {
	t.Helper()
	h, _ := serveStore(t, sqlstore.Options{Dir: t.TempDir()}, at, options...)
	return h
}

// serveStore is serve on a store of these options, and returns what ends it before the test does.
func serveStore(t *testing.T, opts sqlstore.Options, at clock.Clock, options ...func(*kittest.Options)) (h *kittest.Harness, stop func()) {
	t.Helper()
	opts.Clock, opts.Random = clock.System(), rand.Reader
	store, err := sqlstore.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	running, end := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- store.Run(running) }()
	closeStore := sync.OnceFunc(func() {
		end()
		if err := errors.Join(<-ended, store.Close()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	t.Cleanup(closeStore)
	service := users.NewService(users.Deps{
		Store: store, Clock: at, NewID: id.Generator(clock.System(), rand.Reader), PurgeAfter: purgeAfter,
	})
	h = kittest.Start(t, api.New(service, store.PageKey()).Register, append([]func(*kittest.Options){
		func(o *kittest.Options) { o.Name = "users" },
	}, options...)...)
	return h, func() {
		if err := h.Stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
		closeStore()
	}
}

// admin returns a client whose calls are an administrator's.
func admin(h *kittest.Harness) usersv1.UserServiceClient {
	return usersv1.NewUserServiceClient(h.As(adminID, "users.read", "users.write", "users.admin"))
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

// requestID returns the n-th request id of a test, beside those of request.
func requestID(n int) string { return fmt.Sprintf("7d9a0000-0000-4000-9000-%012x", n) }

// called is one valid call of a method.
type called struct {
	method string
	call   func(context.Context, usersv1.UserServiceClient) error
}

// calls has one valid call for each method of the service, on the n-th user where it is about one, in an order in which all of them
// can be done.
func calls(n int) []called {
	type client = usersv1.UserServiceClient
	user := request(n).GetUserId()
	next := 100 * n
	id := func() string { next++; return requestID(next) }
	return []called{
		{"CreateUser", func(ctx context.Context, c client) error {
			_, err := c.CreateUser(ctx, request(n+1000))
			return err
		}},
		{"GetUser", func(ctx context.Context, c client) error {
			_, err := c.GetUser(ctx, &usersv1.GetUserRequest{UserId: user})
			return err
		}},
		{"BatchGetUsers", func(ctx context.Context, c client) error {
			_, err := c.BatchGetUsers(ctx, &usersv1.BatchGetUsersRequest{UserIds: []string{user}})
			return err
		}},
		{"ListUsers", func(ctx context.Context, c client) error {
			_, err := c.ListUsers(ctx, &usersv1.ListUsersRequest{})
			return err
		}},
		{"StreamUsers", func(ctx context.Context, c client) error {
			return received(c.StreamUsers(ctx, &usersv1.StreamUsersRequest{}))
		}},
		{"WatchUsers", func(ctx context.Context, c client) error {
			return received(c.WatchUsers(ctx, &usersv1.WatchUsersRequest{}))
		}},
		{"ExportUserData", func(ctx context.Context, c client) error {
			return received(c.ExportUserData(ctx, &usersv1.ExportUserDataRequest{UserId: user}))
		}},
		{"CreateUsers", func(ctx context.Context, c client) error {
			stream, err := c.CreateUsers(ctx)
			if err != nil {
				return err
			}
			_, err = stream.CloseAndRecv()
			return err
		}},
		{"UpdateUser", func(ctx context.Context, c client) error {
			_, err := c.UpdateUser(ctx, &usersv1.UpdateUserRequest{
				User: &usersv1.User{UserId: user, FirstName: "New"}, UpdateMask: mask("first_name"), RequestId: id(),
			})
			return err
		}},
		{"DisableUser", func(ctx context.Context, c client) error {
			_, err := c.DisableUser(ctx, &usersv1.DisableUserRequest{UserId: user, RequestId: id()})
			return err
		}},
		{"EnableUser", func(ctx context.Context, c client) error {
			_, err := c.EnableUser(ctx, &usersv1.EnableUserRequest{UserId: user, RequestId: id()})
			return err
		}},
		{"DeleteUser", func(ctx context.Context, c client) error {
			_, err := c.DeleteUser(ctx, &usersv1.DeleteUserRequest{UserId: user, RequestId: id()})
			return err
		}},
		{"UndeleteUser", func(ctx context.Context, c client) error {
			_, err := c.UndeleteUser(ctx, &usersv1.UndeleteUserRequest{UserId: user, RequestId: id()})
			return err
		}},
		{"EraseUser", func(ctx context.Context, c client) error {
			_, err := c.EraseUser(ctx, &usersv1.EraseUserRequest{UserId: user, RequestId: id()})
			return err
		}},
	}
}

func mask(paths ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: paths} }

// received opens a stream and receives its first message.
func received[M any](stream grpc.ServerStreamingClient[M], err error) error {
	if err != nil {
		return err
	}
	_, err = stream.Recv()
	return err
}

func TestVerdictsOnEveryMethodAndKindOfCaller(t *testing.T) {
	t.Parallel()
	h := start(t)

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
	own := map[string]verdict{"GetUser": yes, "ExportUserData": yes, "UpdateUser": yes, "DeleteUser": yes, "EraseUser": yes}
	others := map[string]verdict{"GetUser": notSelf, "ExportUserData": notSelf, "UpdateUser": notSelf, "DeleteUser": notSelf, "EraseUser": notSelf}
	// all is the verdict on every method that the row does not name. Each row has a user of its own, whose id self is given.
	for n, row := range []struct {
		name string
		conn func(self string) *grpc.ClientConn
		all  verdict
		but  map[string]verdict
	}{
		{"nobody, through the gateway", func(string) *grpc.ClientConn { return h.Anonymous() }, noName, nil},
		{"a token that is none", func(string) *grpc.ClientConn { return h.WithToken("x.y.z") }, badly, nil},
		{"a user without scopes", func(self string) *grpc.ClientConn { return h.As(self) }, noScope, nil},
		{"the user themselves", func(self string) *grpc.ClientConn { return h.As(self, "users.read", "users.write") }, noScope, own},
		{"the user themselves, who may only read", func(self string) *grpc.ClientConn { return h.As(self, "users.read") }, noScope,
			map[string]verdict{"GetUser": yes, "ExportUserData": yes}},
		{"another user", func(string) *grpc.ClientConn { return h.As(strangerID, "users.read", "users.write") }, noScope, others},
		{"an administrator", func(string) *grpc.ClientConn { return h.As(adminID, "users.read", "users.write", "users.admin") }, yes, nil},
		{"a service", func(string) *grpc.ClientConn { return h.AsService("auth") }, yes, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			self := create(t, admin(h), request(n+1)).GetUserId()
			conn := row.conn(self)
			for _, made := range calls(n + 1) {
				want, named := row.but[made.method]
				if !named {
					want = row.all
				}
				err := made.call(timeout(t), usersv1.NewUserServiceClient(conn))
				if want.code == codes.OK {
					// It also says that the method is ours: one that is not overridden is Unimplemented.
					if err != nil {
						t.Errorf("%s: %v, want OK", made.method, err)
					}
					continue
				}
				if err == nil {
					t.Errorf("%s: OK, want %v %s", made.method, want.code, want.reason)
					continue
				}
				if f := grpcfault.FromError(err); grpcfault.Code(f.Kind()) != want.code || f.Reason() != want.reason {
					t.Errorf("%s: %v, want %v %s", made.method, err, want.code, want.reason)
				}
			}
		})
	}
}

func TestEveryDeclaredMethodHasACall(t *testing.T) {
	t.Parallel()
	have := map[string]bool{}
	for _, made := range calls(1) {
		have[made.method] = true
	}
	methods := usersv1.File_users_v1_user_service_proto.Services().ByName("UserService").Methods()
	for i := range methods.Len() {
		if name := string(methods.Get(i).Name()); !have[name] {
			t.Errorf("%s is not called by the table of verdicts", name)
		}
	}
	if len(have) != methods.Len() {
		t.Errorf("%d calls for %d methods", len(have), methods.Len())
	}
}

func TestReasonsOfTheDomainAreThoseOfTheContract(t *testing.T) {
	t.Parallel()
	kittest.WantReasons(t, usersv1.File_users_v1_error_reason_proto.Enums().ByName("ErrorReason"),
		append(users.Faults(), api.ErrPageToken, api.ErrCheckOnlyRow))
}
