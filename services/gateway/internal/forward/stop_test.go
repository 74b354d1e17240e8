package forward

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/services/gateway/internal/contract"
)

// gate is a log that is held up at the line of a call.
type gate struct {
	slog.Handler
	reached, open chan struct{}
}

func (g gate) Enabled(context.Context, slog.Level) bool { return true }

func (g gate) WithAttrs([]slog.Attr) slog.Handler { return g }

func (g gate) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "call" {
		close(g.reached)
		<-g.open
	}
	return nil
}

// What serves the request behind another listener returns before grpc-go says that the call has ended, and so that listener's stop
// does not wait for it.
func TestAStopWaitsUntilTheLastCallIsToldOf(t *testing.T) {
	c, err := contract.Load()
	if err != nil {
		t.Fatal(err)
	}
	g := gate{slog.DiscardHandler, make(chan struct{}), make(chan struct{})}
	operations, err := kit.NewOperations(t.Context(), kit.Edge, "", kit.Common{}, kit.Deps{
		Clock: clock.System(), Random: rand.Reader, Log: slog.New(slog.DiscardHandler), Out: io.Discard,
	})
	if err != nil {
		t.Fatal(err)
	}
	signals, err := operations.Telemetry.Service(kit.Edge)
	if err != nil {
		t.Fatal(err)
	}
	f, err := New(Config{Contract: c, Telemetry: signals, Log: slog.New(g), Clock: clock.System(), NewID: func() string { return "id" }})
	if err != nil {
		t.Fatal(err)
	}
	s := f.Server()
	healthpb.RegisterHealthServer(s, health.NewServer())
	r := httptest.NewRequest("POST", "/grpc.health.v1.Health/Check", bytes.NewReader(make([]byte, 5)))
	r.ProtoMajor = 2
	r.Header.Set("content-type", "application/grpc")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r.WithContext(WithOrigin(t.Context(), &Origin{RequestID: "id"})))
	if status := w.Result().Trailer.Get("Grpc-Status"); status != "0" {
		t.Fatalf("status %q: %v", status, w.Result())
	}
	<-g.reached
	stopped := make(chan struct{})
	go func() { s.Stop(); close(stopped) }()
	select {
	case <-stopped:
		t.Error("it has stopped, and the last call is not told of")
	case <-time.After(200 * time.Millisecond): // in which a stop that waits for nothing is over
	}
	close(g.open)
	<-stopped
}
