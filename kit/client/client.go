// Package client connects to services the way the contract says: mutual TLS with the expected name at the other end,
// deadlines and retries from the policy of each method, every healthy replica in turn, and errors that arrive as the
// faults they were.
package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/health" // client-side health checking, asked for by the service config
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/grpcfault"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/pki"
	"github.com/concordat-dev/concordat/kit/policy"
)

// Config is what a connection needs; every field but Options is required.
type Config struct {
	// Target is where the service is: "dns:///users.default.svc:50052", or host:port.
	Target string
	// Server is the name that the certificate at the other end must have.
	Server string
	// Identity is the certificate to show.
	Identity *pki.Identity
	// Services are what is called over the connection; their policies become the service config.
	Services []protoreflect.ServiceDescriptor
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
	c := caller{table: table, server: cfg.Server}
	conn, err := grpc.NewClient(cfg.Target, append([]grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(cfg.Identity.ClientTLS(cfg.Server))),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDisableServiceConfig(), // not from DNS: the contract alone says it
		grpc.WithNoProxy(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: 5 * time.Second}),
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

// RequestIDHeader is sent with every call that is made on behalf of another one.
const RequestIDHeader = "x-request-id"

type caller struct {
	table  policy.Table
	server string
}

func (c caller) unary(ctx context.Context, method string, req, resp any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return c.fault(invoke(outgoing(ctx), method, req, resp, conn, opts...))
}

func (c caller) stream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	// A service config's timeout would end a stream for good; its life is the server's to bound.
	s, err := open(outgoing(ctx), desc, conn, method, opts...)
	if err != nil {
		return nil, c.fault(err)
	}
	return clientStream{s, c}, nil
}

// outgoing adds the id of the request that ctx belongs to.
func outgoing(ctx context.Context) context.Context {
	if id := identity.RequestID(ctx); id != "" {
		return metadata.AppendToOutgoingContext(ctx, RequestIDHeader, id)
	}
	return ctx
}

// fault turns a status into the fault that it stands for.
func (c caller) fault(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	f := grpcfault.FromError(err)
	if f.Kind() == fault.Unavailable && f.Metadata()["upstream"] == "" {
		f = f.With("upstream", c.server)
	}
	return f
}

type clientStream struct {
	grpc.ClientStream
	caller caller
}

func (s clientStream) RecvMsg(m any) error { return s.caller.fault(s.ClientStream.RecvMsg(m)) }
func (s clientStream) SendMsg(m any) error { return s.caller.fault(s.ClientStream.SendMsg(m)) }
func (s clientStream) CloseSend() error    { return s.caller.fault(s.ClientStream.CloseSend()) }
func (s clientStream) Header() (metadata.MD, error) {
	md, err := s.ClientStream.Header()
	return md, s.caller.fault(err)
}
