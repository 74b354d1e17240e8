package auth

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

// signUpRetryAfter is how long somebody should wait for a sign-up of another to come to its end; most take a moment,
// and one that broke off is swept away later.
const signUpRetryAfter = 5 * time.Second

// SignUp is the memory of a request to sign up, from which a repetition or the sweeper goes on.
type SignUp struct {
	RequestID    string
	UserID       UserID
	Email        string // as it was given, without space around it
	DisplayName  string
	Content      Digest    // of all that a repetition must have in common, but for the password
	PasswordHash string    // of the password that was given then, whatever it is now
	AdminCode    Digest    // zero for everybody but the first administrator
	BeganAt      time.Time // when the account was made
	FinishedAt   time.Time // zero until the account is active
}

// SignUpRequest asks for an account. That its fields are well-formed the contract has checked.
type SignUpRequest struct {
	Email       string
	Password    string
	DisplayName string
	RequestID   string // a UUID
	AdminCode   string // empty for everybody but the first administrator
}

// content returns the digest of what a repetition must have in common. The code for the administrator is not part of
// it, because a new start of the service gives out a new one.
func (r SignUpRequest) content() Digest {
	h := sha256.New()
	for _, field := range []string{NormalizeEmail(r.Email), r.DisplayName} {
		_ = binary.Write(h, binary.BigEndian, uint64(len(field))) // a hash takes everything
		h.Write([]byte(field))
	}
	return Digest(h.Sum(nil))
}

// SignUp makes an account and its profile, or finishes what an earlier call with the same request id left, or answers
// with the account that it made. It returns ErrEmailTaken, ErrRequestIDReused, ErrSignUpInProgress,
// ErrAdminCodeInvalid, or ErrUpstreamUnavailable, which leaves a pending account for the repetition or the sweeper.
//
// The steps, each of which can be repeated: a pending account is written; users.v1 makes the profile; the account
// becomes active.
func (s *Service) SignUp(ctx context.Context, r SignUpRequest) (Account, error) {
	r.RequestID = strings.ToLower(r.RequestID)
	a, err := rounds(func() (Account, error) { return s.signUp(ctx, r) })
	if err != nil {
		return Account{}, fmt.Errorf("sign up: %w", err)
	}
	return a, nil
}

func (s *Service) signUp(ctx context.Context, r SignUpRequest) (Account, error) {
	var claim SignUp
	err := s.store.Read(ctx, func(v View) (err error) {
		claim, err = v.SignUp(ctx, r.RequestID)
		return err
	})
	switch {
	case errors.Is(err, ErrNoRecord):
		claim, err = s.beginSignUp(ctx, r)
	case err == nil:
		claim, err = s.resumeSignUp(ctx, r, claim)
	}
	if err != nil {
		return Account{}, err
	}
	var a Account
	if claim.FinishedAt.IsZero() {
		a, err = s.finishSignUp(ctx, claim, refuseVoidCode)
	} else {
		a, err = s.finished(ctx, claim)
	}
	if err != nil {
		return Account{}, err
	}
	if r.AdminCode != "" && a.Role != RoleAdmin {
		return Account{}, ErrRequestIDReused // it was finished without the code, as a member's
	}
	return a, nil
}

// beginSignUp writes the pending account.
func (s *Service) beginSignUp(ctx context.Context, r SignUpRequest) (SignUp, error) {
	hash, err := s.passwords.Hash(ctx, r.Password)
	if err != nil {
		return SignUp{}, fmt.Errorf("hash password: %w", err)
	}
	now := s.now()
	claim := SignUp{
		RequestID:    r.RequestID,
		UserID:       UserID(s.newID()),
		Email:        strings.TrimSpace(r.Email),
		DisplayName:  r.DisplayName,
		Content:      r.content(),
		PasswordHash: hash,
		AdminCode:    adminCodeDigest(r.AdminCode),
		BeganAt:      now,
	}
	account := Account{
		ID:           claim.UserID,
		Email:        NormalizeEmail(r.Email),
		PasswordHash: hash,
		Role:         RoleMember,
		State:        StatePending,
		Profile:      ProfileActive,
		Version:      1,
		CreatedAt:    now,
		UpdatedAt:    now,
	}
	err = s.store.Write(ctx, func(tx Tx) error {
		if err := checkAdminCode(ctx, tx, claim.AdminCode); err != nil {
			return err
		}
		if err := tx.AddAccount(ctx, account); err != nil {
			return err
		}
		return tx.AddSignUp(ctx, claim)
	})
	switch {
	case err == nil:
		return claim, nil
	case errors.Is(err, ErrEmailTaken):
		return SignUp{}, s.whoHasEmail(ctx, r)
	case errors.Is(err, ErrRequestIDTaken):
		return SignUp{}, errAgain
	case errors.Is(err, ErrAdminCodeTaken):
		return SignUp{}, ErrAdminCodeInvalid
	default:
		return SignUp{}, fmt.Errorf("begin: %w", err)
	}
}

