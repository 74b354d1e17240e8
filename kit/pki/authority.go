package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// errMismatch: the key of the CA is not that of its certificate.
var errMismatch = errors.New("the key of the CA does not fit its certificate")

// authority is the CA of a Development. Keys come from crypto/rand alone: crypto/ecdsa takes no other source.
type authority struct {
	certs []*x509.Certificate // the present one, then former ones that are still valid and whose leaves are still in use
	key   *ecdsa.PrivateKey
}

func (a *authority) cert() *x509.Certificate { return a.certs[0] }

// newAuthority makes a CA. Former certificates stay trusted until they end, so that a process which still has a
// leaf of them is not cut off.
func newAuthority(td spiffeid.TrustDomain, now time.Time, former []*x509.Certificate) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{"Concordat"}, CommonName: "Concordat development CA"},
		URIs:                  []*url.URL{td.ID().URL()},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(CALife),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		// Whoever trusts this CA outside of its purpose trusts it for this machine only.
		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         []string{"localhost"},
		PermittedIPRanges: []*net.IPNet{
			{IP: net.IPv4(127, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)},
			{IP: net.IPv6loopback, Mask: net.CIDRMask(128, 128)},
		},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	a := &authority{certs: []*x509.Certificate{cert}, key: key}
	for _, c := range former {
		if now.Before(c.NotAfter) {
			a.certs = append(a.certs, c)
		}
	}
	return a, nil
}

// issue makes a leaf that serves as server and as client, and returns it with its key, both as PEM.
func (a *authority) issue(id spiffeid.ID, now time.Time) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{"Concordat"}, CommonName: nameOf(id)},
		URIs:                  []*url.URL{id.URL()},
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(LeafLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert(), key.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	keyPEM, err = encodeKey(key)
	if err != nil {
		return nil, nil, err
	}
	return encodeCertificate(der), keyPEM, nil
}

// readAuthority returns the CA of the directory. With errMismatch, or if only the key is missing, it returns
// the certificates all the same.
func (d *Development) readAuthority() (*authority, error) {
	caPEM, err := os.ReadFile(d.path("ca.pem"))
	if err != nil {
		return nil, err
	}
	certs, err := parseCertificates(caPEM)
	if err != nil {
		return nil, fmt.Errorf("ca.pem: %w", err)
	}
	a := &authority{certs: certs}
	if err := d.refuseOthers("ca.key", 0o077, "others can read the key of the CA"); err != nil {
		return a, err
	}
	keyPEM, err := os.ReadFile(d.path("ca.key"))
	if err != nil {
		return a, err
	}
	block, _ := pem.Decode(keyPEM)
	if block == nil {
		return a, errors.New("ca.key: there is no PEM key in it")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return a, fmt.Errorf("ca.key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return a, errors.New("ca.key: it is not an ECDSA key")
	}
	if !key.PublicKey.Equal(a.cert().PublicKey) {
		return a, errMismatch
	}
	a.key = key
	return a, nil
}

// writeAuthority writes the key first: a maker that dies in between leaves a key that does not fit, which the
// next one sees.
func (d *Development) writeAuthority(a *authority) error {
	keyPEM, err := encodeKey(a.key)
	if err != nil {
		return err
	}
	var certs bytes.Buffer
	for _, c := range a.certs {
		certs.Write(encodeCertificate(c.Raw))
	}
	if err := writeFile(d.path("ca.key"), keyPEM); err != nil {
		return err
	}
	return writeFile(d.path("ca.pem"), certs.Bytes())
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// newFiles is what the names of files begin with that are not in their place yet.
const newFiles = ".new-"

// writeFile puts a file of mode 0600 in its place at once: a reader sees the former content or all of the new
// one.
func writeFile(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), newFiles+"*") // CreateTemp gives mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close() // closed already, or its error says nothing new
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
