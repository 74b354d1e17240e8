package app

import (
	"net"
	"net/netip"
	"net/url"
	"strings"

	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/settings"
	"github.com/concordat-dev/concordat/services/gateway/internal/forward"
)

// Settings are the gateway's own settings.
type Settings struct {
	HTTP          settings.Address `name:"http" help:"Address of the HTTP listener: REST, Connect, gRPC-Web and the pages. Beyond loopback it needs a certificate." default:"127.0.0.1:8080"`
	GRPC          settings.Address `name:"grpc" help:"Address of the gRPC listener. Beyond loopback it needs a certificate." default:"127.0.0.1:8081"`
	Auth          string           `help:"Where the service auth is, as a gRPC target." default:"dns:///127.0.0.1:50051"`
	Users         string           `help:"Where the service users is, as a gRPC target." default:"dns:///127.0.0.1:50052"`
	Payments      string           `help:"Where the service payments is, as a gRPC target." default:"dns:///127.0.0.1:50053"`
	EdgeCert      string           `help:"PEM file of the certificate, with its chain, that both listeners show to callers. Read again when it changes."`
	EdgeKey       string           `help:"PEM file of the certificate's private key."`
	AllowedOrigin []string         `help:"Origin whose pages may call from a browser, such as https://app.example.com. May be repeated." placeholder:"ORIGIN"`
	TrustedProxy  []netip.Prefix   `help:"Network of proxies whose X-Forwarded-For counts, such as 10.0.0.0/8. May be repeated." placeholder:"CIDR"`
	MaxBody       int              `help:"Largest body of an HTTP request, and largest message of a stream, in bytes: 1024 to 4194304." default:"4194304"`

	// HTTPListener and GRPCListener are used instead of HTTP and GRPC where they are set. The App takes them over.
	HTTPListener net.Listener `kong:"-"`
	GRPCListener net.Listener `kong:"-"`
}

// Config is the settings of the gateway as a program.
type Config struct {
	Settings   `embed:""`
	kit.Common `embed:""`
	Admin      settings.Address `help:"Address of the admin port, for operators: metrics, checks and profiles over HTTP. An empty flag means none." default:"127.0.0.1:51080"`
}

// Validate finds settings that cannot be meant.
func (c *Config) Validate() []settings.Problem {
	problems := c.ValidateAdmin(&c.Admin)
	if c.UsageSample != 0 {
		problems = append(problems, settings.Wrong(&c.UsageSample, "the gateway does not look into what it forwards: the services count"))
	}
	return problems
}

const minBody = 1024

// Validate finds settings that do not go together.
func (s *Settings) Validate() []settings.Problem {
	var problems []settings.Problem
	wrong := func(field any, format string, args ...any) {
		problems = append(problems, settings.Wrong(field, format, args...))
	}
	switch {
	case (s.EdgeCert == "") != (s.EdgeKey == ""):
		wrong(&s.EdgeCert, "the certificate and its key go together")
	case s.EdgeCert == "":
		if s.HTTPListener == nil && !s.HTTP.Loopback() {
			wrong(&s.HTTP, "%s can be reached from other machines, which needs a certificate: --edge-cert and --edge-key", s.HTTP)
		}
		if s.GRPCListener == nil && !s.GRPC.Loopback() {
			wrong(&s.GRPC, "%s can be reached from other machines, which needs a certificate: --edge-cert and --edge-key", s.GRPC)
		}
	}
	for _, o := range s.AllowedOrigin {
		if !isOrigin(o) {
			wrong(&s.AllowedOrigin, "%q is not an origin such as https://app.example.com", o)
		}
	}
	if s.MaxBody < minBody || s.MaxBody > forward.MaxMessageBytes {
		wrong(&s.MaxBody, "%d is not from %d to %d", s.MaxBody, minBody, forward.MaxMessageBytes)
	}
	for _, t := range []*string{&s.Auth, &s.Users, &s.Payments} {
		if *t == "" {
			wrong(t, "must not be empty")
		}
	}
	return problems
}

// isOrigin reports whether a text is an origin as browsers write it: scheme, host and, unless it is the scheme's, port.
func isOrigin(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && s == strings.ToLower(u.Scheme+"://"+u.Host)
}
