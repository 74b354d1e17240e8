package auth_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/services/auth/internal/auth"
)

// become changes a profile in users.v1 and returns what is told of it.
func (h *harness) become(id auth.UserID, state auth.ProfileState, email string) auth.ProfileChange {
	h.t.Helper()
	h.clock.Advance(time.Second)
	var c auth.ProfileChange
	h.profiles.set(func(p *profiles) {
		was, err := p.find(id)
		if err != nil {
			h.t.Fatal(err)
		}
		c = auth.ProfileChange{
			KnownProfile: auth.KnownProfile{UserID: id, Email: email, State: state, At: h.clock.Now().UTC().Truncate(time.Microsecond)}, Moved: state != was.State,
		}
		p.known[id] = c.KnownProfile
		made := p.byID[id]
		made.Email = email
		p.byID[id] = made
	})
	return c
}

// follow has the service follow changes, each in a transaction.
func (h *harness) follow(changes ...auth.ProfileChange) {
	h.t.Helper()
	for _, c := range changes {
		if err := h.store.Write(h.t.Context(), func(tx auth.Tx) error { return h.Follow(h.t.Context(), tx, c) }); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *harness) account(id auth.UserID) auth.Account {
	h.t.Helper()
	a, err := h.Account(h.t.Context(), id)
	if err != nil {
		h.t.Fatal(err)
	}
	return a
}

func email(n int) string { return request(n).Email }

func TestWhoIsDisabledOrDeletedInUsersCannotActUntilTheProfileIsBack(t *testing.T) {
	t.Parallel()
	for _, state := range []auth.ProfileState{auth.ProfileDisabled, auth.ProfileDeleted} {
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			a := h.member(1)
			tokens := h.signIn(1)
			h.follow(h.become(a.ID, state, email(1)))
			_, _, err := h.SignIn(t.Context(), email(1), secret)
			want(t, err, auth.ErrAccountDeactivated)
			_, err = h.Refresh(t.Context(), tokens.RefreshToken)
			want(t, err, auth.ErrAccountDeactivated)
			blocked := h.account(a.ID)
			if blocked.Active() || blocked.Standing() != auth.StateDeactivated || blocked.ETag() == a.ETag() {
				t.Errorf("got %+v", blocked)
			}
			h.follow(h.become(a.ID, auth.ProfileActive, email(1)))
			if _, err := h.Refresh(t.Context(), tokens.RefreshToken); !errors.Is(err, auth.ErrRefreshTokenInvalid) {
				t.Errorf("a session of before: %v", err)
			}
			h.signIn(1)
			if !h.account(a.ID).Active() {
				t.Error("the account is not active again")
			}
			h.wantEvents(a.ID, auth.EventSignedUp, auth.EventLogin, auth.EventDeactivated, auth.EventLoginFailed, auth.EventReactivated, auth.EventLogin)
		})
	}
}

func TestALockHoldsWhateverBecomesOfTheProfile(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	a := h.member(1)
	if _, err := h.Lock(t.Context(), a.ID, ""); err != nil {
		t.Fatal(err)
	}
	h.follow(h.become(a.ID, auth.ProfileDisabled, email(1)), h.become(a.ID, auth.ProfileActive, email(1)))
	_, _, err := h.SignIn(t.Context(), email(1), secret)
	want(t, err, auth.ErrAccountLocked)
	if _, err := h.Unlock(t.Context(), a.ID, ""); err != nil {
		t.Fatal(err)
	}
	h.signIn(1)
}

