package edge

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
)

// Watch returns a listener whose connections NewServer can tell of where HTTP refuses a request by itself.
func Watch(l net.Listener) net.Listener { return watchedListener{l} }

type watchedListener struct{ net.Listener }

// Accept implements net.Listener.
func (l watchedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &watchedConn{Conn: c}, nil
}

// watchedConn knows whether what came over it became a request. net/http answers headers beyond their limit, and what is no
// HTTP, before anybody else sees them: then a connection is active and no handler is called until it is not.
type watchedConn struct {
	net.Conn

	mu      sync.Mutex
	read    int  // bytes, since the last request
	pending bool // it is active, and no handler was called
	greeted bool // the one pair of states that HTTP/2 begins with is over
}

// Read implements io.Reader.
func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	c.read += n
	c.mu.Unlock()
	return n, err
}

// handled notes that a handler was called.
func (c *watchedConn) handled() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending, c.read, c.greeted = false, 0, true
}

// became notes the state of the connection. It returns the HTTP status that a request was refused with, 0 where none was.
func (c *watchedConn) became(state http.ConnState) (status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateActive:
		c.pending = true
		return 0
	case http.StateIdle, http.StateClosed:
		refused := c.pending && !(state == http.StateIdle && !c.greeted)
		read := c.read
		c.pending, c.read, c.greeted = false, 0, true
		switch {
		case !refused:
			return 0
		case read > maxHeaderBytes:
			return http.StatusRequestHeaderFieldsTooLarge
		default:
			return http.StatusBadRequest
		}
	default:
		return 0
	}
}

// watchedOf returns the watched connection below c, nil where there is none.
func watchedOf(c net.Conn) *watchedConn {
	for c != nil {
		if w, ok := c.(*watchedConn); ok {
			return w
		}
		below, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		c = below.NetConn()
	}
	return nil
}

type watchedKey struct{}

// handledIn notes that the request of the context has a handler.
func handledIn(ctx context.Context) {
	if c, ok := ctx.Value(watchedKey{}).(*watchedConn); ok {
		c.handled()
	}
}

// watch has the server tell of what it refuses by itself.
func (h *Handler) watch(s *http.Server) {
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if w := watchedOf(c); w != nil {
			return context.WithValue(ctx, watchedKey{}, w)
		}
		return ctx
	}
	s.ConnState = func(c net.Conn, state http.ConnState) {
		w := watchedOf(c)
		if w == nil {
			return
		}
		if status := w.became(state); status != 0 {
			h.requests.Add("http", strconv.Itoa(status))
			h.refused.tell(context.Background(), slog.Int("status", status), slog.String("address", h.cfg.Forwarder.ClientAddress(c.RemoteAddr().String(), nil)))
		}
	}
}

// tellEvery is how often the log says that requests are refused.
const tellEvery = 10 * time.Second

// refused are the requests that did not become a call for a reason of the caller's. Anybody can make as many as they like, so
// the log has a line now and then: how many there were, and what the last of them was. Each is in the metrics.
type refused struct {
	log   *slog.Logger
	clock clock.Clock

	mu     sync.Mutex
	untold int // since the log was told
	told   time.Time
}

// tell reports whether the log has a line of it.
func (r *refused) tell(ctx context.Context, attrs ...slog.Attr) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.untold++
	now := r.clock.Now()
	if !r.told.IsZero() && now.Sub(r.told) < tellEvery {
		return false
	}
	r.log.LogAttrs(ctx, slog.LevelInfo, "requests refused", append(attrs, slog.Int("refused", r.untold))...)
	r.told, r.untold = now, 0
	return true
}

// headerBytes returns what the line and the headers of a request take, as HTTP/1.1 writes them.
func headerBytes(r *http.Request) int {
	n := len(r.Method) + len(r.RequestURI) + len(r.Host)
	for name, values := range r.Header {
		for _, v := range values {
			n += len(name) + len(v) + len(": \r\n")
		}
	}
	return n
}
