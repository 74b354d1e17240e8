package auth_test

import (
	"sync"
	"testing"

	"github.com/concordat-dev/concordat/services/auth/internal/auth"
)

const imported auth.UserID = "0195f000-0000-7000-8000-0000000000ff"

func (h *harness) importUser() {
	h.profiles.importUser(auth.Profile{UserID: imported, Email: "imported@example.com", DisplayName: "Imported"})
}

func TestAnImportedUserIsAdoptedAtTheFirstQuestion(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.importUser()
	a, err := h.Account(t.Context(), imported)
	want(t, err, nil)
	if a.ID != imported || a.Email != "" || a.PasswordHash != "" || !a.Active() || a.Role != auth.RoleMember {
		t.Errorf("got %+v", a)
	}
	calls := h.profiles.calls
	h.profiles.set(func(p *profiles) { p.down = true })
	again, err := h.Account(t.Context(), imported)
	want(t, err, nil)
	if again != a || h.profiles.calls != calls {
		t.Errorf("the second question got %+v after %d calls", again, h.profiles.calls-calls)
	}
}

func TestAnImportedUserIsAdoptedOnceByManyAtOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.importUser()
	got := make([]auth.Account, 30)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			var err error
			if got[i], err = h.Account(t.Context(), imported); err != nil {
				t.Errorf("account: %v", err)
			}
		})
	}
	wg.Wait()
	for _, a := range got {
		if a != got[0] {
			t.Errorf("got %+v and %+v", a, got[0])
		}
	}
}

func TestAnUnknownUserIsNotFound(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	_, err := h.Account(t.Context(), imported)
	want(t, err, auth.ErrUserNotFound)
	h.importUser() // what was not found is not remembered
	_, err = h.Account(t.Context(), imported)
	want(t, err, nil)
}

func TestAnUnknownUserIsUnavailableWithoutUsers(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.profiles.set(func(p *profiles) { p.down = true })
	_, err := h.Account(t.Context(), imported)
	want(t, err, auth.ErrUpstreamUnavailable)
}

func TestAPendingAccountIsThereAndMayNotAct(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.profiles.set(func(p *profiles) { p.behind = true })
	_, err := h.SignUp(t.Context(), request(1))
	want(t, err, errCrash)
	for id := range h.profiles.byID {
		a, err := h.Account(t.Context(), id)
		want(t, err, nil)
		if a.Active() || a.State != auth.StatePending {
			t.Errorf("got %+v", a)
		}
	}
}
