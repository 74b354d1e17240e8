package app

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/kit/settings"
)

func TestSettingsAreCheckedTogether(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want []string // parts of the lines, one line each
	}{
		"the defaults":                     {nil, nil},
		"HTTP beyond loopback":             {[]string{"--http=0.0.0.0:8080"}, []string{"--http (CONCORDAT_GATEWAY_HTTP)"}},
		"gRPC on every interface":          {[]string{"--grpc=:8081"}, []string{"--grpc (CONCORDAT_GATEWAY_GRPC)"}},
		"both beyond loopback":             {[]string{"--http=10.0.0.1:80", "--grpc=10.0.0.1:81"}, []string{"--http", "--grpc"}},
		"beyond loopback with certificate": {[]string{"--http=:443", "--grpc=:8443", "--edge-cert=c", "--edge-key=k"}, nil},
		"a certificate without its key":    {[]string{"--edge-cert=c"}, []string{"--edge-cert"}},
		"an origin with a path":            {[]string{"--allowed-origin=https://a.example.com/x"}, []string{"--allowed-origin"}},
		"two origins":                      {[]string{"--allowed-origin=https://a.example.com", "--allowed-origin=http://localhost:3000"}, nil},
		"every origin":                     {[]string{"--allowed-origin=*"}, []string{"--allowed-origin"}},
		"a network that is none":           {[]string{"--trusted-proxy=10.0.0.0"}, []string{"--trusted-proxy"}},
		"two networks":                     {[]string{"--trusted-proxy=10.0.0.0/8,fd00::/8"}, nil},
		"bodies larger than what passes":   {[]string{"--max-body=4194305"}, []string{"--max-body"}},
		"a target that is empty":           {[]string{"--auth="}, []string{"--auth"}},
		"counting of what it forwards":     {[]string{"--usage-sample=10"}, []string{"--usage-sample (CONCORDAT_GATEWAY_USAGE_SAMPLE)"}},
		"no counting of what it forwards":  {[]string{"--usage-sample=0"}, nil},
		"a setting that does not exist":    {[]string{"--port=1"}, []string{"--port"}},
	} {
		t.Run(name, func(t *testing.T) {
			var cfg Config
			err := settings.Parse(settings.Program{Name: "gateway", Description: "x"}, &cfg, c.args, nil, io.Discard)
			var problems *settings.Error
			if len(c.want) == 0 {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.As(err, &problems) || len(problems.Problems) != len(c.want) {
				t.Fatalf("got %v", err)
			}
			for i, part := range c.want {
				if !strings.Contains(problems.Problems[i], part) {
					t.Errorf("%q does not name %s", problems.Problems[i], part)
				}
			}
		})
	}
}

func TestSettingsEmbedWithAPrefix(t *testing.T) {
	var cfg struct {
		Gateway    Settings `embed:"" prefix:"gateway-"`
		kit.Common `embed:""`
	}
	p := settings.Program{Name: "standalone", Description: "x", Shared: true}
	env := []string{"CONCORDAT_GATEWAY_HTTP=127.0.0.1:1"}
	if err := settings.Parse(p, &cfg, []string{"--gateway-grpc=127.0.0.1:2", "--gateway-max-body=2048"}, env, io.Discard); err != nil {
		t.Fatal(err)
	}
	if cfg.Gateway.HTTP != "127.0.0.1:1" || cfg.Gateway.GRPC != "127.0.0.1:2" || cfg.Gateway.MaxBody != 2048 {
		t.Errorf("%+v", cfg.Gateway)
	}
}

func deps() kit.Deps {
	return kit.Deps{Clock: clock.System(), Random: rand.Reader, Log: slog.New(slog.DiscardHandler), Out: io.Discard}
}

