package server_test

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/id"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/kittest/echo"
	"github.com/concordat-dev/concordat/kit/pki"
	"github.com/concordat-dev/concordat/kit/server"
	"github.com/concordat-dev/concordat/kit/telemetry"
)

// BenchmarkObserve measures what it costs to see one unary call and to tell of it: trace, metrics, and one line of the log
// into a file. The call itself is not in it.
func BenchmarkObserve(b *testing.B) {
	const came = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0"
	for _, bm := range []struct {
		name     string
		exporter sdktrace.SpanExporter
		ratio    float64
		parent   string
		slog     bool // the log is slog's own handler
	}{
		{name: "nothing exported"},
		{name: "not sampled", exporter: tracetest.NewNoopExporter()},
		{name: "not sampled, as the caller says", exporter: tracetest.NewNoopExporter(), parent: came + "0"},
		{name: "one in a hundred", exporter: tracetest.NewNoopExporter(), ratio: 0.01},
		{name: "sampled", exporter: tracetest.NewNoopExporter(), parent: came + "1"},
		{name: "not sampled, with a log of slog's", exporter: tracetest.NewNoopExporter(), slog: true},
	} {
		b.Run(bm.name, func(b *testing.B) {
			out, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
			if err != nil {
				b.Fatal(err)
			}
			lines := telemetry.NewLog(telemetry.LogConfig{Out: out, Level: slog.LevelInfo})
			log := lines.Logger()
			if bm.slog {
				log = slog.New(slog.NewTextHandler(out, nil))
			}
			t, err := telemetry.New(b.Context(), telemetry.Config{
				Registry: prometheus.NewRegistry(), Log: log, Now: time.Now, Random: mathrand.Uint64, TraceRatio: bm.ratio, Exporter: bm.exporter,
			})
			if err != nil {
				b.Fatal(err)
			}
			benchmarkObserver(b, log, t, bm.parent)
			if err := errors.Join(lines.Close(), t.Shutdown(b.Context()), out.Close()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func benchmarkObserver(b *testing.B, log *slog.Logger, t *telemetry.Telemetry, parent string) {
	s := quietServer(b, log, t)
	md := metadata.Pairs(":authority", "test", "content-type", "application/grpc", "user-agent", "grpc-go/1.85.0", "x-request-id", "0198c2f1-0000-7000-8000-000000000000")
	if parent != "" {
		md.Set("traceparent", parent)
	}
	ctx := peer.NewContext(metadata.NewIncomingContext(context.Background(), md), &peer.Peer{Addr: s.Addr(), LocalAddr: s.Addr()})
	info := &tap.Info{FullMethodName: echo.Public, Header: md}
	caller := identity.Caller{Peer: "gateway", Address: "198.51.100.1", User: &identity.User{ID: "0198c2f1-0000-7000-8000-000000000001"}}
	ctx, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	b.ReportAllocs()
	for b.Loop() {
		if err := server.Observe(ctx, s, info, caller); err != nil {
			b.Fatal(err)
		}
	}
}

// quietConfig returns the configuration of a server that nobody calls.
func quietConfig(t testing.TB, log *slog.Logger) server.Config {
	t.Helper()
	dev, err := pki.NewDevelopment(t.TempDir(), "concordat", clock.System())
	if err != nil {
		t.Fatal(err)
	}
	self, err := dev.Identity(t.Context(), "test", func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() }) // for a server that is not made
	return server.Config{
		Listener: listener, Identity: self, Edge: "gateway", Log: log, Clock: clock.System(),
		NewID: id.Generator(clock.System(), rand.Reader), DrainTimeout: time.Second,
	}
}

// quietServer returns a server that does not serve.
func quietServer(t testing.TB, log *slog.Logger, tele *telemetry.Telemetry) *server.Server {
	t.Helper()
	cfg := quietConfig(t, log)
	cfg.Telemetry = tele
	s, err := server.New(cfg, func(r grpc.ServiceRegistrar) { echo.Handlers{}.Register(r) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}
