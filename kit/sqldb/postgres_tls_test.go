package sqldb

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/sqldb/postgrestest"
)

// authority makes certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) authority {
	t.Helper()
	a := authority{cert: &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}}
	var der []byte
	der, a.key = a.sign(t, a.cert, nil)
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

// sign makes a key and a certificate for it; without a parent it signs itself.
func (a authority) sign(t *testing.T, template, parent *x509.Certificate) (der []byte, key *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(1)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	signer := a.key
	if parent == nil {
		parent, signer = template, key
	}
	if der, err = x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer); err != nil {
		t.Fatal(err)
	}
	return der, key
}

// file writes the certificate of the authority, as sslrootcert takes it.
func (a authority) file(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestTheServerOfPostgreSQLIsVerified(t *testing.T) {
	t.Parallel()
	ours, other := newAuthority(t, "ours"), newAuthority(t, "other")
	der, key := ours.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "database"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ours.cert)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	s := postgrestest.Start(t, postgrestest.Options{
		Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}),
	})
	url := s.Database(t)
	ask := func(host, mode string, by authority) URL {
		return URL(strings.NewReplacer("127.0.0.1", host, "sslmode=disable", "sslmode="+mode+"&sslrootcert="+by.file(t)).Replace(url))
	}
	for _, mode := range []string{"verify-full", "verify-ca"} {
		db := openPG(t, ask("127.0.0.1", mode, ours))
		var encrypted bool
		err := db.ReadOne(t.Context(), func(q Querier) error {
			return q.QueryRowContext(t.Context(), `SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()`).Scan(&encrypted)
		})
		if err != nil || !encrypted {
			t.Errorf("%s: encrypted %t, %v", mode, encrypted, err)
		}
		if err := db.Healthy(t.Context()); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
	}
	for name, test := range map[string]struct {
		url   URL
		about string
	}{
		"another authority": {ask("127.0.0.1", "verify-full", other), "certificate signed by unknown authority"},
		"another host":      {ask("localhost", "verify-full", ours), "localhost"},
	} {
		began := time.Now()
		_, err := Open(t.Context(), postgresOptions(test.url, notes()))
		wantLine(t, err, test.about)
		if !strings.Contains(err.Error(), "x509") || strings.Contains(err.Error(), s.Password()) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(began); took > retryFor/2 { // it does not get better by trying
			t.Errorf("%s: it took %s", name, took)
		}
	}
}
