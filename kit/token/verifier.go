package token

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/identity"
)

var (
	// ErrInvalid: the token is not one that the issuer made for this audience.
	ErrInvalid = fault.New(fault.Unauthenticated, "TOKEN_INVALID", "the access token is not valid").WithDomain(fault.Domain)
	// ErrExpired: the token is past its end.
	ErrExpired = fault.New(fault.Unauthenticated, "TOKEN_EXPIRED", "the access token has expired").WithDomain(fault.Domain)
	// ErrRevoked: the token was good, but its session has ended.
	ErrRevoked = fault.New(fault.Unauthenticated, "TOKEN_REVOKED", "the access token has been revoked").WithDomain(fault.Domain)
	// ErrNoKeys: the keys of the issuer cannot be had, so nothing can be said of the token.
	ErrNoKeys = fault.New(fault.Unavailable, "UPSTREAM_UNAVAILABLE", "access tokens cannot be verified now").
			WithDomain(fault.Domain).With("upstream", "auth")
)

// VerifierConfig is what a Verifier needs; every field is required.
type VerifierConfig struct {
	Issuer, Audience string
	// Keys returns the issuer's present keys. It is asked when a token names an unknown key, at most once a second
	// unless it failed, and again when the keys are older than five minutes. While it fails, old keys go on to hold.
	Keys  func(context.Context) ([]Key, error)
	Clock clock.Clock
}

// Verifier verifies access tokens, each once: what it found is kept until the token expires, and holds until the token is
// revoked. It is safe for concurrent use.
type Verifier struct {
	cfg    VerifierConfig
	parser *jwt.Parser

	mu      sync.RWMutex
	known   map[string]*identity.User // by token; never more than maxKnown
	keys    map[string]Key
	loaded  time.Time // when keys came
	failed  time.Time // when the issuer last did not answer
	revoked revoked

	loading sync.Mutex // held by the one who asks for keys
}

const (
	maxKnown   = 10_000
	maxKeyAge  = 5 * time.Minute
	minReload  = time.Second
	retryKeys  = 5 * time.Second
	knownSweep = maxKnown / 4
)

// NewVerifier returns a Verifier. It asks for no key before the first token comes.
func NewVerifier(cfg VerifierConfig) *Verifier {
	return &Verifier{
		cfg: cfg,
		parser: jwt.NewParser(
			jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}),
			jwt.WithIssuer(cfg.Issuer),
			jwt.WithAudience(cfg.Audience),
			jwt.WithExpirationRequired(),
			jwt.WithIssuedAt(),
			jwt.WithLeeway(5*time.Second), // clocks differ; expiry is checked to the second below
			jwt.WithTimeFunc(cfg.Clock.Now),
			jwt.WithStrictDecoding(),
		),
		known:   make(map[string]*identity.User),
		revoked: newRevoked(),
	}
}

// Verify returns the user that the token speaks for. The result is shared: do not change it. Errors: ErrInvalid,
// ErrExpired, ErrRevoked, ErrNoKeys.
func (v *Verifier) Verify(ctx context.Context, token string) (*identity.User, error) {
	now := v.cfg.Clock.Now()
	v.mu.RLock()
	user, fresh := v.known[token], v.fresh(now)
	revoked := user != nil && v.revoked.has(user)
	v.mu.RUnlock()
	if user != nil && fresh {
		switch {
		case !now.Before(user.ExpiresAt):
			return nil, ErrExpired
		case revoked:
			return nil, ErrRevoked
		}
		return user, nil
	}
	user, err := v.verify(ctx, token)
	if err != nil {
		return nil, err
	}
	if !v.remember(token, user) {
		return nil, ErrRevoked
	}
	return user, nil
}

func (v *Verifier) verify(ctx context.Context, token string) (*identity.User, error) {
	if len(token) > maxToken {
		return nil, ErrInvalid.Because(fmt.Errorf("token of %d bytes", len(token)))
	}
	var c claims
	_, err := v.parser.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) {
		kid, _ := t.Header["kid"].(string)
		k, err := v.key(ctx, kid)
		if err != nil {
			return nil, err
		}
		return k.Public, nil
	})
	switch {
	case errors.Is(err, ErrNoKeys):
		return nil, ErrNoKeys.Because(err)
	case errors.Is(err, jwt.ErrTokenExpired) && !errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return nil, ErrExpired
	case err != nil:
		return nil, ErrInvalid.Because(err)
	case c.Subject == "":
		return nil, ErrInvalid.Because(errors.New("no subject"))
	case !v.cfg.Clock.Now().Before(c.ExpiresAt.Time):
		return nil, ErrExpired
	case c.IssuedAt.IsZero():
		return nil, ErrInvalid.Because(errors.New("no time of issue"))
	case c.ExpiresAt.Sub(c.IssuedAt.Time) > MaxLife:
		return nil, ErrInvalid.Because(fmt.Errorf("expires at %s, more than %s after it was issued", c.ExpiresAt, MaxLife))
	}
	return &identity.User{
		ID: c.Subject, SessionID: c.SessionID, Scopes: strings.Fields(c.Scope),
		IssuedAt: c.IssuedAt.Time, ExpiresAt: c.ExpiresAt.Time,
	}, nil
}

// key returns the key that kid names, asking the issuer when it is unknown or what is known is old.
func (v *Verifier) key(ctx context.Context, kid string) (Key, error) {
	now := v.cfg.Clock.Now()
	v.mu.RLock()
	k, ok := v.keys[kid]
	fresh := v.fresh(now)
	v.mu.RUnlock()
	if ok && fresh {
		return k, nil
	}
	v.loading.Lock()
	defer v.loading.Unlock()
	v.mu.RLock() // somebody may have asked while we waited
	k, ok = v.keys[kid]
	fresh = v.fresh(now)
	justNow := v.keys != nil && now.Sub(v.loaded) < minReload
	v.mu.RUnlock()
	if (ok && fresh) || justNow {
		return k, unknownUnless(ok, kid)
	}
	list, err := v.cfg.Keys(ctx)
	if err != nil {
		v.mu.Lock()
		v.failed = now
		v.mu.Unlock()
		if ok {
			return k, nil // an old key beats no answer: the issuer is away, not the key
		}
		return Key{}, ErrNoKeys.Because(err)
	}
	keys := make(map[string]Key, len(list))
	for _, k := range list {
		keys[k.ID] = k
	}
	v.mu.Lock()
	v.keys, v.loaded = keys, now
	v.mu.Unlock()
	k, ok = keys[kid]
	return k, unknownUnless(ok, kid)
}

// fresh reports whether what is known of keys will do: they are young, or the issuer has just been asked in vain. The
// caller holds mu.
func (v *Verifier) fresh(now time.Time) bool {
	return now.Sub(v.loaded) < maxKeyAge || (v.keys != nil && now.Sub(v.failed) < retryKeys)
}

func unknownUnless(known bool, kid string) error {
	if known {
		return nil
	}
	return fmt.Errorf("the issuer has no key %q", kid)
}

// remember keeps what was found, unless it is revoked.
func (v *Verifier) remember(token string, user *identity.User) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.revoked.has(user) {
		return false
	}
	if len(v.known) >= maxKnown {
		now, dropped := v.cfg.Clock.Now(), 0
		for t, u := range v.known { // expired ones first, then whichever: verifying again is all it costs
			if !now.Before(u.ExpiresAt) {
				delete(v.known, t)
				dropped++
			}
		}
		for t := range v.known {
			if dropped >= knownSweep {
				break
			}
			delete(v.known, t)
			dropped++
		}
	}
	v.known[token] = user
	return true
}
