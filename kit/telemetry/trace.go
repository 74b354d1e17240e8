package telemetry

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

const (
	scopeName = "github.com/concordat-dev/concordat/kit/telemetry"
	// schemaURL names the semantic conventions that names and attributes of spans follow.
	schemaURL = semconv.SchemaURL
)

// The headers of W3C Trace Context.
const (
	traceparent = "traceparent"
	tracestate  = "tracestate"
	// maxState is what of a tracestate is carried on, in bytes (section 3.3.1.1). A longer one is dropped whole.
	maxState = 512
	// maxCarried bounds the metadata that is carried on from one call, values and names, in bytes.
	maxCarried = 1 << 10
)

// Trace is the place of one call in a trace: where it came from, whether it is recorded, and what goes on to others. It lives
// in the call's own memory, so that a call which is not recorded needs none for it. The zero Trace is in no trace.
type Trace struct {
	service *Service
	id      trace.TraceID // zero: in none
	parent  trace.SpanID  // of what is called from here
	flags   trace.TraceFlags
	came    bool   // from the caller
	state   string // as it came
	span    trace.Span
	carried atomic.Bool // to somebody
}

// traceKey finds the *Trace in the context of a call.
type traceKey struct{}

// Value returns the trace for the key under which Outgoing looks for it, nil for every other. The context of a call asks it
// first, which spares the call a context of its own for the trace.
func (t *Trace) Value(key any) any {
	if _, ok := key.(traceKey); ok {
		return t
	}
	return nil
}

// NewContext returns a context that carries the trace.
func NewContext(ctx context.Context, t *Trace) context.Context {
	return context.WithValue(ctx, traceKey{}, t)
}

// CallerTraces says what becomes of the trace that a call comes with.
type CallerTraces int

const (
	// FollowCallers: it goes on, and the caller has decided whether it is recorded. For callers that are ours.
	FollowCallers CallerTraces = iota
	// KeepCallers: it goes on, and whether it is recorded is decided here, by the share of Config and by chance, so that
	// nobody can choose an id that is.
	KeepCallers
	// LinkCallers: a trace of our own begins, as if none had come. Where it is recorded, it has a link to the caller's.
	LinkCallers
)

// Begin puts a call into the trace that its header names, or at the head of a new one, and returns its context: the given
// one, unless the call is recorded. t must be zero.
func (s *Service) Begin(ctx context.Context, t *Trace, m *Method, header metadata.MD, at time.Time) context.Context {
	t.service = s
	if v := header[traceparent]; len(v) == 1 && t.parse(v[0]) {
		t.came = true
		if states := header[tracestate]; len(states) > 0 {
			if joined := strings.Join(states, ","); len(joined) <= maxState {
				t.state = joined
			}
		}
	}
	var from trace.SpanContext // what there is a link to
	sampled := false
	switch {
	case t.came && m.callers == LinkCallers:
		from = t.remote()
		t.id, t.parent, t.flags, t.came, t.state = trace.TraceID{}, trace.SpanID{}, 0, false, ""
	case t.came && m.callers == KeepCallers:
		sampled = s.t.sampler.root(newTraceID(s.t.cfg.Random))
		t.flags &^= trace.FlagsSampled
		if sampled {
			t.flags |= trace.FlagsSampled
		}
	}
	if s.tracer == nil {
		return ctx // where nothing is recorded, nothing begins either: the next service decides
	}
	switch {
	case t.came && m.callers == KeepCallers:
	case t.came:
		sampled = s.t.sampler.child(t.id, t.flags.IsSampled())
	case m.framework:
		return ctx // health checks would be most of what there is to see
	default:
		t.id, t.parent = newTraceID(s.t.cfg.Random), newSpanID(s.t.cfg.Random)
		sampled = s.t.sampler.root(t.id)
	}
	if !sampled {
		t.flags &^= trace.FlagsSampled // whoever is called from here follows, whatever the caller wanted
		return ctx
	}
	return s.record(ctx, t, m, at, from, ClientOf(header))
}

