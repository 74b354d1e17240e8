package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/admin"
	"github.com/concordat-dev/concordat/kit/telemetry"
	"github.com/concordat-dev/concordat/services/gateway/internal/upstream"
)

var errDraining = errors.New("the gateway is stopping")

// operate tells of the contract that the gateway forwards, and has the admin port answer where it is the gateway's own.
func (a *App) operate() error {
	var services []protoreflect.ServiceDescriptor
	for _, u := range a.contract.Upstreams() {
		services = append(services, u.Services...)
	}
	digest := sync.OnceValues(func() (string, error) { return telemetry.ContractDigest(services) })
	a.digest = func() string {
		d, err := digest()
		if err != nil {
			a.deps.Log.Warn("contract digest", "cause", err)
			return "unknown"
		}
		return d
	}
	err := errors.Join(a.signals.Contract(a.digest), a.signals.Certificate(a.identity.NotAfter), a.signals.Ready(func() bool {
		return !slices.ContainsFunc(a.Checks(), func(c admin.Check) bool { return c.Err != nil })
	}))
	if err != nil {
		return err
	}
	if a.own == nil {
		return nil
	}
	return a.own.Start(a.Checks, func() map[string]string { return map[string]string{kit.Edge: a.ContractDigest()} })
}

// Checks says whether the gateway takes calls, and which of the services behind it serve. It asks them, once a second at
// most.
func (a *App) Checks() []admin.Check {
	serving := admin.Check{Name: "serving"}
	if a.draining.Err() != nil {
		serving.Err = errDraining
	}
	list := []admin.Check{serving}
	for _, h := range a.upstreams.Check(context.Background()) {
		c := admin.Check{Name: h.Name}
		if h.State != upstream.Serving {
			c.Err = fmt.Errorf("%s", h.State)
		}
		list = append(list, c)
	}
	return list
}

// ContractDigest returns the digest of the contract that the gateway forwards; see telemetry.ContractDigest.
func (a *App) ContractDigest() string { return a.digest() }

// AdminAddr returns the address of the admin port, nil where the gateway has none of its own.
func (a *App) AdminAddr() net.Addr {
	if a.own == nil {
		return nil
	}
	return a.own.Addr()
}
