package server

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/credentials"

	"github.com/concordat-dev/concordat/kit/pki"
)

const (
	// connectionsPerAddress is the default of Config.ConnectionsPerAddress.
	connectionsPerAddress = 1000
	// maxHandshakes is how many connections may be in their handshake at once, from all addresses together. A handshake
	// takes milliseconds, so an honest one ends long before as many others have come.
	maxHandshakes = 256
)

// listener bounds what connections may take before they have shown a certificate: how many an address has open, and how
// many of all are still in their handshake. One too many from an address is closed at once. One too many handshakes
// closes the oldest of them, so that whoever opens connections and says nothing only ever takes from itself: the places
// go round too fast for it, and not for a client that speaks.
type listener struct {
	net.Listener
	perAddress    int
	exempt        []netip.Prefix // not counted
	maxHandshakes int            // 0: nobody says when one is over, and they are not counted
	refusals      *refusals

	mu         sync.Mutex
	open       map[netip.Prefix]int
	handshakes []*conn // the oldest first
}

func newListener(l net.Listener, perAddress int, r *refusals) *listener {
	if perAddress == 0 {
		perAddress = connectionsPerAddress
	}
	return &listener{Listener: l, perAddress: perAddress, maxHandshakes: maxHandshakes, refusals: r, open: make(map[netip.Prefix]int)}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := l.admit(raw); c != nil {
			return c, nil
		}
		_ = raw.Close()
	}
}

// admit counts a connection, or returns nil where its address has too many.
func (l *listener) admit(raw net.Conn) *conn {
	from := prefixOf(raw.RemoteAddr())
	if slices.ContainsFunc(l.exempt, func(n netip.Prefix) bool { return n.Contains(addressOf(raw.RemoteAddr())) }) {
		from = netip.Prefix{}
	}
	l.mu.Lock()
	if l.perAddress > 0 && from.IsValid() && l.open[from] >= l.perAddress {
		l.mu.Unlock()
		l.refusals.add(refusedAddress, raw.RemoteAddr(), nil, "network", from.String(), "limit", l.perAddress)
		return nil
	}
	c := &conn{Conn: raw, listener: l, from: from}
	l.open[from]++
	var oldest *conn
	if l.maxHandshakes > 0 {
		l.handshakes = append(l.handshakes, c)
	}
	if len(l.handshakes) > l.maxHandshakes {
		oldest = l.handshakes[0]
		oldest.cut.Store(true)
	}
	l.mu.Unlock()
	if oldest != nil {
		l.refusals.add(refusedHandshakes, oldest.RemoteAddr(), nil, "limit", l.maxHandshakes)
		_ = oldest.Close()
	}
	return c
}

// settled takes a connection from those that are in their handshake.
func (l *listener) settled(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settle(c)
}

// settle is settled for who holds mu.
func (l *listener) settle(c *conn) {
	for i, h := range l.handshakes {
		if h == c {
			l.handshakes = append(l.handshakes[:i], l.handshakes[i+1:]...)
			return
		}
	}
}

// closed takes a connection from all counts.
func (l *listener) closed(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settle(c)
	if l.open[c.from]--; l.open[c.from] == 0 {
		delete(l.open, c.from)
	}
}

// prefixOf returns what counts as one address: an IPv4 address, or the /64 that one IPv6 host has for itself. What is no
// IP address, such as a connection in memory, counts for nothing.
func prefixOf(addr net.Addr) netip.Prefix {
	ip := addressOf(addr)
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	prefix, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}

// addressOf returns the IP address, the zero one of what has none.
func addressOf(addr net.Addr) netip.Addr {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap().WithZone("")
}

// conn is a connection that is counted until it is closed.
type conn struct {
	net.Conn
	listener *listener
	from     netip.Prefix
	gone     atomic.Bool
	cut      atomic.Bool // it was refused already
}

// Close implements net.Conn.
func (c *conn) Close() error {
	if !c.gone.Swap(true) {
		c.listener.closed(c)
	}
	return c.Conn.Close()
}

// handshaker is transport credentials that tell the listener when a handshake is over, and the calls who is at the other end. It
// has an end: grpc-go sets the deadline of grpc.ConnectionTimeout before.
type handshaker struct {
	credentials.TransportCredentials
	identity *pki.Identity
	refusals *refusals // of connections
	early    *refusals // of calls
}

// ServerHandshake implements credentials.TransportCredentials.
func (h handshaker) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secure, info, err := h.TransportCredentials.ServerHandshake(raw)
	c, ours := raw.(*conn)
	if ours {
		c.listener.settled(c)
	}
	if err != nil && !(ours && c.cut.Load()) {
		h.refusals.add(refusalOf(err), raw.RemoteAddr(), err)
	}
	tls, ok := info.(credentials.TLSInfo)
	if err != nil || !ok {
		return secure, info, err
	}
	of := &connection{TLSInfo: tls, address: hostOf(raw.RemoteAddr())}
	of.peer, _ = h.identity.PeerName(tls.State)
	return newHeard(secure, &of.calls, h.refusals, h.early, "peer", of.peer), of, nil
}

// Clone implements credentials.TransportCredentials.
func (h handshaker) Clone() credentials.TransportCredentials {
	return handshaker{h.TransportCredentials.Clone(), h.identity, h.refusals, h.early}
}

var _ net.Listener = (*listener)(nil)
