package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// ErrIdentity: the certificate is signed by the CA, and its SPIFFE ID is not that of anybody who may come.
var ErrIdentity = errors.New("the certificate is of nobody who may connect")

// ServerTLS returns the configuration of a server: TLS 1.3, HTTP/2, and a client certificate that is signed by
// the CA and has a SPIFFE ID of the trust domain. Each handshake uses the files as they are then. There is no
// session resumption, so that no client gets in without showing its certificate.
func (i *Identity) ServerTLS() *tls.Config {
	c := i.serverTLS(i.material())
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return i.serverTLS(i.material()), nil
	}
	return c
}

func (i *Identity) serverTLS(m *material) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{"h2"},
		Time:                   i.clock.Now,
		Certificates:           []tls.Certificate{m.cert},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              m.roots,
		SessionTicketsDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if _, err := i.memberID(state.PeerCertificates[0]); err != nil { // crypto/tls requires one
				return fmt.Errorf("%w: %w", ErrIdentity, err)
			}
			return nil
		},
	}
}

// ClientTLS returns the configuration of a client that talks to the named service, such as "users", and to
// nobody else: TLS 1.3, HTTP/2, and a server certificate that is signed by the CA and has the SPIFFE ID of that
// service. The host name does not count. A name that is none refuses every server.
func (i *Identity) ClientTLS(server string) *tls.Config {
	want, nameErr := spiffeid.FromSegments(i.trustDomain, server)
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2"},
		Time:       i.clock.Now,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &i.material().cert, nil
		},
		// crypto/tls would verify the host name, which does not count; VerifyConnection verifies everything
		// else that it does.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if nameErr != nil {
				return fmt.Errorf("server name %q: %w", server, nameErr)
			}
			return i.verifyServer(state, want)
		},
	}
}

func (i *Identity) verifyServer(state tls.ConnectionState, want spiffeid.ID) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("server has no certificate")
	}
	if err := i.material().verifyChain(state.PeerCertificates, x509.ExtKeyUsageServerAuth, i.clock.Now()); err != nil {
		return fmt.Errorf("server certificate: %w", err)
	}
	got, err := i.memberID(state.PeerCertificates[0])
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("server is %v, not %v", got, want)
	}
	return nil
}
