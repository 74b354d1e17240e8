package api_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/token"
	"github.com/concordat-dev/concordat/services/auth/internal/api"
)

const (
	logout          = authv1.UserEventType_USER_EVENT_TYPE_LOGOUT
	reused          = authv1.UserEventType_USER_EVENT_TYPE_REFRESH_TOKEN_REUSED
	passwordChanged = authv1.UserEventType_USER_EVENT_TYPE_PASSWORD_CHANGED
	unlocked        = authv1.UserEventType_USER_EVENT_TYPE_ACCOUNT_UNLOCKED
	deactivated     = authv1.UserEventType_USER_EVENT_TYPE_DEACTIVATED
)

func (s *service) signOut(tokens *authv1.SessionTokens) {
	s.t.Helper()
	if _, err := s.sessions().SignOut(s.t.Context(), &authv1.SignOutRequest{RefreshToken: tokens.GetRefreshToken()}); err != nil {
		s.t.Fatal(err)
	}
}

func TestAnEventSaysWhichSessionsEndedWithIt(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.admin(9)
	member := s.member(1)
	admins := s.admins(9)
	all, _ := s.watch(s.asService(), "", "")
	user := member.GetUserId()
	first, second, third := s.signIn(1), s.signIn(1), s.signIn(1)
	s.signOut(first)
	for range 2 {
		_, _ = s.sessions().RefreshSession(t.Context(), &authv1.RefreshSessionRequest{RefreshToken: second.GetRefreshToken()})
	}
	change := &authv1.ChangePasswordRequest{UserId: user, CurrentPassword: secret, NewPassword: secret + "!", RequestId: signUp(1).GetRequestId()}
	if _, err := authv1.NewSessionServiceClient(s.WithToken(third.GetAccessToken())).ChangePassword(t.Context(), change); err != nil {
		t.Fatal(err)
	}
	_, err := admins.LockUser(t.Context(), &authv1.LockUserRequest{UserId: user})
	_, err2 := admins.UnlockUser(t.Context(), &authv1.UnlockUserRequest{UserId: user})
	_, err3 := admins.DeactivateUser(t.Context(), &authv1.DeactivateUserRequest{UserId: user})
	if err := errors.Join(err, err2, err3); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		kind  authv1.UserEventType
		ended *authv1.EndedSessions
	}{
		{login, nil},
		{login, nil},
		{login, nil},
		{logout, &authv1.EndedSessions{SessionId: first.GetSessionId()}},
		{reused, &authv1.EndedSessions{SessionId: second.GetSessionId()}},
		{passwordChanged, &authv1.EndedSessions{ExceptSessionId: third.GetSessionId()}},
		{locked, &authv1.EndedSessions{}},
		{unlocked, nil},
		{deactivated, &authv1.EndedSessions{}},
	} {
		resp, err := all.Recv()
		if err != nil {
			t.Fatal(err)
		}
		e := resp.GetEvent()
		if e.GetEventType() != want.kind || (e.EndedSessions == nil) != (want.ended == nil) || !proto.Equal(e.GetEndedSessions(), want.ended) {
			t.Errorf("got %v, want %v with %v", e, want.kind, want.ended)
		}
	}
}

func TestAStreamIsToldOfTheEndOfItsSessionAndThenEnds(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.admin(9)
	user := s.member(1).GetUserId()
	gone, here := s.signIn(1), s.signIn(1)
	stream, _ := s.watch(authv1.NewAuthServiceClient(s.WithToken(gone.GetAccessToken())), user, "")
	other, _ := s.watch(authv1.NewAuthServiceClient(s.WithToken(here.GetAccessToken())), user, "")

	s.clock.Advance(time.Millisecond)
	s.signOut(gone)
	last := wantEvents(t, stream, user, logout)
	_, err := stream.Recv()
	if f := kittest.WantFault(t, err, codes.Unauthenticated, "TOKEN_REVOKED"); f.Metadata()["resume_token"] != last {
		t.Errorf("metadata %v, want the token %s", f.Metadata(), last)
	}
	wantEvents(t, other, user, logout)

	if _, err := s.admins(9).LockUser(t.Context(), &authv1.LockUserRequest{UserId: user}); err != nil {
		t.Fatal(err)
	}
	wantEvents(t, other, user, locked)
	_, err = other.Recv()
	kittest.WantFault(t, err, codes.PermissionDenied, "ACCOUNT_LOCKED")
}

