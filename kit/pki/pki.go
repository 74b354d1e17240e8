// Package pki gives a process its identity between services: a certificate whose SPIFFE ID, spiffe://<trust
// domain>/<name>, says who it is, and TLS configurations in which both ends prove theirs. There is no mode
// without it.
//
// The files come from outside (SPIRE, cert-manager, a secret volume) by Open, or from a Development PKI that is
// made on the spot. Either way they are read again when they change, and connections that stand are not
// touched. What is lost: a connection outlives the certificate that opened it, so a certificate is withdrawn
// only together with a bound on the age of connections.
package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/concordat-dev/concordat/kit/clock"
)

// DefaultTrustDomain is the trust domain where none is configured.
const DefaultTrustDomain = "concordat"

// Files are the paths of the PEM files of an identity.
type Files struct {
	// CA holds the certificates that peers are verified against: one or, while a CA is replaced, several.
	CA string
	// Cert holds the certificate of the process, followed by intermediates if there are any.
	Cert string
	// Key holds its private key.
	Key string
}

// Identity is who this process is. It is safe for concurrent use. Make it with Open or Development.Identity.
type Identity struct {
	files       Files
	trustDomain spiffeid.TrustDomain
	clock       clock.Clock
	report      func(error)
	authority   *Development // nil where the files come from outside

	now     atomic.Pointer[material]
	checked atomic.Int64 // when the files were last looked at, in nanoseconds

	reloading sync.Mutex // guards what follows
	failed    *stamp     // the state of the files at the last look, if they could not be used
	reported  bool       // whether that was reported
}

// Open reads the identity of this process from files. The certificate must have a SPIFFE ID of the trust
// domain, fit the key, be valid now, and be signed by the CA.
//
// report receives what goes wrong later: a reload that failed, after which the former certificate stays in use,
// or a renewal. It is called from handshakes and NotAfter, and must not block; nil means that nobody listens.
func Open(files Files, trustDomain string, clk clock.Clock, report func(error)) (*Identity, error) {
	td, err := parseTrustDomain(trustDomain)
	if err != nil {
		return nil, err
	}
	if report == nil {
		report = func(error) {}
	}
	m, err := load(files, td, clk.Now())
	if err != nil {
		return nil, err
	}
	i := &Identity{files: files, trustDomain: td, clock: clk, report: report}
	i.now.Store(m)
	i.checked.Store(clk.Now().UnixNano())
	return i, nil
}

func parseTrustDomain(name string) (spiffeid.TrustDomain, error) {
	td, err := spiffeid.TrustDomainFromString(name)
	if err != nil || td.Name() != name {
		return spiffeid.TrustDomain{}, fmt.Errorf("trust domain %q is not lower case letters, digits, \".\", \"-\" and \"_\"", name)
	}
	return td, nil
}

// Name returns the name in the SPIFFE ID, such as "users".
func (i *Identity) Name() string { return nameOf(i.now.Load().id) }

// ID returns the SPIFFE ID, such as "spiffe://concordat/users".
func (i *Identity) ID() string { return i.now.Load().id.String() }

// NotAfter returns when the certificate ends that the next handshake uses: like a handshake it looks at the files, once a
// second at most, so that it is true of a service that nobody connects to.
func (i *Identity) NotAfter() time.Time { return i.material().leaf.NotAfter }

// PeerName returns the name in the SPIFFE ID of the client at the other end of a connection that was accepted
// with ServerTLS. It returns false for a connection whose client certificate was not verified, or is of another
// trust domain.
func (i *Identity) PeerName(state tls.ConnectionState) (name string, ok bool) {
	if !state.HandshakeComplete || len(state.VerifiedChains) == 0 || len(state.VerifiedChains[0]) == 0 {
		return "", false
	}
	id, err := i.memberID(state.VerifiedChains[0][0])
	if err != nil {
		return "", false
	}
	return nameOf(id), true
}

// memberID returns the SPIFFE ID of a certificate of this trust domain.
func (i *Identity) memberID(cert *x509.Certificate) (spiffeid.ID, error) {
	return memberID(cert, i.trustDomain)
}

func memberID(cert *x509.Certificate, td spiffeid.TrustDomain) (spiffeid.ID, error) {
	id, err := x509svid.IDFromCert(cert)
	switch {
	case err != nil:
		return spiffeid.ID{}, fmt.Errorf("certificate has no SPIFFE ID: %w", err)
	case !id.MemberOf(td):
		return spiffeid.ID{}, fmt.Errorf("%v is not of the trust domain %v", id, td)
	case id.Path() == "":
		return spiffeid.ID{}, fmt.Errorf("%v names nobody", id)
	case cert.IsCA:
		return spiffeid.ID{}, fmt.Errorf("certificate of %v is that of a CA", id)
	}
	return id, nil
}

func nameOf(id spiffeid.ID) string { return strings.TrimPrefix(id.Path(), "/") }

// material is what one state of the files holds.
type material struct {
	id    spiffeid.ID
	cert  tls.Certificate
	leaf  *x509.Certificate
	roots *x509.CertPool
	stamp stamp
}

// load reads the files. It fails if they do not belong together, which they do not while somebody replaces them.
func load(files Files, td spiffeid.TrustDomain, now time.Time) (*material, error) {
	before, err := stampOf(files)
	if err != nil {
		return nil, err
	}
	caPEM, err := os.ReadFile(files.CA)
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	authorities, err := parseCertificates(caPEM)
	if err != nil {
		return nil, fmt.Errorf("CA %s: %w", files.CA, err)
	}
	certPEM, err := os.ReadFile(files.Cert)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	keyPEM, err := os.ReadFile(files.Key)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", files.Cert, files.Key, err)
	}
	m := &material{cert: pair, leaf: pair.Leaf, roots: x509.NewCertPool(), stamp: before}
	for _, a := range authorities {
		m.roots.AddCert(a)
	}
	if m.id, err = memberID(m.leaf, td); err != nil {
		return nil, fmt.Errorf("certificate %s: %w", files.Cert, err)
	}
	if err := m.verify(pair.Certificate, x509.ExtKeyUsageAny, now); err != nil {
		return nil, fmt.Errorf("certificate %s: %w", files.Cert, err)
	}
	return m, nil
}

// verify checks a chain, leaf first, against the authorities.
func (m *material) verify(chain [][]byte, usage x509.ExtKeyUsage, now time.Time) error {
	certs := make([]*x509.Certificate, len(chain))
	for i, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		certs[i] = c
	}
	return m.verifyChain(certs, usage, now)
}

func (m *material) verifyChain(certs []*x509.Certificate, usage x509.ExtKeyUsage, now time.Time) error {
	if len(certs) == 0 {
		return errors.New("there is no certificate")
	}
	intermediates := x509.NewCertPool()
	for _, c := range certs[1:] {
		intermediates.AddCert(c)
	}
	_, err := certs[0].Verify(x509.VerifyOptions{
		Roots:         m.roots,
		Intermediates: intermediates,
		KeyUsages:     []x509.ExtKeyUsage{usage},
		CurrentTime:   now,
	})
	return err
}

func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("there is no PEM certificate in it")
	}
	return certs, nil
}
