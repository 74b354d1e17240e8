package server

import (
	"context"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/grpcfault"
)

// connection is what is known of the other end of a connection once its handshake is over.
type connection struct {
	credentials.TLSInfo
	peer    string // the name in its certificate, "" where that is none of ours
	address string // without port
	calls   openCalls
}

// announce makes the call when the transport has read its headers: what follows is seen, whether a handler gets to see
// it or not. It runs on the connection's reader, before anything is done for the call. A call whose :path has not the
// form of a method's, "/service/method", is refused here, by the form alone, and so is one whose time is over already:
// grpc-go would, and nobody would see it.
func (s *Server) announce(ctx context.Context, info *tap.Info) (context.Context, error) {
	m, ok := s.methods[info.FullMethodName]
	if !ok {
		m = s.unknown
	}
	c := &call{
		server: s, name: info.FullMethodName, header: info.Header, method: m.policy, tell: m.tell, started: s.cfg.Clock.Now(),
	}
	c.RequestID = requestID(info.Header, s.cfg.NewID)
	if p, ok := peer.FromContext(ctx); ok {
		c.conn, _ = p.AuthInfo.(*connection)
	}
	if c.conn == nil {
		c.conn = &connection{} // nobody's; handshaker leaves none
	}
	c.conn.calls.announced.Add(1)
	c.tell.Started()
	switch {
	case !namesMethod(c.name):
		c.fault = errUnknownMethod
	case ctx.Err() != nil:
		c.fault = errTimeout // its time was over on the way, and grpc-go would answer by itself
	}
	if c.fault != nil {
		c.Context = ctx
		c.tellEnd(grpcfault.Code(c.fault.Kind()), s.cfg.Clock.Now())
		return nil, status.FromProto(grpcfault.Status(c.fault, fault.Domain, &errdetails.RequestInfo{RequestId: c.RequestID})).Err()
	}
	if c.outlasts(ctx) {
		ctx, c.cancel = context.WithCancelCause(ctx)
	}
	c.Context = ctx
	c.announced = arrival{ctx, c}
	s.arrivals.add(c)
	return &c.announced, nil
}

// namesMethod reports whether a :path has the form of a method's, "/service/method".
func namesMethod(path string) bool {
	return len(path) > 1 && path[0] == '/' && strings.IndexByte(path[1:], '/') >= 0
}

// outlasts reports whether the transport alone would let the call go on beyond its bound. Streams may end by much that is
// known later; other calls end with the deadline that they came with, unless that is missing or too far away.
func (c *call) outlasts(ctx context.Context) bool {
	if c.method == nil {
		return false
	}
	if c.method.ClientStream || c.method.ServerStream {
		return true
	}
	end, ok := ctx.Deadline()
	return !ok || time.Until(end) > c.method.Timeout+margin
}

// arrival is the context of the transport's stream, by which its call is found.
type arrival struct {
	context.Context
	call *call
}

// Value implements context.Context.
func (a *arrival) Value(key any) any {
	if key == (callKey{}) {
		return a.call
	}
	return a.Context.Value(key)
}

func requestID(header metadata.MD, newID func() string) string {
	if v := header[RequestIDHeader]; len(v) == 1 && validRequestID(v[0]) {
		return v[0]
	}
	return newID()
}

func validRequestID(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	}) < 0
}

// arrivals are the calls that were announced and that no handler has taken up, in the order in which they came. There are
// as many as wait for a processor, and those that grpc-go answers by itself after it has announced them: what is compressed
// in a way that it does not know.
type arrivals struct {
	mu          sync.Mutex
	first, last *call
}

func (a *arrivals) add(c *call) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c.waiting, c.earlier = true, a.last
	if a.last != nil {
		a.last.later = c
	} else {
		a.first = c
	}
	a.last = c
}

// take takes a call out, and returns false where that was done before.
func (a *arrivals) take(c *call) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !c.waiting {
		return false
	}
	c.waiting = false
	if c.earlier != nil {
		c.earlier.later = c.later
	} else {
		a.first = c.later
	}
	if c.later != nil {
		c.later.earlier = c.earlier
	} else {
		a.last = c.earlier
	}
	c.earlier, c.later = nil, nil
	return true
}

// over returns the calls that have ended without a handler, and were found so more often than before.
func (a *arrivals) over(before int, now time.Time) []*call {
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []*call
	for c := a.first; c != nil; c = c.later {
		if c.Context.Err() == nil {
			continue
		}
		if c.found++; c.found == 1 {
			c.ended = now
		}
		if c.found > before {
			list = append(list, c)
		}
	}
	return list
}

// A call that merely ended before its handler began is told of by its handler, which has lostAfter times lostEvery to begin: on a
// server with far too much to do, handlers begin late.
const (
	lostEvery = time.Second
	lostAfter = 3
)

var errCompression = fault.New(fault.Unimplemented, "UNIMPLEMENTED", "the message is compressed in a way that is not known here").WithDomain(fault.Domain)

// tellLost tells of the calls that grpc-go has answered by itself, until ctx ends.
func (s *Server) tellLost(ctx context.Context) {
	every := time.NewTicker(lostEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
			s.lost(s.arrivals.over(lostAfter, s.cfg.Clock.Now()))
		}
	}
}

// lost tells of those of the calls that no handler has taken up meanwhile.
func (s *Server) lost(calls []*call) {
	for _, c := range calls {
		if !s.arrivals.take(c) {
			continue
		}
		c.fault = errCompression
		if fault.KindOf(c.Context.Err()) == fault.DeadlineExceeded {
			c.fault = errTimeout
		}
		c.end()
		c.tellEnd(grpcfault.Code(c.fault.Kind()), c.ended)
	}
}

func hostOf(addr net.Addr) string {
	host, _, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	return host
}
