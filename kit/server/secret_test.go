package server_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/kittest/echo"
	"github.com/concordat-dev/concordat/kit/telemetry"
)

// secretMessage has a value that the contract marks debug_redact.
func secretMessage(secret string) proto.Message {
	m := echo.Message("", "")
	m.Set(m.Descriptor().Fields().ByName("secret"), protoreflect.ValueOfString(secret))
	return m
}

func TestNothingSecretIsTold(t *testing.T) {
	const secret = "hunter2 \"and\" more"
	for name, fail := range map[string]func(req proto.Message) error{
		"an error that quotes the request": func(req proto.Message) error { return errors.New("cannot store " + prototext.Format(req)) },
		"an error that quotes the value":   func(proto.Message) error { return fmt.Errorf("bad password %q", secret) },
		"a fault with details": func(proto.Message) error {
			return fault.New(fault.NotFound, "NOT_FOUND", "no "+secret).With("value", secret).WithViolation("secret", "rule", "is "+secret).Because(errors.New(secret))
		},
		"a panic with the request":     func(req proto.Message) error { panic(req) },
		"a panic with another message": func(proto.Message) error { panic(secretMessage("hunter2 of somebody else")) },
		"a panic with a text":          func(proto.Message) error { panic("no " + secret) },
	} {
		for _, taken := range []bool{true, false} { // whether somebody takes spans
			t.Run(fmt.Sprintf("%s, spans taken: %t", name, taken), func(t *testing.T) {
				tt := tell(t, echo.Handlers{
					Unary: func(_ context.Context, req proto.Message) (proto.Message, error) { return nil, fail(req) },
					Chat: func(s grpc.ServerStream) error {
						m := echo.Message("", "")
						if err := s.RecvMsg(m); err != nil {
							return err
						}
						return fail(m)
					},
				}, func(c *telemetry.Config) {
					c.TraceRatio = 1
					if !taken {
						c.Exporter = nil
					}
				})
				out := make(map[string]string)
				failed := func(err error) {
					t.Helper()
					if err == nil {
						t.Fatal("no error")
					}
					st := status.Convert(err).Proto()
					out["the errors"] += err.Error() + st.GetMessage()
					for _, d := range st.GetDetails() {
						out["the errors"] += string(d.GetValue())
					}
				}
				var header, trailer metadata.MD
				failed(tt.Anonymous().Invoke(t.Context(), echo.Public, secretMessage(secret), echo.Message("", ""), grpc.Header(&header), grpc.Trailer(&trailer)))
				for name, values := range metadata.Join(header, trailer) {
					out["the headers"] += fmt.Sprintln(name, values)
				}
				s := openStream(t, t.Context(), tt.Anonymous(), echo.Chat, secretMessage(secret))
				failed(s.RecvMsg(echo.Message("", "")))
				spans := tt.end()
				if len(spans) != map[bool]int{true: 2}[taken] || strings.Count(tt.Log.String(), `"msg":"call"`) != 2 {
					t.Fatalf("%d spans, log:\n%s", len(spans), tt.Log)
				}
				out["the log"] = tt.Log.String()
				for _, s := range spans {
					out["the spans"] += describe(s) + fmt.Sprint(s.Events)
				}
				for series := range tt.series() {
					out["the metrics"] += series + "\n"
				}
				for where, text := range out {
					if text == "" || strings.Contains(text, "hunter2") {
						t.Errorf("%s:\n%s", where, text)
					}
				}
			})
		}
	}
}
