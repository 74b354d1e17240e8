package kit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/concordat-dev/concordat/kit/admin"
	"github.com/concordat-dev/concordat/kit/settings"
	"github.com/concordat-dev/concordat/kit/telemetry"
	"github.com/concordat-dev/concordat/kit/usage"
)

// flushTimeout is how long the last spans may take, once everything else has ended.
const flushTimeout = 3 * time.Second

// Operations is what a process tells its operators: its telemetry, what of the contract is used, and the admin port. A process has one, whatever the number
// of its services.
type Operations struct {
	// Telemetry is that of the process.
	Telemetry *telemetry.Telemetry
	// Usage is that of the process.
	Usage *usage.Recorder

	deps     Deps
	common   Common
	listener net.Listener // nil: there is no admin port
	port     *admin.Server
	serving  sync.WaitGroup
}

// NewOperations makes the telemetry that the settings and the OTEL_* variables ask for, and opens the admin port at the
// address, which nobody answers until Start; "" means none. The name is that of the process. What it returns is closed with
// Close.
func NewOperations(ctx context.Context, name string, address settings.Address, common Common, deps Deps) (*Operations, error) {
	o := &Operations{deps: deps, common: common, Usage: usage.New(usage.Config{
		Service: name, OneIn: common.UsageSample, Clock: deps.Clock, Random: rand.Uint64,
	})}
	var err error
	if o.Telemetry, err = telemetry.New(ctx, telemetry.Config{
		Registry: prometheus.NewRegistry(), Log: deps.Log, Now: deps.Clock.Now, Random: rand.Uint64,
		TraceRatio: common.TraceRatio, Propagate: common.PropagateMetadata, Getenv: os.Getenv,
	}); err != nil {
		return nil, err
	}
	if address == "" {
		return o, nil
	}
	if o.listener, err = Listen("--admin", address); err != nil {
		return nil, errors.Join(err, o.Close())
	}
	return o, nil
}

// Start has the admin port answer, with these checks and with the digest of the contract of each service.
func (o *Operations) Start(ready func() []admin.Check, contracts func() map[string]string) error {
	if o.listener == nil {
		return nil
	}
	var err error
	if o.port, err = admin.New(admin.Config{
		Listener: o.listener, BeyondLoopback: o.common.AdminBeyondLoopback, Metrics: o.Telemetry.Registry(),
		Ready: ready, Contracts: contracts, Usage: o.Usage.Snapshot, Log: o.deps.Log,
	}); err != nil {
		return fmt.Errorf("--admin: %w", err)
	}
	o.serving.Go(func() {
		// Calls are served without an admin port too.
		if err := o.port.Serve(); err != nil {
			o.deps.Log.Error("the admin port has failed", "cause", err)
		}
	})
	return nil
}

// Addr returns the address of the admin port, nil where there is none.
func (o *Operations) Addr() net.Addr {
	if o.listener == nil {
		return nil
	}
	return o.listener.Addr()
}

// Close sends the spans that wait and ends the admin port. It is called last, when nothing is left to tell of. A collector
// that cannot be reached is no error of the process: the log tells of it.
func (o *Operations) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	if err := o.Telemetry.Shutdown(ctx); err != nil {
		o.deps.Log.Warn("telemetry", "cause", err)
	}
	switch {
	case o.port != nil:
		o.port.Stop()
		o.serving.Wait()
	case o.listener != nil:
		if err := o.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("close the admin port: %w", err)
		}
	}
	return nil
}
