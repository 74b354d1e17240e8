package edge

import (
	"net/http"
	"strconv"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/concordat-dev/concordat/services/gateway/internal/forward"
)

// rpc is the forwarding server. What grpc-go answers there before any handler, and so in its own words, becomes a fault of ours, with
// details and without anything of the request.
type rpc struct{ server http.Handler }

// ServeHTTP implements http.Handler. The request has an Origin.
func (s rpc) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	origin := forward.OriginFrom(r.Context())
	grpc := &grpcWriter{ResponseWriter: w}
	s.server.ServeHTTP(grpc, r)
	if grpc.plain {
		writeStatus(w, protocolGRPC, 0, statusOf(forward.ErrMalformed, origin.RequestID))
		return
	}
	if _, ok := origin.Code(); ok {
		return
	}
	code, err := strconv.Atoi(w.Header().Get("Grpc-Status"))
	if err != nil {
		return // whoever called has left
	}
	f := forward.ReceiveFault(status.Error(codes.Code(code), ""))
	if codes.Code(code) == codes.Unimplemented {
		f = forward.ErrCompression
	}
	setStatus(w.Header(), statusOf(f, origin.RequestID))
}

// grpcWriter leaves out what grpc-go answers in plain text: a grpc-timeout or a -bin header that cannot be read, which it repeats.
type grpcWriter struct {
	http.ResponseWriter
	plain bool
}

// WriteHeader implements http.ResponseWriter.
func (w *grpcWriter) WriteHeader(code int) {
	if w.plain = code != http.StatusOK; !w.plain {
		w.ResponseWriter.WriteHeader(code)
	}
}

// Write implements io.Writer.
func (w *grpcWriter) Write(p []byte) (int, error) {
	if w.plain {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

// Flush implements http.Flusher, which the gRPC server asks for.
func (w *grpcWriter) Flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}
