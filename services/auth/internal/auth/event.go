package auth

import "time"

// Event is one thing that happened to an account.
type Event struct {
	UserID UserID
	Type   EventType
	At     time.Time
	// SessionID is the session that was closed, by EventLogout and EventRefreshTokenReused; and the one that stays open, if
	// one does, where EventPasswordChanged closed all others. Empty for all other events.
	SessionID SessionID
}

// Ended says which sessions of a user an event closed.
type Ended struct {
	// SessionID is the one session; empty means all of them but Except.
	SessionID SessionID
	// Except is the session that stays open; empty means none.
	Except SessionID
}

// Ended returns which sessions ended with the event, and false where none did. Their access tokens are good no more.
func (e Event) Ended() (Ended, bool) {
	switch e.Type {
	case EventLogout, EventRefreshTokenReused:
		return Ended{SessionID: e.SessionID}, true
	case EventPasswordChanged:
		return Ended{Except: e.SessionID}, true
	case EventLocked, EventDeactivated:
		return Ended{}, true
	default:
		return Ended{}, false
	}
}

// EventType is what can happen to an account. The values are those of auth.v1.UserEventType without the prefix; they are
// stored, so they never change.
type EventType string

// The types of events.
const (
	// EventLogin: the right password was given for an account that may act.
	EventLogin EventType = "LOGIN"
	// EventLoginFailed: a wrong password was given, or the right one for an account that may not act.
	EventLoginFailed EventType = "LOGIN_FAILED"
	// EventSignedUp: the account was made and can be used.
	EventSignedUp EventType = "SIGNED_UP"
	// EventPasswordChanged: the password was changed; every session but the one that changed it has ended.
	EventPasswordChanged EventType = "PASSWORD_CHANGED"
	// EventLocked: the account was locked; every session has ended.
	EventLocked EventType = "ACCOUNT_LOCKED"
	// EventUnlocked: the account was unlocked.
	EventUnlocked EventType = "ACCOUNT_UNLOCKED"
	// EventDeactivated: the account was deactivated, or its profile is not active any more; every session has ended.
	EventDeactivated EventType = "DEACTIVATED"
	// EventReactivated: the account was reactivated, or its profile is active again.
	EventReactivated EventType = "REACTIVATED"
	// EventLogout: a session was closed by its owner.
	EventLogout EventType = "LOGOUT"
	// EventRefreshTokenReused: a refresh token was used twice; its session was closed.
	EventRefreshTokenReused EventType = "REFRESH_TOKEN_REUSED"
)

// EventTypes returns every type, for tables that must be complete.
func EventTypes() []EventType {
	return []EventType{
		EventLogin, EventLoginFailed, EventSignedUp, EventPasswordChanged, EventLocked,
		EventUnlocked, EventDeactivated, EventReactivated, EventLogout, EventRefreshTokenReused,
	}
}

// Blocks returns what the event means for whoever acts as its user: ErrAccountLocked or ErrAccountDeactivated, or nil for one
// that takes nothing away.
func (t EventType) Blocks() error {
	switch t {
	case EventLocked:
		return ErrAccountLocked
	case EventDeactivated:
		return ErrAccountDeactivated
	default:
		return nil
	}
}
