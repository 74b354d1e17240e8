package conformance

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/orca"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/pki"
	"github.com/concordat-dev/concordat/kit/settings"
	"github.com/concordat-dev/concordat/kit/token"
)

// Variable is the environment variable that makes this program one of those that a run consists of: it names the role.
const Variable = "PROOF_CONFORMANCE"

// The roles.
const (
	path   = "path"   // the server under test: a service as kit makes it, from kit.Main on
	stock  = "stock"  // grpc-go with the same certificates, and nothing between it and the handlers
	client = "client" // one case of the interoperability client
)

// maxStreams is how many calls a connection may have, as the kit has it.
const maxStreams = 1000

// What the certificates say.
const (
	trustDomain = "concordat"
	serverName  = "conformance"
	clientName  = "interop"
)

// Serve is the main function of a role, and returns the exit code. A server serves until standard input ends.
func Serve(role string) int {
	var err error
	switch role {
	case path:
		kit.MainOf(settings.Program{Name: serverName, Description: "The server of the interoperability cases, behind the kit's path."}, servePath)
		return 0 // not reached: MainOf exits
	case stock:
		err = serveStock(os.Args[1:], os.Stdin, os.Stdout)
	case client:
		err = runCase(os.Args[1:])
	default:
		err = fmt.Errorf("%s=%q is no role", Variable, role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// testService is grpc-go's, except that it names itself, as the case pick_first_unary asks of a server.
type testService struct {
	testgrpc.TestServiceServer
	name string
}

// UnaryCall implements testgrpc.TestServiceServer.
func (s testService) UnaryCall(ctx context.Context, req *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
	resp, err := s.TestServiceServer.UnaryCall(ctx, req)
	if err == nil && req.GetFillServerId() {
		resp.ServerId = s.name
	}
	return resp, err
}

func register(r grpc.ServiceRegistrar) {
	testgrpc.RegisterTestServiceServer(r, testService{interop.NewTestServer(), serverName})
}

// pathConfig is the settings of the role path.
type pathConfig struct {
	kit.Common `embed:""`
}

// servePath serves as the services of ours do.
func servePath(ctx context.Context, cfg pathConfig, deps kit.Deps) error {
	files, err := withPolicies(protoregistry.GlobalFiles)
	if err != nil {
		return err
	}
	protoregistry.GlobalFiles = files // of this process, which serves nothing else
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	h, err := kit.NewHost(ctx, kit.HostConfig{
		Name: serverName, Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", Common: cfg.Common, Deps: deps,
	}, func(h *kit.Host) error {
		nobody := func(context.Context) ([]token.Key, error) { return nil, nil } // no method here is for users
		return h.Serves(h.Verifier(nobody), nil, register)
	})
	if err != nil {
		return err
	}
	go func() {
		select {
		case <-h.Ready():
			stop(untilTold(h.Addr(), os.Stdin, deps.Out))
		case <-ctx.Done():
		}
	}()
	return h.Run(ctx)
}

// serveStock serves without the kit's path.
func serveStock(args []string, in io.Reader, out io.Writer) error {
	flags := flag.NewFlagSet(stock, flag.ContinueOnError)
	dir := flags.String("pki", "", "directory of the development PKI")
	if err := flags.Parse(args); err != nil {
		return err
	}
	certificate, err := identityOf(context.Background(), *dir, serverName)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(certificate.ServerTLS())),
		// Stock grpc-go announces no limit, as the kit does, and h2spec then skips its case about it.
		grpc.MaxConcurrentStreams(maxStreams),
		orca.CallMetricsServerOption(nil), // as grpc-go's interoperability server has it
	)
	register(s)
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(listener) }()
	err = untilTold(listener.Addr(), in, out)
	s.Stop()
	return errors.Join(err, <-failed)
}

// untilTold says that the server serves at the address, and returns when the input ends.
func untilTold(address net.Addr, in io.Reader, out io.Writer) error {
	if _, err := fmt.Fprintln(out, address); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, in)
	return err
}

// identityOf returns a certificate of the PKI of a run.
func identityOf(ctx context.Context, dir, name string) (*pki.Identity, error) {
	dev, err := pki.NewDevelopment(dir, trustDomain, clock.System())
	if err != nil {
		return nil, err
	}
	return dev.Identity(ctx, name, func(err error) { fmt.Fprintln(os.Stderr, err) })
}
