package auth_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/services/auth/internal/auth"
)

func TestASignUpMakesAnActiveMemberWithAProfile(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	r := request(1)
	r.Email = "  Ada@Example.COM "
	a, err := h.SignUp(t.Context(), r)
	want(t, err, nil)
	if a.Email != "ada@example.com" || a.Role != auth.RoleMember || a.State != auth.StateActive || a.ID == "" {
		t.Errorf("got %+v", a)
	}
	if p := h.profiles.byID[a.ID]; p.Email != "Ada@Example.COM" || p.DisplayName != r.DisplayName {
		t.Errorf("profile is %+v", p)
	}
	h.wantEvents(a.ID, auth.EventSignedUp)
	got, err := h.Account(t.Context(), a.ID)
	want(t, err, nil)
	if got != a {
		t.Errorf("answered %+v, kept %+v", a, got)
	}
}

func TestARepeatedSignUpAnswersTheSame(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	first := h.member(1)
	for _, email := range []string{request(1).Email, strings.ToUpper(request(1).Email)} {
		r := request(1)
		r.Email, r.RequestID = email, strings.ToUpper(r.RequestID)
		again, err := h.SignUp(t.Context(), r)
		want(t, err, nil)
		if again != first {
			t.Errorf("got %+v, want %+v", again, first)
		}
	}
	h.wantEvents(first.ID, auth.EventSignedUp)
	if h.profiles.count() != 1 {
		t.Errorf("%d profiles", h.profiles.count())
	}
}

func TestARepetitionIsRecognisedAfterThePasswordWasChanged(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	a := h.member(1)
	want(t, h.ChangePassword(t.Context(), auth.PasswordChangeRequest{UserID: a.ID, Current: secret, New: "another password", RequestID: "r"}), nil)
	again, err := h.SignUp(t.Context(), request(1))
	want(t, err, nil)
	if again.ID != a.ID {
		t.Errorf("got %+v", again)
	}
}

func TestARequestIDIsForOneContent(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		change func(*auth.SignUpRequest)
	}{
		{"another password", func(r *auth.SignUpRequest) { r.Password += "!" }},
		{"another email", func(r *auth.SignUpRequest) { r.Email = "other@example.com" }},
		{"another name", func(r *auth.SignUpRequest) { r.DisplayName += "!" }},
		{"a character moved from one field to the next", func(r *auth.SignUpRequest) { r.Email, r.DisplayName = r.Email+"U", r.DisplayName[1:] }},
		{"a code, though the account is a member's", func(r *auth.SignUpRequest) { r.AdminCode = "AAAA" }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			h.member(1)
			r := request(1)
			row.change(&r)
			_, err := h.SignUp(t.Context(), r)
			want(t, err, auth.ErrRequestIDReused)
		})
	}
}

func TestTheContentOfAnUnfinishedSignUpIsBoundToo(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.profiles.set(func(p *profiles) { p.down = true })
	_, err := h.SignUp(t.Context(), request(1))
	want(t, err, auth.ErrUpstreamUnavailable)
	h.profiles.set(func(p *profiles) { p.down = false })
	r := request(1)
	r.Password += "!"
	_, err = h.SignUp(t.Context(), r)
	want(t, err, auth.ErrRequestIDReused)
	if h.profiles.count() != 0 {
		t.Error("the profile was made for somebody with another password")
	}
}

func TestAnEmailIsGivenOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.member(1)
	r := request(2)
	r.Email = strings.ToUpper(request(1).Email)
	_, err := h.SignUp(t.Context(), r)
	want(t, err, auth.ErrEmailTaken)
}

func TestAnEmailThatUsersHasLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.profiles.importUser(auth.Profile{UserID: "imported", Email: request(1).Email})
	for range 2 {
		_, err := h.SignUp(t.Context(), request(1))
		want(t, err, auth.ErrEmailTaken)
	}
	h.profiles.set(func(p *profiles) { delete(p.byID, "imported") })
	h.member(1)
}

func TestAnEmailOfAPendingAccountIsInProgress(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.profiles.set(func(p *profiles) { p.down = true })
	_, err := h.SignUp(t.Context(), request(1))
	want(t, err, auth.ErrUpstreamUnavailable)
	r := request(2)
	r.Email = request(1).Email
	_, err = h.SignUp(t.Context(), r)
	want(t, err, auth.ErrSignUpInProgress)
	if auth.ErrSignUpInProgress.RetryAfter() <= 0 {
		t.Error("it does not say when to come back")
	}
}

