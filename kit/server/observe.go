package server

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/concordat-dev/concordat/kit/grpcfault"
)

// RequestIDHeader carries the id of a request: accepted from the caller where it is up to 64 letters, digits and
// "-_.", made otherwise, returned with the answer, in every error and in the log, and sent on to other services.
const RequestIDHeader = "x-request-id"

// observe gives the call its id and tells the caller: in the headers of an answer, in the trailers of an error. Headers
// before an error would keep grpc-go's clients from repeating the call: they only do where trailers come alone (gRFC A6,
// "trailers-only"). What becomes of the call is written by the stats handler, which also sees the calls that never get
// here.
func observe(*Server) step {
	return step{name: "observe", around: func(next handler) handler {
		return func(c *call) error {
			err := next(c)
			// Setting fails only where all is sent already: a stream that has told the id with its first message.
			if err != nil {
				_ = grpc.SetTrailer(c, metadata.Pairs(RequestIDHeader, c.RequestID))
			} else if !c.method.ClientStream && !c.method.ServerStream {
				_ = grpc.SetHeader(c, metadata.Pairs(RequestIDHeader, c.RequestID))
			}
			return err
		}
	}}
}

// observer is the stats.Handler: it makes the call when the transport announces it, counts its messages, and writes one
// line when it ends, however it ends.
type observer struct{ server *Server }

func (o observer) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (o observer) HandleConn(context.Context, stats.ConnStats)                       {}

func (o observer) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	c := &call{
		server:  o.server,
		name:    info.FullMethodName,
		method:  o.server.policies[info.FullMethodName],
		started: o.server.cfg.Clock.Now(),
	}
	c.RequestID = requestID(ctx, o.server.cfg.NewID)
	return context.WithValue(ctx, callKey{}, c)
}

func requestID(ctx context.Context, newID func() string) string {
	if v := metadata.ValueFromIncomingContext(ctx, RequestIDHeader); len(v) == 1 && validRequestID(v[0]) {
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

func (o observer) HandleRPC(ctx context.Context, s stats.RPCStats) {
	c := callFrom(ctx)
	if c == nil {
		return
	}
	switch s := s.(type) {
	case *stats.InPayload:
		c.received.Add(1)
		c.receivedBytes.Add(int64(s.Length))
	case *stats.OutPayload:
		c.sent.Add(1)
		c.sentBytes.Add(int64(s.Length))
	case *stats.End:
		o.finish(ctx, c, s)
	}
}

// finish writes the one line of the call.
func (o observer) finish(ctx context.Context, c *call, end *stats.End) {
	code := status.Code(end.Error)
	level := slog.LevelInfo
	f := c.fault
	if f == nil && end.Error != nil {
		f = grpcfault.FromError(end.Error) // the transport's own answer
	}
	if c.method == nil || strings.HasPrefix(c.name, "/grpc.") {
		level = slog.LevelDebug // health and reflection, and names that nobody declared
	}
	if f != nil && serious(code) {
		level = slog.LevelError
	}
	log := o.server.cfg.Log
	if !log.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 16)
	attrs = append(attrs,
		slog.String("method", c.name),
		slog.String("code", code.String()),
		slog.Duration("took", o.server.cfg.Clock.Now().Sub(c.started).Round(time.Microsecond)),
		slog.String("request_id", c.RequestID),
	)
	if f != nil {
		attrs = append(attrs, slog.String("reason", f.Reason()))
		if cause := f.Unwrap(); cause != nil {
			attrs = append(attrs, slog.String("cause", cause.Error()))
		}
		if p := panicOf(f); p != nil {
			attrs = append(attrs, slog.Any("panic", p.value), slog.String("stack", string(p.stack)))
		}
	}
	peerName := c.Caller.Peer
	if peerName == "" {
		peerName = o.server.peerName(ctx)
	}
	attrs = append(attrs, slog.String("peer", peerName))
	if c.Caller.User != nil {
		attrs = append(attrs, slog.String("user", c.Caller.User.ID))
	}
	address := c.Caller.Address
	if address == "" {
		if p, ok := peer.FromContext(ctx); ok {
			address = hostOf(p.Addr.String())
		}
	}
	attrs = append(attrs,
		slog.String("address", address),
		slog.Int64("received", c.received.Load()), slog.Int64("received_bytes", c.receivedBytes.Load()),
		slog.Int64("sent", c.sent.Load()), slog.Int64("sent_bytes", c.sentBytes.Load()),
	)
	log.LogAttrs(ctx, level, "call", attrs...)
}