func TestAnAdministratorCannotBringBackWhomUsersHasDisabled(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	a := h.member(1)
	h.follow(h.become(a.ID, auth.ProfileDisabled, email(1)))
	for what, change := range map[string]func(context.Context, auth.UserID, string) (auth.Account, error){"reactivate": h.Reactivate, "unlock": h.Unlock} {
		if _, err := change(t.Context(), a.ID, ""); !errors.Is(err, auth.ErrStateConflict) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got, err := h.Lock(t.Context(), a.ID, ""); err != nil || got.Standing() != auth.StateLocked {
		t.Errorf("lock: %+v, %v", got, err)
	}
}

func TestOfWhoIsErasedNothingIsLeftButTheID(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	a := h.admin(1)
	tokens := h.signIn(1)
	gone := h.become(a.ID, auth.ProfileErased, "")
	h.follow(gone)
	_, err := h.Refresh(t.Context(), tokens.RefreshToken)
	want(t, err, auth.ErrRefreshTokenInvalid)
	_, _, err = h.SignIn(t.Context(), email(1), secret)
	want(t, err, auth.ErrInvalidCredentials)
	left := h.account(a.ID)
	if left.Active() || left.Email != "" || left.PasswordHash != "" || left.Role != auth.RoleMember || left.Profile != auth.ProfileErased {
		t.Errorf("left is %+v", left)
	}
	err = h.store.Read(t.Context(), func(v auth.View) error { _, err := v.SignUp(t.Context(), request(1).RequestID); return err })
	want(t, err, auth.ErrNoRecord)
	// Nothing brings it back, and the email is free.
	late := gone
	late.State, late.At = auth.ProfileActive, gone.At.Add(time.Hour)
	h.follow(gone, late)
	if h.account(a.ID).Active() {
		t.Error("an erased user is back")
	}
	again := request(2)
	again.Email = email(1)
	if _, err := h.SignUp(t.Context(), again); err != nil {
		t.Errorf("the email is not free: %v", err)
	}
	h.wantEvents(a.ID, auth.EventSignedUp, auth.EventLogin, auth.EventDeactivated)
	if code, err := h.RenewAdminCode(t.Context()); err != nil || code == "" {
		t.Errorf("there is no administrator and no code for one: %v", err)
	}
}

func TestOneSignsInWithTheEmailOfTheProfile(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	a := h.member(1)
	tokens := h.signIn(1)
	h.follow(h.become(a.ID, auth.ProfileActive, "New@Example.com"))
	_, _, err := h.SignIn(t.Context(), email(1), secret)
	want(t, err, auth.ErrInvalidCredentials)
	if _, got, err := h.SignIn(t.Context(), "new@example.com", secret); err != nil || got.ID != a.ID || got.ETag() == a.ETag() {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := h.Refresh(t.Context(), tokens.RefreshToken); err != nil {
		t.Errorf("a session of before: %v", err)
	}
	h.member(2) // the first email is free for others
	again := request(3)
	again.Email = email(1)
	if _, err := h.SignUp(t.Context(), again); err != nil {
		t.Errorf("the email is not free: %v", err)
	}
}

func TestAnImportedUserGetsNoSignInByAChangeOfTheEmail(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.importUser()
	h.account(imported)
	h.follow(h.become(imported, auth.ProfileActive, "other@example.com"))
	if a := h.account(imported); a.Email != "" || a.Version != 1 {
		t.Errorf("got %+v", a)
	}
}

func TestAnEmailGoesFromOneToAnotherInTheOrderOfTheChanges(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	a, b := h.member(1), h.member(2)
	h.follow(
		h.become(a.ID, auth.ProfileActive, "between@example.com"),
		h.become(b.ID, auth.ProfileActive, email(1)),
		h.become(a.ID, auth.ProfileActive, email(2)))
	for n, id := range map[int]auth.UserID{1: b.ID, 2: a.ID} {
		if _, got, err := h.SignIn(t.Context(), email(n), secret); err != nil || got.ID != id {
			t.Errorf("email %d: %s, %v; want %s", n, got.ID, err, id)
		}
	}
}

func TestAPendingSignUpMakesRoomForWhoHasTheEmailInUsers(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	a := h.member(1)
	h.profiles.set(func(p *profiles) { p.down = true })
	_, err := h.SignUp(t.Context(), request(2))
	want(t, err, auth.ErrUpstreamUnavailable)
	h.profiles.set(func(p *profiles) { p.down = false })
	h.follow(h.become(a.ID, auth.ProfileActive, email(2)))
	if _, got, err := h.SignIn(t.Context(), email(2), secret); err != nil || got.ID != a.ID {
		t.Errorf("got %+v, %v", got, err)
	}
	_, err = h.SignUp(t.Context(), request(2))
	want(t, err, auth.ErrEmailTaken)
}

// Emails that are two for users.v1 may be one here.
func TestNobodyLosesASignInToAnEmailThatIsTheSameOnlyHere(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	victim, other := h.member(1), h.member(2)
	h.follow(h.become(other.ID, auth.ProfileActive, email(1)))
	if _, got, err := h.SignIn(t.Context(), email(1), secret); err != nil || got.ID != victim.ID {
		t.Errorf("got %+v, %v", got, err)
	}
	_, _, err := h.SignIn(t.Context(), email(2), secret)
	want(t, err, auth.ErrInvalidCredentials)
	h.follow(h.become(other.ID, auth.ProfileActive, "third@example.com"))
	if _, got, err := h.SignIn(t.Context(), "third@example.com", secret); err != nil || got.ID != other.ID {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestAChangeThatComesAgainOrLateChangesNothing(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	a := h.member(1)
	first := h.become(a.ID, auth.ProfileDisabled, email(1))
	second := h.become(a.ID, auth.ProfileActive, "second@example.com")
	h.follow(first, second)
	was := h.account(a.ID)
	h.follow(first, second, second)
	if got := h.account(a.ID); got != was {
		t.Errorf("got %+v, want %+v", got, was)
	}
	h.wantEvents(a.ID, auth.EventSignedUp, auth.EventDeactivated, auth.EventReactivated)
}

func TestAUserWhoIsAdoptedWhileTheProfileChangesIsWhatItBecame(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		first, then auth.ProfileState
		active      bool
	}{
		"disabled meanwhile": {auth.ProfileActive, auth.ProfileDisabled, false},
		"enabled meanwhile":  {auth.ProfileDisabled, auth.ProfileActive, true},
		"erased meanwhile":   {auth.ProfileActive, auth.ProfileErased, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			h.importUser()
			h.become(imported, row.first, "")
			// What was told is followed between the answer of users.v1 and the account.
			h.profiles.set(func(p *profiles) {
				p.found = func() { h.follow(h.become(imported, row.then, "")) }
			})
			if got := h.account(imported); got.Active() != row.active || got.Profile != row.then {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestAnImportedUserWhoIsDisabledIsNotActive(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.importUser()
	h.become(imported, auth.ProfileDisabled, "imported@example.com")
	if h.account(imported).Active() {
		t.Error("a disabled user is active")
	}
}

func TestWhatWasMissedIsMadeUpForFromWhatIsTrueNow(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	const n = 250 // two and a half pages
	made := make([]auth.Account, n)
	for i := range made {
		made[i] = h.member(i)
	}
	h.profiles.set(func(p *profiles) { p.down = true })
	_, err := h.SignUp(t.Context(), request(n))
	want(t, err, auth.ErrUpstreamUnavailable)
	if err := h.FollowAnew(t.Context()); !errors.Is(err, auth.ErrUpstreamUnavailable) {
		t.Errorf("without users: %v", err)
	}
	h.profiles.set(func(p *profiles) { p.down = false })
	tokens := h.signIn(0)
	// Each has the email of the next, the last that of the first; the one before the last is erased, and two cannot
	// act.
	for i, a := range made {
		state := auth.ProfileActive
		switch i {
		case 0:
			state = auth.ProfileDisabled
		case n - 1:
			state = auth.ProfileDeleted
		}
		h.become(a.ID, state, email((i+1)%n))
	}
	h.become(made[n-2].ID, auth.ProfileErased, "")
	for range 2 {
		if err := h.FollowAnew(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	_, err = h.Refresh(t.Context(), tokens.RefreshToken)
	want(t, err, auth.ErrAccountDeactivated)
	for i, a := range made {
		_, got, err := h.SignIn(t.Context(), email((i+1)%n), secret)
		switch {
		case i == 0 || i == n-1:
			want(t, err, auth.ErrAccountDeactivated)
		case i == n-2:
			want(t, err, auth.ErrInvalidCredentials)
		case err != nil || got.ID != a.ID:
			t.Fatalf("user %d: %+v, %v", i, got, err)
		}
	}
	if _, err := h.SignUp(t.Context(), request(n)); err != nil {
		t.Errorf("the pending sign-up: %v", err)
	}
	h.wantEvents(made[n-2].ID, auth.EventSignedUp, auth.EventDeactivated)
	if got := fmt.Sprint(h.events(made[5].ID)); got != fmt.Sprint([]auth.EventType{auth.EventSignedUp, auth.EventLogin}) {
		t.Errorf("events of one who moved: %s", got)
	}
}
