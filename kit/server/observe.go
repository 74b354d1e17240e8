package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/policy"
	"github.com/concordat-dev/concordat/kit/telemetry"
)

// RequestIDHeader carries the id of a request: accepted from the caller where it is up to 64 letters, digits and
// "-_.", made otherwise, returned with the answer, in every error and in the log, and sent on to other services.
const RequestIDHeader = "x-request-id"

// observe tells what becomes of the call: to the caller its id, in the headers of an answer (stream.go) and in the
// trailers of an error; in the metrics, in its trace if it is recorded, and in one line of the log how it ended. Headers
// before an error would keep grpc-go's clients from repeating the call: they only do where trailers come alone (gRFC A6,
// "trailers-only").
func observe(s *Server) step {
	return step{
		name: "observe",
		around: func(next handler) handler {
			return func(c *call) error {
				err := next(c)
				if err != nil {
					c.stream.SetTrailer(metadata.MD{RequestIDHeader: {c.RequestID}})
				}
				c.tellEnd(status.Code(err), s.cfg.Clock.Now())
				return err
			}
		},
		message: func(c *call, m proto.Message) error {
			c.came(m) // its secrets are kept out of the log, should the call fail
			return nil
		},
	}
}

// observed is what is looked up of a method when it is called.
type observed struct {
	policy *policy.Method // nil for a method that nobody declared
	tell   *telemetry.Method
}

// tellEnd tells how the call ended, once.
func (c *call) tellEnd(code codes.Code, now time.Time) {
	s := c.server
	reason := ""
	if c.fault != nil {
		reason = c.fault.Reason()
	}
	took := now.Sub(c.started)
	c.tell.Handled(code, reason, took, &c.trace)
	line := telemetry.Call{
		At: now, Method: c.name, Code: code.String(), Took: took, RequestID: c.RequestID, TraceID: c.trace.ID(), Reason: reason,
		Peer: c.conn.peer, Client: telemetry.ClientOf(c.header), User: c.Caller.UserID(), Address: cmp.Or(c.Caller.Address, c.conn.address),
		Received: c.received.Load(), ReceivedBytes: c.receivedBytes.Load(), Sent: c.sent.Load(), SentBytes: c.sentBytes.Load(),
	}
	c.trace.End(now, code, reason, line.Address)
	level := levelOf(c, code)
	if !s.cfg.Log.Enabled(c, level) {
		return
	}
	if c.fault != nil {
		explain(c, c.fault, &line)
	}
	telemetry.LogCall(c, s.cfg.Log, level, &line)
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
func explain(c *call, f *fault.Fault, line *telemetry.Call) {
	clean := cleaner(c)
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
	if err := countRefusals(s.telemetry, s.refusals, s.early); err != nil {
		return err
	}
	s.methods = make(map[string]observed, len(s.policies))
	for full, p := range s.policies {
		s.methods[full] = observed{p, s.telemetry.Method(telemetry.MethodConfig{
			FullName: full, ClientStream: p.ClientStream, ServerStream: p.ServerStream, Framework: p.Framework, Reasons: telemetry.Reasons(p.Package),
		})}
	}
	s.unknown = observed{nil, s.telemetry.Method(telemetry.MethodConfig{Framework: true, Reasons: telemetry.Reasons("")})}
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
