// Package kittest runs a service behind the real request path for tests: mutual TLS, tokens, policy, validation and
// faults are those of production; only the wire is memory.
package kittest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"

	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/grpcfault"
	"github.com/concordat-dev/concordat/kit/id"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/pki"
	"github.com/concordat-dev/concordat/kit/server"
	"github.com/concordat-dev/concordat/kit/telemetry"
	"github.com/concordat-dev/concordat/kit/token"
	"github.com/concordat-dev/concordat/kit/usage"
)

// Issuer and Audience of the tokens that a Harness makes.
const (
	Issuer   = "https://issuer.test"
	Audience = "concordat"
)

// Options change what a Harness is made of.
type Options struct {
	// Name is the name in the server's certificate; "" means "test".
	Name string
	// Clock is the server's time, and that of its tokens; nil means the system's.
	Clock clock.Clock
	// Tokens verifies access tokens; nil means those that the Harness makes.
	Tokens server.Tokens
	// Dir holds the PKI; "" means a temporary directory. Harnesses with one Dir trust each other.
	Dir string
	// DrainTimeout is the bound of Stop; zero means five seconds.
	DrainTimeout time.Duration
	// Checks are those of server.Config.
	Checks map[string]func(context.Context) error
	// Telemetry is that of the process; nil means one that nobody reads.
	Telemetry *telemetry.Telemetry
	// Listener is where to serve instead of in memory.
	Listener net.Listener
	// ConnectionsPerAddress is that of server.Config.
	ConnectionsPerAddress int
	// ShedLoad is that of server.Config.
	ShedLoad bool
	// Usage is that of server.Config.
	Usage *usage.Recorder
}

// Harness is a running server and ways to call it.
type Harness struct {
	// Log is what the server has logged.
	Log *Log

	t      testing.TB
	opts   Options
	dev    *pki.Development
	addr   net.Addr
	dial   func(context.Context) (net.Conn, error)
	signer *token.Signer
	newID  func() string
	stop   context.CancelFunc
	done   chan error
}

// Serve is Start for one service: its generated register function and what implements it.
//
//	h := kittest.Serve[usersv1.UserServiceServer](t, usersv1.RegisterUserServiceServer, api.New(…))
func Serve[S any](t testing.TB, register func(grpc.ServiceRegistrar, S), impl S, options ...func(*Options)) *Harness {
	t.Helper()
	return Start(t, func(r grpc.ServiceRegistrar) { register(r, impl) }, options...)
}

