package auth_test

import (
	"sync"
	"testing"

	"github.com/concordat-dev/concordat/services/auth/internal/auth"
)

const newSecret = "another long password"

// change returns the request of a user to change their password.
func change(id auth.UserID, session auth.SessionID) auth.PasswordChangeRequest {
	return auth.PasswordChangeRequest{UserID: id, SessionID: session, Current: secret, New: newSecret, RequestID: "7d9a0000-0000-4000-8000-00000000000A"}
}

func TestANewPasswordReplacesTheOldAndEndsTheOtherSessions(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	a := h.member(1)
	mine, other := h.signIn(1), h.signIn(1)
	want(t, h.ChangePassword(t.Context(), change(a.ID, mine.SessionID)), nil)

	_, _, err := h.SignIn(t.Context(), request(1).Email, secret)
	want(t, err, auth.ErrInvalidCredentials)
	_, _, err = h.SignIn(t.Context(), request(1).Email, newSecret)
	want(t, err, nil)
	_, err = h.Refresh(t.Context(), mine.RefreshToken)
	want(t, err, nil)
	_, err = h.Refresh(t.Context(), other.RefreshToken)
	want(t, err, auth.ErrRefreshTokenInvalid)
	after, err := h.Account(t.Context(), a.ID)
	want(t, err, nil)
	if after.ETag() == a.ETag() {
		t.Error("the etag is the same")
	}
	h.wantEvents(a.ID, auth.EventSignedUp, auth.EventLogin, auth.EventLogin, auth.EventPasswordChanged, auth.EventLoginFailed, auth.EventLogin)
}

func TestARepeatedChangeIsMadeOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	a := h.member(1)
	want(t, h.ChangePassword(t.Context(), change(a.ID, "")), nil)
	later := h.signInWith(1, newSecret)
	again := change(a.ID, "")
	again.RequestID = "7d9a0000-0000-4000-8000-00000000000a" // letter case does not count
	want(t, h.ChangePassword(t.Context(), again), nil)
	_, err := h.Refresh(t.Context(), later.RefreshToken)
	want(t, err, nil)
	h.wantEvents(a.ID, auth.EventSignedUp, auth.EventPasswordChanged, auth.EventLogin)

	again.New = "a third long password"
	want(t, h.ChangePassword(t.Context(), again), auth.ErrRequestIDReused)
	h.signInWith(1, newSecret)
}

func (h *harness) signInWith(n int, password string) auth.Tokens {
	h.t.Helper()
	tokens, _, err := h.SignIn(h.t.Context(), request(n).Email, password)
	want(h.t, err, nil)
	return tokens
}

func TestARequestIDBelongsToItsUser(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for n := 1; n <= 2; n++ {
		a := h.member(n)
		r := change(a.ID, "")
		r.New += string(rune('0' + n))
		want(t, h.ChangePassword(t.Context(), r), nil)
		h.wantEvents(a.ID, auth.EventSignedUp, auth.EventPasswordChanged)
	}
}

func TestEqualChangesAtOnceAreOne(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	a := h.member(1)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := h.ChangePassword(t.Context(), change(a.ID, "")); err != nil {
				t.Errorf("change: %v", err)
			}
		})
	}
	wg.Wait()
	h.wantEvents(a.ID, auth.EventSignedUp, auth.EventPasswordChanged)
}

func TestAChangeThatIsRefused(t *testing.T) {
	t.Parallel()
	t.Run("a wrong password is refused and written down", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t)
		a := h.member(1)
		session := h.signIn(1)
		r := change(a.ID, "")
		r.Current = "wrong"
		want(t, h.ChangePassword(t.Context(), r), auth.ErrInvalidCredentials)
		_, err := h.Refresh(t.Context(), session.RefreshToken)
		want(t, err, nil)
		h.wantEvents(a.ID, auth.EventSignedUp, auth.EventLogin, auth.EventLoginFailed)
	})
	t.Run("an unknown user is not found", func(t *testing.T) {
		t.Parallel()
		want(t, newHarness(t).ChangePassword(t.Context(), change(imported, "")), auth.ErrUserNotFound)
	})
	t.Run("an imported user has no password to give", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t)
		h.importUser()
		_, err := h.Account(t.Context(), imported)
		want(t, err, nil)
		r := change(imported, "")
		r.Current = ""
		want(t, h.ChangePassword(t.Context(), r), auth.ErrInvalidCredentials)
	})
	t.Run("a locked account is left as it is", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t)
		a := h.member(1)
		_, err := h.Lock(t.Context(), a.ID, "")
		want(t, err, nil)
		want(t, h.ChangePassword(t.Context(), change(a.ID, "")), auth.ErrAccountLocked)
		_, err = h.Unlock(t.Context(), a.ID, "")
		want(t, err, nil)
		h.signIn(1)
	})
	t.Run("a change that broke off can be repeated", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t)
		a := h.member(1)
		for _, crash := range []func(){
			func() { h.store.before.Store(h.store.writes.Load() + 1) },
			func() { h.store.behind.Store(h.store.writes.Load() + 1) },
		} {
			crash()
			want(t, h.ChangePassword(t.Context(), change(a.ID, "")), errCrash)
		}
		want(t, h.ChangePassword(t.Context(), change(a.ID, "")), nil)
		h.wantEvents(a.ID, auth.EventSignedUp, auth.EventPasswordChanged)
		h.signInWith(1, newSecret)
	})
}
