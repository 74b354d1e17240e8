package edge

import (
	"net/http"

	"github.com/concordat-dev/concordat/services/gateway/internal/forward"
)

// rpc is the forwarding server. What grpc-go answers before any handler has the form that all errors have, and repeats nothing of the
// request.
type rpc struct{ server http.Handler }

// ServeHTTP implements http.Handler. The request has an Origin.
func (s rpc) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	origin := forward.OriginFrom(r.Context())
	plain := &plainWriter{ResponseWriter: w}
	s.server.ServeHTTP(plain, r)
	if plain.code != 0 {
		writeStatus(w, protocolGRPC, 0, statusOf(forward.ErrMalformed, origin.RequestID))
	} else if _, ok := origin.Code(); !ok {
		setStatus(w.Header(), statusOf(errCompression, origin.RequestID))
	}
}

// plainWriter leaves out what grpc-go answers in the words of HTTP: a grpc-timeout or a -bin header that cannot be read, which it repeats.
type plainWriter struct {
	http.ResponseWriter
	code int // of such an answer, 0 where there is none
}

// WriteHeader implements http.ResponseWriter.
func (w *plainWriter) WriteHeader(code int) {
	if code != http.StatusOK {
		w.code = code
		return
	}
	w.ResponseWriter.WriteHeader(code)
}

// Write implements io.Writer.
func (w *plainWriter) Write(p []byte) (int, error) {
	if w.code != 0 {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

// Flush implements http.Flusher.
func (w *plainWriter) Flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok && w.code == 0 {
		f.Flush()
	}
}

// Unwrap is for http.ResponseController.
func (w *plainWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
