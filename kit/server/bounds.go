package server

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"

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
	refusals *refusals
}

// NewBounds returns Bounds. It fails where the service has such a metric already.
func NewBounds(cfg BoundsConfig) (*Bounds, error) {
	count, err := refusedCounter(cfg.Telemetry)
	if err != nil {
		return nil, err
	}
	return &Bounds{cfg, &refusals{text: connectionRefused, log: cfg.Log, clock: cfg.Clock, count: count}}, nil
}

// Listen returns l with the bounds, for itself: what an address has open at another listener counts there. A connection
// beyond them is closed at once.
func (b *Bounds) Listen(l net.Listener) net.Listener {
	bounded := newListener(l, b.cfg.ConnectionsPerAddress, b.refusals)
	bounded.exempt, bounded.maxHandshakes = b.cfg.Exempt, 0
	return bounded
}

// refusedCounter returns what counts the connections that are refused.
func refusedCounter(t *telemetry.Service) (telemetry.Counter, error) {
	c, err := t.Counter("concordat_connections_refused_total",
		"Connections that were refused before a call could come over them, by the reason.", "reason")
	if err != nil {
		return c, fmt.Errorf("telemetry: %w", err)
	}
	return c, nil
}
