package upstream

import (
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/services/gateway/internal/contract"
)

func TestManyQuestionsAreAskedOnce(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	users := kittest.Start(t, func(r grpc.ServiceRegistrar) {
		usersv1.RegisterUserServiceServer(r, usersv1.UnimplementedUserServiceServer{})
	}, func(o *kittest.Options) { o.Name, o.Listener = contract.Users, l })
	c, err := contract.Load()
	if err != nil {
		t.Fatal(err)
	}
	clk := clocktest.New(time.Now())
	s, err := Dial(Config{
		Contract: c, Identity: users.Identity("gateway"), Clock: clk, Log: slog.New(slog.DiscardHandler),
		Targets: map[string]string{contract.Users: l.Addr().String(), contract.Auth: "127.0.0.1:1", contract.Payments: "127.0.0.1:1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	asked := func() int { return strings.Count(users.Log.String(), "/grpc.health.v1.Health/Check") }

	// A service says NOT_SERVING until its first check has run.
	state := func() State {
		for _, h := range s.Check(t.Context()) {
			if h.Name == contract.Users {
				return h.State
			} else if h.State != NotServing {
				t.Errorf("%s is away and %s", h.Name, h.State)
			}
		}
		return ""
	}
	for end := time.Now().Add(20 * time.Second); state() != Serving; clk.Advance(checkFresh) {
		if time.Now().After(end) {
			t.Fatal("users does not serve")
		}
	}
	clk.Advance(checkFresh)
	before := asked()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if state() != Serving {
				t.Error("users does not serve")
			}
		})
	}
	wg.Wait()
	waitFor(t, func() bool { return asked() > before }) // the line comes after the answer
	if n := asked() - before; n != 1 {
		t.Errorf("50 questions at once became %d", n)
	}
	clk.Advance(checkFresh)
	state()
	waitFor(t, func() bool { return asked()-before == 2 })
	if s.Conn("nobody") != nil {
		t.Error("there is a connection to nobody")
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatal("it does not happen")
		}
		time.Sleep(time.Millisecond)
	}
}
