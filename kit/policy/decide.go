package policy

import (
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/identity"
)

// What a policy answers to whom it refuses; policy.v1.ErrorReason says when.
var (
	ErrCredentialsMissing = fault.New(fault.Unauthenticated, "CREDENTIALS_MISSING", "an access token is required").WithDomain(fault.Domain)
	ErrCallerRefused      = fault.New(fault.PermissionDenied, "CALLER_REFUSED", "the method is not for this caller").WithDomain(fault.Domain)
	ErrScopeMissing       = fault.New(fault.PermissionDenied, "SCOPE_MISSING", "the access token lacks a scope").WithDomain(fault.Domain)
	ErrNotSelf            = fault.New(fault.PermissionDenied, "NOT_SELF", "the request is about another user").WithDomain(fault.Domain)
	ErrNoPolicy           = fault.New(fault.PermissionDenied, "NO_POLICY", "nobody may call the method").WithDomain(fault.Domain)
)

// Credentials are what a call came with.
type Credentials struct {
	// Peer is the name in the certificate at the other end of the connection.
	Peer string
	// Edge is true where that peer is the gateway, which speaks for whoever called it and is no service.
	Edge bool
	// HasToken is true where the call carries an access token, be it good or not.
	HasToken bool
	// User is who a good token speaks for.
	User *identity.User
	// TokenErr says why a token is not good.
	TokenErr error
	// Address is where the call came from.
	Address string
}

// WantsToken reports whether a token that comes with a call matters to the method: one that does not is not looked at.
func (m *Method) WantsToken() bool { return m.User }

// Decide returns who the call is from, or why it is refused. The rules, in order:
//
//  1. A peer that the method does not name may not call at all.
//  2. A call with a token, to a method for users, is the user's: the token must be good and carry every scope.
//  3. A call with a token, to a method for services alone, is refused: the token is not a service's.
//  4. Without a token, a peer that is not the edge is a service.
//  5. What is public is for everybody else.
func (m *Method) Decide(c Credentials) (identity.Caller, error) {
	caller := identity.Caller{Peer: c.Peer, Address: c.Address}
	if !m.allows(c.Peer) {
		return caller, ErrCallerRefused
	}
	if c.HasToken && m.User {
		if c.TokenErr != nil {
			return caller, c.TokenErr
		}
		if c.User == nil {
			return caller, ErrCredentialsMissing
		}
		caller.User = c.User
		for _, s := range m.Scopes {
			if !caller.Has(s) {
				return caller, ErrScopeMissing.With("scope", s)
			}
		}
		return caller, nil
	}
	if m.Service && c.Peer != "" && !c.Edge && !c.HasToken {
		caller.AsService = true
		return caller, nil
	}
	switch {
	case m.Public:
		return caller, nil
	case m.User:
		return caller, ErrCredentialsMissing
	default:
		return caller, ErrCallerRefused
	}
}

// CheckSelf refuses a user whose request is about somebody else.
func (m *Method) CheckSelf(c identity.Caller, req proto.Message) error {
	if m.Self == nil || c.User == nil || (m.OrScope != "" && c.Has(m.OrScope)) {
		return nil
	}
	// User ids are UUIDs, which mean the same in capitals (RFC 9562 section 4).
	if owner := m.Self.Get(req.ProtoReflect()); owner == "" || !strings.EqualFold(owner, c.User.ID) {
		return ErrNotSelf.With("field", m.Self.Path)
	}
	return nil
}
