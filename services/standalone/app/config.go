package app

import (
	"net"
	"path/filepath"
	"slices"
	"strings"

	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/settings"
	auth "github.com/concordat-dev/concordat/services/auth/app"
	gateway "github.com/concordat-dev/concordat/services/gateway/app"
	payments "github.com/concordat-dev/concordat/services/payments/app"
	users "github.com/concordat-dev/concordat/services/users/app"
)

// Config is all settings of the process. Those of a service have its name before them: --users-listen, and the variable
// that the service has by itself, CONCORDAT_USERS_LISTEN.
type Config struct {
	Dir    string           `help:"Directory of everything that is kept: the data of each service and the development PKI lie below it, unless they are set on their own." default:".concordat"`
	Demo   bool             `help:"Play one customer through the public API, print each step as it happens, and end."`
	DemoAt settings.Address `help:"With --demo: start nothing and play against the gateway whose gRPC address this is." placeholder:"127.0.0.1:8081"`
	// DemoHTTP goes with DemoAt.
	DemoHTTP settings.Address `name:"demo-http" help:"With --demo-at: the HTTP address of that gateway." default:"127.0.0.1:8080"`

	kit.Common `embed:""`
	Admin      settings.Address  `help:"Address of the admin port, for operators: metrics, checks and profiles of all services over HTTP. An empty flag means none." default:"127.0.0.1:51080"`
	Auth       auth.Settings     `embed:"" prefix:"auth-"`
	Users      users.Settings    `embed:"" prefix:"users-"`
	Payments   payments.Settings `embed:"" prefix:"payments-"`
	Gateway    gateway.Settings  `embed:"" prefix:"gateway-"`
}

// Validate finds settings that cannot be meant.
func (c *Config) Validate() []settings.Problem {
	problems := settings.Required(&c.Dir)
	if c.DemoAt != "" && !c.Demo {
		problems = append(problems, settings.Wrong(&c.DemoAt, "goes with --demo"))
	}
	for _, f := range []*string{&c.TLSCA, &c.TLSCert, &c.TLSKey} {
		if *f != "" {
			problems = append(problems, settings.Wrong(f, "each service needs a certificate of its own: run them on their own"))
		}
	}
	return slices.Concat(problems, c.Common.Validate(), c.ValidateAdmin(&c.Admin))
}

// standard is the directory that the defaults of all paths begin with.
const standard = ".concordat"

// place moves the paths that still have their defaults below --dir.
func (c *Config) place() {
	for _, path := range []*string{&c.PKI, &c.Auth.Data, &c.Users.Data, &c.Payments.Data} {
		if rest, ok := strings.CutPrefix(*path, standard+"/"); ok {
			*path = filepath.Join(c.Dir, rest)
		}
	}
}

// Where the services find each other while nobody says otherwise.
const (
	authTarget     = "dns:///127.0.0.1:50051"
	usersTarget    = "dns:///127.0.0.1:50052"
	paymentsTarget = "dns:///127.0.0.1:50053"
)

// connect has the services that were not told otherwise find each other where they listen.
func (c *Config) connect(authAt, usersAt, paymentsAt net.Addr) {
	for _, t := range []struct {
		target   *string
		standard string
		at       net.Addr
	}{
		{&c.Auth.Users, usersTarget, usersAt}, {&c.Users.Auth, authTarget, authAt}, {&c.Payments.Auth, authTarget, authAt},
		{&c.Payments.Users, usersTarget, usersAt},
		{&c.Gateway.Auth, authTarget, authAt}, {&c.Gateway.Users, usersTarget, usersAt}, {&c.Gateway.Payments, paymentsTarget, paymentsAt},
	} {
		if *t.target == t.standard {
			*t.target = "dns:///" + reachable(t.at)
		}
	}
}

// reachable returns an address by which this machine reaches a listener: one on all interfaces is reached on loopback.
func reachable(at net.Addr) string {
	if tcp, ok := at.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		return (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: tcp.Port}).String()
	}
	return at.String()
}
