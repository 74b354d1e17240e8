package auth

import (
	"context"
	"errors"
	"fmt"

	"github.com/concordat-dev/concordat/kit/fault"
)

// Validation is what ValidateUser finds.
type Validation struct {
	Valid   bool
	Message string // why not; empty when valid
	UserID  UserID // empty unless valid
}

// ValidateUser checks an email and a password without opening a session. It returns an error only when it could not
// check.
func (s *Service) ValidateUser(ctx context.Context, email, password string) (Validation, error) {
	a, err := s.authenticate(ctx, email, password, func(Tx, Account) error { return nil })
	for _, why := range []*fault.Fault{ErrInvalidCredentials, ErrAccountLocked, ErrAccountDeactivated} {
		if errors.Is(err, why) {
			return Validation{Message: why.Text()}, nil
		}
	}
	if err != nil {
		return Validation{}, fmt.Errorf("validate user: %w", err)
	}
	return Validation{Valid: true, UserID: a.ID}, nil
}

// authenticate returns the account that the credentials belong to, if it may act. It writes the attempt to the events
// of the account and, where it succeeds, calls then in the same transaction. It returns ErrInvalidCredentials,
// ErrAccountLocked or ErrAccountDeactivated.
//
// An email without an account costs the same read, the same hash and the same write as a wrong password.
func (s *Service) authenticate(ctx context.Context, email, password string, then func(Tx, Account) error) (Account, error) {
	return rounds(func() (Account, error) {
		var known Account
		err := s.store.Read(ctx, func(v View) (err error) {
			known, err = v.AccountByEmail(ctx, NormalizeEmail(email))
			return err
		})
		if err != nil && !errors.Is(err, ErrNoRecord) {
			return Account{}, fmt.Errorf("read account: %w", err)
		}
		if err != nil || known.State == StatePending { // a pending account cannot be seen
			known = Account{}
		}
		verdict, err := s.passwords.Verify(ctx, password, known.PasswordHash)
		if err != nil {
			return Account{}, fmt.Errorf("verify password: %w", err)
		}
		if !verdict.Match {
			return Account{}, s.refuse(ctx, known.ID)
		}
		return s.admit(ctx, known, password, verdict, then)
	})
}

// refuse writes down a wrong password and returns ErrInvalidCredentials. An empty id is an email without an account.
func (s *Service) refuse(ctx context.Context, id UserID) error {
	err := s.store.Write(ctx, func(tx Tx) error {
		if id == "" {
			return tx.CountMiss(ctx)
		}
		return tx.Append(ctx, Event{UserID: id, Type: EventLoginFailed, At: s.now()})
	})
	if err != nil {
		return fmt.Errorf("write a wrong password down: %w", err)
	}
	return ErrInvalidCredentials
}

// admit lets the owner of the right password in, unless the account may not act. What was verified is compared with
// what is true in the transaction.
func (s *Service) admit(ctx context.Context, verified Account, password string, verdict Verdict, then func(Tx, Account) error) (Account, error) {
	hash := verified.PasswordHash
	if verdict.Outdated {
		fresh, err := s.passwords.Hash(ctx, password)
		if err != nil {
			return Account{}, fmt.Errorf("hash password anew: %w", err)
		}
		hash = fresh
	}
	var a Account
	var blocked error
	err := s.store.Write(ctx, func(tx Tx) (err error) {
		if a, err = verified.still(ctx, tx); err != nil {
			return err
		}
		event := Event{UserID: a.ID, Type: EventLogin, At: s.now()}
		if blocked = a.blocked(); blocked != nil {
			event.Type = EventLoginFailed
			return tx.Append(ctx, event)
		}
		if a.PasswordHash != hash {
			a.PasswordHash = hash
			if err := tx.UpdateAccount(ctx, a); err != nil {
				return err
			}
		}
		if err := tx.Append(ctx, event); err != nil {
			return err
		}
		return then(tx, a)
	})
	if err != nil {
		return Account{}, fmt.Errorf("admit user %s: %w", verified.ID, err)
	}
	if blocked != nil {
		return Account{}, blocked
	}
	return a, nil
}

// still returns the account as it is now, or errAgain if its password is no longer the one that was verified.
func (a Account) still(ctx context.Context, tx Tx) (Account, error) {
	now, err := tx.Account(ctx, a.ID)
	if errors.Is(err, ErrNoRecord) || err == nil && now.PasswordHash != a.PasswordHash {
		return Account{}, errAgain
	}
	return now, err
}
