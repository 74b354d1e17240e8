package auth

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// How accounts follow the profiles that users.v1 keeps: who is disabled, deleted or erased there may not act here,
// whatever the state of the account, and is back when the profile is; and one signs in with the email of the profile.
// users.v1 decides this also for the last administrator who may act.

// ProfileState is what users.v1 says of a user. The values are stored, so they never change.
type ProfileState string

// The states of profiles. All but ProfileActive take the right to act from the user.
const (
	ProfileActive   ProfileState = "ACTIVE"
	ProfileDisabled ProfileState = "DISABLED"
	ProfileDeleted  ProfileState = "DELETED" // and can be brought back
	ProfileErased   ProfileState = "ERASED"  // for good
)

// KnownProfile is what users.v1 has of a user.
type KnownProfile struct {
	UserID UserID
	Email  string // as it was given; empty where it is erased
	State  ProfileState
	At     time.Time // of its last change; it does not go back
}

// ProfileChange is one change of a profile.
type ProfileChange struct {
	KnownProfile // right after the change
	// Moved says that it was the state which changed.
	Moved bool
}

// adopted returns a new account for a user of users.v1.
func (s *Service) adopted(p KnownProfile) Account {
	now := s.now()
	return Account{
		ID: p.UserID, Role: RoleMember, State: StateActive, Profile: p.State, ProfileAt: p.At, Version: 1, CreatedAt: now, UpdatedAt: now,
	}
}

// Follow does in tx what a change of a profile means for the account. Changes of one profile come in their order; what
// comes again, or late, changes nothing. A user without an account gets one where the state changed, so that who adopts
// the user at the same time by an older answer of users.v1 does not have the last word.
func (s *Service) Follow(ctx context.Context, tx Tx, c ProfileChange) error {
	a, err := tx.Account(ctx, c.UserID)
	switch {
	case errors.Is(err, ErrNoRecord) && c.Moved:
		err = tx.AddAccount(ctx, s.adopted(c.KnownProfile))
	case errors.Is(err, ErrNoRecord):
		return nil
	case err == nil && !c.At.Before(a.ProfileAt):
		err = s.follow(ctx, tx, a, c.KnownProfile)
	}
	if err != nil {
		return fmt.Errorf("follow the profile of user %s: %w", c.UserID, err)
	}
	return nil
}

func (s *Service) follow(ctx context.Context, tx Tx, a Account, p KnownProfile) error {
	if a.Profile == ProfileErased {
		return nil // nothing undoes it
	}
	now := s.now()
	was, next := a.Profile, a
	next.Profile, next.ProfileAt = p.State, p.At
	if was != p.State {
		next = next.changed(now)
	}
	if p.State == ProfileErased {
		if err := s.eraseAccount(ctx, tx, next); err != nil {
			return err
		}
	} else {
		moved, err := moveEmail(ctx, tx, a, p.Email)
		if err != nil {
			return err
		}
		if moved && was == p.State {
			next = next.changed(now)
		}
		if err := tx.UpdateAccount(ctx, next); err != nil {
			return err
		}
	}
	switch {
	case was == ProfileActive && p.State != ProfileActive:
		if err := tx.CloseSessions(ctx, a.ID, "", now); err != nil {
			return err
		}
		return tx.Append(ctx, Event{UserID: a.ID, Type: EventDeactivated, At: now})
	case was != ProfileActive && p.State == ProfileActive:
		return tx.Append(ctx, Event{UserID: a.ID, Type: EventReactivated, At: now})
	}
	return nil
}

// eraseAccount removes all that is kept of a user but the id, and that it is gone: the credentials, the sessions, and
// what the sign-up had of the profile. The role goes too, so that a last administrator who is erased makes room for a
// first one.
func (s *Service) eraseAccount(ctx context.Context, tx Tx, a Account) error {
	if err := tx.RemoveAccount(ctx, a.ID); err != nil {
		return err
	}
	return tx.AddAccount(ctx, Account{
		ID: a.ID, Role: RoleMember, State: StateActive, Profile: a.Profile, ProfileAt: a.ProfileAt,
		Version: a.Version, CreatedAt: a.CreatedAt, UpdatedAt: a.UpdatedAt,
	})
}

// moveEmail gives an account that can sign in the email of its profile, and says whether it had another one.
//
// users.v1 has decided who has the email. A sign-up that is pending with it is undone, as it would be when it came to
// its profile. Somebody else who can sign in with it keeps it, and this account has none until its profile has another:
// emails that are two for users.v1 can be one here, and nobody may take a sign-in from its owner by that.
func moveEmail(ctx context.Context, tx Tx, a Account, email string) (moved bool, err error) {
	email = NormalizeEmail(email)
	if a.PasswordHash == "" || email == "" || email == a.Email {
		return false, nil
	}
	holder, err := tx.AccountByEmail(ctx, email)
	switch {
	case errors.Is(err, ErrNoRecord):
	case err != nil:
		return false, err
	case holder.State == StatePending:
		if err := tx.RemoveAccount(ctx, holder.ID); err != nil {
			return false, err
		}
	default:
		email = ""
	}
	if email == a.Email {
		return false, nil
	}
	return true, tx.SetEmail(ctx, a.ID, email)
}

// rebuildPage is how many accounts are compared with their profiles at once.
const rebuildPage = 100

// FollowAnew compares all accounts with their profiles: for when what happened to these meanwhile is not known. It can
// be broken off and called again.
func (s *Service) FollowAnew(ctx context.Context) error {
	// First nobody has an email any more that the profile does not have: it may be somebody else's now.
	err := s.eachProfile(ctx, func(tx Tx, p KnownProfile) error {
		a, err := tx.Account(ctx, p.UserID)
		if err != nil || a.Email == "" || a.Email == NormalizeEmail(p.Email) || p.State == ProfileErased || p.At.Before(a.ProfileAt) {
			return err
		}
		return tx.SetEmail(ctx, a.ID, "")
	})
	if err == nil {
		err = s.eachProfile(ctx, func(tx Tx, p KnownProfile) error { return s.Follow(ctx, tx, ProfileChange{KnownProfile: p}) })
	}
	if err != nil {
		return fmt.Errorf("compare accounts with their profiles: %w", err)
	}
	return nil
}

// eachProfile calls fn, in a transaction, with the profile of each account that has one.
func (s *Service) eachProfile(ctx context.Context, fn func(Tx, KnownProfile) error) error {
	for behind := UserID(""); ; {
		var ids []UserID
		err := s.store.Read(ctx, func(v View) (err error) {
			ids, err = v.Accounts(ctx, behind, rebuildPage)
			return err
		})
		if err != nil || len(ids) == 0 {
			return err
		}
		behind = ids[len(ids)-1]
		known, err := s.profiles.FindAll(ctx, ids)
		if err != nil {
			return err
		}
		for _, p := range known {
			err := s.store.Write(ctx, func(tx Tx) error {
				if err := fn(tx, p); !errors.Is(err, ErrNoRecord) { // undone meanwhile
					return err
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
}
