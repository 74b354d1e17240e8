package server_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/prototext"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/kittest/echo"
	"github.com/concordat-dev/concordat/kit/server"
)

// A stream that goes on tells of its messages one by one, perhaps of one when others have come since.
func TestNothingSecretIsToldOfAPartOfAStream(t *testing.T) {
	const secret = "hunter2"
	h := kittest.Start(t, echo.Handlers{Chat: func(s grpc.ServerStream) error {
		first, second := echo.Message("", ""), echo.Message("", "")
		if err := errors.Join(s.RecvMsg(first), s.RecvMsg(second)); err != nil {
			return err
		}
		err := fault.New(fault.NotFound, "NOT_FOUND", "no "+secret).With("value", secret).WithViolation(secret, "rule", "is "+secret)
		st := server.PartStatus(s.Context(), first, err, "echo.v1")
		id := false
		for _, d := range st.GetDetails() {
			if strings.Contains(string(d.GetValue()), secret) {
				t.Errorf("a detail tells: %s", d)
			}
			var info errdetails.RequestInfo
			if d.MessageIs(&info) {
				id = d.UnmarshalTo(&info) == nil && info.GetRequestId() != ""
			}
		}
		if strings.Contains(st.GetMessage(), secret) || st.GetMessage() != "no [redacted]" || !id {
			t.Errorf("the status is %s", st)
		}
		for _, value := range []any{errors.New("no " + secret), "no " + secret, first, prototext.Format(first)} {
			if text := server.PartText(s.Context(), first, value); strings.Contains(text, secret) || text == "" {
				t.Errorf("%v is told as %q", value, text)
			}
		}
		return nil
	}}.Register)
	s := openStream(t, t.Context(), h.Anonymous(), echo.Chat, secretMessage(secret))
	if err := s.SendMsg(echo.Message("another", "")); err != nil {
		t.Fatal(err)
	}
	if err := s.RecvMsg(echo.Message("", "")); err == nil {
		t.Error("a message came")
	}
	if text := server.PartText(context.Background(), nil, errors.New("outside of a call")); text != "outside of a call" {
		t.Errorf("outside of a call: %q", text)
	}
}

// A handler need not wait for the goroutine that reads for it: the end of the call does not look at what that is writing.
func TestAStreamMayBeReadBeyondItsHandler(t *testing.T) {
	h := kittest.Start(t, echo.Handlers{Chat: func(s grpc.ServerStream) error {
		read := make(chan struct{}, 64)
		go func() {
			for s.RecvMsg(echo.Message("", "")) == nil {
				select {
				case read <- struct{}{}:
				default:
				}
			}
		}()
		<-read
		return errors.New("broken")
	}}.Register)
	conn := h.Anonymous()
	for range 100 {
		s := openStream(t, t.Context(), conn, echo.Chat, echo.Message("hi", ""))
		for s.SendMsg(echo.Message("hi", "")) == nil {
		}
	}
}
