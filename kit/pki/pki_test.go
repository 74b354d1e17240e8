package pki_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/kit/pki"
)

func start() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// lab is a development PKI in a directory of its own, whose time the test moves.
type lab struct {
	*pki.Development
	dir   string
	clock *clocktest.Manual
}

func newLab(t testing.TB) *lab {
	t.Helper()
	l := &lab{dir: filepath.Join(t.TempDir(), "pki"), clock: clocktest.New(start())}
	l.Development = l.another(t, pki.DefaultTrustDomain)
	return l
}

// another returns one more user of the directory, as another process is.
func (l *lab) another(t testing.TB, trustDomain string) *pki.Development {
	t.Helper()
	d, err := pki.NewDevelopment(l.dir, trustDomain, l.clock)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// identity returns an identity that must not have anything to report.
func (l *lab) identity(t testing.TB, name string) *pki.Identity {
	t.Helper()
	i, err := l.Identity(t.Context(), name, func(err error) { t.Errorf("%s reports: %v", name, err) })
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// ca returns the certificate and key of the CA.
func (l *lab) ca(t *testing.T) tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(l.dir, "ca.pem"), filepath.Join(l.dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// mint makes a certificate like that of auth, changed by change and signed by the CA, or with the zero CA by
// itself.
func (l *lab) mint(t *testing.T, ca tls.Certificate, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		URIs:         []*url.URL{spiffe("concordat", "/auth")},
		NotBefore:    l.clock.Now().Add(-time.Minute),
		NotAfter:     l.clock.Now().Add(time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	parent, signer := template, any(key)
	if ca.Leaf != nil {
		parent, signer = ca.Leaf, ca.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func spiffe(trustDomain, path string) *url.URL {
	return &url.URL{Scheme: "spiffe", Host: trustDomain, Path: path}
}

// write puts a certificate and its key into PEM files beside a copy of the CA, and returns where.
func (l *lab) write(t *testing.T, cert tls.Certificate) pki.Files {
	t.Helper()
	dir := t.TempDir()
	f := pki.Files{CA: filepath.Join(dir, "ca"), Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key")}
	ca, err := os.ReadFile(filepath.Join(l.dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, f.CA, ca)
	writeFile(t, f.Cert, certPEM(cert))
	writeFile(t, f.Key, keyPEM(t, cert))
	return f
}

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func certPEM(cert tls.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})
}

func keyPEM(t *testing.T, cert tls.Certificate) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// result is how a connection went.
type result struct {
	server, client error
	peer           tls.ConnectionState // what the server knows of the client
	shown          *x509.Certificate   // what the client was shown
	resumed        bool
}

// connect lets a client and a server meet on a real port. The client reads one byte from the server, because
// with TLS 1.3 it learns only then that the server has refused it.
func connect(t testing.TB, server, client *tls.Config) result {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	type accepted struct {
		state tls.ConnectionState
		err   error
	}
	done := make(chan accepted, 1)
	go func() {
		raw, err := l.Accept()
		if err != nil {
			done <- accepted{err: err}
			return
		}
		defer raw.Close()
		conn := tls.Server(raw, server)
		err = conn.SetDeadline(time.Now().Add(10 * time.Second))
		if err == nil {
			err = conn.Handshake()
		}
		state := conn.ConnectionState()
		if err == nil {
			_, err = conn.Write([]byte{1})
		}
		if err == nil {
			_, err = conn.Read(make([]byte, 1)) // until the client has what it wants
			if err == io.EOF {
				err = nil
			}
		}
		done <- accepted{state, err}
	}()
	var r result
	r.client = func() error {
		raw, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return err
		}
		defer raw.Close()
		conn := tls.Client(raw, client)
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		if err := conn.Handshake(); err != nil {
			return err
		}
		state := conn.ConnectionState()
		r.shown, r.resumed = state.PeerCertificates[0], state.DidResume
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			return err
		}
		return conn.Close()
	}()
	a := <-done
	r.peer, r.server = a.state, a.err
	return r
}

// expect fails the test unless both ends agree that the connection works, or that it does not.
func (r result) expect(t testing.TB, ok bool) {
	t.Helper()
	if (r.server == nil) != ok || (r.client == nil) != ok {
		t.Errorf("works: want %v; server: %v, client: %v", ok, r.server, r.client)
	}
}
