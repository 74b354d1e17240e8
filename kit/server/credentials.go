package server

import (
	"strings"

	"github.com/concordat-dev/concordat/kit/policy"
	"github.com/concordat-dev/concordat/kit/token"
)

// ClientAddressHeader carries the address that the edge saw. It counts only on a connection from the edge.
const ClientAddressHeader = "x-concordat-client-address"

// credentials gathers what the call came with.
func (s *Server) credentials(c *call) policy.Credentials {
	cred := policy.Credentials{Peer: c.conn.peer, Address: c.conn.address}
	cred.Edge = cred.Peer == s.cfg.Edge
	if cred.Edge {
		if v := c.header[ClientAddressHeader]; len(v) == 1 && v[0] != "" {
			cred.Address = v[0]
		}
	}
	values := c.header["authorization"]
	if len(values) == 0 {
		return cred
	}
	cred.HasToken = true
	if !c.method.WantsToken() {
		return cred
	}
	text, ok := bearer(values)
	if !ok {
		cred.TokenErr = token.ErrInvalid
		return cred
	}
	cred.User, cred.TokenErr = s.cfg.Tokens.Verify(c, text)
	return cred
}

// bearer returns the token of an authorization header (RFC 6750 section 2.1). More than one header is none.
func bearer(values []string) (string, bool) {
	if len(values) != 1 {
		return "", false
	}
	scheme, text, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "bearer") || text == "" {
		return "", false
	}
	return text, true
}
