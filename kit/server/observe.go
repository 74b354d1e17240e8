package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	policyv1 "github.com/concordat-dev/concordat/gen/go/policy/v1"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/grpcfault"
	"github.com/concordat-dev/concordat/kit/policy"
	"github.com/concordat-dev/concordat/kit/telemetry"
)

// RequestIDHeader carries the id of a request: accepted from the caller where it is up to 64 letters, digits and
// "-_.", made otherwise, returned with the answer, in every error and in the log, and sent on to other services.
const RequestIDHeader = "x-request-id"

// observe gives the call its id and tells the caller: in the headers of an answer, in the trailers of an error. Headers
// before an error would keep grpc-go's clients from repeating the call: they only do where trailers come alone (gRFC A6,
// "trailers-only"). What becomes of the call is told by the stats handler, which also sees the calls that never get
// here.
func observe(*Server) step {
	return step{
		name: "observe",
		around: func(next handler) handler {
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
		},
		message: func(c *call, m proto.Message) error {
			c.last = m // its secrets are kept out of the log, should the call fail
			return nil
		},
	}
}

// observed is what is looked up of a method when it is called.
type observed struct {
	policy *policy.Method // nil for a method that nobody declared
	tell   *telemetry.Method
}

// observer is the stats.Handler: it makes the call when the transport announces it, counts its messages, and tells how it
// ended, however it ended: in the metrics, in its trace if it is recorded, and in one line of the log.
type observer struct{ server *Server }

func (o observer) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (o observer) HandleConn(context.Context, stats.ConnStats)                       {}

func (o observer) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	s := o.server
	m, ok := s.methods[info.FullMethodName]
	if !ok {
		m = s.unknown
	}
	c := &call{
		server:  s,
		name:    info.FullMethodName,
		method:  m.policy,
		tell:    m.tell,
		started: s.cfg.Clock.Now(),
	}
	c.RequestID = requestID(ctx, s.cfg.NewID)
	return context.WithValue(s.telemetry.Begin(ctx, &c.trace, m.tell, c.started), callKey{}, c)
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
	case *stats.Begin:
		c.tell.Started()
	case *stats.InPayload:
		c.received.Add(1)
		c.receivedBytes.Add(int64(s.Length))
		c.tell.Received()
	case *stats.OutPayload:
		c.sent.Add(1)
		c.sentBytes.Add(int64(s.Length))
		c.tell.Sent()
	case *stats.End:
		o.finish(ctx, c, s)
	}
}

// finish tells how the call ended.
func (o observer) finish(ctx context.Context, c *call, end *stats.End) {
	now := o.server.cfg.Clock.Now()
	code := status.Code(end.Error)
	f := c.fault
	if f == nil && end.Error != nil {
		f = grpcfault.FromError(end.Error) // the transport's own answer
	}
	reason := ""
	if f != nil {
		reason = f.Reason()
	}
	address := c.Caller.Address
	if address == "" {
		if p, ok := peer.FromContext(ctx); ok {
			address = hostOf(p.Addr.String())
		}
	}
	took := now.Sub(c.started)
	c.tell.Handled(code, reason, took, &c.trace)
	c.trace.End(now, code, reason, address)
	log := o.server.cfg.Log
	level := levelOf(c, code)
	if !log.Enabled(ctx, level) {
		return
	}
	line := telemetry.Call{
		At: now, Method: c.name, Code: code.String(), Took: took, RequestID: c.RequestID, TraceID: c.trace.ID(), Reason: reason,
		Peer: c.Caller.Peer, User: c.Caller.UserID(), Address: address,
		Received: c.received.Load(), ReceivedBytes: c.receivedBytes.Load(), Sent: c.sent.Load(), SentBytes: c.sentBytes.Load(),
	}
	if line.Peer == "" {
		line.Peer = o.server.peerName(ctx)
	}
	if f != nil {
		explain(ctx, c, f, &line)
	}
	telemetry.LogCall(ctx, log, level, &line)
}

func levelOf(c *call, code codes.Code) slog.Level {
	switch {
	case serious(code):
		return slog.LevelError
	case c.method == nil || c.method.Framework:
		return slog.LevelDebug // health and reflection, and names that nobody declared
	default:
		return slog.LevelInfo
	}
}

