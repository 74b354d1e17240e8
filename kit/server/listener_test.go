package server

import (
	"log/slog"
	"net"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/telemetry"
)

// from is a connection from an address.
type from struct {
	net.Conn
	ip string
}

func (f from) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(f.ip), Port: 1} }
func (from) Close() error           { return nil }

func TestAnAddressIsAnIPv4OneOrTheNetworkOfAnIPv6Host(t *testing.T) {
	tele, err := telemetry.New(t.Context(), telemetry.Config{Registry: prometheus.NewRegistry(), Now: clock.System().Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	service, err := tele.Service("test")
	if err != nil {
		t.Fatal(err)
	}
	count, err := service.Counter("refused_total", "x", "reason")
	if err != nil {
		t.Fatal(err)
	}
	l := newListener(nil, 2, &refusals{text: connectionRefused, log: slog.New(slog.DiscardHandler), clock: clock.System(), count: count})
	var first *conn
	for _, tc := range []struct {
		ip string
		in bool
	}{
		{"2001:db8:1:2::1", true},
		{"2001:db8:1:2:3:4:5:6", true},
		{"2001:db8:1:2:ffff:ffff:ffff:ffff", false},
		{"2001:db8:1:3::1", true}, // the network beside it
		{"198.51.100.1", true},
		{"::ffff:198.51.100.1", true}, // the same, as a listener for both families sees it
		{"198.51.100.1", false},
		{"198.51.100.2", true},
	} {
		c := l.admit(from{ip: tc.ip})
		if (c != nil) != tc.in {
			t.Errorf("%s is let in: %t", tc.ip, c != nil)
		}
		if first == nil {
			first = c
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if l.admit(from{ip: "2001:db8:1:2::7"}) == nil {
		t.Error("a place that is free again is not given")
	}
	if n := len(l.open); n != 4 {
		t.Errorf("%d addresses are counted, want 4", n)
	}
}
