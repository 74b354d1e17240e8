package app

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/clock/clocktest"
)

// All calls, over gRPC, REST and Connect, the health of a service and the keys of tokens go over one connection to it.
func TestTheEdgeHasOneConnectionToEachService(t *testing.T) {
	w := start(t).ready()
	conn := w.conn()
	var calls sync.WaitGroup
	for range 20 {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+w.token())
		calls.Go(func() {
			if _, err := authv1.NewAdminServiceClient(conn).LockUser(ctx, &authv1.LockUserRequest{UserId: ada, Etag: "e1"}); err != nil {
				t.Error(err)
			}
			if _, err := usersv1.NewUserServiceClient(conn).GetUser(ctx, &usersv1.GetUserRequest{UserId: ada}); err != nil {
				t.Error(err)
			}
			if _, err := paymentsv1.NewPaymentServiceClient(conn).ListPayments(ctx, &paymentsv1.ListPaymentsRequest{CustomerId: ada}); err != nil {
				t.Error(err)
			}
		})
	}
	for range 20 {
		if r := w.do("GET", "/v1/payments?customer_id="+ada, "", w.bearer()); r.code != 200 {
			t.Errorf("REST: %d %s", r.code, r.body)
		}
		if r := w.do("POST", "/users.v1.UserService/GetUser", `{"userId":"`+ada+`"}`, jsonType, w.bearer()); r.code != 200 {
			t.Errorf("Connect: %d %s", r.code, r.body)
		}
	}
	calls.Wait()
	for name, l := range w.listeners {
		if n := l.Accepted(); n != 1 {
			t.Errorf("%d connections to %s, want one", n, name)
		}
	}
}

func TestTheEdgeRenewsItsDevelopmentCertificateWhileItServes(t *testing.T) {
	clk := clocktest.New(time.Now())
	d := deps()
	d.Clock = clk
	app, err := New(t.Context(), Config{
		Settings: Settings{HTTPListener: listen(t), GRPCListener: listen(t), Auth: "127.0.0.1:1", Users: "127.0.0.1:1", Payments: "127.0.0.1:1", MaxBody: 4096},
		Common:   kit.Common{PKI: t.TempDir(), TrustDomain: "concordat", Issuer: "http://x", Audience: "x", DrainTimeout: time.Second},
	}, d)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- app.Run(ctx) }()
	first := app.identity.NotAfter()
	for end := time.Now().Add(10 * time.Second); !app.identity.NotAfter().After(first); runtime.Gosched() {
		if clk.Now().Before(first.Add(-time.Hour)) {
			clk.Advance(time.Hour) // it may not wait for that yet
		}
		if time.Now().After(end) {
			t.Fatalf("the certificate is still the first, and ends %s", first)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
