package auth_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/concordat-dev/concordat/services/auth/internal/auth"
)

// moves are the four changes of an administrator.
var moves = map[string]func(*harness, context.Context, auth.UserID, string) (auth.Account, error){
	"lock": func(h *harness, ctx context.Context, id auth.UserID, etag string) (auth.Account, error) {
		return h.Lock(ctx, id, etag)
	},
	"unlock": func(h *harness, ctx context.Context, id auth.UserID, etag string) (auth.Account, error) {
		return h.Unlock(ctx, id, etag)
	},
	"deactivate": func(h *harness, ctx context.Context, id auth.UserID, etag string) (auth.Account, error) {
		return h.Deactivate(ctx, id, etag)
	},
	"reactivate": func(h *harness, ctx context.Context, id auth.UserID, etag string) (auth.Account, error) {
		return h.Reactivate(ctx, id, etag)
	},
}

// in returns the first user, a member in that state.
func (h *harness) in(state auth.State) auth.UserID {
	h.t.Helper()
	if state == auth.StatePending {
		h.profiles.set(func(p *profiles) { p.behind = true })
		_, err := h.SignUp(h.t.Context(), request(1))
		want(h.t, err, errCrash)
		for id := range h.profiles.byID {
			return id
		}
	}
	id := h.member(1).ID
	switch state {
	case auth.StateLocked:
		_, err := h.Lock(h.t.Context(), id, "")
		want(h.t, err, nil)
	case auth.StateDeactivated:
		_, err := h.Deactivate(h.t.Context(), id, "")
		want(h.t, err, nil)
	}
	return id
}

func TestEveryChangeFromEveryState(t *testing.T) {
	t.Parallel()
	conflict := auth.State("") // stands for STATE_CONFLICT
	for move, rows := range map[string]map[auth.State]auth.State{
		"lock":       {auth.StatePending: conflict, auth.StateActive: auth.StateLocked, auth.StateLocked: auth.StateLocked, auth.StateDeactivated: conflict},
		"unlock":     {auth.StatePending: conflict, auth.StateActive: auth.StateActive, auth.StateLocked: auth.StateActive, auth.StateDeactivated: conflict},
		"deactivate": {auth.StatePending: conflict, auth.StateActive: auth.StateDeactivated, auth.StateLocked: auth.StateDeactivated, auth.StateDeactivated: auth.StateDeactivated},
		"reactivate": {auth.StatePending: conflict, auth.StateActive: auth.StateActive, auth.StateLocked: conflict, auth.StateDeactivated: auth.StateActive},
	} {
		for from, to := range rows {
			t.Run(fmt.Sprintf("%s a user who is %s", move, from), func(t *testing.T) {
				t.Parallel()
				h := newHarness(t)
				id := h.in(from)
				before, err := h.Account(t.Context(), id)
				want(t, err, nil)
				events := len(h.events(id))
				after, err := moves[move](h, t.Context(), id, "")
				if to == conflict {
					want(t, err, auth.ErrStateConflict)
					if !errors.Is(err, auth.ErrStateConflict) || metadata(err)["state"] != string(from) {
						t.Errorf("metadata %v", metadata(err))
					}
					after, err = h.Account(t.Context(), id)
				}
				want(t, err, nil)
				changed := to != conflict && to != from
				if (after.ETag() != before.ETag()) != changed {
					t.Errorf("etag %s became %s", before.ETag(), after.ETag())
				}
				if changed && after.State != to || !changed && after != before {
					t.Errorf("got %+v", after)
				}
				if got := len(h.events(id)) - events; (got == 1) != changed || got > 1 {
					t.Errorf("%d events", got)
				}
			})
		}
	}
}

func metadata(err error) map[string]string {
	var f interface{ Metadata() map[string]string }
	if errors.As(err, &f) {
		return f.Metadata()
	}
	return nil
}

func TestEachChangeHasItsEvent(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	id := h.member(1).ID
	for _, move := range []string{"lock", "unlock", "lock", "deactivate", "reactivate"} {
		_, err := moves[move](h, t.Context(), id, "")
		want(t, err, nil)
	}
	h.wantEvents(id, auth.EventSignedUp, auth.EventLocked, auth.EventUnlocked, auth.EventLocked, auth.EventDeactivated, auth.EventReactivated)
}

