// Package upstream holds the connections from the edge to the services behind it, and knows which of them can do their
// work. One connection per service serves every listener; each call goes to the next healthy replica.
package upstream

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/concordat-dev/concordat/kit/client"
	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/pki"
	"github.com/concordat-dev/concordat/kit/telemetry"
	"github.com/concordat-dev/concordat/services/gateway/internal/contract"
)

// A service that was away is found again within reconnectMax. grpc-go's own bound is two minutes.
const (
	reconnectMin   = 100 * time.Millisecond
	reconnectMax   = 3 * time.Second
	connectTimeout = 5 * time.Second
)

// Config is what the connections need. Every field but Telemetry is required.
type Config struct {
	// Contract says which services there are.
	Contract *contract.Contract
	// Targets says where each service is, by its name: "dns:///127.0.0.1:50051".
	Targets map[string]string
	// Identity is the certificate to show.
	Identity *pki.Identity
	// Telemetry is that of the edge, whose calls to the services it tells of.
	Telemetry *telemetry.Service
	// Clock is the time of health checks.
	Clock clock.Clock
	// Log hears of services that come and go.
	Log *slog.Logger
}

// Set is the connections to all services. It is safe for concurrent use.
type Set struct {
	cfg    Config
	conns  map[string]*grpc.ClientConn
	health health
}

// Dial returns the connections to all services of the contract, which connect when they are first used: no service
// needs to be there yet.
func Dial(cfg Config) (*Set, error) {
	s := &Set{cfg: cfg, conns: make(map[string]*grpc.ClientConn)}
	for _, u := range cfg.Contract.Upstreams() {
		conn, err := client.Dial(client.Config{
			Target: cfg.Targets[u.Name], Server: u.Name, Identity: cfg.Identity, Services: u.Services, Telemetry: cfg.Telemetry,
			Options: []grpc.DialOption{
				grpc.WithChainStreamInterceptor(keepStatus),
				grpc.WithConnectParams(grpc.ConnectParams{
					Backoff:           backoff.Config{BaseDelay: reconnectMin, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnectMax},
					MinConnectTimeout: connectTimeout,
				}),
			},
		})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("--%s: %w", u.Name, err), s.Close())
		}
		s.conns[u.Name] = conn
	}
	s.health.init(cfg.Contract.Upstreams())
	return s, nil
}

// Conn returns the connection to the service of that name; nil where the contract has none.
func (s *Set) Conn(name string) grpc.ClientConnInterface {
	if conn, ok := s.conns[name]; ok {
		return conn
	}
	return nil
}

// Target returns where the service of that name is, as it was configured.
func (s *Set) Target(name string) string { return s.cfg.Targets[name] }

// Close ends the connections, and every call over them.
func (s *Set) Close() error {
	var problems []error
	for name, conn := range s.conns {
		if err := conn.Close(); err != nil {
			problems = append(problems, fmt.Errorf("close the connection to %s: %w", name, err))
		}
	}
	return errors.Join(problems...)
}
