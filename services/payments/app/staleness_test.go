package app

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/server"
)

// heard is an auth that is listened to: it says where its events stand, and nothing happens.
type heard struct {
	*auth
	asked   atomic.Int64  // for customers
	watched chan struct{} // one when somebody begins to listen to the events, and nobody has been told of another
}

func (h *heard) GetUser(ctx context.Context, req *authv1.GetUserRequest) (*authv1.GetUserResponse, error) {
	h.asked.Add(1)
	return h.auth.GetUser(ctx, req)
}

func (h *heard) WatchUserEvents(_ *authv1.WatchUserEventsRequest, s grpc.ServerStreamingServer[authv1.WatchUserEventsResponse]) error {
	if err := s.Send(&authv1.WatchUserEventsResponse{ResumeToken: "begin"}); err != nil {
		return err
	}
	select {
	case h.watched <- struct{}{}:
	default:
	}
	select {
	case <-server.Draining(s.Context()):
		return server.ErrDraining
	case <-s.Context().Done():
		return s.Context().Err()
	}
}

// startHeard serves auth on a listener.
func startHeard(t *testing.T, dir string, l net.Listener) *heard {
	t.Helper()
	h := &heard{auth: &auth{active: map[string]bool{ann: true, bob: true}}, watched: make(chan struct{}, 1)}
	h.Harness = kittest.Start(t, func(r grpc.ServiceRegistrar) {
		authv1.RegisterAuthServiceServer(r, h)
		authv1.RegisterKeyServiceServer(r, h)
	}, func(o *kittest.Options) { o.Name, o.Dir, o.Listener = "auth", filepath.Join(dir, "pki"), l })
	return h
}

// Customers, the keys of tokens and the events are asked for over one connection, however many charges there are.
func TestAuthIsAskedForEverythingOverOneConnection(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := &kittest.Counted{Listener: listen(t, "127.0.0.1:0")}
	h := startHeard(t, dir, l)
	a := run(t, config(dir, "passthrough:///"+l.Addr().String()))
	user := dial(t, a, "gateway", h.Token(ann, "payments.write"))
	var charges sync.WaitGroup
	for i := range 20 {
		charges.Go(func() {
			if _, err := user.Charge(limit(t), request(fmt.Sprint(i), ann)); err != nil {
				t.Error(err)
			}
		})
	}
	charges.Wait()
	select {
	case <-h.watched:
	case <-time.After(time.Minute):
		t.Fatal("nobody listens to the events")
	}
	if n := l.Accepted(); n != 1 || h.asked.Load() == 0 {
		t.Errorf("%d connections were made, and %d customers asked for", n, h.asked.Load())
	}
	a.verify(t)
}

// While auth is away, who is known is charged for as long as --customer-staleness says, and nobody else is.
func TestTheSettingSaysForHowLongWhoIsKnownIsChargedWithoutAuth(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := listen(t, "127.0.0.1:0")
	h := startHeard(t, dir, l)
	cfg := config(dir, "passthrough:///"+l.Addr().String())
	cfg.CustomerStaleness = 3 * time.Minute // the default is one
	manual := clocktest.New(time.Now())
	a := run(t, cfg, func(d *kit.Deps) { d.Clock = manual })
	orders := dial(t, a, "orders", "")
	key := 0
	charge := func(customer string) error {
		key++
		_, err := orders.Charge(limit(t), request(fmt.Sprint("k", key), customer))
		return err
	}
	for end := time.Now().Add(time.Minute); ; { // until auth is heard, and ann is known
		before := h.asked.Load()
		if err := charge(ann); err != nil {
			t.Fatal(err)
		}
		if h.asked.Load() == before {
			break
		}
		if time.Now().After(end) {
			t.Fatal("auth is asked for each charge")
		}
	}
	if err := h.Stop(); err != nil {
		t.Fatal(err)
	}
	manual.Advance(cfg.CustomerStaleness - time.Second)
	if err := charge(ann); err != nil {
		t.Errorf("one who is known, shortly before the time is over: %v", err)
	}
	kittest.WantFault(t, charge(bob), codes.Unavailable, "UPSTREAM_UNAVAILABLE")
	manual.Advance(2 * time.Second)
	kittest.WantFault(t, charge(ann), codes.Unavailable, "UPSTREAM_UNAVAILABLE")
	a.verify(t)
}
