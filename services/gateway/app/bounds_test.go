package app

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestAnAddressHasItsShareOfConnectionsAtEachListenerOfTheEdge(t *testing.T) {
	const (
		http1    = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
		http2    = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00" // and empty settings
		perPlace = 2
	)
	for _, tc := range []struct {
		name   string
		bound  int
		proxy  string
		refuse bool // one more than perPlace
	}{
		{"as many as the setting says", perPlace, "198.51.100.0/24", true},
		{"no bound", -1, "198.51.100.0/24", false},
		{"a proxy has no bound", perPlace, "127.0.0.0/8", false},
		{"the default is more", 0, "198.51.100.0/24", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := start(t, withAdmin, func(c *Config) {
				c.ConnectionsPerAddress, c.TrustedProxy = tc.bound, []netip.Prefix{netip.MustParsePrefix(tc.proxy)}
			})
			// answered opens a connection and reports whether anybody answers what is said first.
			answered := func(address, first string) (net.Conn, bool) {
				c, err := net.Dial("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = c.Close() })
				if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
					t.Fatal(err)
				}
				if _, err = io.WriteString(c, first); err == nil {
					_, err = io.ReadFull(c, make([]byte, 9))
				}
				if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
					t.Fatal(err)
				}
				return c, err == nil
			}
			for address, first := range map[string]string{w.app.HTTPAddr().String(): http1, w.grpc: http2} {
				var open net.Conn
				for range perPlace {
					c, ok := answered(address, first)
					if !ok {
						t.Fatalf("%q: one of %d connections is refused", first, perPlace)
					}
					open = c
				}
				if _, ok := answered(address, first); ok == tc.refuse {
					t.Errorf("%q: one connection more is served: %t", first, ok)
				}
				if !tc.refuse {
					continue
				}
				if err := open.Close(); err != nil {
					t.Fatal(err)
				}
				free := false // the edge learns of it in its own time
				for end := time.Now().Add(10 * time.Second); !free && time.Now().Before(end); {
					_, free = answered(address, first)
				}
				if !free {
					t.Errorf("%q: a place that is free again is not given", first)
				}
			}
			counted := slices.ContainsFunc(w.metrics(), func(line string) bool {
				return strings.HasPrefix(line, `concordat_connections_refused_total{reason="too_many_of_address",service="gateway"}`)
			})
			if logged := strings.Contains(w.log.String(), `"reason":"too_many_of_address"`); counted != tc.refuse || logged != tc.refuse {
				t.Errorf("the metrics tell of a refusal: %t, the log: %t", counted, logged)
			}
		})
	}
}