// whoHasEmail returns what to answer to a new sign-up whose email is not free: it may be the same sign-up, which another
// call has begun meanwhile.
func (s *Service) whoHasEmail(ctx context.Context, r SignUpRequest) error {
	var answer error
	err := s.store.Read(ctx, func(v View) error {
		if _, err := v.SignUp(ctx, r.RequestID); !errors.Is(err, ErrNoRecord) {
			answer = errAgain
			return err
		}
		holder, err := v.AccountByEmail(ctx, NormalizeEmail(r.Email))
		switch {
		case errors.Is(err, ErrNoRecord): // undone meanwhile
			answer = errAgain
			return nil
		case err != nil:
			return err
		case holder.State == StatePending:
			answer = ErrSignUpInProgress
		default:
			answer = ErrEmailTaken
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("look email up: %w", err)
	}
	return answer
}

// resumeSignUp returns the claim of an earlier call, if this one is its repetition, with the code that this call gives.
func (s *Service) resumeSignUp(ctx context.Context, r SignUpRequest, claim SignUp) (SignUp, error) {
	if !claim.Content.equal(r.content()) {
		return SignUp{}, ErrRequestIDReused
	}
	verdict, err := s.passwords.Verify(ctx, r.Password, claim.PasswordHash)
	if err != nil {
		return SignUp{}, fmt.Errorf("verify password: %w", err)
	}
	if !verdict.Match {
		return SignUp{}, ErrRequestIDReused
	}
	code := adminCodeDigest(r.AdminCode)
	if !claim.FinishedAt.IsZero() || claim.AdminCode.zero() && code.zero() {
		return claim, nil
	}
	err = s.store.Write(ctx, func(tx Tx) (err error) {
		claim, err = tx.SignUp(ctx, r.RequestID)
		if err != nil || !claim.FinishedAt.IsZero() {
			return err
		}
		if err := checkAdminCode(ctx, tx, code); err != nil {
			return err
		}
		if claim.AdminCode.equal(code) {
			return nil
		}
		claim.AdminCode = code
		return tx.UpdateSignUp(ctx, claim)
	})
	switch {
	case err == nil:
		return claim, nil
	case errors.Is(err, ErrNoRecord): // undone meanwhile
		return SignUp{}, errAgain
	case errors.Is(err, ErrAdminCodeTaken):
		return SignUp{}, ErrAdminCodeInvalid
	default:
		return SignUp{}, fmt.Errorf("resume: %w", err)
	}
}

// finished returns the account of a sign-up that is done, as it is now.
func (s *Service) finished(ctx context.Context, claim SignUp) (Account, error) {
	var a Account
	err := s.store.Read(ctx, func(v View) (err error) {
		a, err = v.Account(ctx, claim.UserID)
		return err
	})
	if err != nil {
		return Account{}, fmt.Errorf("read account %s: %w", claim.UserID, err)
	}
	return a, nil
}

// onVoidCode is what becomes of a sign-up whose code for the administrator has become void before the account was
// activated.
type onVoidCode bool

const (
	// refuseVoidCode leaves it pending, and its caller repeats it with the present code, or without.
	refuseVoidCode onVoidCode = false
	// dropVoidCode makes the account a member's, because nobody is there to repeat it.
	dropVoidCode onVoidCode = true
)

// finishSignUp makes the profile and activates the account, or undoes the sign-up where users.v1 says no. Whoever calls
// it, and however often, it comes to the same end.
func (s *Service) finishSignUp(ctx context.Context, claim SignUp, void onVoidCode) (Account, error) {
	err := s.profiles.Create(ctx, Profile{UserID: claim.UserID, Email: claim.Email, DisplayName: claim.DisplayName})
	switch {
	case err == nil:
		return s.activate(ctx, claim, void)
	case errors.Is(err, ErrEmailTaken), errors.Is(err, ErrProfileRefused):
		if uerr := s.undoSignUp(ctx, claim.UserID); uerr != nil {
			return Account{}, fmt.Errorf("undo sign-up of user %s: %w", claim.UserID, uerr)
		}
	}
	return Account{}, fmt.Errorf("make profile of user %s: %w", claim.UserID, err)
}

// activate ends a sign-up whose profile is there.
func (s *Service) activate(ctx context.Context, claim SignUp, void onVoidCode) (Account, error) {
	var a Account
	err := s.store.Write(ctx, func(tx Tx) (err error) {
		a, err = tx.Account(ctx, claim.UserID)
		if err != nil || a.State != StatePending { // another call was faster
			return err
		}
		a, err = s.activateIn(ctx, tx, a, claim.RequestID, void)
		return err
	})
	switch {
	case errors.Is(err, ErrNoRecord): // undone meanwhile
		return Account{}, errAgain
	case err != nil:
		return Account{}, fmt.Errorf("activate user %s: %w", claim.UserID, err)
	}
	return a, nil
}

// activateIn activates a pending account. The code is the one that the last repetition has left with the sign-up.
func (s *Service) activateIn(ctx context.Context, tx Tx, a Account, requestID string, void onVoidCode) (Account, error) {
	claim, err := tx.SignUp(ctx, requestID)
	if err != nil {
		return Account{}, err
	}
	err = checkAdminCode(ctx, tx, claim.AdminCode)
	if errors.Is(err, ErrAdminCodeInvalid) && void == dropVoidCode {
		claim.AdminCode, err = Digest{}, nil
	}
	if err != nil {
		return Account{}, err
	}
	now := s.now()
	a = a.changed(now)
	a.State = StateActive
	if !claim.AdminCode.zero() {
		a.Role = RoleAdmin
		if err := tx.SetAdminCode(ctx, Digest{}); err != nil {
			return Account{}, err
		}
	}
	if err := tx.UpdateAccount(ctx, a); err != nil {
		return Account{}, err
	}
	claim.FinishedAt = now
	if err := tx.UpdateSignUp(ctx, claim); err != nil {
		return Account{}, err
	}
	return a, tx.Append(ctx, Event{UserID: a.ID, Type: EventSignedUp, At: now})
}

// undoSignUp removes a pending account. An account that is no longer pending, or no longer there, stays as it is.
func (s *Service) undoSignUp(ctx context.Context, id UserID) error {
	return s.store.Write(ctx, func(tx Tx) error {
		a, err := tx.Account(ctx, id)
		if errors.Is(err, ErrNoRecord) || err == nil && a.State != StatePending {
			return nil
		}
		if err != nil {
			return err
		}
		return tx.RemoveAccount(ctx, id)
	})
}
