package auth_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/services/auth/internal/auth"
)

func TestASignInGrantsWhatTheRoleMayDo(t *testing.T) {
	t.Parallel()
	member := []string{"account.write", "auth.read", "users.read", "users.write", "payments.read", "payments.write"}
	for _, row := range []struct {
		name   string
		sign   func(*harness) auth.Account
		scopes []string
	}{
		{"a member acts on what is theirs", func(h *harness) auth.Account { return h.member(1) }, member},
		{"an administrator acts on what is others' too", func(h *harness) auth.Account { return h.admin(1) },
			append(slices.Clone(member), "auth.admin", "users.admin", "payments.admin")},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			a := row.sign(h)
			tokens, got, err := h.SignIn(t.Context(), " "+strings.ToUpper(request(1).Email), secret)
			want(t, err, nil)
			if got != a {
				t.Errorf("account %+v, want %+v", got, a)
			}
			now := h.clock.Now().UTC().Truncate(time.Microsecond)
			g := granted(t, tokens.AccessToken)
			if g.UserID != a.ID || g.SessionID != tokens.SessionID || g.SessionID == "" || !slices.Equal(g.Scopes, row.scopes) {
				t.Errorf("granted %+v", g)
			}
			if !g.ExpiresAt.Equal(now.Truncate(time.Second).Add(10*time.Minute)) || !tokens.AccessExpiresAt.Equal(g.ExpiresAt) {
				t.Errorf("granted until %s, answered %s", g.ExpiresAt, tokens.AccessExpiresAt)
			}
			if !tokens.RefreshExpiresAt.Equal(now.Add(30*24*time.Hour)) || len(tokens.RefreshToken) != 43 {
				t.Errorf("refresh token of %d characters until %s", len(tokens.RefreshToken), tokens.RefreshExpiresAt)
			}
			h.wantEvents(a.ID, auth.EventSignedUp, auth.EventLogin)
		})
	}
}

func TestARefreshKeepsTheSessionAndReplacesBothTokens(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.member(1)
	first := h.signIn(1)
	h.clock.Advance(time.Hour)
	second, err := h.Refresh(t.Context(), first.RefreshToken)
	want(t, err, nil)
	if second.SessionID != first.SessionID || second.RefreshToken == first.RefreshToken || second.AccessToken == first.AccessToken {
		t.Errorf("got %+v after %+v", second, first)
	}
	if !second.RefreshExpiresAt.Equal(first.RefreshExpiresAt.Add(time.Hour)) {
		t.Errorf("expires at %s", second.RefreshExpiresAt)
	}
	_, err = h.Refresh(t.Context(), second.RefreshToken)
	want(t, err, nil)
}

func TestAReusedRefreshTokenClosesItsSessionAndNoOther(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	a := h.member(1)
	first, other := h.signIn(1), h.signIn(1)
	second, err := h.Refresh(t.Context(), first.RefreshToken)
	want(t, err, nil)
	for range 2 {
		_, err = h.Refresh(t.Context(), first.RefreshToken)
		want(t, err, auth.ErrRefreshTokenReused)
	}
	_, err = h.Refresh(t.Context(), second.RefreshToken)
	want(t, err, auth.ErrRefreshTokenInvalid)
	_, err = h.Refresh(t.Context(), other.RefreshToken)
	want(t, err, nil)
	h.wantEvents(a.ID, auth.EventSignedUp, auth.EventLogin, auth.EventLogin, auth.EventRefreshTokenReused)
}

func TestOfManyRefreshesOfOneTokenAtOnceOneWins(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	a := h.member(1)
	token := h.signIn(1).RefreshToken
	var mu sync.Mutex
	var won []auth.Tokens
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			tokens, err := h.Refresh(t.Context(), token)
			if err != nil {
				if !errors.Is(err, auth.ErrRefreshTokenReused) {
					t.Errorf("refresh: %v", err)
				}
				return
			}
			mu.Lock()
			defer mu.Unlock()
			won = append(won, tokens)
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Fatalf("%d won", len(won))
	}
	_, err := h.Refresh(t.Context(), won[0].RefreshToken)
	want(t, err, auth.ErrRefreshTokenInvalid)
	h.wantEvents(a.ID, auth.EventSignedUp, auth.EventLogin, auth.EventRefreshTokenReused)
}

func TestARefreshTokenThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		spoil func(*harness, auth.Account, auth.Tokens)
		token string // instead of the session's
		want  error
	}{
		{"is unknown", func(*harness, auth.Account, auth.Tokens) {}, "no such token", auth.ErrRefreshTokenInvalid},
		{"has expired", func(h *harness, _ auth.Account, _ auth.Tokens) { h.clock.Advance(auth.RefreshTokenLifetime) }, "", auth.ErrRefreshTokenInvalid},
		{"is of a session that was closed", func(h *harness, _ auth.Account, tokens auth.Tokens) {
			want(h.t, h.SignOut(h.t.Context(), tokens.RefreshToken), nil)
		}, "", auth.ErrRefreshTokenInvalid},
		{"is of a locked account", func(h *harness, a auth.Account, _ auth.Tokens) {
			_, err := h.Lock(h.t.Context(), a.ID, "")
			want(h.t, err, nil)
		}, "", auth.ErrAccountLocked},
		{"is of a deactivated account", func(h *harness, a auth.Account, _ auth.Tokens) {
			_, err := h.Deactivate(h.t.Context(), a.ID, "")
			want(h.t, err, nil)
		}, "", auth.ErrAccountDeactivated},
		{"is of an account that was locked and unlocked", func(h *harness, a auth.Account, _ auth.Tokens) {
			_, err := h.Lock(h.t.Context(), a.ID, "")
			want(h.t, err, nil)
			_, err = h.Unlock(h.t.Context(), a.ID, "")
			want(h.t, err, nil)
		}, "", auth.ErrRefreshTokenInvalid},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			a := h.member(1)
			tokens := h.signIn(1)
			row.spoil(h, a, tokens)
			token := tokens.RefreshToken
			if row.token != "" {
				token = row.token
			}
			for range 2 { // a refusal uses nothing up
				_, err := h.Refresh(t.Context(), token)
				want(t, err, row.want)
			}
		})
	}
}

func TestARefreshTokenLastsUntilItsLastMoment(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.member(1)
	token := h.signIn(1).RefreshToken
	h.clock.Advance(auth.RefreshTokenLifetime - time.Millisecond)
	_, err := h.Refresh(t.Context(), token)
	want(t, err, nil)
}

func TestASignOutClosesOneSessionAndCanBeRepeated(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	a := h.member(1)
	used, other := h.signIn(1), h.signIn(1)
	fresh, err := h.Refresh(t.Context(), used.RefreshToken)
	want(t, err, nil)
	for _, token := range []string{used.RefreshToken, fresh.RefreshToken, "no such token"} {
		want(t, h.SignOut(t.Context(), token), nil)
	}
	_, err = h.Refresh(t.Context(), fresh.RefreshToken)
	want(t, err, auth.ErrRefreshTokenInvalid)
	_, err = h.Refresh(t.Context(), other.RefreshToken)
	want(t, err, nil)
	h.wantEvents(a.ID, auth.EventSignedUp, auth.EventLogin, auth.EventLogin, auth.EventLogout)
}

func TestASessionAndItsEventAreThereTogetherOrNotAtAll(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	a := h.member(1)
	h.store.before.Store(h.store.writes.Load() + 1)
	_, _, err := h.SignIn(t.Context(), request(1).Email, secret)
	want(t, err, errCrash)
	h.wantEvents(a.ID, auth.EventSignedUp)
}
