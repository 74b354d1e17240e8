package token_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/token"
)

// issuerOf is a signer and a verifier of what it signs, on one clock.
type issuerOf struct {
	t      *testing.T
	clk    *clocktest.Manual
	signer *token.Signer
	*token.Verifier
}

func newIssuer(t *testing.T) issuerOf {
	t.Helper()
	clk := clocktest.New(start)
	s := signer(t, clk)
	return issuerOf{t, clk, s, verifier(clk, func(context.Context) ([]token.Key, error) { return []token.Key{s.Key()}, nil })}
}

// issue returns a token for ten minutes, and lets a microsecond pass.
func (i issuerOf) issue(user, session string) string {
	i.t.Helper()
	text, err := i.signer.Sign(identity.User{ID: user, SessionID: session, ExpiresAt: i.clk.Now().Add(10 * time.Minute)})
	if err != nil {
		i.t.Fatal(err)
	}
	i.clk.Advance(time.Microsecond)
	return text
}

// revoke revokes now, and lets a microsecond pass.
func (i issuerOf) revoke(r token.Revocation) {
	r.At = i.clk.Now()
	i.Revoke(r)
	i.clk.Advance(time.Microsecond)
}

func (i issuerOf) want(what, text string, want error) *identity.User {
	i.t.Helper()
	user, err := i.Verify(i.t.Context(), text)
	if !errors.Is(err, want) {
		i.t.Errorf("%s: %v, want %v", what, err, want)
	}
	return user
}

func TestARevocationTakesTheTokensThatItSpeaksOfAndNoOthers(t *testing.T) {
	for name, c := range map[string]struct {
		revoke token.Revocation
		ended  []string
	}{
		"one session":                         {token.Revocation{UserID: "ann", SessionID: "a1"}, []string{"ann a1"}},
		"all sessions of a user":              {token.Revocation{UserID: "ann"}, []string{"ann a1", "ann a2", "ann "}},
		"all sessions but one":                {token.Revocation{UserID: "ann", Except: "a2"}, []string{"ann a1", "ann "}},
		"everybody":                           {token.Revocation{}, []string{"ann a1", "ann a2", "ann ", "bob b1"}},
		"a session of that name of another":   {token.Revocation{UserID: "bob", SessionID: "a1"}, nil},
		"all sessions of a user who has none": {token.Revocation{UserID: "eve"}, nil},
	} {
		for _, seen := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, tokens seen before: %t", name, seen), func(t *testing.T) {
				i := newIssuer(t)
				tokens := map[string]string{
					"ann a1": i.issue("ann", "a1"), "ann a2": i.issue("ann", "a2"), "ann ": i.issue("ann", ""), "bob b1": i.issue("bob", "b1"),
				}
				if seen {
					for who, text := range tokens {
						i.want("before, "+who, text, nil)
					}
				}
				i.revoke(c.revoke)
				ended := map[string]bool{}
				for _, who := range c.ended {
					ended[who] = true
				}
				for who, text := range tokens {
					var want error
					if ended[who] {
						want = token.ErrRevoked
					}
					i.want(who, text, want)
					i.want(who+", again", text, want)
				}
				// What was issued later, in the same second, is good.
				i.want("a later token", i.issue("ann", "a9"), nil)
				i.want("a later token of another", i.issue("bob", "b1"), nil)
			})
		}
	}
}

func TestRevocationsOfOneUserAddUp(t *testing.T) {
	i := newIssuer(t)
	kept, other := i.issue("ann", "kept"), i.issue("ann", "other")
	first := token.Revocation{UserID: "ann", Except: "kept", At: i.clk.Now()}
	i.revoke(first)
	later := i.issue("ann", "later")
	i.want("the one that was kept", kept, nil)
	i.want("the other", other, token.ErrRevoked)
	i.revoke(token.Revocation{UserID: "ann", SessionID: "later"})
	i.want("one that was ended by itself", later, token.ErrRevoked)

	// A session that had ended keeps itself, where its end was not known yet: it stays ended.
	i.revoke(token.Revocation{UserID: "ann", Except: "other"})
	for what, text := range map[string]string{"kept": kept, "other": other, "later": later} {
		i.want(what, text, token.ErrRevoked)
	}
	fresh := i.issue("ann", "other")
	i.want("a later token of the one that is kept now", fresh, nil)

	// An older one that is told again brings nothing back, and takes nothing.
	i.Revoke(first)
	i.want("kept, told again", kept, token.ErrRevoked)
	i.want("a later token, told again", fresh, nil)
}