func TestTheGatewayDoesNotListenBeyondLoopbackWithoutACertificate(t *testing.T) {
	public, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Settings: Settings{HTTPListener: public, GRPCListener: listen(t), Auth: "x:1", Users: "x:1", Payments: "x:1", MaxBody: 4096},
		Common: kit.Common{PKI: t.TempDir(), TrustDomain: "concordat", Issuer: "http://x", Audience: "x", DrainTimeout: time.Second}}
	a, err := New(t.Context(), cfg, deps())
	if err == nil {
		_ = a.Close()
		t.Fatal("it starts")
	}
	if text := err.Error(); !strings.HasPrefix(text, "--http: ") || !strings.Contains(text, "--edge-cert") || strings.Contains(text, "\n") {
		t.Errorf("got %q", text)
	}
	if _, err := net.DialTimeout("tcp", cfg.GRPCListener.Addr().String(), time.Second); err == nil {
		t.Error("the other listener is still open")
	}
	taken := listen(t)
	defer taken.Close()
	cfg.HTTPListener, cfg.GRPCListener, cfg.HTTP = nil, listen(t), settings.Address(taken.Addr().String())
	if _, err := New(t.Context(), cfg, deps()); err == nil || !strings.HasPrefix(err.Error(), "--http: ") || strings.Contains(err.Error(), "\n") {
		t.Errorf("a port that is taken: %v", err)
	}
}

// issue writes a certificate for 127.0.0.1 and returns its files and the pool that trusts it.
func issue(t *testing.T, dir, name string) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "edge.pem"), filepath.Join(dir, "edge.key")
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: pkcs8},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AddCert(cert)
	return certFile, keyFile, pool
}

func TestBothListenersSpeakTLSWithACertificate(t *testing.T) {
	certFile, keyFile, pool := issue(t, t.TempDir(), "first")
	public, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	w := start(t, func(c *Config) { c.EdgeCert, c.EdgeKey, c.HTTPListener = certFile, keyFile, public }).ready()
	_, port, _ := net.SplitHostPort(public.Addr().String())
	secure := &tls.Config{RootCAs: pool}
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		transport := &http.Transport{TLSClientConfig: secure.Clone(), ForceAttemptHTTP2: http2}
		defer transport.CloseIdleConnections()
		req, err := http.NewRequestWithContext(t.Context(), "GET", "https://127.0.0.1:"+port+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r := w.send(&http.Client{Transport: transport}, req)
		if r.code != 200 || r.header.Get("strict-transport-security") == "" {
			t.Errorf("%s: %d %v", name, r.code, r.header)
		}
		if strings.Contains(string(r.body), w.app.cfg.Payments) {
			t.Errorf("%s: the page tells strangers where payments is", name)
		}
	}
	conn, err := grpc.NewClient(w.grpc, grpc.WithTransportCredentials(credentials.NewTLS(secure)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := authv1.NewKeyServiceClient(conn).GetJwks(t.Context(), &authv1.GetJwksRequest{}); err != nil {
		t.Error(err)
	}
	if _, err := authv1.NewKeyServiceClient(w.conn()).GetJwks(t.Context(), &authv1.GetJwksRequest{}); err == nil {
		t.Error("gRPC without TLS is served")
	}
}

func TestTheCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile, _ := issue(t, dir, "first")
	clk := clocktest.New(time.Now())
	c, err := openCertificate(certFile, keyFile, clk, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	name := func() string {
		t.Helper()
		got, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(got.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return leaf.Subject.CommonName
	}
	if got := name(); got != "first" {
		t.Fatalf("got %s", got)
	}
	if err := os.WriteFile(certFile, []byte("half a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	clk.Advance(2 * time.Second)
	if got := name(); got != "first" {
		t.Errorf("with a broken file: %s", got)
	}
	issue(t, dir, "second")
	clk.Advance(2 * time.Second)
	if got := name(); got != "second" {
		t.Errorf("with new files: %s", got)
	}
	if _, err := openCertificate(filepath.Join(dir, "none"), keyFile, clk, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a missing file is no error")
	}
}

func TestRunBuildsAndServes(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	cfg := Config{Settings: Settings{HTTPListener: listen(t), GRPCListener: listen(t), Auth: "127.0.0.1:1", Users: "127.0.0.1:1", Payments: "127.0.0.1:1", MaxBody: 4096},
		Common: kit.Common{PKI: t.TempDir(), TrustDomain: "concordat", Issuer: "http://x", Audience: "x", DrainTimeout: time.Second}}
	if err := Run(context.WithoutCancel(ctx), Config{Settings: Settings{HTTP: "256.0.0.1:1"}}, deps()); err == nil {
		t.Error("an address that is none is no error")
	}
	a, err := New(t.Context(), cfg, deps())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Run(ctx); err != nil {
		t.Errorf("a stop that was asked for: %v", err)
	}
}