// Start serves what register adds, until the test ends. It fails the test where server.New fails.
func Start(t testing.TB, register func(grpc.ServiceRegistrar), options ...func(*Options)) *Harness {
	t.Helper()
	opts := Options{Name: "test", Clock: clock.System(), DrainTimeout: 5 * time.Second}
	for _, o := range options {
		o(&opts)
	}
	if opts.Dir == "" {
		opts.Dir = t.TempDir()
	}
	h := &Harness{t: t, opts: opts, Log: &Log{}, done: make(chan error, 1)}
	var err error
	// Certificates live by the real clock, which TLS itself reads.
	if h.dev, err = pki.NewDevelopment(opts.Dir, "concordat", clock.System()); err != nil {
		t.Fatal(err)
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	h.newID = id.Generator(opts.Clock, rand.Reader)
	h.signer = token.NewSigner(private, Issuer, Audience, opts.Clock, h.newID)
	tokens := opts.Tokens
	if tokens == nil {
		tokens = token.NewVerifier(token.VerifierConfig{Issuer: Issuer, Audience: Audience, Clock: opts.Clock, Keys: h.Keys})
	}
	listener := opts.Listener
	if listener == nil {
		memory := bufconn.Listen(1 << 20)
		listener, h.dial = memory, memory.DialContext
	} else {
		address := listener.Addr().String()
		h.dial = func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "tcp", address) }
	}
	h.addr = listener.Addr()
	srv, err := server.New(server.Config{
		Listener: listener, Identity: h.Identity(opts.Name), Tokens: tokens, Edge: kit.Edge,
		Log: slog.New(slog.NewJSONHandler(h.Log, &slog.HandlerOptions{Level: slog.LevelDebug})), Clock: opts.Clock,
		NewID: h.newID, DrainTimeout: opts.DrainTimeout, Checks: opts.Checks, Telemetry: opts.Telemetry,
		ConnectionsPerAddress: opts.ConnectionsPerAddress, ShedLoad: opts.ShedLoad, Usage: opts.Usage,
	}, register)
	if err != nil {
		t.Fatalf("server.New: %v", err)
	}
	var ctx context.Context
	ctx, h.stop = context.WithCancel(context.Background())
	go func() { h.done <- srv.Serve(ctx) }()
	t.Cleanup(func() {
		if err := h.Stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return h
}

// Stop stops the server as a signal would, and returns once it has: what Serve returned. Further calls return nil.
func (h *Harness) Stop() error {
	h.stop()
	err, ok := <-h.done
	if ok {
		close(h.done)
	}
	return err
}

// Begin tells the server to stop and does not wait.
func (h *Harness) Begin() { h.stop() }

// Addr returns the address that the server listens on: of the Listener where there is one, else a name for memory.
func (h *Harness) Addr() net.Addr { return h.addr }

// Keys returns the keys that verify the tokens of the Harness.
func (h *Harness) Keys(context.Context) ([]token.Key, error) { return []token.Key{h.signer.Key()}, nil }

// Identity returns a certificate of that name, signed by the authority that the server trusts.
func (h *Harness) Identity(name string) *pki.Identity {
	h.t.Helper()
	i, err := h.dev.Identity(context.Background(), name, func(err error) { h.t.Error(err) })
	if err != nil {
		h.t.Fatal(err)
	}
	return i
}

// Token returns an access token for ten minutes.
func (h *Harness) Token(userID string, scopes ...string) string {
	h.t.Helper()
	return h.TokenFor(identity.User{
		ID: userID, SessionID: "session-of-" + userID, Scopes: scopes, ExpiresAt: h.opts.Clock.Now().Add(10 * time.Minute),
	})
}

// TokenFor returns an access token for the user.
func (h *Harness) TokenFor(user identity.User) string {
	h.t.Helper()
	text, err := h.signer.Sign(user)
	if err != nil {
		h.t.Fatal(err)
	}
	return text
}

// As returns a connection over which every call is a user's, through the edge.
func (h *Harness) As(userID string, scopes ...string) *grpc.ClientConn {
	h.t.Helper()
	return h.WithToken(h.Token(userID, scopes...))
}

// WithToken returns a connection through the edge that carries the token.
func (h *Harness) WithToken(token string) *grpc.ClientConn {
	h.t.Helper()
	return h.connect(kit.Edge, grpc.WithChainUnaryInterceptor(
		func(ctx context.Context, method string, req, resp any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return invoke(withToken(ctx, token), method, req, resp, cc, opts...)
		}), grpc.WithChainStreamInterceptor(
		func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return open(withToken(ctx, token), desc, cc, method, opts...)
		}))
}

func withToken(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

// Anonymous returns a connection through the edge without a token.
func (h *Harness) Anonymous() *grpc.ClientConn { return h.connect(kit.Edge) }

// AsService returns a connection with the certificate of a service.
func (h *Harness) AsService(name string) *grpc.ClientConn { return h.connect(name) }

func (h *Harness) connect(peer string, opts ...grpc.DialOption) *grpc.ClientConn {
	h.t.Helper()
	conn, err := grpc.NewClient("passthrough:///kittest", append([]grpc.DialOption{
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return h.dial(ctx) }),
		grpc.WithTransportCredentials(credentials.NewTLS(h.Identity(peer).ClientTLS(h.opts.Name))),
	}, opts...)...)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// WantFault fails the test unless err is a status of that code and reason. It returns the fault.
func WantFault(t testing.TB, err error, code codes.Code, reason string) *fault.Fault {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %v %s", code, reason)
	}
	f := grpcfault.FromError(err)
	if grpcfault.Code(f.Kind()) != code || f.Reason() != reason {
		t.Fatalf("%v %s (%v), want %v %s", grpcfault.Code(f.Kind()), f.Reason(), err, code, reason)
	}
	return f
}

// WantViolations fails the test unless the fault names exactly these fields.
func WantViolations(t testing.TB, f *fault.Fault, fields ...string) {
	t.Helper()
	var got []string
	for _, v := range f.Violations() {
		got = append(got, v.Field)
	}
	slices.Sort(got)
	slices.Sort(fields)
	if got = slices.Compact(got); !slices.Equal(got, fields) {
		t.Fatalf("violations of %v, want of %v", got, fields)
	}
}

// Log collects what is logged. It is safe for concurrent use.
type Log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// String returns all that was logged, one JSON object a line.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

var _ io.Writer = (*Log)(nil)
