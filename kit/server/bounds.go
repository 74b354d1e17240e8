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
	// Telemetry counts what is refused, by concordat_connections_refused_total, once for each Service.
	Telemetry *telemetry.Service
	// Log is told of what is refused, every ten seconds at most.
	Log *slog.Logger
	// Clock is the time of those seconds.
	Clock clock.Clock
}

// Bounds are what an address may take of listeners that no Server has: the share of connections that it has of a
// Server's. Handshakes are not bounded; whoever serves there gives them an end.
type Bounds struct {
	cfg      BoundsConfig
	refusals *refusals // of connections
	early    *refusals // of calls
}

// NewBounds returns Bounds. It fails where the service has such metrics already.
func NewBounds(cfg BoundsConfig) (*Bounds, error) {
	b := &Bounds{
		cfg, &refusals{text: connectionRefused, log: cfg.Log, clock: cfg.Clock}, &refusals{text: callsRefused, log: cfg.Log, clock: cfg.Clock},
	}
	return b, countRefusals(cfg.Telemetry, b.refusals, b.early)
}

// Listen returns l with the bounds, for itself: what an address has open at another listener counts there. A connection
// beyond them is closed at once.
func (b *Bounds) Listen(l net.Listener) net.Listener {
	bounded := newListener(l, b.cfg.ConnectionsPerAddress, b.refusals)
	bounded.exempt, bounded.maxHandshakes = b.cfg.Exempt, 0
	return bounded
}

// Hear returns the options of a grpc.Server, with those credentials, that have what it refuses by itself, without a word to any
// handler, counted and logged as a Server's is (concordat_calls_refused_early_total), and its answers masked where they
// repeat what the caller sent. The Server must have no other grpc.InTapHandle.
func (b *Bounds) Hear(creds credentials.TransportCredentials) []grpc.ServerOption {
	return []grpc.ServerOption{grpc.Creds(hearing{creds, b.early}), grpc.InTapHandle(func(ctx context.Context, _ *tap.Info) (context.Context, error) {
		if p, ok := peer.FromContext(ctx); ok {
			if c, ok := p.AuthInfo.(interface{ begun() }); ok {
				c.begun()
			}
		}
		return ctx, nil
	})}
}

// hearing is transport credentials whose connections are heard.
type hearing struct {
	credentials.TransportCredentials
	early *refusals
}

// ServerHandshake implements credentials.TransportCredentials.
func (h hearing) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, info, err := h.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return c, info, err
	}
	calls := new(openCalls)
	c = newHeard(c, calls, "", h.early)
	if secure, ok := info.(credentials.TLSInfo); ok { // which has more to say than an AuthInfo must
		return c, struct {
			credentials.TLSInfo
			*openCalls
		}{secure, calls}, nil
	}
	return c, struct {
		credentials.AuthInfo
		*openCalls
	}{info, calls}, nil
}

// Clone implements credentials.TransportCredentials.
func (h hearing) Clone() credentials.TransportCredentials {
	return hearing{h.TransportCredentials.Clone(), h.early}
}
