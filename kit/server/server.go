// Package server is the request path that every service stands behind: mutual TLS, the policy of the contract, limits,
// validation, deadlines, one log line a call, health, reflection, and a stop that loses nothing and has an end. What a
// handler returns leaves as a status that says nothing internal.
//
// It promises that no call reaches a handler which the contract does not allow, and that a server whose contract has
// no answer to that does not start.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/pki"
	"github.com/concordat-dev/concordat/kit/policy"
	"github.com/concordat-dev/concordat/kit/telemetry"
	"github.com/concordat-dev/concordat/kit/usage"
)

// Limits of the transport. Stock grpc-go has no limit of streams and takes 16 MiB of headers.
const (
	maxStreams        = 1000             // concurrent calls on one connection
	maxHeaderBytes    = 16 << 10         // of one call, uncompressed
	streamWorkers     = 64               // goroutines that are kept, so that not every call grows a stack of its own; more calls get new ones
	maxMessageBytes   = 4 << 20          // of one message, either way
	connectionTimeout = 5 * time.Second  // for the handshake and the first words of HTTP/2
	connectionIdle    = 15 * time.Minute // without a call; a client connects anew when it has one
	connectionAge     = 30 * time.Minute // then the client is asked to connect anew, so that replicas share the load
	connectionGrace   = 5 * time.Minute  // for what is still open then
	minPing           = 10 * time.Second // clients that ping more often are disconnected
)

// Tokens verifies access tokens; token.Verifier does.
type Tokens interface {
	// Verify returns the user that the token speaks for. Its errors are faults of the kinds Unauthenticated and
	// Unavailable.
	Verify(ctx context.Context, token string) (*identity.User, error)
}

// Config is what a Server needs. Every field but ShedLoad, ConnectionsPerAddress, Telemetry, Usage and Checks is required.
type Config struct {
	// Listener is where to serve. The server closes it.
	Listener net.Listener
	// Identity is the certificate to show and the authority to hold peers against.
	Identity *pki.Identity
	// Tokens verifies the access tokens of users.
	Tokens Tokens
	// Edge is the name of the peer that speaks for whoever called it and is never a service: "gateway".
	Edge string
	// Log gets one line a call.
	Log *slog.Logger
	// Clock is the time of tokens, rates and durations.
	Clock clock.Clock
	// NewID makes the ids of requests that bring none.
	NewID func() string
	// DrainTimeout is how long calls may go on once the server is told to stop.
	DrainTimeout time.Duration
	// ShedLoad bounds the unary calls of each method that run at once by how long they wait (overload.go), and refuses what
	// is beyond.
	ShedLoad bool
	// ConnectionsPerAddress is how many connections one address may have open at once: an IPv4 address, or an IPv6 /64.
	// Zero means 1,000; below zero there is no bound, for a server that sees all its callers behind one address and has a
	// bound in front.
	ConnectionsPerAddress int
	// Telemetry is that of the process. Nil means one of its own, which nobody reads.
	Telemetry *telemetry.Telemetry
	// Usage counts the fields that are filled in. Nil means that nobody does.
	Usage *usage.Recorder
	// Checks say whether the service can do its work, by name: its store, its event log. All are asked every few
	// seconds; while one fails, the service is NOT_SERVING.
	Checks map[string]func(context.Context) error
}

// checkEvery is how often the checks are asked, and how long one may take.
const (
	checkEvery   = 5 * time.Second
	checkTimeout = 2 * time.Second
)

// cutGrace is how long handlers have to return once their calls are cut.
const cutGrace = time.Second

// Server serves one or more services.
type Server struct {
	cfg       Config
	grpc      *grpc.Server
	health    *health.Server
	policies  policy.Table
	telemetry *telemetry.Service
	methods   map[string]observed // by full name
	unknown   observed
	arrivals  arrivals
	refusals  *refusals // of connections
	early     *refusals // of calls, by grpc-go itself (early.go)
	digest    func() (string, error)
	found     atomic.Pointer[[]Check] // by the checks when they were last asked
	validator *validator
	run       handler
	checks    []func(*call, protoMessage) error
	drain     context.Context
	startStop context.CancelFunc
	ready     chan struct{}
	readyOnce sync.Once
}

type protoMessage = protoreflect.ProtoMessage

