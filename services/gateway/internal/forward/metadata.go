package forward

import (
	"context"
	"strings"

	"google.golang.org/grpc/metadata"

	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/server"
)

// maxAuthorization bounds the token that passes, in bytes. Services take 16 KiB of headers in all; a token of ours has
// about 600.
const maxAuthorization = 9 << 10

// outgoing returns the context of the call to the service. Of the caller's metadata only what the contract knows passes:
// the token; the trace, the id of the request and the deadline go with the context. The address of the caller is
// always ours to say, whatever the caller said.
func outgoing(ctx context.Context, c *call) (context.Context, error) {
	in, _ := metadata.FromIncomingContext(ctx)
	out := metadata.Pairs(server.ClientAddressHeader, c.address)
	if tokens := in["authorization"]; len(tokens) > 0 {
		if size(tokens) > maxAuthorization {
			return nil, errHeaderTooLarge
		}
		out["authorization"] = tokens
	}
	// The connection adds the trace, which is that of the call at the edge, and what is declared to go on from call to call:
	// that is for services to declare among themselves, and nobody outside says it.
	ctx = metadata.NewIncomingContext(ctx, nil)
	return identity.WithRequestID(metadata.NewOutgoingContext(ctx, out), c.id), nil
}

func size(values []string) int {
	n := 0
	for _, v := range values {
		n += len(v)
	}
	return n
}

// returned returns what of a service's headers or trailers is for the caller: all but what belongs to the transport,
// and the id of the request, which the edge has given already.
func returned(md metadata.MD) metadata.MD {
	out := make(metadata.MD, len(md))
	for name, values := range md {
		switch {
		case name == "grpc-retry-pushback-ms": // gRFC A6: the one word of the transport that is the service's to say
			out[name] = values
		case name == RequestIDHeader, name == "content-type", name == "date", name == "server", name == "trailer",
			strings.HasPrefix(name, ":"), strings.HasPrefix(name, "grpc-"), strings.HasPrefix(name, "x-envoy-"),
			strings.HasPrefix(name, "x-concordat-"):
		default:
			out[name] = values
		}
	}
	return out
}
