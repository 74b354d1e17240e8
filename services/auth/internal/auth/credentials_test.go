package auth_test

import (
	"errors"
	"reflect"
	"testing"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/services/auth/internal/auth"
)

// cost is the work that an attempt makes.
type cost struct{ verified, hashed, writes, noted int64 }

// costOf measures the work of fn.
func (h *harness) costOf(fn func()) cost {
	now := func() cost {
		return cost{h.passwords.verified.Load(), h.passwords.hashed.Load(), h.store.writes.Load(), h.store.noted.Load()}
	}
	before := now()
	fn()
	after := now()
	return cost{after.verified - before.verified, after.hashed - before.hashed, after.writes - before.writes, after.noted - before.noted}
}

func TestAnUnknownEmailAndAWrongPasswordAreTheSame(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	member := h.member(1)
	h.profiles.set(func(p *profiles) { p.down = true })
	_, err := h.SignUp(t.Context(), request(2)) // pending
	want(t, err, auth.ErrUpstreamUnavailable)

	type outcome struct {
		fault      *fault.Fault
		validation auth.Validation
		signIn     cost
		validate   cost
	}
	attempt := func(email, password string) outcome {
		var o outcome
		o.signIn = h.costOf(func() {
			_, _, err := h.SignIn(t.Context(), email, password)
			if !errors.As(err, &o.fault) {
				t.Fatalf("sign in: %v", err)
			}
		})
		o.validate = h.costOf(func() {
			var err error
			o.validation, err = h.ValidateUser(t.Context(), email, password)
			want(t, err, nil)
		})
		return o
	}
	wrong := attempt(request(1).Email, "wrong")
	for name, other := range map[string]outcome{
		"an unknown email":                               attempt("nobody@example.com", "wrong"),
		"the right password of a pending account":        attempt(request(2).Email, secret),
		"a wrong password of a pending account":          attempt(request(2).Email, "wrong"),
		"an email that belongs to no kind of an account": attempt("x", secret),
	} {
		if !reflect.DeepEqual(other, wrong) {
			t.Errorf("%s: %+v, a wrong password: %+v", name, other, wrong)
		}
	}
	if wrong.fault.Reason() != auth.ErrInvalidCredentials.Reason() || wrong.validation.Valid || wrong.validation.Message == "" || wrong.validation.UserID != "" {
		t.Errorf("got %+v", wrong)
	}
	if wrong.signIn != (cost{verified: 1, writes: 1, noted: 1}) {
		t.Errorf("it costs %+v", wrong.signIn)
	}
	h.wantEvents(member.ID, auth.EventSignedUp, auth.EventLoginFailed, auth.EventLoginFailed)
	h.wantEvents("") // what has no account has no events
}

func TestAnAccountThatMayNotActIsToldToItsOwnerAlone(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		change func(*harness, auth.UserID) (auth.Account, error)
		event  auth.EventType
		want   *fault.Fault
	}{
		{"a locked account", func(h *harness, id auth.UserID) (auth.Account, error) { return h.Lock(h.t.Context(), id, "") }, auth.EventLocked, auth.ErrAccountLocked},
		{"a deactivated account", func(h *harness, id auth.UserID) (auth.Account, error) { return h.Deactivate(h.t.Context(), id, "") }, auth.EventDeactivated, auth.ErrAccountDeactivated},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			a := h.member(1)
			_, err := row.change(h, a.ID)
			want(t, err, nil)
			_, _, err = h.SignIn(t.Context(), request(1).Email, secret)
			want(t, err, row.want)
			v, err := h.ValidateUser(t.Context(), request(1).Email, secret)
			want(t, err, nil)
			if v != (auth.Validation{Message: row.want.Text()}) {
				t.Errorf("got %+v", v)
			}
			_, _, err = h.SignIn(t.Context(), request(1).Email, "wrong")
			want(t, err, auth.ErrInvalidCredentials)
			h.wantEvents(a.ID, auth.EventSignedUp, row.event, auth.EventLoginFailed, auth.EventLoginFailed, auth.EventLoginFailed)
		})
	}
}

func TestTheRightPasswordIsValidAndOpensNoSession(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	a := h.member(1)
	v, err := h.ValidateUser(t.Context(), request(1).Email, secret)
	want(t, err, nil)
	if v != (auth.Validation{Valid: true, UserID: a.ID}) {
		t.Errorf("got %+v", v)
	}
	h.wantEvents(a.ID, auth.EventSignedUp, auth.EventLogin)
}

func TestAnOutdatedHashIsReplacedAtASignIn(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	before := h.member(1)
	h.passwords.outdated.Store(true)
	h.signIn(1)
	h.passwords.outdated.Store(false)
	after, err := h.Account(t.Context(), before.ID)
	want(t, err, nil)
	if after.PasswordHash == before.PasswordHash {
		t.Error("the hash is the same")
	}
	if after.ETag() != before.ETag() {
		t.Error("the etag changed, though nothing that callers see did")
	}
	h.signIn(1)
}

func TestWhatHappensDuringAComparisonCounts(t *testing.T) {
	t.Parallel()
	t.Run("an account that is locked meanwhile is refused", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t)
		a := h.member(1)
		h.passwords.afterNextVerify(func() {
			if _, err := h.Lock(t.Context(), a.ID, ""); err != nil {
				t.Error(err)
			}
		})
		_, _, err := h.SignIn(t.Context(), request(1).Email, secret)
		want(t, err, auth.ErrAccountLocked)
	})
	t.Run("a password that is changed meanwhile is refused", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t)
		a := h.member(1)
		h.passwords.afterNextVerify(func() {
			want(t, h.ChangePassword(t.Context(), auth.PasswordChangeRequest{UserID: a.ID, Current: secret, New: "another password", RequestID: "r"}), nil)
		})
		_, _, err := h.SignIn(t.Context(), request(1).Email, secret)
		want(t, err, auth.ErrInvalidCredentials)
		h.wantEvents(a.ID, auth.EventSignedUp, auth.EventPasswordChanged, auth.EventLoginFailed)
	})
	t.Run("a hash that is replaced meanwhile does no harm", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t)
		h.member(1)
		h.passwords.outdated.Store(true)
		h.passwords.afterNextVerify(func() { h.signIn(1) })
		h.signIn(1)
	})
}
