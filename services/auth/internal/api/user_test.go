package api_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/kittest"
)

func TestAServiceAsksWhoAUserIs(t *testing.T) {
	t.Parallel()
	s := start(t)
	member, admin := s.member(1), s.admin(2)
	s.users.Add(&usersv1.User{UserId: imported, Email: "imported@example.com"})
	locked := s.member(3)
	if _, err := s.admins(2).LockUser(t.Context(), &authv1.LockUserRequest{UserId: locked.GetUserId()}); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name string
		ask  string
		want *authv1.GetUserResponse
	}{
		{"a member", member.GetUserId(), &authv1.GetUserResponse{UserId: member.GetUserId(), Active: true, Role: authv1.Role_ROLE_MEMBER}},
		{"a member in capitals", strings.ToUpper(member.GetUserId()), &authv1.GetUserResponse{UserId: member.GetUserId(), Active: true, Role: authv1.Role_ROLE_MEMBER}},
		{"an administrator", admin.GetUserId(), &authv1.GetUserResponse{UserId: admin.GetUserId(), Active: true, Role: authv1.Role_ROLE_ADMIN}},
		{"a locked user", locked.GetUserId(), &authv1.GetUserResponse{UserId: locked.GetUserId(), Role: authv1.Role_ROLE_MEMBER}},
		{"an imported user", imported, &authv1.GetUserResponse{UserId: imported, Active: true, Role: authv1.Role_ROLE_MEMBER}},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := s.asService().GetUser(t.Context(), &authv1.GetUserRequest{UserId: row.ask})
			if err != nil || !proto.Equal(got, row.want) {
				t.Errorf("got %v, %v, want %v", got, err, row.want)
			}
		})
	}
	_, err := s.asService().GetUser(t.Context(), &authv1.GetUserRequest{UserId: nobody})
	if f := kittest.WantFault(t, err, codes.NotFound, "USER_NOT_FOUND"); f.Domain() != "auth.v1" || f.Metadata()["user_id"] != nobody {
		t.Errorf("%s with %v", f.Domain(), f.Metadata())
	}
	s.users.Down(true)
	_, err = s.asService().GetUser(t.Context(), &authv1.GetUserRequest{UserId: nobody})
	if f := kittest.WantFault(t, err, codes.Unavailable, "UPSTREAM_UNAVAILABLE"); f.Domain() != "policy.v1" || f.Metadata()["upstream"] != "users" {
		t.Errorf("%s with %v", f.Domain(), f.Metadata())
	}
	if _, err := s.asService().GetUser(t.Context(), &authv1.GetUserRequest{UserId: imported}); err != nil {
		t.Errorf("a user who was adopted, without users: %v", err)
	}
}

func TestWhatIsForServicesIsClosedToTheEdge(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.admin(1)
	for name, conn := range map[string]*grpc.ClientConn{
		"nobody":           s.Anonymous(),
		"an administrator": s.WithToken(s.signIn(1).GetAccessToken()),
	} {
		c := authv1.NewAuthServiceClient(conn)
		_, err := c.GetUser(t.Context(), &authv1.GetUserRequest{UserId: nobody})
		t.Log(name)
		kittest.WantFault(t, err, codes.PermissionDenied, "CALLER_REFUSED")
		_, err = c.ValidateUser(t.Context(), &authv1.ValidateUserRequest{Username: "a@example.com", Password: "x"})
		kittest.WantFault(t, err, codes.PermissionDenied, "CALLER_REFUSED")
	}
}

