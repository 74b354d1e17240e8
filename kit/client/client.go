// Package client connects to services the way the contract says: mutual TLS with the expected name at the other end,
// deadlines, retries, hedges and compression from the policy of each method, every healthy replica in turn, and errors that
// arrive as the faults they were. It promises that a call which may be repeated is not sent without its idempotency key,
// that a call which has no time left is not sent at all, and that an access token goes only over TLS and only to methods
// that are for users.
package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding/gzip"
	_ "google.golang.org/grpc/health" // client-side health checking, asked for by the service config
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/grpcfault"
	"github.com/concordat-dev/concordat/kit/pki"
	"github.com/concordat-dev/concordat/kit/policy"
	"github.com/concordat-dev/concordat/kit/telemetry"
)

// Config is what a connection needs; every field but Token, Telemetry and Options is required.
type Config struct {
	// Target is where the service is: "dns:///users.default.svc:50052", host:port, or the replicas one by one,
	// "static:///host1:50052,host2:50052".
	Target string
	// Server is the name that the certificate at the other end must have.
	Server string
	// Identity is the certificate to show.
	Identity *pki.Identity
	// Services are what is called over the connection; their policies become the service config.
	Services []protoreflect.ServiceDescriptor
	// Token returns the access token that goes with each call to a method for users; see Token. Nil where the caller is
	// a service and nobody else. Other methods get none: a method for services alone refuses a call with a token.
	Token credentials.PerRPCCredentials
	// Telemetry is that of the service that calls: its metrics count the calls, and its traces have a span for each that is
	// made within one that is recorded. Nil means that nobody is told; a trace goes on all the same.
	Telemetry *telemetry.Service
	// Options are added last.
	Options []grpc.DialOption
}

// Dial returns a connection, which connects when it is first used and again whenever it broke: the service need not be
// there yet. One connection serves the whole process. The error of a call over it is a fault: errors.Is finds it by
// kind and reason.
func Dial(cfg Config) (*grpc.ClientConn, error) {
	table, err := policy.Compile(cfg.Services...)
	if err != nil {
		return nil, fmt.Errorf("read the policies of %s: %w", cfg.Server, err)
	}
	serviceConfig, err := ServiceConfig(table)
	if err != nil {
		return nil, fmt.Errorf("service config of %s: %w", cfg.Server, err)
	}
	if err := checkTarget(cfg.Target); err != nil {
		return nil, fmt.Errorf("connect to %s at %s: %w", cfg.Server, cfg.Target, err)
	}
	build, _ := debug.ReadBuildInfo() // nil without modules
	c := newCaller(table, cfg.Server, agent(cfg.Identity.Name(), build), cfg.Token)
	if c.observer, err = newObserver(cfg.Telemetry, table, cfg.Target, cfg.Server); err != nil {
		return nil, fmt.Errorf("telemetry of calls to %s: %w", cfg.Server, err)
	}
	conn, err := grpc.NewClient(cfg.Target, append([]grpc.DialOption{
		grpc.WithResolvers(static{authority: cfg.Server}),
		grpc.WithTransportCredentials(credentials.NewTLS(cfg.Identity.ClientTLS(cfg.Server))),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDisableServiceConfig(), // not from DNS: the contract alone says it
		grpc.WithNoProxy(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: 5 * time.Second}),
		// A server of ours takes a ping every 10 s. The health check keeps a stream open, so that a dead peer is found even
		// where nobody calls.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithChainUnaryInterceptor(c.unary),
		grpc.WithChainStreamInterceptor(c.stream),
	}, cfg.Options...)...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s at %s: %w", cfg.Server, cfg.Target, err)
	}
	return conn, nil
}

// reconnect is how often a service that is not there is looked for. grpc-go's own goes up to two minutes, which is how long
// everybody would then wait for a service that was started last, or again.
var reconnect = backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second}

// hopeless is the shortest time worth sending a call for; the server refuses what has less.
const hopeless = 2 * time.Millisecond

var (
	errHopeless = fault.New(fault.DeadlineExceeded, "DEADLINE_TOO_SHORT", "what is left of the deadline is too short").WithDomain(fault.Domain)
	errNoKey    = fault.New(fault.InvalidArgument, "INVALID_REQUEST", "the request breaks the rules of its message").WithDomain(fault.Domain)
)

