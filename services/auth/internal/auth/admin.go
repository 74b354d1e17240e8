package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// transition is a change of state that an administrator can make.
type transition struct {
	to    State
	from  []State
	event EventType
}

func (t transition) String() string { return string(t.event) }

// ends says whether the change takes the right to act from the user.
func (t transition) ends() bool { return t.to != StateActive }

// Administrator makes the changes of one administrator.
type Administrator struct {
	service *Service
	actor   UserID
}

// By returns what makes changes on behalf of an administrator. A token says that they were one when they signed in; each
// change looks, in its own transaction, whether they may still act. An empty actor is the service itself.
func (s *Service) By(actor UserID) Administrator { return Administrator{s, actor} }

// Lock makes an account unable to act until it is unlocked, and ends its sessions. Like the other three changes: a
// non-empty etag makes it conditional; an account that is in the wanted state already is returned as it is, whatever
// the etag, so that the call can be repeated; and a user who is known only to users.v1 gets an account first. It
// returns ErrUserNotFound, ErrETagMismatch, ErrStateConflict, ErrLastAdmin or ErrUpstreamUnavailable, and ErrAccountLocked
// or ErrAccountDeactivated where the administrator is.
func (b Administrator) Lock(ctx context.Context, id UserID, etag string) (Account, error) {
	return b.move(ctx, id, etag, transition{to: StateLocked, from: []State{StateActive}, event: EventLocked})
}

// Unlock lets the owner of a locked account act again, if the profile is active. It returns what Lock returns, but
// never ErrLastAdmin.
func (b Administrator) Unlock(ctx context.Context, id UserID, etag string) (Account, error) {
	return b.move(ctx, id, etag, transition{to: StateActive, from: []State{StateLocked}, event: EventUnlocked})
}

// Deactivate makes an account unable to act until it is reactivated, and ends its sessions. It returns what Lock returns.
func (b Administrator) Deactivate(ctx context.Context, id UserID, etag string) (Account, error) {
	return b.move(ctx, id, etag, transition{to: StateDeactivated, from: []State{StateActive, StateLocked}, event: EventDeactivated})
}

// Reactivate lets the owner of a deactivated account act again. It returns what Lock returns, but never ErrLastAdmin.
func (b Administrator) Reactivate(ctx context.Context, id UserID, etag string) (Account, error) {
	return b.move(ctx, id, etag, transition{to: StateActive, from: []State{StateDeactivated}, event: EventReactivated})
}

func (b Administrator) move(ctx context.Context, id UserID, etag string, t transition) (Account, error) {
	s := b.service
	if _, err := s.Account(ctx, id); err != nil {
		return Account{}, err
	}
	var a Account
	err := s.store.Write(ctx, func(tx Tx) (err error) {
		if err := b.mayAct(ctx, tx); err != nil {
			return err
		}
		if a, err = tx.Account(ctx, id); err != nil {
			return err
		}
		if a.State == t.to {
			return t.inEffect(a)
		}
		if err := t.allowed(ctx, tx, a, etag); err != nil {
			return err
		}
		now := s.now()
		a = a.changed(now)
		a.State = t.to
		if err := tx.UpdateAccount(ctx, a); err != nil {
			return err
		}
		if t.ends() {
			if err := tx.CloseSessions(ctx, id, "", now); err != nil {
				return err
			}
		}
		return tx.Append(ctx, Event{UserID: id, Type: t.event, At: now})
	})
	if errors.Is(err, ErrNoRecord) { // a sign-up that was undone meanwhile
		return Account{}, ErrUserNotFound.With("user_id", string(id))
	}
	if err != nil {
		return Account{}, fmt.Errorf("%v of user %s: %w", t, id, err)
	}
	return a, nil
}

// inEffect returns nil if an account that is in the wanted state is seen to be, and else ErrStateConflict: its profile
// is what keeps the user from acting, and users.v1 is where that ends.
func (t transition) inEffect(a Account) error {
	if a.Standing() != t.to {
		return ErrStateConflict.With("state", string(a.Standing()))
	}
	return nil
}

// mayAct returns why the administrator may not act any more, or nil.
func (b Administrator) mayAct(ctx context.Context, tx Tx) error {
	if b.actor == "" {
		return nil
	}
	a, err := tx.Account(ctx, b.actor)
	switch {
	case err != nil:
		return fmt.Errorf("read the account of administrator %s: %w", b.actor, err)
	case a.blocked() != nil:
		return a.blocked()
	case a.Role != RoleAdmin: // the token is from before the role was taken
		return ErrAccountLocked
	default:
		return nil
	}
}

// allowed returns why the change is not possible, or nil.
func (t transition) allowed(ctx context.Context, tx Tx, a Account, etag string) error {
	if etag != "" && etag != a.ETag() {
		return ErrETagMismatch
	}
	if !slices.Contains(t.from, a.State) {
		return ErrStateConflict.With("state", string(a.State))
	}
	if !t.ends() || a.Role != RoleAdmin || !a.Active() {
		return nil
	}
	_, active, err := tx.Admins(ctx)
	if err != nil {
		return err
	}
	if active <= 1 {
		return ErrLastAdmin
	}
	return nil
}
