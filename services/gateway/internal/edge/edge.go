// Package edge is the HTTP side of the gateway: REST by the google.api.http of the contract, Connect and gRPC-Web, all
// transcoded to gRPC and handed to the forwarding server, and the few pages that a stranger looks for first. It promises
// that a path decides by the method that it resolves to and by nothing else, that every error is a google.rpc.Status
// with details in the words of the caller's protocol, and that the size and time of what a caller sends are bounded
// before anything is done with it.
package edge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/vanguard"
	"google.golang.org/grpc"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/telemetry"
	"github.com/concordat-dev/concordat/services/gateway/internal/contract"
	"github.com/concordat-dev/concordat/services/gateway/internal/forward"
	"github.com/concordat-dev/concordat/services/gateway/internal/upstream"
)

// Limits of a request.
const (
	maxPathBytes     = 2048
	maxResponseBytes = 4 * forward.MaxMessageBytes // a message in JSON is larger than itself
	bodyTimeout      = 30 * time.Second            // for a body that is read as a whole
)

// Config is what a Handler needs. Every field but AllowedOrigins is required.
type Config struct {
	// Contract says which methods there are.
	Contract *contract.Contract
	// Forwarder knows how callers are addressed.
	Forwarder *forward.Forwarder
	// RPC is the forwarding server: Forwarder.Server.
	RPC http.Handler
	// Conn returns the connection to the service of that name, for the documents that are made of its answers.
	Conn func(upstream string) grpc.ClientConnInterface
	// Check asks the services how they are.
	Check func(context.Context) []upstream.Health
	// Draining says that the process stops.
	Draining func() bool
	// OpenAPI is the description of the REST side.
	OpenAPI []byte
	// Issuer is the issuer of access tokens: the address under which the edge is known.
	Issuer string
	// Page is what the landing page shows.
	Page Page
	// AllowedOrigins are the origins whose pages may call.
	AllowedOrigins []string
	// MaxBodyBytes bounds the body of a request, and each message of a stream.
	MaxBodyBytes int
	// Secure says that the listener has a certificate.
	Secure bool
	// Telemetry is that of the edge: requests that did not become a call are in its metrics; calls are told of by the
	// Forwarder.
	Telemetry *telemetry.Service
	// Log gets one line for each request that did not become a call; calls have theirs from the Forwarder.
	Log *slog.Logger
	// Clock is the time of durations.
	Clock clock.Clock
	// NewID makes the ids of requests that bring none.
	NewID func() string
}

// Handler serves the HTTP side of the gateway. It is safe for concurrent use.
type Handler struct {
	cfg        Config
	transcoder http.Handler
	rpc        rpc
	pages      *pages
	cors       cors
	queryVerbs map[string]bool // the verbs of which some route looks at the query
	requests   telemetry.Counter
	refused    *refused
}

