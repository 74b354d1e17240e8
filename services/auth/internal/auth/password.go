package auth

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// PasswordChange is the memory of a request to change a password.
type PasswordChange struct {
	UserID       UserID
	RequestID    string
	PasswordHash string // of the new password
	At           time.Time
}

// PasswordChangeRequest asks for another password.
type PasswordChangeRequest struct {
	UserID    UserID
	SessionID SessionID // the one that stays open; empty means none
	Current   string
	New       string
	RequestID string // a UUID; it belongs to the user
}

// ChangePassword changes a password and closes every other session of the user. A repetition with the same request id
// is done once. It returns ErrUserNotFound, ErrInvalidCredentials, ErrAccountLocked, ErrAccountDeactivated or
// ErrRequestIDReused. A user who has no password yet has none to give: ErrInvalidCredentials.
func (s *Service) ChangePassword(ctx context.Context, r PasswordChangeRequest) error {
	r.RequestID = strings.ToLower(r.RequestID)
	_, err := rounds(func() (struct{}, error) { return struct{}{}, s.changePassword(ctx, r) })
	if err != nil {
		return fmt.Errorf("change password of user %s: %w", r.UserID, err)
	}
	return nil
}

func (s *Service) changePassword(ctx context.Context, r PasswordChangeRequest) error {
	var known Account
	var done PasswordChange
	err := s.store.Read(ctx, func(v View) (err error) {
		if known, err = v.Account(ctx, r.UserID); err != nil {
			return err
		}
		done, err = v.PasswordChange(ctx, r.UserID, r.RequestID)
		if errors.Is(err, ErrNoRecord) {
			done = PasswordChange{}
			return nil
		}
		return err
	})
	switch {
	case errors.Is(err, ErrNoRecord), err == nil && known.State == StatePending:
		return ErrUserNotFound.With("user_id", string(r.UserID))
	case err != nil:
		return fmt.Errorf("read account: %w", err)
	case done.RequestID != "":
		return s.repeatedChange(ctx, r, done)
	}
	verdict, err := s.passwords.Verify(ctx, r.Current, known.PasswordHash)
	if err != nil {
		return fmt.Errorf("verify password: %w", err)
	}
	if !verdict.Match {
		return s.refuse(ctx, known.ID)
	}
	hash, err := s.passwords.Hash(ctx, r.New)
	if err != nil {
		return fmt.Errorf("hash password: %w", err)
	}
	return s.setPassword(ctx, r, known, hash)
}

// repeatedChange answers a request id that is known: it is the same request if it brings the same new password.
func (s *Service) repeatedChange(ctx context.Context, r PasswordChangeRequest, done PasswordChange) error {
	verdict, err := s.passwords.Verify(ctx, r.New, done.PasswordHash)
	if err != nil {
		return fmt.Errorf("verify password of an earlier change: %w", err)
	}
	if !verdict.Match {
		return ErrRequestIDReused
	}
	return nil
}

// setPassword writes the change, if the account is still as it was verified and may act.
func (s *Service) setPassword(ctx context.Context, r PasswordChangeRequest, verified Account, hash string) error {
	err := s.store.Write(ctx, func(tx Tx) error {
		a, err := verified.still(ctx, tx)
		if err != nil {
			return err
		}
		if err := a.blocked(); err != nil {
			return err
		}
		now := s.now()
		a = a.changed(now)
		a.PasswordHash = hash
		if err := tx.AddPasswordChange(ctx, PasswordChange{UserID: a.ID, RequestID: r.RequestID, PasswordHash: hash, At: now}); err != nil {
			return err
		}
		if err := tx.UpdateAccount(ctx, a); err != nil {
			return err
		}
		if err := tx.CloseSessions(ctx, a.ID, r.SessionID, now); err != nil {
			return err
		}
		return tx.Append(ctx, Event{UserID: a.ID, Type: EventPasswordChanged, At: now, SessionID: r.SessionID})
	})
	if errors.Is(err, ErrRequestIDTaken) { // the same request came twice at once
		return errAgain
	}
	return err
}