func TestAnOlderRevocationThatComesLaterHolds(t *testing.T) {
	i := newIssuer(t)
	a := i.issue("ann", "a")
	older := token.Revocation{UserID: "ann", At: i.clk.Now()}
	i.clk.Advance(time.Second)
	i.revoke(token.Revocation{UserID: "ann", Except: "a"})
	i.want("before the older one is told", a, nil)
	i.Revoke(older)
	i.want("after it", a, token.ErrRevoked)
}

func TestARevocationIsForgottenOnceNoTokenOfItIsLeft(t *testing.T) {
	i := newIssuer(t)
	for n := range 100 {
		i.revoke(token.Revocation{UserID: "ann", SessionID: fmt.Sprint(n)})
		i.revoke(token.Revocation{UserID: fmt.Sprint(n)})
	}
	if n := i.Revoked(); n != 200 {
		t.Fatalf("%d are remembered, want 200", n)
	}
	i.clk.Advance(token.MaxLife)
	i.revoke(token.Revocation{UserID: "bob", SessionID: "b"})
	if n := i.Revoked(); n != 1 {
		t.Errorf("%d are remembered, want the last", n)
	}
	i.Revoke(token.Revocation{UserID: "bob", At: i.clk.Now().Add(-token.MaxLife)})
	if n := i.Revoked(); n != 1 {
		t.Errorf("%d are remembered: one that is too old was taken", n)
	}
}

func TestHoweverManyRevocationsTakeBoundedMemoryAndNoneComesBack(t *testing.T) {
	const bound = 1 << 16
	i := newIssuer(t)
	victim := i.issue("victim", "v")
	i.revoke(token.Revocation{UserID: "victim", SessionID: "v"})
	early := i.issue("bystander", "b")
	earlyUser := i.want("the bystander", early, nil)
	cut := 0
	i.WhenRevoked(earlyUser, func() { cut++ })
	i.revoke(token.Revocation{UserID: "x", SessionID: "first"})
	late := i.issue("bystander", "b")
	for n := range bound {
		i.revoke(token.Revocation{UserID: "x", SessionID: fmt.Sprint(n)})
		if got := i.Revoked(); got > bound {
			t.Fatalf("%d are remembered", got)
		}
	}
	i.want("the first that was revoked", victim, token.ErrRevoked)
	// Who had a token then shows that the session goes on; who has one from later need not.
	i.want("a token that is as old", early, token.ErrRevoked)
	if cut != 1 {
		t.Errorf("its stream was ended %d times", cut)
	}
	i.want("a later token", late, nil)
}

func TestWhoWaitsForTheEndOfATokenIsToldOnce(t *testing.T) {
	i := newIssuer(t)
	told := map[string]int{}
	watch := func(name, text string) func() {
		t.Helper()
		return i.WhenRevoked(i.want(name, text, nil), func() { told[name]++ })
	}
	a1, a2, b1 := i.issue("ann", "a1"), i.issue("ann", "a2"), i.issue("bob", "b1")
	known := i.want("a1", a1, nil)
	watch("a1", a1)
	watch("a1 too", a1)
	watch("a2", a2)
	watch("b1", b1)
	watch("gave up", a1)()
	i.revoke(token.Revocation{UserID: "ann", SessionID: "a1"})
	i.WhenRevoked(known, func() { told["late"]++ })() // it is told at once
	i.revoke(token.Revocation{UserID: "ann"})
	i.revoke(token.Revocation{})
	i.revoke(token.Revocation{})
	for _, name := range []string{"a1", "a1 too", "a2", "b1", "late"} {
		if told[name] != 1 {
			t.Errorf("%s was told %d times", name, told[name])
		}
	}
	if told["gave up"] != 0 {
		t.Error("who gave up was told")
	}
}

func TestWhatARevocationConcernsIsWhatAVerifierRefuses(t *testing.T) {
	for _, r := range []token.Revocation{
		{}, {UserID: "ann"}, {UserID: "ann", SessionID: "a1"}, {UserID: "ann", Except: "a1"}, {UserID: "bob"}, {UserID: "ann", SessionID: "a2"},
	} {
		for _, session := range []string{"a1", "a2", ""} {
			for _, after := range []time.Duration{-time.Microsecond, 0, time.Microsecond} {
				i := newIssuer(t)
				user := i.want("before", i.issue("ann", session), nil)
				r.At = user.IssuedAt.Add(after)
				refused := false
				i.Revoke(r)
				i.WhenRevoked(user, func() { refused = true })
				if r.Concerns(user) != refused {
					t.Errorf("%+v, session %q: concerns it %t, is refused %t", r, session, r.Concerns(user), refused)
				}
			}
		}
	}
}
