package server_test

import (
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/kittest/echo"
	"github.com/concordat-dev/concordat/kit/server"
)

func TestARateIsOfWhatThePolicySays(t *testing.T) {
	type row struct {
		conn          *grpc.ClientConn
		address, text string
		free          bool // it has a bucket of its own
	}
	h := kittest.Start(t, echo.Handlers{}.Register, func(o *kittest.Options) { o.Clock = clocktest.New(time.Now()) })
	edge, ada, ben := h.Anonymous(), h.As("u1"), h.As("u2")
	for name, tc := range map[string]struct {
		method string
		rows   []row
	}{
		"of a field and an address together": {echo.ByBoth, []row{
			{edge, "198.51.100.1", "a", true},
			{edge, "198.51.100.1", "A ", false},
			{edge, "198.51.100.2", "a", true},
			{edge, "198.51.100.1", "b", true},
			{edge, "2001:db8::1", "a", true},
			{edge, "2001:db8::2", "a", false},
			{ada, "198.51.100.1", "a", false}, // whoever it is
		}},
		"of a caller": {echo.ByWho, []row{
			{ada, "198.51.100.1", "a", true},
			{ada, "198.51.100.2", "b", false}, // wherever they are, whatever they ask
			{ben, "198.51.100.1", "a", true},
			{edge, "198.51.100.1", "a", true}, // who is nobody is their address
			{edge, "198.51.100.1", "b", false},
			{edge, "198.51.100.2", "a", true},
			{h.AsService("orders"), "", "a", true},
			{h.AsService("orders"), "", "b", false}, // on another connection
			{h.AsService("users"), "", "a", true},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			for i, r := range tc.rows {
				ctx := t.Context()
				if r.address != "" {
					ctx = metadata.AppendToOutgoingContext(ctx, server.ClientAddressHeader, r.address)
				}
				err := r.conn.Invoke(ctx, tc.method, echo.Message(r.text, ""), echo.Message("", ""))
				if r.free && err != nil {
					t.Errorf("row %d: %v", i, err)
				}
				if !r.free {
					kittest.WantFault(t, err, codes.ResourceExhausted, "RATE_LIMITED")
				}
			}
		})
	}
}