func TestAProfileThatUsersNeverTakesIsAnErrorOfOursAndLeavesNothing(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.profiles.set(func(p *profiles) { p.refuse = true })
	_, err := h.SignUp(t.Context(), request(1))
	want(t, err, auth.ErrProfileRefused)
	h.profiles.set(func(p *profiles) { p.refuse = false })
	h.member(1)
}

// A crash is where the process of a call dies.
var crashes = []struct {
	name string
	set  func(*harness)
}{
	{"before the account is written", func(h *harness) { h.store.before.Store(h.store.writes.Load() + 1) }},
	{"behind the account", func(h *harness) { h.store.behind.Store(h.store.writes.Load() + 1) }},
	{"while users is asked", func(h *harness) { h.profiles.set(func(p *profiles) { p.before = true }) }},
	{"behind the profile", func(h *harness) { h.profiles.set(func(p *profiles) { p.behind = true }) }},
	{"before the account is activated", func(h *harness) { h.store.before.Store(h.store.writes.Load() + 2) }},
	{"behind the activation", func(h *harness) { h.store.behind.Store(h.store.writes.Load() + 2) }},
}

func TestASignUpThatBrokeOffIsFinishedByItsRepetition(t *testing.T) {
	t.Parallel()
	for _, crash := range crashes {
		for _, role := range []auth.Role{auth.RoleMember, auth.RoleAdmin} {
			t.Run(fmt.Sprintf("%s %s", role, crash.name), func(t *testing.T) {
				t.Parallel()
				h := newHarness(t)
				r := request(1)
				if role == auth.RoleAdmin {
					r.AdminCode = h.newCode()
				}
				crash.set(h)
				_, err := h.SignUp(t.Context(), r)
				want(t, err, errCrash)
				a, err := h.SignUp(t.Context(), r)
				want(t, err, nil)
				h.wantSignedUp(a, role)
			})
		}
	}
}

func TestASignUpThatBrokeOffIsFinishedByTheSweeper(t *testing.T) {
	t.Parallel()
	for i, crash := range crashes {
		for _, role := range []auth.Role{auth.RoleMember, auth.RoleAdmin} {
			t.Run(fmt.Sprintf("%s %s", role, crash.name), func(t *testing.T) {
				t.Parallel()
				h := newHarness(t)
				r := request(1)
				if role == auth.RoleAdmin {
					r.AdminCode = h.newCode()
				}
				crash.set(h)
				_, err := h.SignUp(t.Context(), r)
				want(t, err, errCrash)

				swept, err := h.Sweep(t.Context())
				want(t, err, nil)
				if swept != (auth.Swept{}) {
					t.Errorf("a young sign-up was swept: %+v", swept)
				}
				h.clock.Advance(auth.SweepAge + time.Second)
				swept, err = h.Sweep(t.Context())
				want(t, err, nil)
				finished := 1
				if i == 0 || i == len(crashes)-1 { // nothing was written, or all was
					finished = 0
				}
				if swept != (auth.Swept{Finished: finished}) {
					t.Errorf("swept %+v", swept)
				}
				a, err := h.SignUp(t.Context(), r)
				want(t, err, nil)
				h.wantSignedUp(a, role)
			})
		}
	}
}

func (h *harness) newCode() string {
	h.t.Helper()
	code, err := h.RenewAdminCode(h.t.Context())
	want(h.t, err, nil)
	return code
}

// wantSignedUp checks that the first user was signed up once.
func (h *harness) wantSignedUp(a auth.Account, role auth.Role) {
	h.t.Helper()
	if a.State != auth.StateActive || a.Role != role {
		h.t.Errorf("got %+v, want an active %s", a, role)
	}
	h.wantEvents(a.ID, auth.EventSignedUp)
	if h.profiles.count() != 1 {
		h.t.Errorf("%d profiles", h.profiles.count())
	}
	if got := granted(h.t, h.signIn(1).AccessToken); got.UserID != a.ID {
		h.t.Errorf("the token is of %s", got.UserID)
	}
}

func TestASweepUndoesWhatUsersRefuses(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.profiles.set(func(p *profiles) { p.before = true })
	_, err := h.SignUp(t.Context(), request(1))
	want(t, err, errCrash)
	h.profiles.importUser(auth.Profile{UserID: "imported", Email: request(1).Email})
	h.clock.Advance(auth.SweepAge + time.Second)
	swept, err := h.Sweep(t.Context())
	want(t, err, nil)
	if swept != (auth.Swept{Undone: 1}) {
		t.Errorf("swept %+v", swept)
	}
	_, err = h.SignUp(t.Context(), request(1))
	want(t, err, auth.ErrEmailTaken)
}

