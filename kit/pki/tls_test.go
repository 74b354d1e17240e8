package pki_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/pki"
)

// bare is a client or a server that shows cert and verifies nobody.
func bare(cert ...tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: cert, InsecureSkipVerify: true, NextProtos: []string{"h2"}}
}

func TestWhomAServerLetsIn(t *testing.T) {
	l := newLab(t)
	server := l.identity(t, "users")
	ca, otherCA := l.ca(t), func() tls.Certificate {
		other := newLab(t)
		other.identity(t, "auth")
		return other.ca(t)
	}()
	changed := func(change func(*x509.Certificate)) *tls.Config { return bare(l.mint(t, ca, change)) }

	for _, row := range []struct {
		name   string
		client *tls.Config
		peer   string // "" where the client is refused
	}{
		{"another service", l.identity(t, "auth").ClientTLS("users"), "auth"},
		{"the developer", l.identity(t, pki.Developer).ClientTLS("users"), "developer"},
		{"a certificate of the CA from elsewhere", changed(nil), "auth"},
		{"an identity with a path of several parts", changed(func(c *x509.Certificate) {
			c.URIs = []*url.URL{spiffe("concordat", "/ns/prod/sa/auth")}
		}), "ns/prod/sa/auth"},
		{"no certificate", bare(), ""},
		{"a self-signed certificate", bare(l.mint(t, tls.Certificate{}, nil)), ""},
		{"a certificate of another CA", bare(l.mint(t, otherCA, nil)), ""},
		{"an expired certificate", changed(func(c *x509.Certificate) { c.NotAfter = l.clock.Now().Add(-time.Second) }), ""},
		{"a certificate of the future", changed(func(c *x509.Certificate) { c.NotBefore = l.clock.Now().Add(time.Second) }), ""},
		{"another trust domain", changed(func(c *x509.Certificate) { c.URIs = []*url.URL{spiffe("elsewhere", "/auth")} }), ""},
		{"no SPIFFE ID", changed(func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{"localhost"} }), ""},
		{"a URI that is no SPIFFE ID", changed(func(c *x509.Certificate) { c.URIs[0].Scheme = "https" }), ""},
		{"two SPIFFE IDs", changed(func(c *x509.Certificate) { c.URIs = append(c.URIs, spiffe("concordat", "/users")) }), ""},
		{"the trust domain itself", changed(func(c *x509.Certificate) { c.URIs[0].Path = "" }), ""},
		{"the certificate of the CA", bare(ca), ""},
		{"a CA with an identity", changed(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }), ""},
		{"a certificate for servers only", changed(func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}), ""},
		{"TLS 1.2", func() *tls.Config {
			c := changed(nil)
			c.MaxVersion = tls.VersionTLS12
			return c
		}(), ""},
		{"another protocol", func() *tls.Config {
			c := changed(nil)
			c.NextProtos = []string{"mqtt"}
			return c
		}(), ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := connect(t, server.ServerTLS(), row.client)
			r.expect(t, row.peer != "")
			if row.peer == "" {
				return
			}
			if name, ok := server.PeerName(r.peer); !ok || name != row.peer {
				t.Errorf("PeerName = %q, %v, want %q", name, ok, row.peer)
			}
			if r.peer.Version != tls.VersionTLS13 || r.peer.NegotiatedProtocol != "h2" {
				t.Errorf("version %x, protocol %q", r.peer.Version, r.peer.NegotiatedProtocol)
			}
		})
	}
}

func TestWhomAClientTalksTo(t *testing.T) {
	l := newLab(t)
	client := l.identity(t, "gateway")
	ca := l.ca(t)
	other := newLab(t)
	other.identity(t, "auth")
	changed := func(change func(*x509.Certificate)) *tls.Config { return bare(l.mint(t, ca, change)) }

	for _, row := range []struct {
		name   string
		server *tls.Config
		ok     bool
	}{
		{"the service", l.identity(t, "auth").ServerTLS(), true},
		{"the service, whatever host it is on", changed(func(c *x509.Certificate) { c.DNSNames = nil }), true},
		{"another service", l.identity(t, "users").ServerTLS(), false},
		{"another service on the right host", changed(func(c *x509.Certificate) {
			c.URIs[0].Path, c.DNSNames = "/users", []string{"localhost"}
		}), false},
		{"a service whose name begins alike", changed(func(c *x509.Certificate) { c.URIs[0].Path = "/auth/admin" }), false},
		{"the service of another trust domain", changed(func(c *x509.Certificate) { c.URIs[0].Host = "elsewhere" }), false},
		{"no SPIFFE ID", changed(func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{"localhost"} }), false},
		{"a certificate of another CA", bare(other.mint(t, other.ca(t), nil)), false},
		{"a self-signed certificate", bare(l.mint(t, tls.Certificate{}, nil)), false},
		{"an expired certificate", changed(func(c *x509.Certificate) { c.NotAfter = l.clock.Now().Add(-time.Second) }), false},
		{"a certificate for clients only", changed(func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}), false},
		{"TLS 1.2", func() *tls.Config {
			c := changed(nil)
			c.MaxVersion = tls.VersionTLS12
			return c
		}(), false},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := connect(t, row.server, client.ClientTLS("auth"))
			r.expect(t, row.ok)
		})
	}
}

