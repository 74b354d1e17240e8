package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionalphapb "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/concordat-dev/concordat/kit/grpcfault"
	"github.com/concordat-dev/concordat/kit/telemetry"
)

// teller is the stats.Handler of the servers: it makes the call when the transport announces it, counts its messages, and
// tells how it ended, however it ended: in the metrics, as any server of ours and by protocol too; in a span, where the call
// is recorded; and in one line of the log.
type teller struct {
	open    func(ctx context.Context, name string) context.Context
	now     func() time.Time
	service *telemetry.Service
	methods map[string]*telemetry.Method
	unknown *telemetry.Method // stands for every name that nobody declared
	calls   telemetry.Counter
	logs    map[string]*slog.Logger // by protocol
	log     *slog.Logger            // of what speaks none of them
}

// other stands for names that nobody declared, as it does in the metrics of every server.
const other = "_OTHER"

// protocols are what callers speak; see Origin.Protocol.
var protocols = [...]string{"grpc", "grpc-web", "connect", "rest"}

var _ stats.Handler = (*teller)(nil)

func newTeller(cfg Config, open func(context.Context, string) context.Context) (*teller, error) {
	t := &teller{
		open: open, now: cfg.Clock.Now,
		service: cfg.Telemetry, log: cfg.Log, methods: make(map[string]*telemetry.Method), logs: make(map[string]*slog.Logger),
		unknown: cfg.Telemetry.Method(telemetry.MethodConfig{Framework: true, Reasons: telemetry.Reasons(""), Callers: cfg.CallerTraces}),
	}
	for _, m := range cfg.Contract.Methods() {
		t.methods[m.FullName] = t.service.Method(telemetry.MethodConfig{
			FullName: m.FullName, ClientStream: m.ClientStream, ServerStream: m.ServerStream, Reasons: telemetry.Reasons(m.Package),
			Callers: cfg.CallerTraces,
		})
	}
	for _, f := range []protoreflect.FileDescriptor{
		healthpb.File_grpc_health_v1_health_proto,
		reflectionpb.File_grpc_reflection_v1_reflection_proto,
		reflectionalphapb.File_grpc_reflection_v1alpha_reflection_proto,
	} {
		for i := range f.Services().Len() {
			methods := f.Services().Get(i).Methods()
			for j := range methods.Len() {
				m := methods.Get(j)
				name := fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())
				t.methods[name] = t.service.Method(telemetry.MethodConfig{
					FullName: name, ClientStream: m.IsStreamingClient(), ServerStream: m.IsStreamingServer(), Framework: true, Reasons: telemetry.Reasons(""),
					Callers: cfg.CallerTraces,
				})
			}
		}
	}
	for _, p := range protocols {
		t.logs[p] = cfg.Log.With("protocol", p)
	}
	var err error
	t.calls, err = t.service.Counter("concordat_edge_calls_total", "Calls through the edge that ended, by what the caller spoke and by code.",
		"protocol", "grpc_service", "grpc_method", "grpc_code")
	return t, err
}

// begin puts a call into its trace and returns its context.
func (t *teller) begin(ctx context.Context, c *call) context.Context {
	var ok bool
	if c.tell, ok = t.methods[c.name]; !ok {
		c.tell = t.unknown
	}
	header, _ := metadata.FromIncomingContext(ctx)
	c.client = telemetry.ClientOf(header)
	ctx = t.service.Begin(ctx, &c.trace, c.tell, header, c.started)
	c.trace.Set("concordat.edge.protocol", c.protocol)
	return telemetry.NewContext(ctx, &c.trace)
}

// TagConn implements stats.Handler.
func (t *teller) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (t *teller) HandleConn(context.Context, stats.ConnStats) {}

// TagRPC implements stats.Handler.
func (t *teller) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	return t.open(ctx, info.FullMethodName)
}

// HandleRPC implements stats.Handler.
func (t *teller) HandleRPC(ctx context.Context, s stats.RPCStats) {
	c := callFrom(ctx)
	if c == nil {
		return
	}
	switch s := s.(type) {
	case *stats.Begin:
		c.tell.Started()
	case *stats.InPayload:
		c.messagesIn.Add(1)
		c.bytesIn.Add(int64(s.Length))
		c.tell.Received()
	case *stats.OutPayload:
		c.messagesOut.Add(1)
		c.bytesOut.Add(int64(s.Length))
		c.tell.Sent()
	case *stats.End:
		t.end(ctx, c, s.Error)
	}
}

// end tells how a call ended.
func (t *teller) end(ctx context.Context, c *call, err error) {
	now, code := t.now(), status.Code(err)
	took, reason := now.Sub(c.started), ""
	if err != nil {
		f := grpcfault.FromError(err)
		reason = f.Reason()
		if !c.handled { // the transport's own answer
			c.cause = f.Unwrap()
		}
	}
	c.tell.Handled(code, reason, took, &c.trace)
	c.trace.End(now, code, reason, c.address)
	service, method, ok := strings.Cut(strings.TrimPrefix(c.name, "/"), "/")
	if !ok || c.tell == t.unknown {
		service, method = other, other
	}
	t.calls.Add(c.protocol, service, method, code.String())

	log, ok := t.logs[c.protocol]
	if !ok {
		log = t.log
	}
	level := slog.LevelInfo
	switch {
	case c.handled && (code == codes.Internal || code == codes.Unknown || code == codes.DataLoss): // what the transport answers is the caller's fault
		level = slog.LevelError
	case c.method == nil:
		level = slog.LevelDebug // health and reflection, and names that nobody declared
	}
	if !log.Enabled(ctx, level) {
		return
	}
	line := telemetry.Call{
		At: now, Method: c.name, Code: code.String(), Took: took, RequestID: c.id, TraceID: c.trace.ID(), Reason: reason, Client: c.client, Address: c.address,
		Received: c.messagesIn.Load(), ReceivedBytes: c.bytesIn.Load(), Sent: c.messagesOut.Load(), SentBytes: c.bytesOut.Load(),
	}
	if c.cause != nil {
		line.Cause = c.cause.Error()
	}
	if p := new(panicError); errors.As(c.cause, &p) {
		line.Stack = string(p.stack)
	}
	telemetry.LogCall(ctx, log, level, &line)
}
