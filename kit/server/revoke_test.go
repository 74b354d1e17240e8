package server_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/kittest/echo"
	"github.com/concordat-dev/concordat/kit/server"
	"github.com/concordat-dev/concordat/kit/token"
)

var _ server.Revoking = (*token.Verifier)(nil)

// silence is a log in which nothing happens.
type silence struct{}

func (silence) Next(ctx context.Context) (struct{}, string, error) {
	<-ctx.Done()
	return struct{}{}, "", ctx.Err()
}
func (silence) Position() string  { return "here" }
func (silence) OnCut(func(error)) {}

func TestAStreamEndsWhenItsTokenIsRevokedAndSaysWhereToResume(t *testing.T) {
	var h *kittest.Harness
	verifier := token.NewVerifier(token.VerifierConfig{
		Issuer: kittest.Issuer, Audience: kittest.Audience, Clock: clock.System(),
		Keys: func(ctx context.Context) ([]token.Key, error) { return h.Keys(ctx) },
	})
	h = kittest.Start(t, echo.Handlers{
		Watch: func(_ proto.Message, s grpc.ServerStream) error { // one that watches its context
			return server.Follow(s.Context(), silence{}, func(*struct{}, string) error { return s.SendMsg(echo.Message("here", "")) })
		},
		Chat: echo.Back, // and one that sits in a receive
	}.Register, func(o *kittest.Options) { o.Tokens = verifier })

	text := func(session string) string {
		return h.TokenFor(identity.User{ID: "u1", SessionID: session, Scopes: []string{"echo"}, ExpiresAt: time.Now().Add(time.Minute)})
	}
	opened := func(method, session string) grpc.ClientStream {
		t.Helper()
		s := openStream(t, t.Context(), h.WithToken(text(session)), method, echo.Message("", "u1"))
		if err := s.RecvMsg(echo.Message("", "")); err != nil {
			t.Fatal(err)
		}
		return s
	}
	watches, receives, other := opened(echo.Watch, "ends"), opened(echo.Chat, "ends"), opened(echo.Chat, "goes on")
	kept := text("ends")
	verifier.Revoke(token.Revocation{UserID: "u1", SessionID: "ends", At: time.Now()})
	f := kittest.WantFault(t, watches.RecvMsg(echo.Message("", "")), codes.Unauthenticated, "TOKEN_REVOKED")
	if f.Metadata()["resume_token"] != "here" {
		t.Errorf("metadata %v", f.Metadata())
	}
	kittest.WantFault(t, receives.RecvMsg(echo.Message("", "")), codes.Unauthenticated, "TOKEN_REVOKED")
	_, err := echo.Call(t, h.WithToken(kept), echo.Own, "", "u1")
	kittest.WantFault(t, err, codes.Unauthenticated, "TOKEN_REVOKED")
	if err := other.SendMsg(echo.Message("more", "u1")); err != nil {
		t.Fatal(err)
	}
	if err := other.RecvMsg(echo.Message("", "")); err != nil {
		t.Errorf("a stream of another session: %v", err)
	}
	if _, err := echo.Call(t, h.WithToken(text("goes on")), echo.Own, "", "u1"); err != nil {
		t.Errorf("a call of another session: %v", err)
	}
	verifier.Revoke(token.Revocation{UserID: "u1", At: time.Now()})
	kittest.WantFault(t, other.RecvMsg(echo.Message("", "")), codes.Unauthenticated, "TOKEN_REVOKED")
}

// once is a log in which one thing happens.
type once struct{ silence }

func (once) Next(ctx context.Context) (struct{}, string, error) { return struct{}{}, "next", ctx.Err() }

func TestWhatAnEventSaysEndsTheStreamAlsoWhenItIsCutMeanwhile(t *testing.T) {
	said := fault.New(fault.PermissionDenied, "ACCOUNT_LOCKED", "the account is locked")
	cut := fault.New(fault.Unauthenticated, "TOKEN_REVOKED", "the access token has been revoked")
	for name, row := range map[string]struct{ says, want error }{
		"it says another thing": {said, said},
		"it says the same":      {cut, cut},
		"it says nothing":       {nil, cut},
		"it could not be sent":  {errors.New("the transport is gone"), cut},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			err := server.Follow(ctx, once{}, func(event *struct{}, _ string) error {
				if event == nil {
					return nil
				}
				cancel(cut)
				return row.says
			})
			if !errors.Is(err, row.want) {
				t.Errorf("ended with %v, want %v", err, row.want)
			}
			if f, ok := fault.As(err); errors.Is(row.want, cut) && (!ok || f.Metadata()["resume_token"] != "here") {
				t.Errorf("%v, want the point to resume from", err)
			}
		})
	}
}
