package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/pki"
	"github.com/concordat-dev/concordat/kit/telemetry"
)

// tellEvery is how often the log says that connections are refused.
const tellEvery = 10 * time.Second

// Why a connection was refused, as the metric says it.
const (
	refusedAddress     = "too_many_of_address"
	refusedHandshakes  = "too_many_handshakes"
	refusedPlaintext   = "plaintext"
	refusedVersion     = "tls_version"
	refusedNone        = "no_certificate"
	refusedExpired     = "certificate_expired" // or not valid yet
	refusedCertificate = "certificate_untrusted"
	refusedIdentity    = "identity"
	refusedTimeout     = "timeout"
	refusedProtocol    = "protocol" // after the handshake, it is not HTTP/2 that comes
	refusedBroken      = "broken"   // by the other end, and whatever else can go wrong
)

// What the log says: of connections, and of calls that grpc-go refuses by itself.
const (
	connectionRefused = "connection refused"
	callsRefused      = "calls refused before they began"
)

// refusals are the connections that did not become one that calls can come over, or the calls that grpc-go refuses by itself. No
// call tells of them, so this does: each is counted, and the log has a line now and then, whoever it is that tries.
type refusals struct {
	text  string // of the line
	log   *slog.Logger
	clock clock.Clock
	count telemetry.Counter

	mu     sync.Mutex
	untold int // since the log was told
	told   time.Time
}

// countRefusals makes what counts the refusals of connections and those of calls.
func countRefusals(t *telemetry.Service, connections, calls *refusals) (err error) {
	if connections.count, err = t.Counter("concordat_connections_refused_total",
		"Connections that were refused before a call could come over them, by the reason.", "reason"); err != nil {
		return fmt.Errorf("telemetry: %w", err)
	}
	if calls.count, err = t.Counter("concordat_calls_refused_early_total",
		"Calls that gRPC refused by itself before they began: their headers could not be taken, or the connection had no room or was ending."); err != nil {
		return fmt.Errorf("telemetry: %w", err)
	}
	return nil
}

// add counts one more. cause may be nil.
func (r *refusals) add(reason string, from net.Addr, cause error, attrs ...any) {
	r.count.Add(reason)
	if reason == refusedBroken && gone(cause) {
		return // who opens a connection and closes it has done nothing, such as a check that the port is open
	}
	attrs = append([]any{"reason", reason}, attrs...)
	if cause != nil {
		attrs = append(attrs, "cause", cause.Error())
	}
	r.note(1, from, attrs...)
}

// note has the log say now and then how many more there were.
func (r *refusals) note(more int, from net.Addr, attrs ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.untold += more
	now := r.clock.Now()
	if now.Sub(r.told) < tellEvery {
		return
	}
	r.log.Warn(r.text, append([]any{"address", hostOf(from), "refused", r.untold}, attrs...)...)
	r.told, r.untold = now, 0
}

// gone says whether an error is that the other end has closed the connection.
func gone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed)
}

// refusalOf returns why a handshake failed. crypto/tls has no types for two of the reasons; a test holds its texts.
func refusalOf(err error) string {
	var (
		record  tls.RecordHeaderError
		invalid x509.CertificateInvalidError
		untrust *tls.CertificateVerificationError
		timeout net.Error
	)
	switch text := fmt.Sprint(err); {
	case errors.As(err, &record):
		return refusedPlaintext
	case strings.Contains(text, "client offered only unsupported versions"):
		return refusedVersion
	case strings.Contains(text, "client didn't provide a certificate"):
		return refusedNone
	case errors.Is(err, pki.ErrIdentity):
		return refusedIdentity
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return refusedExpired
	case errors.As(err, &untrust):
		return refusedCertificate
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, os.ErrDeadlineExceeded):
		return refusedTimeout
	default:
		return refusedBroken
	}
}
