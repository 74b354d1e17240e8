package load_test

import (
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/concordat-dev/concordat/proof/internal/load"
)

func TestSlowClientsKeepAServerWaitingAndComeAgain(t *testing.T) {
	const each = 2 // of the five manners
	begun, answered := make(chan struct{}, 100), make(chan struct{}, 100)
	tell := func(c chan struct{}) {
		select {
		case c <- struct{}{}:
		default: // that was enough of them
		}
	}
	address := listen(t, func(stream grpc.ServerStream, text string) error {
		if text != "whole" {
			t.Errorf("a call said %q", text)
		}
		tell(answered)
		return stream.SendMsg(wrapperspb.String("taken byte by byte"))
	}, grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		tell(begun)
		return handle(srv, stream)
	}))
	// Over TCP alone a ClientHello is no greeting of HTTP/2: the server cuts those clients, time after time, and no other.
	slow, err := load.Dribble(t.Context(), address, nil, request(t, "whole", time.Minute), 5*each, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	await := func(what string, c <-chan struct{}, n int) {
		t.Helper()
		for i := range n {
			select {
			case <-c:
			case <-time.After(20 * time.Second):
				t.Fatalf("%s: %d, want %d", what, i, n)
			}
		}
	}
	await("calls whose message is whole", answered, 6*each) // each client has a call after the other
	await("calls begun, by those who say a message and those who take one", begun, 12*each)
	await("clients that come again", slow.Again, 1)
	if held := slow.Held.Load(); held < 4*each {
		t.Errorf("%d connections are held, want the %d of which the server may expect more", held, 4*each)
	}
	slow.Close()
	if held := slow.Held.Load(); held != 0 {
		t.Errorf("%d connections are held after the end", held)
	}
	if opened := slow.Opened.Load(); opened <= 5*each {
		t.Errorf("%d connections were opened, want those that were cut to come again", opened)
	}
	if said := slow.Said.Load(); said < 100 {
		t.Errorf("%d times something was said", said)
	}
}

func TestSlowClientsWhoReachNobodyAreAnError(t *testing.T) {
	if _, err := load.Dribble(t.Context(), "127.0.0.1:1", nil, request(t, "", time.Minute), 1, time.Millisecond); err == nil {
		t.Error("no error")
	}
}