func TestAnETagMakesAChangeConditional(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	a := h.member(1)
	locked, err := h.Lock(t.Context(), a.ID, a.ETag())
	want(t, err, nil)
	_, err = h.Unlock(t.Context(), a.ID, a.ETag())
	want(t, err, auth.ErrETagMismatch)
	again, err := h.Lock(t.Context(), a.ID, a.ETag()) // a repetition of what was done
	want(t, err, nil)
	if again != locked {
		t.Errorf("got %+v, want %+v", again, locked)
	}
	_, err = h.Unlock(t.Context(), a.ID, locked.ETag())
	want(t, err, nil)
}

func TestTheLastAdministratorStays(t *testing.T) {
	t.Parallel()
	for _, move := range []string{"lock", "deactivate"} {
		t.Run(move, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			first := h.admin(1)
			member := h.member(2)
			_, err := moves[move](h, t.Context(), first.ID, "")
			want(t, err, auth.ErrLastAdmin)
			_, err = moves[move](h, t.Context(), member.ID, "")
			want(t, err, nil)
			h.promote(h.member(3))
			_, err = moves[move](h, t.Context(), first.ID, "")
			want(t, err, nil)
		})
	}
}

func TestALockedAdministratorIsDeactivatedBesideAnActiveOne(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	first := h.admin(1)
	second := h.member(2)
	h.promote(second)
	_, err := h.Lock(t.Context(), first.ID, "")
	want(t, err, nil)
	_, err = h.Deactivate(t.Context(), first.ID, "")
	want(t, err, nil)
	_, err = h.Lock(t.Context(), second.ID, "")
	want(t, err, auth.ErrLastAdmin)
}

func TestAdministratorsWhoLockEachOtherAtOnceLeaveOne(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	ids := []auth.UserID{h.admin(0).ID}
	for n := 1; n < 10; n++ {
		a := h.member(n)
		h.promote(a)
		ids = append(ids, a.ID)
	}
	var refused atomic.Int32
	var wg sync.WaitGroup
	for _, id := range ids {
		wg.Go(func() {
			_, err := h.Lock(t.Context(), id, "")
			switch {
			case errors.Is(err, auth.ErrLastAdmin):
				refused.Add(1)
			case err != nil:
				t.Errorf("lock: %v", err)
			}
		})
	}
	wg.Wait()
	if refused.Load() != 1 {
		t.Errorf("%d were refused", refused.Load())
	}
}

// promote makes a member an administrator, as no call does yet.
func (h *harness) promote(a auth.Account) {
	h.t.Helper()
	a.Role = auth.RoleAdmin
	want(h.t, h.store.Write(h.t.Context(), func(tx auth.Tx) error { return tx.UpdateAccount(h.t.Context(), a) }), nil)
}

func TestAnImportedUserIsAdoptedByAChange(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.importUser()
	a, err := h.Lock(t.Context(), imported, "")
	want(t, err, nil)
	if a.State != auth.StateLocked {
		t.Errorf("got %+v", a)
	}
	h.wantEvents(imported, auth.EventLocked)
}

func TestAChangeOfAnUnknownUser(t *testing.T) {
	t.Parallel()
	for move, fn := range moves {
		h := newHarness(t)
		_, err := fn(h, t.Context(), imported, "")
		if !errors.Is(err, auth.ErrUserNotFound) || metadata(err)["user_id"] != string(imported) {
			t.Errorf("%s: got %v", move, err)
		}
		h.profiles.set(func(p *profiles) { p.down = true })
		_, err = fn(h, t.Context(), imported, "")
		want(t, err, auth.ErrUpstreamUnavailable)
	}
}

func TestAnAdministratorWhoMayNoLongerActChangesNothing(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	code, err := h.RenewAdminCode(t.Context())
	want(t, err, nil)
	req := request(1)
	req.AdminCode = code
	admin, err := h.SignUp(t.Context(), req)
	want(t, err, nil)
	other := h.member(2)
	_, err = h.By(admin.ID).Lock(t.Context(), other.ID, "")
	want(t, err, nil)
	_, err = h.By(other.ID).Unlock(t.Context(), other.ID, "") // locked, and never an administrator
	want(t, err, auth.ErrAccountLocked)
	_, err = h.Unlock(t.Context(), other.ID, "")
	want(t, err, nil)
	_, err = h.By(other.ID).Lock(t.Context(), admin.ID, "") // active, and no administrator
	want(t, err, auth.ErrAccountLocked)
}