// remote returns what the caller says of its span.
func (t *Trace) remote() trace.SpanContext {
	state, err := trace.ParseTraceState(t.state)
	if err != nil {
		t.state = "" // it would not be carried on either
	}
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: t.id, SpanID: t.parent, TraceFlags: t.flags, TraceState: state, Remote: true,
	})
}

// record makes the span of a call, with a link where there is one to make, and with what the client says it is.
func (s *Service) record(ctx context.Context, t *Trace, m *Method, at time.Time, from trace.SpanContext, client string) context.Context {
	start := ctx
	if t.came {
		start = trace.ContextWithRemoteSpanContext(ctx, t.remote())
	} else {
		start = context.WithValue(ctx, rootKey{}, t.id)
	}
	attributes := addresses(ctx)
	if client != "" {
		attributes = append(attributes, attribute.String(clientAttribute, client))
	}
	options := []trace.SpanStartOption{
		trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(at),
		trace.WithAttributes(m.attributes...), trace.WithAttributes(attributes...),
	}
	if from.IsValid() {
		options = append(options, trace.WithLinks(trace.Link{SpanContext: from}))
	}
	_, t.span = s.tracer.Start(start, m.spanName, options...)
	sc := t.span.SpanContext()
	t.parent, t.flags = sc.SpanID(), sc.TraceFlags()
	return trace.ContextWithSpan(ctx, t.span)
}

// addresses returns the attributes of both ends of the connection.
func addresses(ctx context.Context) []attribute.KeyValue {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	var list []attribute.KeyValue
	add := func(a net.Addr, address, port attribute.Key) {
		if a == nil {
			return
		}
		host, number, err := net.SplitHostPort(a.String())
		if err != nil {
			list = append(list, address.String(a.String()))
			return
		}
		list = append(list, address.String(host))
		if n, err := strconv.Atoi(number); err == nil {
			list = append(list, port.Int(n))
		}
	}
	add(p.LocalAddr, semconv.ServerAddressKey, semconv.ServerPortKey)
	add(p.Addr, semconv.NetworkPeerAddressKey, semconv.NetworkPeerPortKey)
	return list
}

// Recorded reports whether there is a span.
func (t *Trace) Recorded() bool { return t.span != nil }

// ID returns the id of the trace where anybody else can know it: it came from the caller, is recorded, or was sent on. It is
// "" for every other call.
func (t *Trace) ID() string {
	if !t.id.IsValid() || !(t.came || t.span != nil || t.carried.Load()) {
		return ""
	}
	return t.id.String()
}

// End ends the span, if there is one. client is the address that the call came from, "" where that is unknown.
func (t *Trace) End(at time.Time, code codes.Code, reason, client string) {
	if t.span == nil {
		return
	}
	t.span.SetAttributes(semconv.RPCGRPCStatusCodeKey.Int(int(code)))
	if client != "" {
		t.span.SetAttributes(semconv.ClientAddress(client))
	}
	if code != codes.OK {
		if reason == "" {
			reason = code.String()
		}
		t.span.SetAttributes(semconv.ErrorTypeKey.String(reason))
	}
	switch code {
	case codes.Unknown, codes.DeadlineExceeded, codes.Unimplemented, codes.Internal, codes.Unavailable, codes.DataLoss:
		t.span.SetStatus(otelcodes.Error, "") // a text may say more than anybody should read; the reason does not
	}
	t.span.End(trace.WithTimestamp(at))
}

// Outgoing returns ctx with the metadata that goes on from the call that ctx belongs to: traceparent, tracestate, and what
// Config.Propagate names. Outside of a call it returns ctx.
func Outgoing(ctx context.Context) context.Context {
	t, _ := ctx.Value(traceKey{}).(*Trace)
	if t == nil || t.service == nil {
		return ctx
	}
	var pairs []string
	if t.id.IsValid() {
		t.carried.Store(true)
		parent, flags := t.parent, t.flags
		if t.span != nil {
			// The handler may have made spans of its own below that of the call.
			if sc := trace.SpanContextFromContext(ctx); sc.TraceID() == t.id {
				parent, flags = sc.SpanID(), sc.TraceFlags()
			}
		}
		pairs = append(pairs, traceparent, format(t.id, parent, flags))
		if t.state != "" {
			pairs = append(pairs, tracestate, t.state)
		}
	}
	left := maxCarried
	for _, name := range t.service.t.cfg.Propagate {
		for _, v := range metadata.ValueFromIncomingContext(ctx, name) {
			if left -= len(name) + len(v); left < 0 {
				break
			}
			pairs = append(pairs, name, v)
		}
	}
	if len(pairs) == 0 {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, pairs...)
}