// maxExplained bounds how many violations and details of a fault a line names.
const maxExplained = 8

// explain adds what the fault says of itself, and what only the log may see of it.
func explain(ctx context.Context, c *call, f *fault.Fault, line *telemetry.Call) {
	clean := cleaner(ctx, c)
	var fields, details []string
	for _, v := range f.Violations() {
		fields = append(fields, v.Field+" "+v.Rule)
	}
	own := f.Metadata()
	for _, k := range slices.Sorted(maps.Keys(own)) {
		if !strings.HasSuffix(k, "token") { // long, and worth something to whoever may resume
			details = append(details, k+"="+own[k])
		}
	}
	line.Fields, line.Details = clean(listed(fields)), clean(listed(details))
	if cause := f.Unwrap(); cause != nil {
		line.Cause = clean(cause.Error())
	}
	if p := panicOf(f); p != nil {
		line.Panic, line.Stack = clean(panicText(p.value)), clean(string(p.stack))
	}
}

func listed(list []string) string {
	if len(list) > maxExplained {
		list = append(list[:maxExplained:maxExplained], "…")
	}
	return strings.Join(list, ", ")
}

func panicText(value any) string {
	if m, ok := value.(proto.Message); ok {
		return "a " + string(m.ProtoReflect().Descriptor().FullName()) // its text would have every field
	}
	return fmt.Sprint(value)
}

// observeMethods prepares what is told of each method. The policies are complete when it is called.
func (s *Server) observeMethods(ours []protoreflect.ServiceDescriptor) error {
	t := s.cfg.Telemetry
	var err error
	if t == nil {
		if t, err = nobodysTelemetry(s.cfg); err != nil {
			return err
		}
	}
	if s.telemetry, err = t.Service(s.cfg.Identity.Name()); err != nil {
		return fmt.Errorf("telemetry: %w", err)
	}
	s.methods = make(map[string]observed, len(s.policies))
	for full, p := range s.policies {
		s.methods[full] = observed{p, s.telemetry.Method(telemetry.MethodConfig{
			FullName: full, ClientStream: p.ClientStream, ServerStream: p.ServerStream, Framework: p.Framework, Reasons: reasonsOf(p.Package),
		})}
	}
	s.unknown = observed{nil, s.telemetry.Method(telemetry.MethodConfig{Framework: true, Reasons: reasonsOf("")})}
	s.digest = sync.OnceValues(func() (string, error) { return telemetry.ContractDigest(ours) })
	return errors.Join(
		s.telemetry.Contract(s.ContractDigest),
		s.telemetry.Certificate(s.cfg.Identity.NotAfter),
		s.telemetry.Ready(func() bool {
			return !slices.ContainsFunc(s.Readiness(), func(c Check) bool { return c.Err != nil })
		}),
	)
}

// nobodysTelemetry returns a Telemetry that nobody reads.
func nobodysTelemetry(cfg Config) (*telemetry.Telemetry, error) {
	return telemetry.New(context.Background(), telemetry.Config{
		Registry: prometheus.NewRegistry(), Log: cfg.Log, Now: cfg.Clock.Now, Random: rand.Uint64,
	})
}

// ContractDigest returns the digest of the contract that the server serves (telemetry.ContractDigest); "unknown" where it
// cannot be computed.
func (s *Server) ContractDigest() string {
	d, err := s.digest()
	if err != nil {
		s.cfg.Log.Warn("contract digest", "cause", err)
		return "unknown"
	}
	return d
}

// reasonsOf returns the reasons that a method of the package may answer with: those of its enum ErrorReason and those of
// the path.
func reasonsOf(pkg string) map[string]struct{} {
	reasons := make(map[string]struct{})
	add := func(e protoreflect.EnumDescriptor) {
		for i := range e.Values().Len() {
			reasons[strings.TrimPrefix(string(e.Values().Get(i).Name()), "ERROR_REASON_")] = struct{}{}
		}
	}
	add(policyv1.ErrorReason(0).Descriptor())
	if d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(pkg + ".ErrorReason")); err == nil {
		if e, ok := d.(protoreflect.EnumDescriptor); ok {
			add(e)
		}
	}
	return reasons
}
