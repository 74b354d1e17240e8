package users_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/services/users/internal/memstore"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// house is a service on a store in memory, whose clock the test moves.
type house struct {
	*users.Service
	t     *testing.T
	clock *clocktest.Manual
	store users.Store
	n     int
}

const purgeAfter = 24 * time.Hour

func newHouse(t *testing.T, wrap func(users.Store) users.Store) *house {
	t.Helper()
	h := &house{t: t, clock: clocktest.New(time.Date(2026, 3, 1, 9, 30, 0, 123456789, time.UTC)), store: wrap(memstore.New())}
	h.Service = users.NewService(users.Deps{Store: h.store, Clock: h.clock, NewID: h.id, PurgeAfter: purgeAfter})
	return h
}

func plain(s users.Store) users.Store { return s }

func (h *house) id() string {
	h.n++
	return fmt.Sprintf("0195f000-0000-7000-8000-%012x", h.n)
}

// make makes n users.
func (h *house) make(n int) []users.ID {
	h.t.Helper()
	var ids []users.ID
	for range n {
		request := h.id()
		u, err := h.Create(h.t.Context(), users.NewUser{Caller: "service:auth", RequestID: request, Email: request + "@example.com", DisplayName: "P"})
		if err != nil {
			h.t.Fatal(err)
		}
		ids = append(ids, u.ID)
	}
	return ids
}

// target is a new request about a user.
func (h *house) target(id users.ID) users.Target {
	return users.Target{Caller: "user:admin", RequestID: h.id(), ID: id}
}

func (h *house) delete(ids ...users.ID) {
	h.t.Helper()
	for _, id := range ids {
		if _, err := h.Delete(h.t.Context(), h.target(id)); err != nil {
			h.t.Fatal(err)
		}
	}
}

// erased returns which of the users are erased.
func (h *house) erased(ids []users.ID) []users.ID {
	h.t.Helper()
	var gone []users.ID
	for _, id := range ids {
		u, err := h.Get(h.t.Context(), id)
		if err != nil {
			h.t.Fatal(err)
		}
		if u.Erased() {
			gone = append(gone, id)
		}
	}
	return gone
}

