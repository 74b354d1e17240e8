package edge

import (
	"crypto/tls"
	"log"
	"log/slog"
	"net/http"
	"time"
)

// Limits of the HTTP transport.
const (
	maxHeaderBytes    = 16 << 10        // of one request
	headerSlop        = 4 << 10         // that are read beyond, so that most who have too many are told so in our words
	readHeaderTimeout = 5 * time.Second // TLS handshake included
	idleTimeout       = 2 * time.Minute
	maxStreams        = 250 // concurrent requests on one HTTP/2 connection
	pingAfter         = 30 * time.Second
	pingTimeout       = 10 * time.Second
)

// NewServer returns the HTTP server of the edge: HTTP/1.1 and HTTP/2, over TLS where there is a certificate, and with
// prior knowledge where there is none. Its listener is one of Watch.
func NewServer(h *Handler, secure *tls.Config, logger *slog.Logger) *http.Server {
	s := &http.Server{
		Handler:           h,
		TLSConfig:         secure,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes + headerSlop, // net/http allows 4 KiB more on HTTP/1.1
		ErrorLog:          log.New(quiet{logger}, "", 0),
		Protocols:         new(http.Protocols),
		// "OPTIONS *" is no path of ours, like any other.
		DisableGeneralOptionsHandler: true,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams,
			SendPingTimeout:      pingAfter,
			PingTimeout:          pingTimeout,
			WriteByteTimeout:     writeTimeout,
		},
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
	s.Protocols.SetUnencryptedHTTP2(secure == nil)
	h.watch(s)
	return s
}

// quiet logs what net/http says of single connections, which callers cause at will, where only who looks for it sees it.
type quiet struct{ log *slog.Logger }

func (q quiet) Write(p []byte) (int, error) {
	q.log.Debug("http", "text", string(p))
	return len(p), nil
}
