//go:build !race

package server_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/test/bufconn"

	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/kittest/echo"
	"github.com/concordat-dev/concordat/kit/telemetry"
)

// The whole path, with a token, metrics, traces of which few are recorded and a line of the log, allocates little more than
// bare grpc-go for the same call: 18 times, those included of the client, who gets a header more, and of messages that are
// dynamic, which generated ones do not need. proof/rpc measures the server alone, where the goal is 12. The race detector drops
// what pools keep, so this is not for it.
func TestAUnaryCallAllocatesLittleMoreThanBareGRPC(t *testing.T) {
	const most = 20
	out, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	lines := telemetry.NewLog(telemetry.LogConfig{Out: out, Level: slog.LevelInfo})
	tele, err := telemetry.New(t.Context(), telemetry.Config{
		Registry: prometheus.NewRegistry(), Log: lines.Logger(), Now: time.Now, Random: func() uint64 { return 1<<63 - 1 },
		TraceRatio: 0.01, Exporter: tracetest.NewNoopExporter(),
	})
	if err != nil {
		t.Fatal(err)
	}
	h := kittest.Start(t, echo.Handlers{}.Register, func(o *kittest.Options) { o.Telemetry, o.Logger = tele, lines.Logger() })
	bare := grpc.NewServer(grpc.Creds(credentials.NewTLS(h.Identity("bare").ServerTLS())))
	echo.Handlers{}.Register(bare)
	memory := bufconn.Listen(1 << 20)
	go func() { _ = bare.Serve(memory) }()
	defer bare.Stop()
	direct, err := grpc.NewClient("passthrough:///bare", grpc.WithTransportCredentials(credentials.NewTLS(h.Identity("gateway").ClientTLS("bare"))),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return memory.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close()
	token := "Bearer " + h.Token("u1", "echo")
	measure := func(conn *grpc.ClientConn) float64 {
		t.Helper()
		ctx, cancel := context.WithTimeout(with(t.Context(), "authorization", token), time.Minute)
		defer cancel()
		req, resp := echo.Message("text", "u1"), echo.Message("", "")
		call := func() {
			if err := conn.Invoke(ctx, echo.Own, req, resp); err != nil {
				t.Fatal(err)
			}
		}
		for range 200 {
			call()
		}
		return testing.AllocsPerRun(2000, call)
	}
	ours, theirs := measure(h.Anonymous()), measure(direct)
	if more := ours - theirs; more > most {
		t.Errorf("%.0f allocations a call, bare grpc-go %.0f: %.0f more, want %d at most", ours, theirs, more, most)
	}
	t.Logf("%.0f allocations a call, bare grpc-go %.0f, with those of the client", ours, theirs)
}
