package app

import (
	"context"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/kit/token"
	"github.com/concordat-dev/concordat/services/payments/internal/customers"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

func TestWhichTokensAnEventEndsIsWhatAuthSaysOfItsSessions(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)
	event := func(ended *authv1.EndedSessions) *authv1.UserEvent {
		return &authv1.UserEvent{UserId: "u", EventType: 99, Timestamp: timestamppb.New(at), EndedSessions: ended} // of any kind
	}
	for name, c := range map[string]struct {
		event *authv1.UserEvent
		want  *token.Revocation
	}{
		"a response without an event":  {nil, nil},
		"one that ends no session":     {event(nil), nil},
		"one that ends a session":      {event(&authv1.EndedSessions{SessionId: "s"}), &token.Revocation{UserID: "u", SessionID: "s", At: at}},
		"one that ends all but one":    {event(&authv1.EndedSessions{ExceptSessionId: "s"}), &token.Revocation{UserID: "u", Except: "s", At: at}},
		"one that ends all":            {event(&authv1.EndedSessions{}), &token.Revocation{UserID: "u", At: at}},
		"one of nobody, which is none": {&authv1.UserEvent{EndedSessions: &authv1.EndedSessions{}}, nil}, // and not everybody's
	} {
		got := revocation(c.event)
		if (got == nil) != (c.want == nil) || got != nil && *got != *c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// feed is a connection to an auth of which everybody is an active member, and which tells what it is given.
type feed struct {
	asked map[string]int // about a user
	tells []*authv1.WatchUserEventsResponse
	last  *authv1.WatchUserEventsRequest
}

func (f *feed) Invoke(_ context.Context, _ string, req, reply any, _ ...grpc.CallOption) error {
	user := req.(*authv1.GetUserRequest).GetUserId()
	f.asked[user]++
	r := reply.(*authv1.GetUserResponse)
	r.UserId, r.Active, r.Role = user, true, authv1.Role_ROLE_MEMBER
	return nil
}

func (f *feed) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return feedStream{feed: f}, nil
}

type feedStream struct {
	grpc.ClientStream
	feed *feed
}

func (s feedStream) SendMsg(m any) error {
	s.feed.last = m.(*authv1.WatchUserEventsRequest)
	return nil
}

func (feedStream) CloseSend() error { return nil }

func (s feedStream) RecvMsg(m any) error {
	if len(s.feed.tells) == 0 {
		return io.EOF
	}
	proto.Merge(m.(proto.Message), s.feed.tells[0])
	s.feed.tells = s.feed.tells[1:]
	return nil
}

// TestACustomerIsAskedAboutAnewOnceAuthSaysThatSomethingHappened has auth's feed told of one customer, broken off and resumed, and begun
// anew, in which case nobody knows what was missed.
func TestACustomerIsAskedAboutAnewOnceAuthSaysThatSomethingHappened(t *testing.T) {
	t.Parallel()
	f := &feed{asked: make(map[string]int)}
	manual := clocktest.New(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	directory := customers.New(customers.Options{Source: source{authv1.NewAuthServiceClient(f)}, Clock: manual, Staleness: time.Minute, Most: 10})
	open := userEvents(f, directory)
	since := time.Date(2026, 3, 1, 11, 0, 0, 0, time.UTC)
	event := func(user string) *authv1.WatchUserEventsResponse {
		return &authv1.WatchUserEventsResponse{
			Event: &authv1.UserEvent{UserId: user, EventType: 99, Timestamp: timestamppb.New(since)}, ResumeToken: "after an event",
		}
	}
	quiet := &authv1.WatchUserEventsResponse{ResumeToken: "here"}
	var next func() (token.News, error)
	for _, step := range []struct {
		what  string
		away  time.Duration // before the feed is opened, where it is
		open  bool
		point string
		tells *authv1.WatchUserEventsResponse
		asked [2]int // so far, about ann and bob
	}{
		{what: "at first", open: true, tells: quiet, asked: [2]int{1, 1}},
		{what: "where nothing happens", tells: quiet, asked: [2]int{1, 1}},
		{what: "something of ann", tells: event(ann), asked: [2]int{2, 1}},
		{what: "something of bob", tells: event(bob), asked: [2]int{2, 2}},
		{what: "resumed in time", away: time.Second, open: true, point: "here", tells: quiet, asked: [2]int{2, 2}},
		{what: "resumed too late", away: time.Hour, open: true, point: "here", tells: quiet, asked: [2]int{3, 3}},
		{what: "begun anew", away: time.Second, open: true, tells: quiet, asked: [2]int{4, 4}},
	} {
		manual.Advance(step.away)
		if step.open {
			var err error
			if next, err = open(t.Context(), step.point, since); err != nil {
				t.Fatal(err)
			}
			if f.last.GetResumeToken() != step.point || !f.last.GetSince().AsTime().Equal(since) {
				t.Errorf("%s: auth is asked for %v", step.what, f.last)
			}
		}
		f.tells = []*authv1.WatchUserEventsResponse{step.tells}
		if news, err := next(); err != nil || news.Point != step.tells.GetResumeToken() {
			t.Errorf("%s: %+v, %v", step.what, news, err)
		}
		for range 2 { // the second time it is known
			for _, user := range []payments.CustomerID{ann, bob} {
				if c, err := directory.Get(t.Context(), user); err != nil || !c.Active {
					t.Errorf("%s: %+v, %v", step.what, c, err)
				}
			}
		}
		if got := [2]int{f.asked[ann], f.asked[bob]}; got != step.asked {
			t.Errorf("%s: auth was asked %v times, want %v", step.what, got, step.asked)
		}
	}
}
