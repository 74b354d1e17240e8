package token_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"maps"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/token"
)

const issuer, audience = "https://issuer.example", "concordat"

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func signer(t *testing.T, clk *clocktest.Manual) *token.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return token.NewSigner(private, issuer, audience, clk, func() string { return "jti" })
}

func sign(t *testing.T, s *token.Signer, expires time.Time) string {
	t.Helper()
	text, err := s.Sign(identity.User{ID: "u1", SessionID: "s1", Scopes: []string{"a.read", "a.write"}, ExpiresAt: expires})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func verifier(clk *clocktest.Manual, keys func(context.Context) ([]token.Key, error)) *token.Verifier {
	return token.NewVerifier(token.VerifierConfig{Issuer: issuer, Audience: audience, Clock: clk, Keys: keys})
}

func TestATokenIsVerifiedOnceAndRefusedOnceItExpires(t *testing.T) {
	clk := clocktest.New(start)
	s := signer(t, clk)
	asked := 0
	v := verifier(clk, func(context.Context) ([]token.Key, error) { asked++; return []token.Key{s.Key()}, nil })
	text := sign(t, s, start.Add(time.Minute))
	first, err := v.Verify(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	if first.ID != "u1" || first.SessionID != "s1" || len(first.Scopes) != 2 {
		t.Errorf("user = %+v", first)
	}
	if second, err := v.Verify(t.Context(), text); err != nil || second != first || asked != 1 {
		t.Errorf("second = %p, %v after %d fetches; want the first, %p, after 1", second, err, asked, first)
	}
	clk.Advance(time.Minute)
	if _, err := v.Verify(t.Context(), text); !errors.Is(err, token.ErrExpired) {
		t.Errorf("at its end: %v, want ErrExpired", err)
	}
	if _, err := verifier(clk, func(context.Context) ([]token.Key, error) { return []token.Key{s.Key()}, nil }).
		Verify(t.Context(), text); !errors.Is(err, token.ErrExpired) {
		t.Errorf("at its end, never seen before: %v, want ErrExpired", err)
	}
}

func TestForeignTokensAreRefused(t *testing.T) {
	clk := clocktest.New(start)
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := token.NewSigner(private, issuer, audience, clk, func() string { return "jti" })
	keys := func(context.Context) ([]token.Key, error) { return []token.Key{s.Key()}, nil }
	good := sign(t, s, start.Add(time.Minute))
	// Each of these differs from a good token in one thing alone: it names the key that is served, and is signed with it.
	valid := jwt.MapClaims{"iss": issuer, "aud": audience, "sub": "u1", "exp": start.Add(time.Minute).Unix(), "iat": start.Unix()}
	but := func(name string, value any) string {
		claims := maps.Clone(valid)
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
		return forge(t, jwt.SigningMethodEdDSA, s.Key().ID, claims, private)
	}
	if _, err := verifier(clk, keys).Verify(t.Context(), but("iss", issuer)); err != nil {
		t.Fatalf("the token that the others are made from: %v", err)
	}
	for name, text := range map[string]string{
		"empty":                               "",
		"not a token":                         "abc",
		"signed by another key":               sign(t, signer(t, clk), start.Add(time.Minute)),
		"of another issuer":                   but("iss", "https://evil.example"),
		"of no issuer":                        but("iss", nil),
		"for another audience":                but("aud", "other"),
		"for no audience":                     but("aud", nil),
		"of nobody":                           but("sub", ""),
		"without an end":                      but("exp", nil),
		"without a time of issue":             but("iat", nil),
		"of a time of issue that is no time":  but("iat", "yesterday"),
		"of the future":                       but("iat", start.Add(time.Hour).Unix()),
		"signed with the public key as HMAC":  forge(t, jwt.SigningMethodHS256, s.Key().ID, valid, []byte(s.Key().Public)),
		"signed with none":                    forge(t, jwt.SigningMethodNone, s.Key().ID, valid, jwt.UnsafeAllowNoneSignatureType),
		"that names no key":                   forge(t, jwt.SigningMethodEdDSA, "", valid, private),
		"with a flipped signature bit":        good[:len(good)-3] + string(good[len(good)-3]^1) + good[len(good)-2:],
		"valid for longer than any of ours":   sign(t, s, start.Add(48*time.Hour)),
		"larger than what we look at":         good + string(make([]byte, 9000)),
		"with the claims of another":          swapClaims(good, sign(t, s, start.Add(2*time.Minute))),
		"without the signature":               good[:len(good)-86],
		"of another key, expired as well":     sign(t, signer(t, clk), start.Add(-time.Minute)),
		"of the right key with trailing junk": good + ".x",
	} {
		t.Run(name, func(t *testing.T) {
			if u, err := verifier(clk, keys).Verify(t.Context(), text); !errors.Is(err, token.ErrInvalid) {
				t.Errorf("Verify = %+v, %v; want ErrInvalid", u, err)
			}
		})
	}
}

// forge signs claims as it is told.
func forge(t *testing.T, method jwt.SigningMethod, kid string, claims jwt.MapClaims, key any) string {
	t.Helper()
	tok := jwt.NewWithClaims(method, claims)
	if kid != "" {
		tok.Header["kid"] = kid
	}
	text, err := tok.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func swapClaims(a, b string) string {
	split := func(s string) (out [3]string) {
		i := 0
		for _, r := range s {
			if r == '.' {
				i++
				continue
			}
			out[i] += string(r)
		}
		return out
	}
	x, y := split(a), split(b)
	return x[0] + "." + y[1] + "." + x[2]
}

func TestANewKeyIsFetchedWhenATokenNamesItAndJunkDoesNotHammerTheIssuer(t *testing.T) {
	clk := clocktest.New(start)
	old, next := signer(t, clk), signer(t, clk)
	var asked atomic.Int32
	keys := []token.Key{old.Key()}
	v := verifier(clk, func(context.Context) ([]token.Key, error) { asked.Add(1); return keys, nil })
	if _, err := v.Verify(t.Context(), sign(t, old, start.Add(time.Minute))); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if _, err := v.Verify(t.Context(), sign(t, next, start.Add(time.Minute))); !errors.Is(err, token.ErrInvalid) {
			t.Fatalf("unknown key: %v", err)
		}
	}
	if got := asked.Load(); got != 1 {
		t.Errorf("asked the issuer %d times within a second, want 1", got)
	}
	keys = append(keys, next.Key())
	clk.Advance(time.Second)
	if _, err := v.Verify(t.Context(), sign(t, next, clk.Now().Add(time.Minute))); err != nil {
		t.Errorf("after rotation: %v", err)
	}
}

func TestAnIssuerThatIsAwayIsNotAnInvalidToken(t *testing.T) {
	clk := clocktest.New(start)
	s := signer(t, clk)
	var down bool
	v := verifier(clk, func(context.Context) ([]token.Key, error) {
		if down {
			return nil, errors.New("connection refused")
		}
		return []token.Key{s.Key()}, nil
	})
	down = true
	if _, err := v.Verify(t.Context(), sign(t, s, start.Add(time.Minute))); !errors.Is(err, token.ErrNoKeys) {
		t.Fatalf("no keys yet: %v, want ErrNoKeys", err)
	}
	down = false
	if _, err := v.Verify(t.Context(), sign(t, s, start.Add(time.Minute))); err != nil {
		t.Fatalf("keys are back: %v", err)
	}
	down = true
	clk.Advance(time.Hour)
	if _, err := v.Verify(t.Context(), sign(t, s, clk.Now().Add(time.Minute))); err != nil {
		t.Errorf("away again, key known: %v", err)
	}
}
