package server_test

import (
	"log/slog"
	"net"
	"net/netip"
	"testing"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/server"
)

// comers is a listener to which connections come from some addresses in turn, until so many have come.
type comers struct {
	net.Listener
	from   []string
	left   int
	closed int // of those that have come
}

func (c *comers) Accept() (net.Conn, error) {
	if c.left == 0 {
		return nil, net.ErrClosed
	}
	c.left--
	return comer{of: c, ip: net.ParseIP(c.from[c.left%len(c.from)])}, nil
}

type comer struct {
	net.Conn
	of *comers
	ip net.IP
}

func (o comer) RemoteAddr() net.Addr { return &net.TCPAddr{IP: o.ip, Port: 1} }

func (o comer) Close() error {
	o.of.closed++
	return nil
}

// Listeners that no Server has bound what one address takes, and nothing else: nobody says when a handshake is over there, so that a
// bound of handshakes would close the connections that have been open for longest.
func TestBoundsAreOfOneAddressAndNotOfAProxy(t *testing.T) {
	service, err := collecting(t).tele.Service("edge")
	if err != nil {
		t.Fatal(err)
	}
	bounds, err := server.NewBounds(server.BoundsConfig{
		ConnectionsPerAddress: 3, Exempt: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8::/32")},
		Telemetry: service, Log: slog.New(slog.DiscardHandler), Clock: clock.System(),
	})
	if err != nil {
		t.Fatal(err)
	}
	const proxy, otherProxy, come = "198.51.100.7", "2001:db8::7", 999
	for name, row := range map[string]struct {
		from []string
		open int
	}{
		"proxies":              {[]string{proxy, otherProxy}, come},
		"clients":              {[]string{"203.0.113.1", "203.0.113.2", "2001:db9::7"}, 9},
		"a client and proxies": {[]string{"203.0.113.1", proxy, otherProxy}, 3 + 2*come/3},
	} {
		c, open := &comers{from: row.from, left: come}, 0
		l := bounds.Listen(c) // what was open at another one does not count here
		for {
			if _, err := l.Accept(); err != nil {
				break
			}
			open++
		}
		if open != row.open || c.closed != come-row.open {
			t.Errorf("%s: %d were let in and %d closed of %d, want %d let in", name, open, c.closed, come, row.open)
		}
	}
}