// New returns a Handler. It fails where the contract cannot be served over HTTP: two methods with one path.
func New(cfg Config) (*Handler, error) {
	h := &Handler{cfg: cfg, rpc: rpc{cfg.RPC}, cors: newCORS(cfg.AllowedOrigins), queryVerbs: cfg.Contract.QueryVerbs()}
	h.refused = &refused{log: cfg.Log, clock: cfg.Clock}
	var err error
	if h.pages, err = newPages(cfg); err != nil {
		return nil, err
	}
	h.requests, err = cfg.Telemetry.Counter("concordat_edge_requests_total",
		"HTTP requests that did not become a call, by what the caller spoke (page: a document of the edge; http: none, HTTP itself refused it) and by HTTP status.",
		"protocol", "status")
	if err != nil {
		return nil, err
	}
	behind := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d, body := duplexFrom(r.Context())
		d.server(h.rpc, body, w, r)
	})
	var services []*vanguard.Service
	for _, u := range cfg.Contract.Upstreams() {
		for _, s := range u.Services {
			services = append(services, vanguard.NewServiceWithSchema(s, behind,
				vanguard.WithTargetProtocols(vanguard.ProtocolGRPC),
				vanguard.WithTargetCodecs(vanguard.CodecProto),
				vanguard.WithNoTargetCompression(),
				vanguard.WithMaxMessageBufferBytes(maxResponseBytes),
			))
		}
	}
	h.transcoder, err = vanguard.NewTranscoder(services,
		vanguard.WithCodec(newJSONCodec),
		vanguard.WithCompression(vanguard.CompressionGzip, newGzip, func() connect.Decompressor {
			return &limitedGzip{limit: int64(cfg.MaxBodyBytes)}
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("serve the contract over HTTP: %w", err)
	}
	return h, nil
}

// exchange is one request and its answer.
type exchange struct {
	w        *countingWriter
	r        *http.Request
	method   *contract.Method // nil where the path is that of none
	protocol protocol
	origin   *forward.Origin
	page     bool // whether the path is that of a document
	status   int  // of a page that is not an error and not 200 either, 0 otherwise
	refused  int  // the HTTP status that a refusal stands for, which gRPC has none for; 0 otherwise
}

// refuse answers with an error of ours. code is the HTTP status where HTTP itself is at fault, 0 where the fault says it.
func (x *exchange) refuse(f *fault.Fault, code int) {
	st := statusOf(f, x.origin.RequestID)
	p := x.protocol
	switch {
	case code == 0:
		code = httpCodeOf(st)
	case p.framed() && code != http.StatusNotFound:
		p = protocolREST
	}
	x.refused = code
	writeStatus(x.w, p, code, st)
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	handledIn(r.Context())
	started := h.cfg.Clock.Now()
	x := &exchange{w: newCountingWriter(w, r), r: r, origin: &forward.Origin{
		Address: h.cfg.Forwarder.ClientAddress(r.RemoteAddr, r.Header.Values(forward.ForwardedHeader)),
	}}
	x.origin.RequestID = r.Header.Get(forward.RequestIDHeader)
	if !forward.ValidRequestID(x.origin.RequestID) {
		x.origin.RequestID = h.cfg.NewID()
	}
	defer func() {
		panicked := recover()
		if panicked != nil && panicked != http.ErrAbortHandler {
			h.cfg.Log.ErrorContext(r.Context(), "panic", "cause", fmt.Sprint(panicked), "stack", string(debug.Stack()),
				"request_id", x.origin.RequestID)
			if x.w.code == 0 {
				x.refuse(errInternal, 0)
				panicked = nil
			}
		}
		h.log(x, started)
		x.w.linger()
		if panicked != nil {
			panic(http.ErrAbortHandler) // what was sent of the answer must not look whole
		}
	}()
	h.secure(x)
	h.route(x)
}

// secure sets the headers that every answer has.
func (h *Handler) secure(x *exchange) {
	header := x.w.Header()
	header.Set("X-Request-Id", x.origin.RequestID)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	header.Set("Cache-Control", "no-store") // answers are somebody's, and may hold tokens
	if h.cfg.Secure {
		header.Set("Strict-Transport-Security", "max-age=31536000")
	}
}

// route finds who answers. What has tricks in its path gets nobody.
func (h *Handler) route(x *exchange) {
	r := x.r
	x.method = h.cfg.Contract.Method(r.URL.Path)
	var single bool
	x.protocol, single = protocolOf(r, x.method != nil)
	x.origin.Protocol = x.protocol.String()
	switch path := r.URL.EscapedPath(); {
	case headerBytes(r) > maxHeaderBytes:
		x.refuse(errHeaders, http.StatusRequestHeaderFieldsTooLarge)
		return
	case len(path) > maxPathBytes:
		x.refuse(errNoPath, http.StatusRequestURITooLong)
		return
	case !plainPath(path):
		h.notFound(x)
		return
	case !single:
		x.refuse(errMediaType, http.StatusUnsupportedMediaType)
		return
	}
	if h.cors.serve(x.w, r) {
		return
	}
	switch page := h.pages.find(r.URL.Path); {
	case page != nil:
		x.page = true
		page.serve(x)
	case x.protocol == protocolGRPC:
		h.serveGRPC(x)
	default:
		h.serveTranscoded(x)
	}
}

// plainPath reports whether a path says what it means: no escapes, no empty or relative segments.
func plainPath(path string) bool {
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, `%\;`) {
		return false
	}
	for _, segment := range strings.Split(path[1:], "/") {
		if segment == "." || segment == ".." || segment == "" && path != "/" {
			return false
		}
	}
	return true
}

// notFound answers in the words of the protocol: a method that does not exist, or a path that does not.
func (h *Handler) notFound(x *exchange) {
	if x.protocol.framed() || x.protocol == protocolConnect {
		x.refuse(forward.ErrUnknownMethod, http.StatusNotFound)
	} else {
		x.refuse(errNoPath, http.StatusNotFound)
	}
}

// serveGRPC serves gRPC over HTTP/2, which needs no transcoding.
func (h *Handler) serveGRPC(x *exchange) {
	switch {
	case x.r.URL.RawQuery != "" || x.r.URL.ForceQuery || strings.Count(x.r.URL.Path, "/") < 2:
		h.notFound(x)
	case x.r.ProtoMajor < 2:
		x.refuse(errVersion, http.StatusHTTPVersionNotSupported)
	case x.r.Method != http.MethodPost:
		h.wrongMethod(x, http.MethodPost)
	default:
		h.rpc.ServeHTTP(x.w, x.r.WithContext(forward.WithOrigin(x.r.Context(), x.origin)))
	}
}

