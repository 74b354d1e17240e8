package app

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	"github.com/concordat-dev/concordat/kit/token"
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
