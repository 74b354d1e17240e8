package server

import (
	"context"
	"log/slog"
	"net"
	"net/netip"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/telemetry"
)

// BoundsConfig is what Bounds need. Every field but Exempt is required.
type BoundsConfig struct {
	// ConnectionsPerAddress is that of Config.
	ConnectionsPerAddress int
	// Exempt are networks whose connections are not counted: those of proxies, behind each of which many callers are.
	Exempt []netip.Prefix
	// Telemetry counts what is refused, by concordat_connections_refused_total and concordat_calls_refused_early_total, once for each Service.
	Telemetry *telemetry.Service
	// Log is told of what is refused, every ten seconds at most.
	Log *slog.Logger
	// Clock is the time of those seconds.
	Clock clock.Clock
}

// Bounds are those of a Server for listeners that it does not have: Listen gives each address its share of the connections, and Hear
// looks after what a grpc.Server there refuses by itself. Handshakes are not bounded; whoever serves there gives them an end.
type Bounds struct {
	cfg      BoundsConfig
	refusals *refusals // of connections
	early    *refusals // of calls
}

// NewBounds returns Bounds. It fails where the service has such metrics already.
func NewBounds(cfg BoundsConfig) (*Bounds, error) {
	connections := &refusals{text: connectionRefused, log: cfg.Log, clock: cfg.Clock}
	early := &refusals{text: callsRefused, log: cfg.Log, clock: cfg.Clock}
	if err := countRefusals(cfg.Telemetry, connections, early); err != nil {
		return nil, err
	}
	return &Bounds{cfg: cfg, refusals: connections, early: early}, nil
}

// Listen returns l with the bounds, for itself: what an address has open at another listener counts there. A connection
// beyond them is closed at once.
func (b *Bounds) Listen(l net.Listener) net.Listener {
	bounded := newListener(l, b.cfg.ConnectionsPerAddress, b.refusals)
	bounded.exempt, bounded.maxHandshakes = b.cfg.Exempt, 0
	return bounded
}

// Hear returns options of a grpc.Server that has those credentials and no other grpc.InTapHandle. What it refuses by itself, without
// a word to any handler or stats.Handler, is counted and logged as a Server's is, and wherever an answer of its own repeats what the
// caller has sent, that is masked.
func (b *Bounds) Hear(creds credentials.TransportCredentials) []grpc.ServerOption {
	return []grpc.ServerOption{grpc.Creds(hearing{creds, b.refusals, b.early}), grpc.InTapHandle(tapHeard)}
}

// tapHeard tells the connection of a call that begins. One without time or the name of a method does not: grpc-go ends it where it
// has announced it.
func tapHeard(ctx context.Context, info *tap.Info) (context.Context, error) {
	if p, ok := peer.FromContext(ctx); ok {
		if c, ok := p.AuthInfo.(heardInfo); ok && ctx.Err() == nil && namesMethod(info.FullMethodName) {
			c.calls.announced.Add(1)
		}
	}
	return ctx, nil
}

// hearing is transport credentials whose connections are heard.
type hearing struct {
	credentials.TransportCredentials
	refusals *refusals // of connections
	early    *refusals // of calls
}

// ServerHandshake implements credentials.TransportCredentials.
func (h hearing) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, info, err := h.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return c, info, err
	}
	calls := new(openCalls)
	return newHeard(c, calls, h.refusals, h.early), heardInfo{info, calls}, nil
}

// Clone implements credentials.TransportCredentials.
func (h hearing) Clone() credentials.TransportCredentials {
	return hearing{h.TransportCredentials.Clone(), h.refusals, h.early}
}

// heardInfo is what a handshake has found out, with the calls of the connection.
type heardInfo struct {
	credentials.AuthInfo
	calls *openCalls
}

// GetSecurityValue implements credentials.ChannelzSecurityInfo, for what has something to say there.
func (i heardInfo) GetSecurityValue() credentials.ChannelzSecurityValue {
	if s, ok := i.AuthInfo.(credentials.ChannelzSecurityInfo); ok {
		return s.GetSecurityValue()
	}
	return nil
}
