package users

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Target is a request about one user who is there.
type Target struct {
	Caller    string // whose request it is; request ids of different callers have nothing to do with each other
	RequestID string // a UUID that stays the same when the request is sent again
	ID        ID
	ETag      string // what the user is as the caller knows it; empty means whatever it is now
}

func (t Target) claim(now time.Time, digest Digest) Claim {
	return Claim{Caller: t.Caller, RequestID: strings.ToLower(t.RequestID), Digest: digest, At: now}
}

func (t Target) digest(method string) Digest {
	d := newDigest(method)
	d.text(1, string(t.ID))
	d.text(2, t.ETag)
	return d.sum()
}

// usable returns why the user cannot be changed as somebody who is there: ErrErased, ErrDeleted or ErrETagMismatch.
func (t Target) usable(u User) error {
	if u.State == Deleted && !u.Erased() {
		return ErrDeleted.With("user_id", string(u.ID))
	}
	return t.current(u)
}

// current returns ErrErased, or ErrETagMismatch where the caller knows another user than there is.
func (t Target) current(u User) error {
	switch {
	case u.Erased():
		return ErrErased.With("user_id", string(u.ID))
	case t.ETag != "" && t.ETag != u.ETag():
		return ErrETagMismatch.With("user_id", string(u.ID))
	default:
		return nil
	}
}

// now returns the time as it is kept.
func (s *Service) now() time.Time { return s.Clock.Now().UTC().Truncate(time.Microsecond) }

// Disable makes an active user one who may not be dealt with; one who is disabled stays so.
//
// Errors: ErrNotFound, ErrETagMismatch, ErrDeleted, ErrErased, ErrRequestIDReused.
func (s *Service) Disable(ctx context.Context, t Target) (User, error) {
	return s.change(ctx, t, "users.DisableUser", EventDisabled, t.usable, func(u User, _ time.Time) User {
		u.State = Disabled
		return u
	})
}

// Enable makes a disabled user active; one who is active stays so.
//
// Errors: ErrNotFound, ErrETagMismatch, ErrDeleted, ErrErased, ErrRequestIDReused.
func (s *Service) Enable(ctx context.Context, t Target) (User, error) {
	return s.change(ctx, t, "users.EnableUser", EventEnabled, t.usable, func(u User, _ time.Time) User {
		u.State = Active
		return u
	})
}

// Delete deletes a user, who keeps the email and can be brought back until it is erased; one who is deleted stays so.
//
// Errors: ErrNotFound, ErrETagMismatch, ErrErased, ErrRequestIDReused.
func (s *Service) Delete(ctx context.Context, t Target) (User, error) {
	return s.change(ctx, t, "users.DeleteUser", EventDeleted, t.current, func(u User, now time.Time) User {
		if u.State == Deleted {
			return u
		}
		u.Restores, u.State = u.State, Deleted
		u.DeletedAt, u.PurgeAt = now, now.Add(s.PurgeAfter)
		return u
	})
}

// Undelete brings a deleted user back, in the state that it had before; one who is not deleted stays as it is.
//
// Errors: ErrNotFound, ErrETagMismatch, ErrErased, ErrRequestIDReused.
func (s *Service) Undelete(ctx context.Context, t Target) (User, error) {
	return s.change(ctx, t, "users.UndeleteUser", EventUndeleted, t.current, func(u User, _ time.Time) User {
		if u.State != Deleted {
			return u
		}
		u.State, u.Restores = u.Restores, ""
		u.DeletedAt, u.PurgeAt = time.Time{}, time.Time{}
		return u
	})
}

// Erase removes everything personal of a user for good, from the profile and from the events that tell of it, and frees the email. What
// stays is a tombstone. One who is erased stays so. The ETag of the target has no meaning here.
//
// Errors: ErrNotFound, ErrRequestIDReused.
func (s *Service) Erase(ctx context.Context, t Target) (User, error) {
	t.ETag = ""
	always := func(User) error { return nil }
	return s.change(ctx, t, "users.EraseUser", EventErased, always, User.erased)
}

// erased returns what is left of a user.
func (u User) erased(now time.Time) User {
	if u.Erased() {
		return u
	}
	stone := u.Scrubbed()
	stone.State, stone.ErasedAt = Deleted, now
	if stone.DeletedAt.IsZero() {
		stone.DeletedAt = now
	}
	return stone
}

// change changes a user whom allowed does not refuse into what next returns.
func (s *Service) change(ctx context.Context, t Target, method string, what EventType, allowed func(User) error, next func(User, time.Time) User) (User, error) {
	now := s.now()
	u, err := s.Store.Change(ctx, Change{
		Claim: t.claim(now, t.digest(method)),
		ID:    t.ID,
		Apply: func(u User) (User, EventType, error) {
			if err := allowed(u); err != nil {
				return User{}, "", err
			}
			return u.became(next(u, now), now), what, nil
		},
	})
	if err != nil {
		return User{}, fmt.Errorf("%s %s: %w", method, t.ID, err)
	}
	return u, nil
}