var (
	metadataName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`)
	// reserved is what must not pass from caller to callee, or has a way of its own.
	reserved = []string{
		"authorization", "cookie", "host", "connection", "te", "trailer", "content-type", "user-agent", traceparent, tracestate,
		"x-request-id", "x-forwarded-for", "forwarded",
	}
)

// CheckPropagate returns an error for a name that is no metadata key, or that must not be carried on: credentials, what
// belongs to one connection, and what the kit itself sends.
func CheckPropagate(names []string) error {
	for _, n := range names {
		if !metadataName.MatchString(n) {
			return fmt.Errorf("%q is not the name of metadata: lower-case letters, digits, \"-\", \"_\" and \".\"", n)
		}
		for _, r := range reserved {
			if n == r {
				return fmt.Errorf("%q is not carried on from call to call", n)
			}
		}
		if strings.HasPrefix(n, "grpc-") || strings.HasPrefix(n, "x-concordat-") {
			return fmt.Errorf("%q is not carried on from call to call", n)
		}
	}
	return nil
}

// parse reads a traceparent (W3C Trace Context section 3.2) and reports whether it is one.
func (t *Trace) parse(s string) bool {
	const size = len("00-0123456789abcdef0123456789abcdef-0123456789abcdef-01")
	if len(s) < size || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return false
	}
	var version, flags [1]byte
	if !unhex(version[:], s[:2]) || version[0] == 0xff ||
		version[0] == 0 && len(s) != size || len(s) > size && s[size] != '-' {
		return false
	}
	var id trace.TraceID
	var span trace.SpanID
	if !unhex(id[:], s[3:35]) || !unhex(span[:], s[36:52]) || !unhex(flags[:], s[53:55]) || !id.IsValid() || !span.IsValid() {
		return false
	}
	t.id, t.parent, t.flags = id, span, trace.TraceFlags(flags[0])&knownFlags
	return true
}

// knownFlags are the flags that a traceparent of version 00 has: sampled, and that the id is random.
const knownFlags = 0x03

// unhex decodes lower-case hexadecimal digits, the only ones that the header has.
func unhex(dst []byte, s string) bool {
	for i := range dst {
		hi, lo := digit(s[2*i]), digit(s[2*i+1])
		if hi > 15 || lo > 15 {
			return false
		}
		dst[i] = hi<<4 | lo
	}
	return true
}

func digit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	default:
		return 0xff
	}
}

func format(id trace.TraceID, span trace.SpanID, flags trace.TraceFlags) string {
	b := make([]byte, 0, 55)
	b = append(b, "00-"...)
	b = hex.AppendEncode(b, id[:])
	b = append(b, '-')
	b = hex.AppendEncode(b, span[:])
	b = append(b, '-')
	b = hex.AppendEncode(b, []byte{byte(flags & knownFlags)})
	return string(b)
}

func newTraceID(random func() uint64) (id trace.TraceID) {
	for !id.IsValid() {
		binary.BigEndian.PutUint64(id[:8], random())
		binary.BigEndian.PutUint64(id[8:], random())
	}
	return id
}

func newSpanID(random func() uint64) (id trace.SpanID) {
	for !id.IsValid() {
		binary.BigEndian.PutUint64(id[:], random())
	}
	return id
}

// ids gives the SDK the ids that were decided by, and makes those of spans.
type ids struct{ random func() uint64 }

type rootKey struct{}

func (g ids) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	id, ok := ctx.Value(rootKey{}).(trace.TraceID)
	if !ok {
		id = newTraceID(g.random)
	}
	return id, newSpanID(g.random)
}

func (g ids) NewSpanID(context.Context, trace.TraceID) trace.SpanID { return newSpanID(g.random) }