// serveTranscoded serves REST, Connect and gRPC-Web.
func (h *Handler) serveTranscoded(x *exchange) {
	if x.method == nil && x.protocol.framed() {
		h.notFound(x)
		return
	}
	if x.method != nil && !h.readyMethod(x) {
		return
	}
	if x.method == nil && x.r.URL.RawQuery != "" && !h.queryVerbs[x.r.Method] {
		// The transcoder would take fields from it, over those of the body; and what stands in a path is logged by every
		// proxy on the way, a password too.
		x.refuse(errQuery, http.StatusBadRequest)
		return
	}
	var body *frames
	control := http.NewResponseController(x.w)
	if x.protocol.framed() {
		body = &frames{
			limit: h.cfg.MaxBodyBytes, single: !x.method.ClientStream, ended: x.w.body.hasEnded,
			interrupt: x.w.breakOff,
			whole:     func() { _ = control.SetReadDeadline(time.Time{}) },
		}
		if body.single {
			_ = control.SetReadDeadline(time.Now().Add(bodyTimeout)) // where there are none, the connection bounds it
		}
	} else if f, code := h.readBody(x, control); f != nil {
		x.refuse(f, code)
		return
	}
	out := &errorWriter{ResponseWriter: x.w}
	d := &duplex{origin: x.origin}
	r := x.r.WithContext(forward.WithOrigin(x.r.Context(), x.origin))
	d.serve(h.transcoder, out, r, body)
	out.finish(x.protocol, x.origin)
}

// readyMethod brings a request to a method's own path into the form that the transcoder takes, or refuses it.
func (h *Handler) readyMethod(x *exchange) bool {
	r := x.r
	query := r.URL.RawQuery != "" || r.URL.ForceQuery
	if r.Method == http.MethodGet && !x.protocol.framed() && r.URL.Query().Get("connect") == "v1" {
		return true // Connect's way to call what has no side effects; the transcoder knows which do
	}
	if query {
		h.notFound(x)
		return false
	}
	if r.Method != http.MethodPost {
		h.wrongMethod(x, http.MethodPost)
		return false
	}
	if x.protocol != protocolConnect {
		return true
	}
	media := r.Header.Get("Content-Type")
	switch {
	case x.method.Streams():
		x.refuse(errMediaType.WithText("the method streams: call it with content type application/connect+json, "+
			"application/connect+proto, gRPC-Web or gRPC"), http.StatusUnsupportedMediaType)
		return false
	case media != "application/json" && media != "application/proto":
		x.refuse(errMediaType.WithText("the method takes content type application/json or application/proto"),
			http.StatusUnsupportedMediaType)
		return false
	}
	const version = "Connect-Protocol-Version"
	if v := r.Header.Values(version); len(v) > 1 || len(v) == 1 && v[0] != "1" {
		x.refuse(forward.ErrMalformed.WithText("the version of the Connect protocol is 1"), http.StatusBadRequest)
		return false
	}
	r.Header.Set(version, "1") // a plain curl does not send it
	return true
}

func (h *Handler) wrongMethod(x *exchange, allow string) {
	x.w.Header().Set("Allow", allow)
	x.refuse(errMethod, http.StatusMethodNotAllowed)
}

// readBody reads the body as a whole, so that its size and time are known before anything is done with it.
func (h *Handler) readBody(x *exchange, control *http.ResponseController) (*fault.Fault, int) {
	r := x.r
	limit := int64(h.cfg.MaxBodyBytes)
	if r.ContentLength > limit {
		return forward.ErrTooLarge, 0
	}
	if r.Body == nil || r.Body == http.NoBody {
		return nil, 0
	}
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeout)) // where there are none, the connection bounds it
	data, err := io.ReadAll(http.MaxBytesReader(x.w.ResponseWriter, r.Body, limit))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return forward.ErrTooLarge, 0
	case errors.Is(err, os.ErrDeadlineExceeded):
		x.w.Header().Set("Connection", "close")
		return errSlow, http.StatusRequestTimeout
	case err != nil:
		return forward.ErrMalformed, http.StatusBadRequest
	}
	_ = control.SetReadDeadline(time.Time{})
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(data)), int64(len(data))
	return nil, 0
}

// log tells of a request that did not become a call.
func (h *Handler) log(x *exchange, started time.Time) {
	if x.origin.Reached() {
		return
	}
	spoken := x.protocol.String()
	if x.page {
		spoken = "page"
	}
	status := x.w.code
	if x.protocol.framed() && status == http.StatusOK && !x.page { // over which a refusal is a 200, too
		if status = x.refused; status == 0 {
			status = http.StatusBadRequest
		}
	}
	h.requests.Add(spoken, strconv.Itoa(status))
	attrs := []slog.Attr{
		slog.String("method", truncate(x.r.Method, maxMethodLogged)),
		slog.String("path", truncate(x.r.URL.EscapedPath(), maxPathLogged)), // never the query: it may hold a message
		slog.Int("status", status),
		slog.Duration("took", h.cfg.Clock.Now().Sub(started).Round(time.Microsecond)),
		slog.String("request_id", x.origin.RequestID),
		slog.String("address", x.origin.Address),
	}
	level := slog.LevelDebug
	switch {
	case status >= http.StatusInternalServerError && status != http.StatusServiceUnavailable:
		level = slog.LevelWarn
	case status >= http.StatusBadRequest && status < http.StatusInternalServerError && h.refused.tell(x.r.Context(), attrs...):
		return
	}
	h.cfg.Log.LogAttrs(x.r.Context(), level, "request", attrs...)
}

// What a line tells of a request, in bytes.
const (
	maxMethodLogged = 32
	maxPathLogged   = 200
)

func truncate(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}