func TestANameThatIsNoneRefusesEveryServer(t *testing.T) {
	l := newLab(t)
	server, client := l.identity(t, "auth"), l.identity(t, "gateway")
	for _, name := range []string{"", ".", "..", "a/b", "au th"} {
		connect(t, server.ServerTLS(), client.ClientTLS(name)).expect(t, false)
	}
}

func TestAServerRefusesPlaintext(t *testing.T) {
	l := newLab(t)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", l.identity(t, "users").ServerTLS())
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	refused := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			t.Errorf("accept: %v", err)
			refused <- nil
			return
		}
		defer conn.Close()
		refused <- conn.(*tls.Conn).HandshakeContext(t.Context())
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := <-refused; err == nil {
		t.Error("the server took plaintext for a handshake")
	}
}

func TestASessionIsNeverResumed(t *testing.T) {
	l := newLab(t)
	server, client := l.identity(t, "users"), l.identity(t, "auth").ClientTLS("users")
	client.ClientSessionCache, client.ServerName = tls.NewLRUClientSessionCache(4), "localhost"
	for range 3 {
		r := connect(t, server.ServerTLS(), client)
		r.expect(t, true)
		if r.resumed {
			t.Error("the session was resumed")
		}
	}
}

func TestAPeerThatWasNotVerifiedHasNoName(t *testing.T) {
	l := newLab(t)
	i := l.identity(t, "users")
	leaf := l.mint(t, l.ca(t), nil).Leaf
	stranger := l.mint(t, l.ca(t), func(c *x509.Certificate) { c.URIs[0].Host = "elsewhere" }).Leaf
	for name, state := range map[string]tls.ConnectionState{
		"no connection":           {},
		"no verification":         {HandshakeComplete: true, PeerCertificates: []*x509.Certificate{leaf}},
		"an unfinished handshake": {VerifiedChains: [][]*x509.Certificate{{leaf}}},
		"an empty chain":          {HandshakeComplete: true, VerifiedChains: [][]*x509.Certificate{{}}},
		"another trust domain":    {HandshakeComplete: true, VerifiedChains: [][]*x509.Certificate{{stranger}}},
	} {
		if got, ok := i.PeerName(state); ok || got != "" {
			t.Errorf("%s: PeerName = %q, %v", name, got, ok)
		}
	}
}

// recorded is the other end of a handshake that has said what is in said, and will say no more. It keeps what it is told.
type recorded struct {
	net.Conn
	said io.Reader
	told bytes.Buffer
}

func (r *recorded) Read(p []byte) (int, error)  { return r.said.Read(p) }
func (r *recorded) Write(p []byte) (int, error) { return r.told.Write(p) }

// A handshake is many times as long as a call, and whoever shares a processor with it waits.
func BenchmarkHandshake(b *testing.B) {
	l := newLab(b)
	server, client := l.identity(b, "users").ServerTLS(), l.identity(b, "auth").ClientTLS("users")
	b.Run("answer to a ClientHello", func(b *testing.B) {
		hello := &recorded{said: strings.NewReader("")}
		if err := tls.Client(hello, client).Handshake(); !errors.Is(err, io.EOF) {
			b.Fatal(err)
		}
		for b.Loop() {
			c := &recorded{said: bytes.NewReader(hello.told.Bytes())}
			if err := tls.Server(c, server).Handshake(); !errors.Is(err, io.EOF) {
				b.Fatal(err)
			}
		}
	})
	b.Run("both ends", func(b *testing.B) {
		for b.Loop() {
			ours, theirs := net.Pipe()
			done := make(chan error, 1)
			go func() {
				c := tls.Client(theirs, client)
				_, err := c.Read(make([]byte, 1)) // until the other end has gone
				done <- err
			}()
			if err := tls.Server(ours, server).Handshake(); err != nil {
				b.Fatal(err)
			}
			_ = ours.Close()
			if err := <-done; !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				b.Fatal(err)
			}
		}
	})
}