func TestAnAdministratorWhoWatchesAnotherIsCutWithTheirSession(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.admin(9)
	user := s.member(1).GetUserId()
	tokens := s.signIn(9)
	stream, at := s.watch(authv1.NewAuthServiceClient(s.WithToken(tokens.GetAccessToken())), user, "")
	s.signOut(tokens)
	_, err := stream.Recv()
	if f := kittest.WantFault(t, err, codes.Unauthenticated, "TOKEN_REVOKED"); f.Metadata()["resume_token"] == "" {
		t.Errorf("metadata %v, want a token such as %s", f.Metadata(), at)
	}
}

func TestAWatchBeginsInThePastWhereItIsAskedTo(t *testing.T) {
	t.Parallel()
	s := start(t)
	user := s.member(1).GetUserId()
	s.clock.Advance(time.Hour)
	since := s.clock.Now()
	s.signIn(1)
	s.clock.Advance(time.Hour)
	for name, row := range map[string]struct {
		since time.Time
		want  []authv1.UserEventType
	}{
		"before everything": {time.Unix(1, 0), []authv1.UserEventType{signedUp, login}},
		"in between":        {since.Add(-time.Minute), []authv1.UserEventType{login}},
		"after everything":  {since.Add(time.Minute), nil},
	} {
		stream, err := s.asService().WatchUserEvents(t.Context(), &authv1.WatchUserEventsRequest{UserId: user, Since: timestamppb.New(row.since)})
		if err != nil {
			t.Fatal(err)
		}
		first, err := stream.Recv()
		if err != nil || first.GetEvent() != nil {
			t.Fatalf("%s: the first response is %v, %v", name, first, err)
		}
		resume := first.GetResumeToken()
		if row.want != nil {
			t.Log(name)
			resume = wantEvents(t, stream, user, row.want...)
		}
		// Beside a token it counts for nothing.
		resumed, err := s.asService().WatchUserEvents(t.Context(), &authv1.WatchUserEventsRequest{
			UserId: user, ResumeToken: resume, Since: timestamppb.New(time.Unix(1, 0)),
		})
		if err != nil {
			t.Fatal(err)
		}
		if first, err := resumed.Recv(); err != nil || first.GetResumeToken() != resume {
			t.Errorf("%s: resumed at %v, %v", name, first, err)
		}
	}
}