// caller makes the calls of one connection.
type caller struct {
	table    policy.Table
	server   string // the name of the other end
	agent    string // what we say of ourselves
	options  map[string][]grpc.CallOption
	throttle *throttle // of hedges; nil where no method has any
	observer *observer // nil where nobody is told of calls
}

func newCaller(table policy.Table, server, agent string, token credentials.PerRPCCredentials) *caller {
	c := &caller{table: table, server: server, agent: agent, options: make(map[string][]grpc.CallOption)}
	for name, m := range table {
		if m.Gzip {
			c.options[name] = append(c.options[name], grpc.UseCompressor(gzip.Name))
		}
		if token != nil && m.User {
			c.options[name] = append(c.options[name], grpc.PerRPCCredentials(token))
		}
		if m.Hedge != nil {
			c.throttle = newThrottle()
		}
	}
	return c
}

func (c *caller) unary(ctx context.Context, method string, req, resp any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	ctx, o := c.observer.begin(ctx, method)
	err := c.call(ctx, o, method, req, resp, conn, invoke, opts)
	o.end(err)
	return err
}

func (c *caller) call(ctx context.Context, o *observation, method string, req, resp any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts []grpc.CallOption) error {
	m := c.table[method] // nil for what is no method of ours
	if err := admit(ctx); err != nil {
		return err
	}
	if err := checkKey(m, req); err != nil {
		return err
	}
	ctx, opts = c.outgoing(ctx), o.with(c.with(method, opts))
	o.sent()
	var err error
	if msg, ok := resp.(protoMessage); ok && m != nil && m.Hedge != nil {
		err = c.hedge(ctx, m, msg, func(ctx context.Context, resp protoMessage, opts []grpc.CallOption) error {
			return invoke(ctx, method, req, resp, conn, opts...)
		}, opts)
	} else {
		err = c.throttle.counted(invoke(ctx, method, req, resp, conn, opts...))
	}
	if err == nil {
		o.received()
	}
	return c.fault(err)
}

func (c *caller) stream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx, o := c.observer.begin(ctx, method)
	if err := admit(ctx); err != nil {
		o.end(err)
		return nil, err
	}
	s := &clientStream{caller: c, observation: o, cancel: func() {}}
	if m := c.table[method]; m != nil && m.Retry != nil && m.Key != nil {
		s.keyed = m
		ctx, s.cancel = context.WithCancel(ctx)
	}
	opts = o.with(c.with(method, opts))
	if o != nil || s.keyed != nil {
		opts = append(opts[:len(opts):len(opts)], grpc.OnFinish(s.finished))
	}
	// A service config's timeout would end a stream for good; its life is the server's to bound.
	var err error
	if s.ClientStream, err = open(c.outgoing(ctx), desc, conn, method, opts...); err != nil {
		s.cancel()
		err = c.fault(err)
		o.end(err)
		return nil, err
	}
	return s, nil
}

type protoMessage = protoreflect.ProtoMessage

// with returns the options of the method before those of the call, which win.
func (c *caller) with(method string, opts []grpc.CallOption) []grpc.CallOption {
	ours := c.options[method]
	if len(ours) == 0 {
		return opts
	}
	return append(ours[:len(ours):len(ours)], opts...)
}

// admit refuses a call whose time is over, or so nearly over that no answer can come: nothing of it is sent.
func admit(ctx context.Context) error {
	if d, ok := ctx.Deadline(); ok && time.Until(d) < hopeless {
		return errHopeless
	}
	if err := ctx.Err(); err != nil {
		return grpcfault.FromError(err)
	}
	return nil
}

// checkKey refuses a request that may be repeated and has no key: the repetition would be a second call. What is no
// message, such as the frame of a forwarder, is for the service to check.
func checkKey(m *policy.Method, req any) error {
	if msg, ok := req.(protoMessage); ok && m != nil && m.LacksKey(msg) {
		return errNoKey.WithViolation(m.Key.Path, "required", "a call that may be repeated needs its key")
	}
	return nil
}

// fault turns a status into the fault that it stands for.
func (c *caller) fault(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	f := grpcfault.FromError(err)
	if f.Kind() == fault.Unavailable && f.Metadata()["upstream"] == "" {
		f = f.With("upstream", c.server)
	}
	return f
}
