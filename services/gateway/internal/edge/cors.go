package edge

import (
	"net/http"
	"strings"
)

// cors lets the pages of the allowed origins call. Nothing here goes by cookies, so credentials are never allowed.
type cors struct{ origins map[string]struct{} }

const (
	corsMethods = "GET, POST, PUT, PATCH, DELETE"
	// What the protocols send: REST, Connect, gRPC-Web, traces.
	corsRequestHeaders = "authorization, content-type, content-encoding, connect-protocol-version, connect-timeout-ms, " +
		"connect-content-encoding, connect-accept-encoding, grpc-timeout, grpc-accept-encoding, grpc-encoding, x-grpc-web, " +
		"x-user-agent, x-server-timeout, x-request-id, traceparent, tracestate"
	// What a page may read of an answer.
	corsResponseHeaders = "grpc-status, grpc-message, grpc-status-details-bin, grpc-encoding, connect-content-encoding, " +
		"content-encoding, idempotency-replayed, retry-after, x-request-id"
	corsMaxAge = "7200" // seconds; browsers take no more
)

func newCORS(origins []string) cors {
	c := cors{origins: make(map[string]struct{}, len(origins))}
	for _, o := range origins {
		c.origins[strings.ToLower(o)] = struct{}{}
	}
	return c
}

// serve sets the headers of an answer to an allowed origin, and answers a preflight. It reports whether it did.
func (c cors) serve(w http.ResponseWriter, r *http.Request) bool {
	origin := r.Header.Get("Origin")
	preflight := r.Method == http.MethodOptions && origin != "" && r.Header.Get("Access-Control-Request-Method") != ""
	h := w.Header()
	if len(c.origins) > 0 {
		h.Add("Vary", "Origin")
	}
	if _, allowed := c.origins[strings.ToLower(origin)]; allowed {
		h.Set("Access-Control-Allow-Origin", origin)
		if preflight {
			h.Set("Access-Control-Allow-Methods", corsMethods)
			h.Set("Access-Control-Allow-Headers", corsRequestHeaders)
			h.Set("Access-Control-Max-Age", corsMaxAge)
		} else {
			h.Set("Access-Control-Expose-Headers", corsResponseHeaders)
		}
	}
	if preflight {
		w.WriteHeader(http.StatusNoContent) // without the headers above it is a no
	}
	return preflight
}
