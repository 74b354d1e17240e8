// Package token makes and verifies access tokens: JSON Web Tokens (RFC 7519) signed with Ed25519 (RFC 8037). Only that
// algorithm is accepted; issuer, audience and expiry are always checked.
package token

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/identity"
)

// Key is a public key that verifies tokens.
type Key struct {
	// ID is what a token names it by (kid): its RFC 7638 thumbprint.
	ID string
	// Public is the Ed25519 public key, 32 bytes.
	Public ed25519.PublicKey
}

// NewKey returns the Key of a public key.
func NewKey(public ed25519.PublicKey) Key {
	x := base64.RawURLEncoding.EncodeToString(public)
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + x + `"}`)) // RFC 7638 section 3, RFC 8037 A.3
	return Key{ID: base64.RawURLEncoding.EncodeToString(sum[:]), Public: public}
}

// ParseKey returns the Key of a JSON Web Key's member x, and refuses one whose kid is not its thumbprint.
func ParseKey(kid, x string) (Key, error) {
	raw, err := base64.RawURLEncoding.DecodeString(x)
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return Key{}, fmt.Errorf("key %q is not a base64url Ed25519 public key", kid)
	}
	k := NewKey(raw)
	if k.ID != kid {
		return Key{}, fmt.Errorf("key %q has the thumbprint %q", kid, k.ID)
	}
	return k, nil
}

// X returns the public key as a JSON Web Key's member x.
func (k Key) X() string { return base64.RawURLEncoding.EncodeToString(k.Public) }

// claims are what a token of ours says (RFC 7519 section 4, RFC 8693 section 4.2 for scope).
type claims struct {
	jwt.RegisteredClaims
	IssuedAt  microseconds `json:"iat"` // in place of the registered one, which has whole seconds
	SessionID string       `json:"sid,omitempty"`
	Scope     string       `json:"scope,omitempty"`
}

// GetIssuedAt implements jwt.Claims.
func (c claims) GetIssuedAt() (*jwt.NumericDate, error) {
	return &jwt.NumericDate{Time: c.IssuedAt.Time}, nil
}

// microseconds is a NumericDate (RFC 7519 section 2) with six digits after the point, as far as a revocation tells times
// apart: what was issued in the second of a sign-out is good if it was issued after it. The zero time is a claim that is
// not there.
type microseconds struct{ time.Time }

// MarshalJSON implements json.Marshaler.
func (m microseconds) MarshalJSON() ([]byte, error) {
	us := m.UnixMicro()
	return fmt.Appendf(nil, "%d.%06d", us/1e6, us%1e6), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (m *microseconds) UnmarshalJSON(b []byte) error {
	seconds, err := strconv.ParseFloat(string(b), 64)
	if err != nil || !(seconds >= 0 && seconds < 1<<33) {
		return fmt.Errorf("%.40q is not a time", b)
	}
	m.Time = time.UnixMicro(int64(math.Round(seconds * 1e6)))
	return nil
}

// Signer makes tokens.
type Signer struct {
	private          ed25519.PrivateKey
	key              Key
	issuer, audience string
	clock            clock.Clock
	newID            func() string
}

// NewSigner returns a Signer whose tokens name the issuer and the audience. newID makes the id of each token.
func NewSigner(private ed25519.PrivateKey, issuer, audience string, clk clock.Clock, newID func() string) *Signer {
	return &Signer{
		private: private, key: NewKey(private.Public().(ed25519.PublicKey)),
		issuer: issuer, audience: audience, clock: clk, newID: newID,
	}
}

// Key returns the key that verifies what the Signer signs.
func (s *Signer) Key() Key { return s.key }

// Sign returns a token for the user, issued and valid from now until user.ExpiresAt (whole seconds, rounded down). Whatever
// user.IssuedAt is does not count.
func (s *Signer) Sign(user identity.User) (string, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer:    s.issuer,
			Subject:   user.ID,
			Audience:  jwt.ClaimStrings{s.audience},
			ExpiresAt: jwt.NewNumericDate(user.ExpiresAt),
			ID:        s.newID(),
		},
		IssuedAt:  microseconds{s.clock.Now()},
		SessionID: user.SessionID,
		Scope:     strings.Join(user.Scopes, " "),
	})
	t.Header["kid"] = s.key.ID
	text, err := t.SignedString(s.private)
	if err != nil {
		return "", fmt.Errorf("sign access token: %w", err)
	}
	return text, nil
}

// maxToken bounds what is looked at, in bytes. Ours have about 600.
const maxToken = 8 << 10

// MaxLife bounds the life of a token that is accepted, whatever it says of itself, and so how long its revocation must be
// remembered.
const MaxLife = time.Hour

// JWK is a member of a JSON Web Key Set (RFC 7517), as generated messages have it.
type JWK interface {
	GetKty() string
	GetCrv() string
	GetKid() string
	GetX() string
}

// ParseSet returns the keys of a set that tokens can be signed with here: those of other kinds are left out.
func ParseSet[K JWK](set []K) ([]Key, error) {
	var keys []Key
	for _, jwk := range set {
		if jwk.GetKty() != "OKP" || jwk.GetCrv() != "Ed25519" {
			continue
		}
		k, err := ParseKey(jwk.GetKid(), jwk.GetX())
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}