func TestASweepWithoutUsersStopsAtOnceAndLeavesAll(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.profiles.set(func(p *profiles) { p.down = true })
	for n := range 3 {
		_, err := h.SignUp(t.Context(), request(n))
		want(t, err, auth.ErrUpstreamUnavailable)
	}
	h.clock.Advance(auth.SweepAge + time.Second)
	before := h.profiles.calls
	swept, err := h.Sweep(t.Context())
	want(t, err, auth.ErrUpstreamUnavailable)
	if swept != (auth.Swept{Left: 3}) || h.profiles.calls != before+1 {
		t.Errorf("swept %+v with %d calls", swept, h.profiles.calls-before)
	}
	h.profiles.set(func(p *profiles) { p.down = false })
	swept, err = h.Sweep(t.Context())
	want(t, err, nil)
	if swept != (auth.Swept{Finished: 3}) {
		t.Errorf("swept %+v", swept)
	}
}

func TestASweepGoesThroughEveryPage(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.profiles.set(func(p *profiles) { p.down = true })
	const many = 203
	for n := range many {
		_, err := h.SignUp(t.Context(), request(n))
		want(t, err, auth.ErrUpstreamUnavailable)
	}
	h.profiles.set(func(p *profiles) { p.down = false })
	h.clock.Advance(auth.SweepAge + time.Second)
	swept, err := h.Sweep(t.Context())
	want(t, err, nil)
	if swept != (auth.Swept{Finished: many}) {
		t.Errorf("swept %+v", swept)
	}
}

func TestASweepForgetsWhatIsPast(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.member(1)
	tokens := h.signIn(1)
	h.clock.Advance(auth.ClaimLifetime + time.Second)
	swept, err := h.Sweep(t.Context())
	want(t, err, nil)
	if swept != (auth.Swept{Purged: 1}) {
		t.Errorf("swept %+v", swept)
	}
	_, err = h.SignUp(t.Context(), request(1))
	want(t, err, auth.ErrEmailTaken)
	h.clock.Advance(auth.RefreshTokenLifetime)
	swept, err = h.Sweep(t.Context())
	want(t, err, nil)
	if swept != (auth.Swept{Purged: 2}) {
		t.Errorf("swept %+v", swept)
	}
	_, err = h.Refresh(t.Context(), tokens.RefreshToken)
	want(t, err, auth.ErrRefreshTokenInvalid)
}

func TestTheSweeperSweepsAtEachInterval(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.profiles.set(func(p *profiles) { p.before = true })
	_, err := h.SignUp(t.Context(), request(1))
	want(t, err, errCrash)
	reports := make(chan auth.Swept)
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := newContext(t)
	defer cancel()
	wg.Go(func() {
		h.RunSweeper(ctx, func(swept auth.Swept, err error) {
			if err != nil {
				t.Errorf("sweep: %v", err)
			}
			reports <- swept
		})
	})
	total := <-reports
	for range auth.SweepAge/auth.SweepInterval + 1 {
		if err := h.clock.WaitPending(ctx, 1); err != nil {
			t.Fatal(err)
		}
		h.clock.Advance(auth.SweepInterval)
		total.Finished += (<-reports).Finished
	}
	if total.Finished != 1 {
		t.Errorf("finished %d", total.Finished)
	}
}

func TestEqualSignUpsAtOnceMakeOneAccount(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	ids := make([]auth.UserID, 50)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			a, err := h.SignUp(t.Context(), request(1))
			if err != nil {
				t.Errorf("sign up: %v", err)
			}
			ids[i] = a.ID
		})
	}
	wg.Wait()
	for _, got := range ids {
		if got != ids[0] {
			t.Fatalf("ids %s and %s", got, ids[0])
		}
	}
	h.wantEvents(ids[0], auth.EventSignedUp)
	if h.profiles.count() != 1 {
		t.Errorf("%d profiles", h.profiles.count())
	}
}

func TestOneOfManySignUpsForOneEmailAtOnceWins(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	results := make([]error, 50)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() {
			r := request(i)
			r.Email = "one@example.com"
			_, results[i] = h.SignUp(t.Context(), r)
		})
	}
	wg.Wait()
	won := 0
	for _, err := range results {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, auth.ErrEmailTaken) && !errors.Is(err, auth.ErrSignUpInProgress):
			t.Errorf("got %v", err)
		}
	}
	if won != 1 || h.profiles.count() != 1 {
		t.Errorf("%d won, %d profiles", won, h.profiles.count())
	}
}
