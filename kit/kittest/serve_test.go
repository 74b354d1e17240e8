package kittest_test

import (
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/kittest/echo"
)

// service is what a generated package has: an interface, and a function that registers what implements it.
type service interface {
	Unary(ctx context.Context, req proto.Message) (proto.Message, error)
}

func registerService(r grpc.ServiceRegistrar, s service) { echo.Handlers{Unary: s.Unary}.Register(r) }

type whoami struct{}

func (whoami) Unary(ctx context.Context, _ proto.Message) (proto.Message, error) {
	return echo.Message("", identity.From(ctx).Key()), nil
}

func TestAServiceIsServedBehindTheRealPath(t *testing.T) {
	h := kittest.Serve[service](t, registerService, whoami{})
	for name, tc := range map[string]struct {
		conn   *grpc.ClientConn
		method string
		want   string
	}{
		"a user":    {h.As("u1", "echo", "echo.admin"), echo.Own, "user:u1"},
		"a service": {h.AsService("orders"), echo.Service, "service:orders"},
		"nobody":    {h.Anonymous(), echo.Public, "address:bufconn"},
	} {
		t.Run(name, func(t *testing.T) {
			answer := echo.Message("", "")
			if err := tc.conn.Invoke(t.Context(), tc.method, echo.Message("", ""), answer); err != nil {
				t.Fatal(err)
			}
			owner := answer.Get(answer.Descriptor().Fields().ByName("owner")).String()
			if owner != tc.want {
				t.Errorf("the handler saw %q, want %q", owner, tc.want)
			}
		})
	}
	_, err := echo.Call(t, h.Anonymous(), echo.Own, "", "")
	kittest.WantFault(t, err, codes.Unauthenticated, "CREDENTIALS_MISSING")
}