func TestCredentialsAreValidated(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.admin(1)
	member := s.member(2)
	validate := func(password string) *authv1.ValidateUserResponse {
		t.Helper()
		resp, err := s.asService().ValidateUser(t.Context(), &authv1.ValidateUserRequest{Username: signUp(2).Email, Password: password})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	if v := validate(secret); !proto.Equal(v, &authv1.ValidateUserResponse{IsValid: true, UserId: member.GetUserId()}) {
		t.Errorf("got %v", v)
	}
	wrong := validate("wrong")
	if wrong.GetIsValid() || wrong.GetMessage() == "" || wrong.GetUserId() != "" {
		t.Errorf("got %v", wrong)
	}
	check := func(state string, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if v := validate(secret); v.GetIsValid() || !strings.Contains(v.GetMessage(), state) || v.GetUserId() != "" {
			t.Errorf("%s: got %v", state, v)
		}
		if v := validate("wrong"); !proto.Equal(v, wrong) {
			t.Errorf("%s, with a wrong password: got %v", state, v)
		}
	}
	_, err := s.admins(1).LockUser(t.Context(), &authv1.LockUserRequest{UserId: member.GetUserId()})
	check("locked", err)
	_, err = s.admins(1).DeactivateUser(t.Context(), &authv1.DeactivateUserRequest{UserId: member.GetUserId()})
	check("deactivated", err)
}

// watch opens a stream and takes its first response, which is bare.
func (s *service) watch(c authv1.AuthServiceClient, user, token string) (grpc.ServerStreamingClient[authv1.WatchUserEventsResponse], string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	s.t.Cleanup(cancel)
	stream, err := c.WatchUserEvents(ctx, &authv1.WatchUserEventsRequest{UserId: user, ResumeToken: token})
	if err != nil {
		s.t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil {
		s.t.Fatal(err)
	}
	if first.GetEvent() != nil || first.GetResumeToken() == "" {
		s.t.Errorf("the first response is %v", first)
	}
	return stream, first.GetResumeToken()
}

// wantEvents takes events of one user from a stream and returns the last token.
func wantEvents(t *testing.T, stream grpc.ServerStreamingClient[authv1.WatchUserEventsResponse], user string, want ...authv1.UserEventType) (token string) {
	t.Helper()
	for _, kind := range want {
		resp, err := stream.Recv()
		if err != nil {
			t.Fatalf("while waiting for %v: %v", kind, err)
		}
		if e := resp.GetEvent(); e.GetUserId() != user || e.GetEventType() != kind || e.GetTimestamp() == nil {
			t.Errorf("got %v, want %v of %s", e, kind, user)
		}
		token = resp.GetResumeToken()
	}
	return token
}

const (
	login    = authv1.UserEventType_USER_EVENT_TYPE_LOGIN
	failed   = authv1.UserEventType_USER_EVENT_TYPE_LOGIN_FAILED
	signedUp = authv1.UserEventType_USER_EVENT_TYPE_SIGNED_UP
	locked   = authv1.UserEventType_USER_EVENT_TYPE_ACCOUNT_LOCKED
)

func TestEventsArePushedAndResumedWithoutGapOrDuplicate(t *testing.T) {
	t.Parallel()
	s := start(t)
	all, _ := s.watch(s.asService(), "", "")
	a, b := s.member(1), s.member(2)
	wantEvents(t, all, a.GetUserId(), signedUp)
	wantEvents(t, all, b.GetUserId(), signedUp)

	mine := authv1.NewAuthServiceClient(s.WithToken(s.signIn(1).GetAccessToken()))
	wantEvents(t, all, a.GetUserId(), login)
	one, _ := s.watch(mine, a.GetUserId(), "")
	s.signIn(2)
	s.signIn(1)
	middle := wantEvents(t, one, a.GetUserId(), login)
	s.signIn(1)
	if _, err := s.asService().ValidateUser(t.Context(), &authv1.ValidateUserRequest{Username: signUp(1).Email, Password: "wrong"}); err != nil {
		t.Fatal(err)
	}
	wantEvents(t, one, a.GetUserId(), login, failed)

	resumed, token := s.watch(mine, a.GetUserId(), middle)
	if token != middle {
		t.Errorf("it resumes at %s, not at %s", token, middle)
	}
	wantEvents(t, resumed, a.GetUserId(), login, failed)
	s.signIn(1)
	wantEvents(t, resumed, a.GetUserId(), login)
}

func TestAResumeTokenIsForItsOwnWatch(t *testing.T) {
	t.Parallel()
	s := start(t)
	a := s.member(1)
	_, ofAll := s.watch(s.asService(), "", "")
	_, ofOne := s.watch(s.asService(), a.GetUserId(), "")
	for name, req := range map[string]*authv1.WatchUserEventsRequest{
		"a token of all, for one":      {UserId: a.GetUserId(), ResumeToken: ofAll},
		"a token of one, for all":      {ResumeToken: ofOne},
		"a token of one, for another":  {UserId: nobody, ResumeToken: ofOne},
		"a token that was made up":     {ResumeToken: "made up"},
		"a token that was changed":     {ResumeToken: ofAll[:len(ofAll)-2] + "xx"},
		"a token with something added": {ResumeToken: ofAll + "x"},
	} {
		stream, err := s.asService().WatchUserEvents(t.Context(), req)
		if err == nil {
			_, err = stream.Recv()
		}
		t.Log(name)
		f := kittest.WantFault(t, err, codes.InvalidArgument, "RESUME_TOKEN_INVALID")
		if f.Domain() != "policy.v1" {
			t.Errorf("domain %s", f.Domain())
		}
		kittest.WantViolations(t, f, "resume_token")
	}
}

func TestAUserWatchesOnlyThemselves(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.member(1)
	b := s.member(2)
	s.admin(3)
	mine := authv1.NewAuthServiceClient(s.WithToken(s.signIn(1).GetAccessToken()))
	for _, user := range []string{b.GetUserId(), ""} {
		stream, err := mine.WatchUserEvents(t.Context(), &authv1.WatchUserEventsRequest{UserId: user})
		if err == nil {
			_, err = stream.Recv()
		}
		kittest.WantFault(t, err, codes.PermissionDenied, "NOT_SELF")
	}
	all, _ := s.watch(authv1.NewAuthServiceClient(s.WithToken(s.signIn(3).GetAccessToken())), "", "")
	if _, err := s.admins(3).LockUser(t.Context(), &authv1.LockUserRequest{UserId: b.GetUserId()}); err != nil {
		t.Fatal(err)
	}
	resp, err := all.Recv() // the sign-in of the administrator
	if err != nil || resp.GetEvent().GetEventType() != login {
		t.Fatalf("got %v, %v", resp, err)
	}
	wantEvents(t, all, b.GetUserId(), locked)
}

func TestAStoppingServerSaysWhereToResume(t *testing.T) {
	t.Parallel()
	s := start(t)
	stream, _ := s.watch(s.asService(), "", "")
	a := s.member(1)
	last := wantEvents(t, stream, a.GetUserId(), signedUp)
	s.Begin()
	_, err := stream.Recv()
	if f := kittest.WantFault(t, err, codes.Unavailable, "DRAINING"); f.Metadata()["resume_token"] != last {
		t.Errorf("metadata %v, want the token %s", f.Metadata(), last)
	}
}
