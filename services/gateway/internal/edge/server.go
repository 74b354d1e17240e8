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
	maxHeaderBytes    = 16 << 10        // of one request; net/http allows 4 KiB on top
	readHeaderTimeout = 5 * time.Second // TLS handshake included
	idleTimeout       = 2 * time.Minute
	maxStreams        = 250 // concurrent requests on one HTTP/2 connection
	pingAfter         = 30 * time.Second
	pingTimeout       = 10 * time.Second
)

// NewServer returns the HTTP server of the edge: HTTP/1.1 and HTTP/2, over TLS where there is a certificate, and with
// prior knowledge where there is none.
func NewServer(h http.Handler, secure *tls.Config, logger *slog.Logger) *http.Server {
	s := &http.Server{
		Handler:           h,
		TLSConfig:         secure,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
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
	return s
}

// quiet logs what net/http says of single connections, which callers cause at will, where only who looks for it sees it.
type quiet struct{ log *slog.Logger }

func (q quiet) Write(p []byte) (int, error) {
	q.log.Debug("http", "text", string(p))
	return len(p), nil
}
