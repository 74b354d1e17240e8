package rpc

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/pki"
	"github.com/concordat-dev/concordat/kit/server"
	"github.com/concordat-dev/concordat/kit/settings"
	"github.com/concordat-dev/concordat/kit/token"
)

// Variable is the environment variable that makes this program one of the servers that are measured: it names the variant.
const Variable = "PROOF_RPC_SERVER"

// The variants. All serve the same handlers over the same mutual TLS.
const (
	bare  = "bare"  // grpc-go and nothing else
	path  = "path"  // a service as kit makes it, from kit.Main on
	stock = "stock" // grpc-go with the libraries that do what the path does
)

// serverName is the name in the certificate of every variant, and nearby that of a service that calls it.
const (
	serverName = "users"
	nearby     = "payments"
)

// Serve is the main function of a measured server. It serves until standard input ends, and returns the exit code.
func Serve(variant string) int {
	if variant == path {
		kit.MainOf(settings.Program{Name: serverName, Description: "A service without a store, to be measured."}, servePath)
		return 0 // not reached: MainOf exits
	}
	if err := serveOther(variant, os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// pathConfig is the settings of the variant path.
type pathConfig struct {
	kit.Common `embed:""`
	KeyID      string `help:"Id of the key that verifies access tokens."`
	Key        string `help:"The key, as a JSON Web Key's x."`
}

// servePath serves as the services of ours do.
func servePath(ctx context.Context, cfg pathConfig, deps kit.Deps) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	feed := newFeed()
	h, err := kit.NewHost(ctx, kit.HostConfig{
		Name: serverName, Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", Common: cfg.Common, Deps: deps,
	}, func(h *kit.Host) error {
		key, err := token.ParseKey(cfg.KeyID, cfg.Key)
		if err != nil {
			return err
		}
		keys := func(context.Context) ([]token.Key, error) { return []token.Key{key}, nil }
		return h.Serves(h.Verifier(keys), nil, func(r grpc.ServiceRegistrar) { register(r, feed, server.Tell[*event]) })
	})
	if err != nil {
		return err
	}
	go func() {
		select {
		case <-h.Ready():
			stop(controls(h.Addr().String(), feed, os.Stdin, deps.Out))
		case <-ctx.Done():
		}
	}()
	return h.Run(ctx)
}

// serveOther serves without the kit's path.
func serveOther(variant string, args []string, in io.Reader, out io.Writer) error {
	flags := flag.NewFlagSet(variant, flag.ContinueOnError)
	dir := flags.String("pki", "", "directory of the development PKI")
	kid := flags.String("key-id", "", "id of the key that verifies access tokens")
	x := flags.String("key", "", "the key, as a JSON Web Key's x")
	trustDomain := flags.String("trust-domain", trustDomain, "SPIFFE trust domain")
	if err := flags.Parse(args); err != nil {
		return err
	}
	dev, err := pki.NewDevelopment(*dir, *trustDomain, clock.System())
	if err != nil {
		return err
	}
	identity, err := dev.Identity(context.Background(), serverName, func(err error) { fmt.Fprintln(os.Stderr, err) })
	if err != nil {
		return err
	}
	options := []grpc.ServerOption{grpc.Creds(credentials.NewTLS(identity.ServerTLS()))}
	if variant == stock {
		key, err := token.ParseKey(*kid, *x)
		if err != nil {
			return err
		}
		chain, shutdown, err := stockChain(key, os.Stderr)
		if err != nil {
			return err
		}
		defer shutdown()
		options = append(options, chain...)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := grpc.NewServer(options...)
	feed := newFeed()
	register(s, feed, tellPrepared)
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(listener) }()
	err = controls(listener.Addr().String(), feed, in, out)
	s.Stop()
	if serveErr := <-failed; err == nil {
		err = serveErr
	}
	return err
}