// New returns a Server for the services that register adds. It fails where one of their methods has no policy, or one
// that contradicts itself, or where a validation rule does not compile.
func New(cfg Config, register func(grpc.ServiceRegistrar)) (*Server, error) {
	s := &Server{cfg: cfg, health: health.NewServer(), ready: make(chan struct{})}
	s.refusals = &refusals{text: connectionRefused, log: cfg.Log, clock: cfg.Clock}
	s.early = &refusals{text: callsRefused, log: cfg.Log, clock: cfg.Clock}
	s.cfg.Listener = newListener(cfg.Listener, cfg.ConnectionsPerAddress, s.refusals)
	s.drain, s.startStop = context.WithCancel(context.Background())
	s.grpc = grpc.NewServer(
		grpc.Creds(handshaker{credentials.NewTLS(cfg.Identity.ServerTLS()), cfg.Identity, s.refusals, s.early}),
		grpc.InTapHandle(s.announce),
		grpc.UnknownServiceHandler(func(_ any, ss grpc.ServerStream) error { return s.serve(ss, nil) }), // refused on the way
		grpc.ForceServerCodecV2(codec{protoCodec}),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.MaxSendMsgSize(maxMessageBytes),
		grpc.ConnectionTimeout(connectionTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: connectionIdle, MaxConnectionAge: connectionAge, MaxConnectionAgeGrace: connectionGrace,
			Time: 30 * time.Second, Timeout: 10 * time.Second,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
	)
	all := registrar{s.grpc, s}
	register(all)
	ours, err := descriptors(s.grpc)
	if err != nil {
		return nil, err
	}
	if s.policies, err = policy.Compile(ours...); err != nil {
		return nil, fmt.Errorf("read the policies of the contract: %w", err)
	}
	if s.validator, err = newValidator(ours); err != nil {
		return nil, err
	}
	healthpb.RegisterHealthServer(all, s.health)
	reflection.Register(all)
	for service, info := range s.grpc.GetServiceInfo() {
		for _, method := range info.Methods {
			name := "/" + service + "/" + method.Name
			if m, ok := policy.Framework(name); ok {
				m.ClientStream, m.ServerStream = method.IsClientStream, method.IsServerStream
				s.policies[name] = m
			}
		}
	}
	if err := s.observeMethods(ours); err != nil {
		return nil, err
	}
	s.setServing(false)
	s.compose(s.path())
	return s, nil
}

// descriptors returns the descriptors of the registered services.
func descriptors(g *grpc.Server) ([]protoreflect.ServiceDescriptor, error) {
	var list []protoreflect.ServiceDescriptor
	for _, name := range slices.Sorted(maps.Keys(g.GetServiceInfo())) {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
		if err != nil {
			return nil, fmt.Errorf("find the contract of %s: %w", name, err)
		}
		sd, ok := d.(protoreflect.ServiceDescriptor)
		if !ok {
			return nil, fmt.Errorf("find the contract of %s: it is no service", name)
		}
		list = append(list, sd)
	}
	return list, nil
}

// Addr returns the address that the server listens on.
func (s *Server) Addr() net.Addr { return s.cfg.Listener.Addr() }

// Ready returns a channel that is closed once the server serves and all checks have passed for the first time.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Serve serves until ctx ends, then stops in order: the health service says NOT_SERVING, open streams are told to end,
// calls in flight finish, and after DrainTimeout what is left is cut. It returns nil after a stop that was asked for.
func (s *Server) Serve(ctx context.Context) error {
	checking, stopChecking := context.WithCancel(ctx)
	defer stopChecking()
	go s.watchChecks(checking)
	go s.tellLost(checking)
	failed := make(chan error, 1)
	go func() { failed <- s.grpc.Serve(s.cfg.Listener) }()
	select {
	case err := <-failed:
		s.startStop()
		s.grpc.Stop()
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	s.health.Shutdown()
	s.startStop()
	s.finish()
	s.lost(s.arrivals.over(0, s.cfg.Clock.Now()))
	if err := <-failed; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// finish waits for the calls in flight, for DrainTimeout at most, then cuts them. A handler that does not even return
// when its call is cut is left behind: grpc-go would wait for it for ever.
func (s *Server) finish() {
	done := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(done)
	}()
	last := time.NewTimer(s.cfg.DrainTimeout)
	defer last.Stop()
	select {
	case <-done:
		return
	case <-last.C:
	}
	s.cfg.Log.Warn("drain timed out: cutting what is left", "after", s.cfg.DrainTimeout)
	s.grpc.Stop()
	last.Reset(cutGrace)
	select {
	case <-done:
	case <-last.C:
		s.cfg.Log.Error("handlers ignore that their calls were cut")
	}
}

// Close releases the listener of a server that never served.
func (s *Server) Close() { s.grpc.Stop(); _ = s.cfg.Listener.Close() }

// watchChecks keeps the health service true until ctx ends.
func (s *Server) watchChecks(ctx context.Context) {
	was := ""
	for {
		broken := s.ask(ctx)
		if ctx.Err() != nil {
			return
		}
		s.setServing(broken == "")
		if broken == "" {
			s.readyOnce.Do(func() { close(s.ready) })
		}
		if broken != was {
			if broken != "" {
				s.cfg.Log.Error("not serving", "cause", broken)
			} else {
				s.cfg.Log.Info("serving again")
			}
			was = broken
		}
		select {
		case <-ctx.Done():
			return
		case <-s.cfg.Clock.After(checkEvery):
		}
	}
}

// ask runs the checks, remembers what they found, and returns what is broken, "" for nothing.
func (s *Server) ask(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	var found []Check
	broken := ""
	for _, name := range slices.Sorted(maps.Keys(s.cfg.Checks)) {
		err := s.cfg.Checks[name](ctx)
		found = append(found, Check{name, err})
		if err != nil && broken == "" {
			broken = name + ": " + err.Error()
		}
	}
	s.found.Store(&found)
	return broken
}

func (s *Server) setServing(yes bool) {
	state := healthpb.HealthCheckResponse_NOT_SERVING
	if yes {
		state = healthpb.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus("", state)
	for name := range s.grpc.GetServiceInfo() {
		s.health.SetServingStatus(name, state)
	}
}
