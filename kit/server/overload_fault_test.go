package server_test

import (
	"context"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/kittest/echo"
)

func TestACrowdIsToldToComeBackWhileHealthAndStreamsGoOn(t *testing.T) {
	release := make(chan struct{})
	h := kittest.Start(t, echo.Handlers{
		Unary: func(_ context.Context, req proto.Message) (proto.Message, error) {
			<-release
			return req, nil
		},
		Chat: echo.Back,
	}.Register, func(o *kittest.Options) { o.ShedLoad = true })
	const crowd = 1500
	refused := make(chan error, crowd)
	var wg sync.WaitGroup
	conns := []*grpc.ClientConn{h.Anonymous(), h.Anonymous()} // each may carry a thousand calls
	for i := range crowd {
		wg.Go(func() {
			if _, err := echo.Call(t, conns[i%2], echo.Keyed, "", "key"); err != nil {
				refused <- err
			}
		})
	}
	f := kittest.WantFault(t, <-refused, codes.ResourceExhausted, "OVERLOADED")
	if f.RetryAfter() <= 0 {
		t.Error("nobody says when to come back")
	}
	other := h.AsService("orders")
	if _, err := healthpb.NewHealthClient(other).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Errorf("health: %v", err)
	}
	s := openStream(t, t.Context(), other, echo.Chat, echo.Message("hi", ""))
	if err := s.RecvMsg(echo.Message("", "")); err != nil {
		t.Errorf("a stream: %v", err)
	}
	close(release)
	wg.Wait()
	close(refused)
	n := 1
	for err := range refused {
		kittest.WantFault(t, err, codes.ResourceExhausted, "OVERLOADED")
		n++
	}
	if n > crowd/2 {
		t.Errorf("%d of %d calls were refused; a thousand may be under way", n, crowd)
	}
	if _, err := echo.Call(t, conns[0], echo.Public, "", ""); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