// TestAStreamThatIsCutBeforeItReadTheEventReadsItYet has the revocation overtake the event, as it may: both come out of the
// log by ways of their own.
func TestAStreamThatIsCutBeforeItReadTheEventReadsItYet(t *testing.T) {
	t.Parallel()
	s := start(t)
	user := s.member(1).GetUserId()
	sub, err := s.log.Subscribe(t.Context(), eventlog.Watch{Scope: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	s.signOut(s.signIn(1))
	ctx, cut := context.WithCancelCause(t.Context())
	cut(token.ErrRevoked)
	var told []string
	ends := errors.New("the event that ended it")
	send := func(e *eventlog.Event, _ string) error {
		told = append(told, e.Subject+" "+e.Type)
		if e.Type == "LOGOUT" {
			return ends
		}
		return nil
	}
	if err := api.LastWords(ctx, sub, send, token.ErrRevoked); !errors.Is(err, ends) {
		t.Errorf("it ends with %v", err)
	}
	if want := []string{user + " LOGIN", user + " LOGOUT"}; !slices.Equal(told, want) {
		t.Errorf("it was told %v, want %v", told, want)
	}
	if err := api.LastWords(ctx, sub, send, token.ErrRevoked); !errors.Is(err, token.ErrRevoked) {
		t.Errorf("without an event it ends with %v", err)
	}
}

// scripted is a stream that takes the bare points; of each event, which it counts, it does what the test says.
type scripted struct {
	grpc.ServerStream
	ctx   context.Context
	point string // the last bare one
	count int
	event func(n int) error
}

func (s *scripted) Context() context.Context { return s.ctx }

func (s *scripted) Send(m *authv1.WatchUserEventsResponse) error {
	s.point = m.GetResumeToken()
	return nil
}

func (s *scripted) SendMsg(any) error {
	s.count++
	return s.event(s.count)
}

// watchItself serves a watch that a user has of all that happened to them, until what event does ends it: cut ends the call as the
// end of the session does.
func (s *service) watchItself(user, session string, event func(n int, cut func() error) error) (*scripted, error) {
	s.t.Helper()
	registered := recorder{services: make(map[string]any)}
	api.New(s.auth, s.log, []token.Key{s.key}).Register(registered)
	watcher := registered.services[authv1.AuthService_ServiceDesc.ServiceName].(authv1.AuthServiceServer)
	ctx, cancel := context.WithCancelCause(identity.With(s.t.Context(), identity.Caller{User: &identity.User{ID: user, SessionID: session}}))
	defer cancel(nil)
	stream := &scripted{ctx: ctx, event: func(n int) error {
		return event(n, func() error {
			cancel(token.ErrRevoked)
			return context.Cause(ctx)
		})
	}}
	return stream, watcher.WatchUserEvents(&authv1.WatchUserEventsRequest{UserId: user, Since: timestamppb.New(time.Unix(1, 0))}, stream)
}

// TestAStreamThatOwesAnEventIsToldNothingAfterIt has a session end while an event waits for its client, which reads again later. To
// send what comes after that event, with its resume token, would leave a gap.
func TestAStreamThatOwesAnEventIsToldNothingAfterIt(t *testing.T) {
	t.Parallel()
	s := start(t)
	user := s.member(1).GetUserId()
	session := s.signIn(1).GetSessionId()
	s.signIn(1)
	stream, err := s.watchItself(user, session, func(n int, cut func() error) error {
		if n == 1 {
			return cut() // and so the message is given up
		}
		return nil
	})
	if stream.count != 1 {
		t.Errorf("%d messages were sent after the event that was not", stream.count-1)
	}
	if f, ok := fault.As(err); !ok || !errors.Is(err, token.ErrRevoked) || f.Metadata()["resume_token"] != stream.point {
		t.Errorf("it ends with %v, want %v and the point before the event, %s", err, token.ErrRevoked, stream.point)
	}
}

// TestAStreamThatWasCutGoesOnAfterTheLastEventThatItWasSent has one more event come when a stream has been cut, which may be sent yet.
func TestAStreamThatWasCutGoesOnAfterTheLastEventThatItWasSent(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		sent bool // the event that comes then
		next []authv1.UserEventType
	}{
		"it was sent":     {true, []authv1.UserEventType{failed}},
		"it could not be": {false, []authv1.UserEventType{login, failed}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			user := s.member(1).GetUserId()
			session := s.signIn(1).GetSessionId()
			stream, err := s.watchItself(user, session, func(n int, cut func() error) error {
				switch {
				case n == 2: // the last that is there
					s.signIn(1)
					_ = cut()
				case n == 3 && !row.sent:
					return token.ErrRevoked
				}
				return nil
			})
			if stream.count > 3 {
				t.Errorf("%d events came", stream.count)
			}
			f, ok := fault.As(err)
			if !ok || !errors.Is(err, token.ErrRevoked) {
				t.Fatalf("it ends with %v", err)
			}
			if _, err := s.asService().ValidateUser(t.Context(), &authv1.ValidateUserRequest{Username: signUp(1).Email, Password: "wrong"}); err != nil {
				t.Fatal(err)
			}
			want := row.next
			if stream.count < 3 { // a slow machine: it was not read in time
				want = []authv1.UserEventType{login, failed}
			}
			resumed, _ := s.watch(s.asService(), user, f.Metadata()["resume_token"])
			wantEvents(t, resumed, user, want...)
		})
	}
}
