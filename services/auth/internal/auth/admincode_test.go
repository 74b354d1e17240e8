package auth_test

import (
	"errors"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/services/auth/internal/auth"
)

func TestTheCodeIsShownInGroupsAndMakesOneAdministrator(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	code := h.newCode()
	if !regexp.MustCompile(`^([A-Z2-7]{4}-){7}[A-Z2-7]{4}$`).MatchString(code) {
		t.Errorf("code %q", code)
	}
	r := request(1)
	r.AdminCode = strings.ToLower(strings.ReplaceAll(code, "-", " "))
	a, err := h.SignUp(t.Context(), r)
	want(t, err, nil)
	h.wantSignedUp(a, auth.RoleAdmin)

	again, err := h.SignUp(t.Context(), r)
	want(t, err, nil)
	if again != a {
		t.Errorf("the repetition got %+v", again)
	}
	second := request(2)
	second.AdminCode = code
	_, err = h.SignUp(t.Context(), second)
	want(t, err, auth.ErrAdminCodeInvalid)
	if code := h.newCode(); code != "" {
		t.Errorf("there is an administrator and a code %q", code)
	}
}

func TestAWrongCodeWritesNothing(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		code func(*harness) string
	}{
		{"without any code", func(*harness) string { return "AAAA-AAAA" }},
		{"of dashes alone", func(h *harness) string { h.newCode(); return "--" }},
		{"beside the right one", func(h *harness) string { h.newCode(); return "AAAA-AAAA" }},
		{"that a new start has voided", func(h *harness) string { old := h.newCode(); h.newCode(); return old }},
		{"that was used", func(h *harness) string {
			r := request(9)
			r.AdminCode = h.newCode()
			if _, err := h.SignUp(h.t.Context(), r); err != nil {
				h.t.Fatal(err)
			}
			return r.AdminCode
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			r := request(1)
			r.AdminCode = row.code(h)
			profiles := h.profiles.count()
			_, err := h.SignUp(t.Context(), r)
			want(t, err, auth.ErrAdminCodeInvalid)
			if h.profiles.count() != profiles {
				t.Error("a profile was made")
			}
			r.AdminCode = ""
			a, err := h.SignUp(t.Context(), r) // nothing claims the email or the request id
			want(t, err, nil)
			if a.Role != auth.RoleMember {
				t.Errorf("role is %s", a.Role)
			}
		})
	}
}

func TestACodeIsHeldByOneSignUpAtATime(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	code := h.newCode()
	first, second := request(1), request(2)
	first.AdminCode, second.AdminCode = code, code
	h.profiles.set(func(p *profiles) { p.down = true })
	_, err := h.SignUp(t.Context(), first)
	want(t, err, auth.ErrUpstreamUnavailable)
	h.profiles.set(func(p *profiles) { p.down = false })
	_, err = h.SignUp(t.Context(), second)
	want(t, err, auth.ErrAdminCodeInvalid)
	a, err := h.SignUp(t.Context(), first)
	want(t, err, nil)
	if a.Role != auth.RoleAdmin {
		t.Errorf("role is %s", a.Role)
	}
}

func TestOfManySignUpsWithOneCodeAtOnceOneIsTheAdministrator(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	code := h.newCode()
	roles := make([]auth.Role, 20)
	var wg sync.WaitGroup
	for i := range roles {
		wg.Go(func() {
			r := request(i)
			r.AdminCode = code
			a, err := h.SignUp(t.Context(), r)
			if err != nil && !errors.Is(err, auth.ErrAdminCodeInvalid) {
				t.Errorf("sign up: %v", err)
			}
			roles[i] = a.Role
		})
	}
	wg.Wait()
	admins := 0
	for _, role := range roles {
		switch role {
		case auth.RoleAdmin:
			admins++
		case auth.RoleMember:
			t.Error("the code made a member")
		}
	}
	if admins != 1 || h.profiles.count() != 1 {
		t.Errorf("%d administrators, %d profiles", admins, h.profiles.count())
	}
}

// pendingAdmin leaves a sign-up with a code unfinished, and starts the service anew, which voids the code.
func pendingAdmin(t *testing.T) (h *harness, r auth.SignUpRequest, fresh string) {
	t.Helper()
	h = newHarness(t)
	r = request(1)
	r.AdminCode = h.newCode()
	h.profiles.set(func(p *profiles) { p.before = true })
	_, err := h.SignUp(t.Context(), r)
	want(t, err, errCrash)
	return h, r, h.newCode()
}

func TestARepetitionBringsTheCodeOfTheNewStart(t *testing.T) {
	t.Parallel()
	h, r, fresh := pendingAdmin(t)
	_, err := h.SignUp(t.Context(), r)
	want(t, err, auth.ErrAdminCodeInvalid)
	r.AdminCode = fresh
	a, err := h.SignUp(t.Context(), r)
	want(t, err, nil)
	h.wantSignedUp(a, auth.RoleAdmin)
}

func TestTheSweeperTakesTheCodeOfTheLastRepetition(t *testing.T) {
	t.Parallel()
	h, r, fresh := pendingAdmin(t)
	r.AdminCode = fresh
	h.profiles.set(func(p *profiles) { p.down = true })
	_, err := h.SignUp(t.Context(), r)
	want(t, err, auth.ErrUpstreamUnavailable)
	h.profiles.set(func(p *profiles) { p.down = false })
	h.clock.Advance(auth.SweepAge + time.Second)
	_, err = h.Sweep(t.Context())
	want(t, err, nil)
	a, err := h.SignUp(t.Context(), r)
	want(t, err, nil)
	h.wantSignedUp(a, auth.RoleAdmin)
}

func TestARepetitionWithoutTheCodeMakesAMember(t *testing.T) {
	t.Parallel()
	h, r, _ := pendingAdmin(t)
	r.AdminCode = ""
	a, err := h.SignUp(t.Context(), r)
	want(t, err, nil)
	h.wantSignedUp(a, auth.RoleMember)
}

func TestTheSweeperMakesAMemberWhereTheCodeIsVoid(t *testing.T) {
	t.Parallel()
	h, r, fresh := pendingAdmin(t)
	h.clock.Advance(auth.SweepAge + time.Second)
	swept, err := h.Sweep(t.Context())
	want(t, err, nil)
	if swept != (auth.Swept{Finished: 1}) {
		t.Errorf("swept %+v", swept)
	}
	r.AdminCode = fresh
	_, err = h.SignUp(t.Context(), r) // it would answer with less than what is asked for
	want(t, err, auth.ErrRequestIDReused)
	r.AdminCode = ""
	a, err := h.SignUp(t.Context(), r)
	want(t, err, nil)
	h.wantSignedUp(a, auth.RoleMember)

	other := request(2)
	other.AdminCode = fresh
	a, err = h.SignUp(t.Context(), other)
	want(t, err, nil)
	if a.Role != auth.RoleAdmin {
		t.Errorf("role is %s", a.Role)
	}
}
