// Package forward passes gRPC calls on to the service that serves them, message by message and without decoding any, so
// that fields which this build does not know pass through. It decides nothing about who may call: the services do,
// by the policy of the contract, and the certificate of the edge is worth nothing there. What it promises is that a
// caller cannot speak in the edge's name (only a token, a trace and the id of the request pass), that the answer,
// status details included, arrives as the service gave it, and that nothing of the inside (addresses, certificates,
// texts of the transport) gets out.
package forward

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/telemetry"
	"github.com/concordat-dev/concordat/services/gateway/internal/contract"
)

// Limits of the transport: those of the services (kit/server), but for the handshake, which may come from far away. How many
// connections an address opens is the listener's to bound (server.Bounds), and how many are in their handshake nobody bounds here.
const (
	maxStreams        = 1000             // concurrent calls on one connection
	maxHeaderBytes    = 16 << 10         // of one call, uncompressed
	connectionTimeout = 10 * time.Second // for the handshake
	connectionIdle    = 15 * time.Minute // without a call; a client connects anew when it has one
	connectionAge     = 30 * time.Minute // then the client is asked to connect anew, so that replicas share the load
	connectionGrace   = 5 * time.Minute  // for what is still open then
	minPing           = 10 * time.Second // clients that ping more often are disconnected
)

// MaxMessageBytes is the size of the largest message that passes, either way.
const MaxMessageBytes = 4 << 20

// Config is what a Forwarder needs. Every field but Proxies and CallerTraces is required.
type Config struct {
	// Contract says which methods there are and who serves them.
	Contract *contract.Contract
	// Conn returns the connection to the service of that name.
	Conn func(upstream string) grpc.ClientConnInterface
	// Proxies are the networks whose x-forwarded-for counts.
	Proxies Proxies
	// Telemetry is that of the edge: calls are in its metrics and, where they are recorded, in its spans.
	Telemetry *telemetry.Service
	// CallerTraces says what becomes of the traces that callers are in.
	CallerTraces telemetry.CallerTraces
	// Log gets one line a call.
	Log *slog.Logger
	// Clock is the time of durations.
	Clock clock.Clock
	// NewID makes the ids of requests that bring none.
	NewID func() string
}

// Forwarder forwards calls. It is safe for concurrent use.
type Forwarder struct {
	cfg        Config
	tell       *teller
	drain      context.Context
	startDrain context.CancelFunc
}

// New returns a Forwarder. It fails where the telemetry is that of another Forwarder already.
func New(cfg Config) (*Forwarder, error) {
	f := &Forwarder{cfg: cfg}
	var err error
	if f.tell, err = newTeller(cfg, f.open); err != nil {
		return nil, err
	}
	f.drain, f.startDrain = context.WithCancel(context.Background())
	return f, nil
}

// Drain ends open streams with UNAVAILABLE DRAINING: a stream in both directions once everything that it has sent on is
// answered, every other one at once. Calls that are no streams go on.
func (f *Forwarder) Drain() { f.startDrain() }

// Server returns a gRPC server that forwards every call of the contract. It serves a listener, or as an http.Handler
// what another listener hands to it (Origin). Services that are registered on it are its own. The options are those of its
// connections, where it has any: server.Bounds.Hear.
func (f *Forwarder) Server(connections ...grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append(slices.Clone(connections),
		grpc.UnknownServiceHandler(f.forward),
		grpc.WaitForHandlers(true), // Stop lets every call be told of, behind HTTP too
		grpc.StatsHandler(f.tell),
		grpc.ChainUnaryInterceptor(f.observeUnary),
		grpc.ChainStreamInterceptor(f.observeStream),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.MaxRecvMsgSize(MaxMessageBytes),
		grpc.MaxSendMsgSize(MaxMessageBytes),
		grpc.ConnectionTimeout(connectionTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: connectionIdle, MaxConnectionAge: connectionAge, MaxConnectionAgeGrace: connectionGrace,
			Time: 30 * time.Second, Timeout: 10 * time.Second,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
	)...)
}

// forward is the handler of every call whose service is not the edge itself.
func (f *Forwarder) forward(_ any, down grpc.ServerStream) error {
	c := callFrom(down.Context())
	m := f.cfg.Contract.Method(c.name)
	if m == nil {
		return c.refuse(ErrUnknownMethod)
	}
	c.method = m
	p, err := f.begin(c, m, down)
	if err != nil {
		return c.refuse(err)
	}
	return p.run()
}

// ClientAddress returns the address of whoever called over a connection whose other end is remote, without port.
func (f *Forwarder) ClientAddress(remote string, forwarded []string) string {
	return f.cfg.Proxies.Client(remote, forwarded)
}

// forwardedOf returns the values of x-forwarded-for.
func forwardedOf(ctx context.Context) []string {
	return metadata.ValueFromIncomingContext(ctx, ForwardedHeader)
}
