package client

import (
	"context"
	"net"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"

	"github.com/concordat-dev/concordat/kit/grpcfault"
	"github.com/concordat-dev/concordat/kit/policy"
	"github.com/concordat-dev/concordat/kit/telemetry"
)

// observer tells of the calls of one connection. A nil one tells nobody.
type observer struct {
	methods map[string]*telemetry.ClientMethod
	unknown *telemetry.ClientMethod // what is no method of the contract, such as a health check
}

func newObserver(s *telemetry.Service, table policy.Table, target, server string) (*observer, error) {
	if s == nil {
		return nil, nil
	}
	c, err := s.Client(addressOf(target, server))
	if err != nil {
		return nil, err
	}
	o := &observer{methods: make(map[string]*telemetry.ClientMethod, len(table)), unknown: c.Method(telemetry.MethodConfig{Framework: true})}
	for name, m := range table {
		o.methods[name] = c.Method(telemetry.MethodConfig{FullName: name, ClientStream: m.ClientStream, ServerStream: m.ServerStream})
	}
	return o, nil
}

// addressOf returns where the calls to a target go, as host:port, or the name of the server where that is several places.
func addressOf(target, server string) string {
	if list, ok := strings.CutPrefix(target, staticScheme+":///"); ok {
		if strings.Contains(list, ",") {
			return server
		}
		return list
	}
	address := target
	if _, rest, ok := strings.Cut(target, "://"); ok {
		_, address, _ = strings.Cut(rest, "/")
	}
	if _, _, err := net.SplitHostPort(address); err != nil && (address == "" || strings.Contains(address, ":")) {
		return server
	}
	return address
}

// observation is what is told of one call, however often it is sent. A nil one tells nobody.
type observation struct {
	call  telemetry.ClientCall
	peer  peer.Peer
	ended atomic.Bool
}

// begin counts a call and returns the context that carries it on.
func (o *observer) begin(ctx context.Context, method string) (context.Context, *observation) {
	if o == nil {
		return ctx, nil
	}
	m, ok := o.methods[method]
	if !ok {
		m = o.unknown
	}
	n := &observation{}
	ctx, n.call = m.Begin(ctx)
	return ctx, n
}

// with adds to the options of a call what finds out who answers it, where somebody wants to know.
func (o *observation) with(opts []grpc.CallOption) []grpc.CallOption {
	if o == nil || !o.call.Recorded() {
		return opts
	}
	return append(opts[:len(opts):len(opts)], grpc.Peer(&o.peer))
}

func (o *observation) sent() {
	if o != nil {
		o.call.Sent()
	}
}

func (o *observation) received() {
	if o != nil {
		o.call.Received()
	}
}

// end tells how the call ended. Only the first word counts: the end of a stream is seen from several sides.
func (o *observation) end(err error) {
	if o == nil || o.ended.Swap(true) {
		return
	}
	if err == nil {
		o.call.End(codes.OK, "", o.peer.Addr)
		return
	}
	f := grpcfault.FromError(err)
	o.call.End(grpcfault.Code(f.Kind()), f.Reason(), o.peer.Addr)
}
