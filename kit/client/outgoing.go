package client

import (
	"context"
	"runtime/debug"

	"google.golang.org/grpc/metadata"

	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/telemetry"
)

const (
	// RequestIDHeader is sent with every call that is made on behalf of another one.
	RequestIDHeader = "x-request-id"
	// ClientHeader is sent with every call and says who made it, "<service>/<version>", for the logs of who is called. It
	// proves nothing: the certificate does.
	ClientHeader = telemetry.ClientHeader
)

// outgoing adds who we are, the id of the request that ctx belongs to, its trace, and the metadata that is declared to
// go on. The deadline of ctx goes with it: a call that is made for another one has what is left of the other's time.
func (c *caller) outgoing(ctx context.Context) context.Context {
	ctx = telemetry.Outgoing(ctx)
	if id := identity.RequestID(ctx); id != "" {
		return metadata.AppendToOutgoingContext(ctx, ClientHeader, c.agent, RequestIDHeader, id)
	}
	return metadata.AppendToOutgoingContext(ctx, ClientHeader, c.agent)
}

// agent returns the value of ClientHeader: the version of the main module, else the commit that was built, else
// "devel".
func agent(service string, build *debug.BuildInfo) string {
	version := "devel"
	if build != nil {
		if v := build.Main.Version; v != "" && v != "(devel)" {
			version = v
		} else {
			for _, s := range build.Settings {
				if s.Key == "vcs.revision" && s.Value != "" {
					version = s.Value[:min(len(s.Value), 12)]
				}
			}
		}
	}
	return service + "/" + version
}
