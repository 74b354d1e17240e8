package app

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
)

// certificate is the one that callers see. It is read again when its files change; where they cannot be used, the
// former one stays, and the log says so once.
type certificate struct {
	certFile, keyFile string
	clock             clock.Clock
	log               *slog.Logger

	mu       sync.Mutex
	current  *tls.Certificate
	stamp    [2]fileStamp // of the files at the last look
	lookedAt time.Time
}

// lookEvery is how often handshakes look whether the files have changed.
const lookEvery = time.Second

type fileStamp struct {
	size     int64
	modified time.Time
}

func openCertificate(certFile, keyFile string, clk clock.Clock, log *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, clock: clk, log: log}
	var err error
	if c.stamp, err = c.look(); err == nil {
		c.current, err = c.load()
	}
	if err != nil {
		return nil, fmt.Errorf("certificate of the edge (--edge-cert, --edge-key): %w", err)
	}
	c.lookedAt = clk.Now()
	return c, nil
}

func (c *certificate) look() (stamp [2]fileStamp, err error) {
	for i, path := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(path)
		if err != nil {
			return stamp, err
		}
		stamp[i] = fileStamp{info.Size(), info.ModTime()}
	}
	return stamp, nil
}

func (c *certificate) load() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return nil, err
	}
	return &pair, nil
}

// get returns the certificate for a handshake.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.clock.Now()
	if since := now.Sub(c.lookedAt); since >= 0 && since < lookEvery {
		return c.current, nil
	}
	c.lookedAt = now
	stamp, err := c.look()
	if err == nil && stamp == c.stamp {
		return c.current, nil
	}
	if err == nil {
		var fresh *tls.Certificate
		if fresh, err = c.load(); err == nil {
			c.current = fresh
		}
	}
	if err != nil && stamp != c.stamp {
		c.log.Error("the certificate of the edge cannot be read again: the former one stays in use", "cause", err)
	}
	c.stamp = stamp
	return c.current, nil
}

// config returns the TLS configuration of a listener that speaks the protocols.
func (c *certificate) config(protocols ...string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: protocols, GetCertificate: c.get}
}
