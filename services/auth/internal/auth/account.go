package auth

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// UserID is the id of a user, a UUID in lower case. It is the same in users.v1.
type UserID string

// ParseUserID returns the id in lower case. That it is a UUID the contract has checked.
func ParseUserID(text string) UserID { return UserID(strings.ToLower(text)) }

// Account is what this service knows of a user.
type Account struct {
	ID           UserID
	Email        string // normalised; empty for an imported user
	PasswordHash string // empty for an imported user, who cannot sign in
	Role         Role
	State        State
	Profile      ProfileState // what users.v1 says of the user, beside the State
	ProfileAt    time.Time    // when that was so; zero where nothing was heard yet
	Version      int64        // grows with each change that callers can see
	CreatedAt    time.Time
	UpdatedAt    time.Time
}

// ETag returns a text that is another one after each change of the account, in the quoted form of RFC 9110.
func (a Account) ETag() string { return strconv.Quote(strconv.FormatInt(a.Version, 10)) }

// Standing returns the state that callers see: an account whose profile is disabled, deleted or erased is deactivated,
// where it is not locked.
func (a Account) Standing() State {
	if a.State == StateActive && a.Profile != ProfileActive {
		return StateDeactivated
	}
	return a.State
}

// Active says whether the user may act.
func (a Account) Active() bool { return a.Standing() == StateActive }

// blocked returns why the user may not act: ErrAccountLocked or ErrAccountDeactivated, or nil.
func (a Account) blocked() error {
	switch a.Standing() {
	case StateLocked:
		return ErrAccountLocked
	case StateDeactivated:
		return ErrAccountDeactivated
	default:
		return nil
	}
}

// changed returns the account as it is after a change at this time.
func (a Account) changed(at time.Time) Account {
	a.Version++
	a.UpdatedAt = at
	return a
}

// Role is what a user may do. The values are stored, so they never change.
type Role string

// The roles.
const (
	// RoleMember may act on what is theirs.
	RoleMember Role = "MEMBER"
	// RoleAdmin may act on what is others'.
	RoleAdmin Role = "ADMIN"
)

// Scopes returns the scopes of the role's access tokens.
func (r Role) Scopes() []string {
	scopes := []string{"account.write", "auth.read", "users.read", "users.write", "payments.read", "payments.write"}
	if r == RoleAdmin {
		scopes = append(scopes, "auth.admin", "users.admin", "payments.admin")
	}
	return scopes
}

// State is whether a user may act. The values are stored, so they never change.
type State string

// The states.
const (
	// StatePending: signed up, but the profile is not known to be made. It ends in StateActive or in nothing.
	StatePending State = "PENDING"
	// StateActive: may sign in and act.
	StateActive State = "ACTIVE"
	// StateLocked: may not, until unlocked.
	StateLocked State = "LOCKED"
	// StateDeactivated: may not, until reactivated.
	StateDeactivated State = "DEACTIVATED"
)

// NormalizeEmail returns the form of an email by which accounts are told apart: without space around it, in lower case.
func NormalizeEmail(email string) string { return strings.ToLower(strings.TrimSpace(email)) }

// Account returns the account of a user. A user who is not known here and exists in users.v1 gets one at once, a member
// without a password, who is active if the profile is. It returns ErrUserNotFound, or ErrUpstreamUnavailable when
// users.v1 had to be asked and does not answer.
func (s *Service) Account(ctx context.Context, id UserID) (Account, error) {
	var a Account
	err := s.store.Read(ctx, func(v View) (err error) {
		a, err = v.Account(ctx, id)
		return err
	})
	switch {
	case err == nil:
		return a, nil
	case !errors.Is(err, ErrNoRecord):
		return Account{}, fmt.Errorf("read account %s: %w", id, err)
	}
	return s.adopt(ctx, id)
}

// adopt makes an account for a user of users.v1 who has none.
func (s *Service) adopt(ctx context.Context, id UserID) (Account, error) {
	found, err := s.profiles.Find(ctx, id)
	if errors.Is(err, ErrNoRecord) {
		return Account{}, ErrUserNotFound.With("user_id", string(id))
	}
	if err != nil {
		return Account{}, fmt.Errorf("look user %s up: %w", id, err)
	}
	var a Account
	err = s.store.Write(ctx, func(tx Tx) error {
		a = s.adopted(found)
		err := tx.AddAccount(ctx, a)
		if errors.Is(err, ErrUserIDTaken) { // another call adopted the user first, or more was heard meanwhile
			a, err = tx.Account(ctx, id)
		}
		return err
	})
	if err != nil {
		return Account{}, fmt.Errorf("adopt user %s: %w", id, err)
	}
	return a, nil
}