func (h *house) sweep() users.Swept {
	h.t.Helper()
	swept, err := h.Sweep(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return swept
}

func TestASweepErasesThoseWhoseTimeHasCome(t *testing.T) {
	t.Parallel()
	h := newHouse(t, plain)
	ids := h.make(4)
	h.delete(ids[0], ids[1])
	h.clock.Advance(time.Microsecond)
	h.delete(ids[2])
	if _, err := h.Undelete(t.Context(), h.target(ids[1])); err != nil {
		t.Fatal(err)
	}
	h.clock.Advance(purgeAfter - 2*time.Microsecond)
	if swept := h.sweep(); swept != (users.Swept{}) {
		t.Errorf("too early: %+v", swept)
	}
	h.clock.Advance(time.Microsecond)
	if swept := h.sweep(); swept.Erased != 1 || !slices.Equal(h.erased(ids), ids[:1]) {
		t.Errorf("%+v, erased %q", swept, h.erased(ids))
	}
	h.clock.Advance(time.Microsecond)
	if swept := h.sweep(); swept.Erased != 1 || !slices.Equal(h.erased(ids), []users.ID{ids[0], ids[2]}) {
		t.Errorf("%+v, erased %q", swept, h.erased(ids))
	}
	if swept := h.sweep(); swept.Erased != 0 {
		t.Errorf("once more: %+v", swept)
	}
	u, err := h.Get(t.Context(), ids[0])
	if err != nil || u.Email != (users.Email{}) || u.DisplayName != "" || !u.PurgeAt.IsZero() || u.State != users.Deleted {
		t.Errorf("left is %+v, %v", u, err)
	}
}

func TestASweepGoesThroughAllThatAreDue(t *testing.T) {
	t.Parallel()
	h := newHouse(t, plain)
	ids := h.make(250) // two and a half pages
	h.delete(ids...)
	h.clock.Advance(purgeAfter)
	if swept := h.sweep(); swept.Erased != 250 || len(h.erased(ids)) != 250 {
		t.Errorf("%+v, %d erased", swept, len(h.erased(ids)))
	}
}

// stubborn is a store in which one user cannot be changed.
type stubborn struct {
	users.Store
	id     users.ID
	before func() // called before each change
}

var errStubborn = errors.New("broken")

func (s *stubborn) Change(ctx context.Context, c users.Change) (users.User, error) {
	if s.before != nil {
		s.before()
	}
	if c.ID == s.id {
		return users.User{}, errStubborn
	}
	return s.Store.Change(ctx, c)
}

func TestAUserWhoCannotBeErasedKeepsNoOtherFromIt(t *testing.T) {
	t.Parallel()
	broken := &stubborn{}
	h := newHouse(t, func(s users.Store) users.Store { broken.Store = s; return broken })
	ids := h.make(3)
	h.delete(ids...)
	h.clock.Advance(purgeAfter)
	broken.id = ids[1]
	swept, err := h.Sweep(t.Context())
	if !errors.Is(err, errStubborn) || swept.Erased != 2 || swept.Left != 1 {
		t.Errorf("%+v, %v", swept, err)
	}
	broken.id = ""
	if swept := h.sweep(); swept.Erased != 1 {
		t.Errorf("the next sweep: %+v", swept)
	}
}

func TestAUserWhoIsBroughtBackWhileASweepIsUnderWayIsNotErased(t *testing.T) {
	t.Parallel()
	broken := &stubborn{}
	h := newHouse(t, func(s users.Store) users.Store { broken.Store = s; return broken })
	ids := h.make(1)
	h.delete(ids...)
	h.clock.Advance(purgeAfter)
	broken.before = func() {
		broken.before = nil
		if _, err := h.Undelete(t.Context(), h.target(ids[0])); err != nil {
			t.Error(err)
		}
	}
	if swept := h.sweep(); swept.Erased != 0 || len(h.erased(ids)) != 0 {
		t.Errorf("%+v, erased %q", swept, h.erased(ids))
	}
}

func TestAUserWhoIsDeletedAnewWhileASweepIsUnderWayKeepsTheWholeTime(t *testing.T) {
	t.Parallel()
	broken := &stubborn{}
	h := newHouse(t, func(s users.Store) users.Store { broken.Store = s; return broken })
	ids := h.make(1)
	h.delete(ids...)
	h.clock.Advance(purgeAfter)
	broken.before = func() {
		broken.before = nil
		if _, err := h.Undelete(t.Context(), h.target(ids[0])); err != nil {
			t.Error(err)
		}
		h.delete(ids...)
	}
	if swept := h.sweep(); swept != (users.Swept{}) || len(h.erased(ids)) != 0 {
		t.Errorf("%+v, erased %q", swept, h.erased(ids))
	}
	h.clock.Advance(purgeAfter - time.Microsecond)
	if swept := h.sweep(); swept.Erased != 0 {
		t.Errorf("before the time is over: %+v", swept)
	}
	h.clock.Advance(time.Microsecond)
	if swept := h.sweep(); swept.Erased != 1 {
		t.Errorf("when the time is over: %+v", swept)
	}
}

func TestClaimsAreForgottenWhenNobodySendsThemAgain(t *testing.T) {
	t.Parallel()
	h := newHouse(t, plain)
	ids := h.make(1)
	again := h.target(ids[0])
	if _, err := h.Disable(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Enable(t.Context(), h.target(ids[0])); err != nil {
		t.Fatal(err)
	}
	h.clock.Advance(users.ClaimLifetime)
	if swept := h.sweep(); swept.Claims != 0 {
		t.Errorf("too early: %+v", swept)
	}
	if u, err := h.Disable(t.Context(), again); err != nil || u.State != users.Active {
		t.Errorf("a repetition: %+v, %v", u, err)
	}
	h.clock.Advance(time.Microsecond)
	if swept := h.sweep(); swept.Claims != 2 {
		t.Errorf("%+v", swept)
	}
	if u, err := h.Disable(t.Context(), again); err != nil || u.State != users.Disabled {
		t.Errorf("a new request: %+v, %v", u, err)
	}
}

func TestTheSweeperSweepsAtOnceAndThenByTheClock(t *testing.T) {
	t.Parallel()
	h := newHouse(t, plain)
	h.delete(h.make(1)...)
	ctx, stop := context.WithCancel(t.Context())
	reports, ended := make(chan users.Swept), make(chan struct{})
	go func() {
		defer close(ended)
		h.RunSweeper(ctx, func(swept users.Swept, err error) {
			if err != nil {
				t.Error(err)
			}
			reports <- swept
		})
	}()
	if swept := <-reports; swept.Erased != 0 {
		t.Errorf("the first sweep: %+v", swept)
	}
	if err := h.clock.WaitPending(ctx, 1); err != nil {
		t.Fatal(err)
	}
	h.clock.Advance(purgeAfter)
	if swept := <-reports; swept.Erased != 1 {
		t.Errorf("the second sweep: %+v", swept)
	}
	if err := h.clock.WaitPending(ctx, 1); err != nil {
		t.Fatal(err)
	}
	stop()
	<-ended
}

func TestAClockThatGoesBackDoesNotTurnTheTimesOfAUserAround(t *testing.T) {
	t.Parallel()
	h := newHouse(t, plain)
	ids := h.make(1)
	made, err := h.Get(t.Context(), ids[0])
	if err != nil {
		t.Fatal(err)
	}
	behind := users.NewService(users.Deps{Store: h.store, Clock: clocktest.New(made.CreatedAt.Add(-time.Hour)), NewID: h.id, PurgeAfter: purgeAfter})
	u, err := behind.Disable(t.Context(), h.target(ids[0]))
	if err != nil || !u.UpdatedAt.Equal(made.UpdatedAt) || u.Revision != 2 {
		t.Errorf("%+v, %v", u, err)
	}
}

func TestAnEtagIsOfNoMeaningToAnErasure(t *testing.T) {
	t.Parallel()
	h := newHouse(t, plain)
	target := h.target(h.make(1)[0])
	target.ETag = `"7"`
	if u, err := h.Erase(t.Context(), target); err != nil || !u.Erased() {
		t.Errorf("%+v, %v", u, err)
	}
}
