// Package admin is the port for operators: metrics, checks, profiles, the state of gRPC's channels, and which program this
// is. It speaks HTTP without encryption and asks nobody who they are, so it listens where this machine alone can reach
// it, unless it is told otherwise, and there it answers no page that a browser was tricked into asking for.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/concordat-dev/concordat/kit/telemetry"
	"github.com/concordat-dev/concordat/kit/usage"
)

// Check is something that has to be well for the process to be ready.
type Check struct {
	// Name says what was checked, such as "store"; in a process of several services, "users/store".
	Name string
	// Err is what is wrong, nil for nothing.
	Err error
}

// Config is what a Server needs. Every field is required.
type Config struct {
	// Listener is where to serve. The server closes it.
	Listener net.Listener
	// BeyondLoopback allows a Listener that other machines can reach.
	BeyondLoopback bool
	// Metrics are what /metrics shows.
	Metrics *prometheus.Registry
	// Ready returns what /readyz shows. It must not block for long.
	Ready func() []Check
	// Contracts returns the digest of the contract of each service of the process, by its name.
	Contracts func() map[string]string
	// Usage returns what /usage shows.
	Usage func() usage.Snapshot
	// Log hears of what goes wrong.
	Log *slog.Logger
}

// The bounds of a request. There is none on the answer: a profile takes as long as was asked for.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second
	idleTimeout   = time.Minute
	maxHeader     = 16 << 10 // bytes
	// stopTimeout is how long requests may go on once the server is told to stop.
	stopTimeout = time.Second
)

// Server serves the admin port.
type Server struct {
	cfg  Config
	http *http.Server
}

// New returns a Server. It fails where other machines could reach the listener and that is not allowed; the listener
// is then closed.
func New(cfg Config) (*Server, error) {
	if !cfg.BeyondLoopback && !isLoopback(cfg.Listener.Addr()) {
		err := fmt.Errorf("%s can be reached from other machines, and the admin port asks nobody who they are", cfg.Listener.Addr())
		return nil, errors.Join(err, cfg.Listener.Close())
	}
	s := &Server{cfg: cfg}
	s.http = &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelWarn),
	}
	return s, nil
}

func isLoopback(a net.Addr) bool {
	ap, err := netip.ParseAddrPort(a.String())
	return err == nil && ap.Addr().Unmap().IsLoopback()
}

// Addr returns the address that the server listens on.
func (s *Server) Addr() net.Addr { return s.cfg.Listener.Addr() }

// Serve serves until Stop is called, and then returns nil.
func (s *Server) Serve() error {
	if err := s.http.Serve(s.cfg.Listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the admin port: %w", err)
	}
	return nil
}

// Stop ends the server, with what is asked of it. Requests under way have a second to finish; a profile does not.
func (s *Server) Stop() {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		_ = s.http.Close() // what is left is cut
	}
	_ = s.cfg.Listener.Close() // where Serve was never called; else it is closed already
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.index)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.cfg.Metrics, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelWarn), ErrorHandling: promhttp.ContinueOnError,
		EnableOpenMetrics: true, MaxRequestsInFlight: 4, Timeout: readTimeout,
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /buildinfo", s.buildinfo)
	mux.HandleFunc("GET /usage", s.usage)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	newChannelz().register(mux)
	return s.guard(mux)
}

// guard refuses what comes under a name: a page in a browser on this machine can have any name of its own point to this
// address, and would then be let in. A port that others may reach is known by names, and guarded by whoever let them.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.cfg.BeyondLoopback && !isLocalName(r.Host) {
			text(w, http.StatusMisdirectedRequest, "the admin port answers to addresses and to localhost\n")
			return
		}
		if site := r.Header.Get("Sec-Fetch-Site"); site == "cross-site" || site == "same-site" {
			text(w, http.StatusForbidden, "no page of another origin may ask\n")
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

func isLocalName(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if host == "localhost" {
		return true
	}
	_, err := netip.ParseAddr(host)
	return err == nil
}

const pages = `/metrics        metrics, for Prometheus
/healthz        whether the process runs
/readyz         whether it can do its work, check by check
/buildinfo      which program this is
/usage          which fields of the contract are filled in, by whom (--usage-sample)
/channelz/      the state of gRPC's channels, servers and sockets
/debug/pprof/   profiles
`

func (s *Server) index(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, pages) }

// readyz answers 200 while every check passes, and 503 otherwise, with a line for each.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	status := http.StatusOK
	var b strings.Builder
	for _, c := range s.cfg.Ready() {
		if c.Err == nil {
			fmt.Fprintf(&b, "%s: ok\n", c.Name)
			continue
		}
		status = http.StatusServiceUnavailable
		fmt.Fprintf(&b, "%s: %s\n", c.Name, strings.ReplaceAll(c.Err.Error(), "\n", "; "))
	}
	text(w, status, b.String())
}

func (s *Server) buildinfo(w http.ResponseWriter, _ *http.Request) {
	s.json(w, struct {
		telemetry.BuildInfo
		Contracts map[string]string `json:"contracts"`
	}{telemetry.Build(), s.cfg.Contracts()})
}

func (s *Server) usage(w http.ResponseWriter, _ *http.Request) { s.json(w, s.cfg.Usage()) }

func (s *Server) json(w http.ResponseWriter, page any) {
	body, err := json.MarshalIndent(page, "", "  ")
	if err != nil {
		s.cfg.Log.Error("page of the admin port", "cause", err)
		text(w, http.StatusInternalServerError, "the page cannot be shown\n")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(body, '\n')) // whoever asked may have gone
}

func text(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body)) // whoever asked may have gone
}
