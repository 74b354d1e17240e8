package app_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/services/auth/internal/api/userstest"
)

// next returns the next event of a watch that is one of a kind.
func next(t *testing.T, stream authv1.AuthService_WatchUserEventsClient, kind authv1.UserEventType) *authv1.UserEvent {
	t.Helper()
	for {
		resp, err := stream.Recv()
		if err != nil {
			t.Fatalf("no %s: %v", kind, err)
		}
		if resp.GetEvent().GetEventType() == kind {
			return resp.GetEvent()
		}
	}
}

func TestASignInFollowsTheProfileAlsoOverARestartAndALostHistory(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	counted := &kittest.Counted{Listener: listener}
	users := userstest.StartOn(t, cfg.PKI, counted)
	cfg.Users = users.Target()
	d, log := deps()
	a, stop := run(t, cfg, d)
	sessions := authv1.NewSessionServiceClient(connect(t, a.Addr().String(), cfg, kit.Edge))
	asService := authv1.NewAuthServiceClient(connect(t, a.Addr().String(), cfg, "payments"))
	made, err := sessions.SignUp(within(t), ada())
	if err != nil {
		t.Fatal(err)
	}
	id := made.GetAccount().GetUserId()
	in, err := sessions.SignIn(within(t), &authv1.SignInRequest{Email: ada().Email, Password: secret})
	if err != nil {
		t.Fatal(err)
	}
	stream, err := asService.WatchUserEvents(within(t), &authv1.WatchUserEventsRequest{Since: timestamppb.New(time.Now().Add(-time.Hour))})
	if err != nil {
		t.Fatal(err)
	}
	next(t, stream, authv1.UserEventType_USER_EVENT_TYPE_LOGIN)

	users.Change(id, usersv1.UserEventType_USER_EVENT_TYPE_DISABLED, func(u *usersv1.User) { u.State = usersv1.UserState_USER_STATE_DISABLED })
	if e := next(t, stream, authv1.UserEventType_USER_EVENT_TYPE_DEACTIVATED); e.GetUserId() != id || e.GetEndedSessions() == nil {
		t.Errorf("got %v", e)
	}
	_, err = sessions.SignIn(within(t), &authv1.SignInRequest{Email: ada().Email, Password: secret})
	kittest.WantFault(t, err, codes.PermissionDenied, "ACCOUNT_DEACTIVATED")
	_, err = sessions.RefreshSession(within(t), &authv1.RefreshSessionRequest{RefreshToken: in.GetTokens().GetRefreshToken()})
	kittest.WantFault(t, err, codes.PermissionDenied, "ACCOUNT_DEACTIVATED")
	if got, err := asService.GetUser(within(t), &authv1.GetUserRequest{UserId: id}); err != nil || got.GetActive() {
		t.Errorf("got %v, %v", got, err)
	}

	if n := counted.Accepted(); n != 1 {
		t.Errorf("%d connections to users, want one for calls and events", n)
	}

	// What happens while auth is away is heard of afterwards.
	stop()
	users.Change(id, usersv1.UserEventType_USER_EVENT_TYPE_ENABLED, func(u *usersv1.User) { u.State = usersv1.UserState_USER_STATE_ACTIVE })
	users.Change(id, usersv1.UserEventType_USER_EVENT_TYPE_UPDATED, func(u *usersv1.User) { u.Email = "Lovelace@example.com" })
	a, stop = run(t, cfg, d)
	asService = authv1.NewAuthServiceClient(connect(t, a.Addr().String(), cfg, "payments"))
	if stream, err = asService.WatchUserEvents(within(t), &authv1.WatchUserEventsRequest{Since: timestamppb.New(time.Now().Add(-time.Hour))}); err != nil {
		t.Fatal(err)
	}
	next(t, stream, authv1.UserEventType_USER_EVENT_TYPE_REACTIVATED)
	users.Change(id, usersv1.UserEventType_USER_EVENT_TYPE_DISABLED, func(u *usersv1.User) { u.State = usersv1.UserState_USER_STATE_DISABLED })
	next(t, stream, authv1.UserEventType_USER_EVENT_TYPE_DEACTIVATED)
	users.Change(id, usersv1.UserEventType_USER_EVENT_TYPE_ENABLED, func(u *usersv1.User) { u.State = usersv1.UserState_USER_STATE_ACTIVE })
	next(t, stream, authv1.UserEventType_USER_EVENT_TYPE_REACTIVATED) // so the change of the email was followed
	sessions = authv1.NewSessionServiceClient(connect(t, a.Addr().String(), cfg, kit.Edge))
	_, err = sessions.SignIn(within(t), &authv1.SignInRequest{Email: ada().Email, Password: secret})
	kittest.WantFault(t, err, codes.Unauthenticated, "INVALID_CREDENTIALS")
	if _, err := sessions.SignIn(within(t), &authv1.SignInRequest{Email: "lovelace@example.com", Password: secret}); err != nil {
		t.Error(err)
	}

	// And so is what the log of users no longer tells.
	stop()
	users.Change(id, usersv1.UserEventType_USER_EVENT_TYPE_ERASED, func(u *usersv1.User) {
		*u = usersv1.User{UserId: id, State: usersv1.UserState_USER_STATE_DELETED, ErasedAt: timestamppb.Now()}
	})
	users.Forget()
	a, _ = run(t, cfg, d)
	asService = authv1.NewAuthServiceClient(connect(t, a.Addr().String(), cfg, "payments"))
	if stream, err = asService.WatchUserEvents(within(t), &authv1.WatchUserEventsRequest{Since: timestamppb.New(time.Now().Add(-time.Hour))}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		next(t, stream, authv1.UserEventType_USER_EVENT_TYPE_DEACTIVATED)
	}
	sessions = authv1.NewSessionServiceClient(connect(t, a.Addr().String(), cfg, kit.Edge))
	_, err = sessions.SignIn(within(t), &authv1.SignInRequest{Email: "lovelace@example.com", Password: secret})
	kittest.WantFault(t, err, codes.Unauthenticated, "INVALID_CREDENTIALS")
	if strings.Contains(strings.ToLower(log.String()), "lovelace") {
		t.Error("the email is in the log")
	}
}
