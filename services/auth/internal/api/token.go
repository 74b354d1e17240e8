package api

import (
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/token"
	"github.com/concordat-dev/concordat/services/auth/internal/auth"
)

// AccessTokens signs what the domain grants. It is safe for concurrent use.
type AccessTokens struct{ signer *token.Signer }

var _ auth.AccessTokens = AccessTokens{}

// NewAccessTokens returns access tokens that the signer signs.
func NewAccessTokens(signer *token.Signer) AccessTokens { return AccessTokens{signer} }

// Issue returns a signed token; see auth.AccessTokens.
func (a AccessTokens) Issue(g auth.Grant) (string, error) {
	return a.signer.Sign(identity.User{
		ID: string(g.UserID), SessionID: string(g.SessionID), Scopes: g.Scopes, ExpiresAt: g.ExpiresAt,
	})
}
