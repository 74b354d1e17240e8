package kit

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/pki"
	"github.com/concordat-dev/concordat/kit/settings"
	"github.com/concordat-dev/concordat/kit/telemetry"
)

// Edge is the name in the certificate of the gateway, which is never a service to anybody.
const Edge = "gateway"

// Developer is the name in the certificate of the person at the keyboard, in the development PKI alone.
const Developer = "developer"

// Common is the settings that every service has.
type Common struct {
	PKI          string        `name:"pki" help:"Directory of the development PKI. It is made when it is missing, and not used when --tls-ca, --tls-cert and --tls-key are given." default:".concordat/pki"`
	TLSCA        string        `name:"tls-ca" help:"PEM file of the certificate authorities that peers are held against."`
	TLSCert      string        `name:"tls-cert" help:"PEM file of this service's certificate, whose URI is spiffe://<trust domain>/<service>. Read again when it changes."`
	TLSKey       string        `name:"tls-key" help:"PEM file of the certificate's private key."`
	TrustDomain  string        `help:"SPIFFE trust domain of this service and its peers." default:"concordat"`
	Issuer       string        `help:"Issuer (iss) of access tokens." default:"http://localhost:8080"`
	Audience     string        `help:"Audience (aud) of access tokens." default:"concordat"`
	DrainTimeout time.Duration `help:"How long calls may go on after the process is told to stop." default:"10s"`
	ShedLoad     bool          `help:"Refuse calls at once (OVERLOADED) when more run than can be done in time, instead of letting all of them wait."`
	// ConnectionsPerAddress is that of server.Config: zero, which the setting cannot be, means the default.
	ConnectionsPerAddress int `help:"How many connections one address, an IPv4 one or an IPv6 /64, may have open at a listener at once; more are closed. At the gateway, the addresses of --trusted-proxy have no bound. Below zero (=-1) there is none at all, for a listener that sees all its callers behind one address and has a bound in front." default:"1000"`

	LogLevel  string `help:"Least level that is logged: debug, info, warn or error." enum:"debug,info,warn,error" default:"info"`
	LogFormat string `help:"How log lines look: text or json." enum:"text,json" default:"text"`

	UsageSample         uint32   `help:"Look at one in so many messages and count which fields of the contract are filled in, by which peer and when last, for /usage at the admin port. Values are never kept. 0 counts nothing." default:"0" placeholder:"N"`
	AdminBeyondLoopback bool     `help:"Let --admin be an address that other machines can reach. It asks nobody who they are: guard it by other means."`
	TraceRatio          float64  `help:"Share of the traces that begin here and are recorded, 0 to 1. Traces that began elsewhere are recorded where they were there. OTEL_TRACES_SAMPLER beats it." default:"0.01"`
	PropagateMetadata   []string `help:"Name of metadata, such as x-feature-flags, that goes on from a call to the calls made for it. May be repeated." placeholder:"NAME"`
}

// Validate finds settings that do not go together.
func (c *Common) Validate() []settings.Problem {
	var problems []settings.Problem
	given := 0
	for _, f := range []*string{&c.TLSCA, &c.TLSCert, &c.TLSKey} {
		if *f != "" {
			given++
		}
	}
	if given != 0 && given != 3 {
		problems = append(problems, settings.Wrong(&c.TLSCert, "--tls-ca, --tls-cert and --tls-key go together"))
	}
	if c.DrainTimeout <= 0 {
		problems = append(problems, settings.Wrong(&c.DrainTimeout, "must be above zero"))
	}
	if c.ConnectionsPerAddress == 0 {
		problems = append(problems, settings.Wrong(&c.ConnectionsPerAddress, "must not be 0: below zero there is no bound"))
	}
	if c.Issuer == "" || c.Audience == "" {
		problems = append(problems, settings.Wrong(&c.Issuer, "issuer and audience must not be empty"))
	}
	if err := telemetry.CheckRatio(c.TraceRatio); err != nil {
		problems = append(problems, settings.Wrong(&c.TraceRatio, "%v", err))
	}
	if err := telemetry.CheckPropagate(c.PropagateMetadata); err != nil {
		problems = append(problems, settings.Wrong(&c.PropagateMetadata, "%v", err))
	}
	return problems
}

// ValidateAdmin finds what is wrong with the address of the admin port, the setting --admin of a program.
func (c *Common) ValidateAdmin(address *settings.Address) []settings.Problem {
	if *address == "" || address.Loopback() || c.AdminBeyondLoopback {
		return nil
	}
	return []settings.Problem{settings.Wrong(address,
		"%s can be reached from other machines, and the admin port asks nobody who they are: --admin-beyond-loopback allows it", *address)}
}

// Lines returns the log that the settings ask for, on w. Its owner closes it.
func (c *Common) Lines(w io.Writer) *telemetry.Log {
	var level slog.Level
	_ = level.UnmarshalText([]byte(strings.ToUpper(c.LogLevel))) // an enum: it is one of slog's
	return telemetry.NewLog(telemetry.LogConfig{Out: w, Level: level, JSON: c.LogFormat == "json"})
}

// Identity returns the certificate of the service of that name: from the given files, or from the development PKI, where
// one for the developer is made beside it. Whoever holds it runs its Renew.
func (c *Common) Identity(ctx context.Context, name string, clk clock.Clock, log *slog.Logger) (*pki.Identity, error) {
	report := func(err error) { log.Error("certificate", "cause", err) }
	if c.TLSCert != "" {
		id, err := pki.Open(pki.Files{CA: c.TLSCA, Cert: c.TLSCert, Key: c.TLSKey}, c.TrustDomain, clk, report)
		if err != nil {
			return nil, fmt.Errorf("certificate (--tls-ca, --tls-cert, --tls-key): %w", err)
		}
		if id.Name() != name {
			return nil, fmt.Errorf("certificate (--tls-cert) is of %s, not of spiffe://%s/%s", id.ID(), c.TrustDomain, name)
		}
		return id, nil
	}
	dev, err := pki.NewDevelopment(c.PKI, c.TrustDomain, clk)
	if err == nil {
		err = dev.Ensure(ctx, name, Developer)
	}
	if err != nil {
		return nil, fmt.Errorf("development PKI (--pki): %w", err)
	}
	id, err := dev.Identity(ctx, name, report)
	if err != nil {
		return nil, fmt.Errorf("development PKI (--pki): %w", err)
	}
	return id, nil
}

// KeepDeveloper renews the developer's certificate until ctx ends, where the development PKI is used at all.
func (c *Common) KeepDeveloper(ctx context.Context, clk clock.Clock, log *slog.Logger) {
	if c.TLSCert != "" {
		return
	}
	report := func(err error) { log.Warn("certificate of the developer", "cause", err) }
	dev, err := pki.NewDevelopment(c.PKI, c.TrustDomain, clk)
	if err != nil {
		report(err)
		return
	}
	id, err := dev.Identity(ctx, Developer, report)
	if err != nil {
		report(err)
		return
	}
	id.Renew(ctx)
}

// Listen opens the address of the setting that is named, such as "--listen".
func Listen(setting string, address settings.Address) (net.Listener, error) {
	l, err := net.Listen("tcp", string(address))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	return l, nil
}
