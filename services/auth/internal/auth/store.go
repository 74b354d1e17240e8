package auth

import (
	"context"
	"time"
)

// Store keeps accounts and what belongs to them. It is safe for concurrent use. Implementations pass storetest.Run.
//
// Times are kept to the microsecond. Beside what the methods name, each may return the error of ctx and the faults of
// the storage.
type Store interface {
	// Read calls fn with one moment of the data.
	Read(ctx context.Context, fn func(View) error) error
	// Write calls fn with a transaction. It commits when fn returns nil, and else undoes all and returns the error of fn.
	// Transactions are serial: what one has read does not change until it ends. fn may be called again after a conflict
	// with another transaction, so it changes nothing but through tx and sets all of its results anew each time.
	Write(ctx context.Context, fn func(Tx) error) error
}

// View reads. It is for use inside the function that it was given to.
type View interface {
	// Account returns the account with this id. It returns ErrNoRecord if there is none.
	Account(ctx context.Context, id UserID) (Account, error)
	// Accounts returns the ids of up to limit accounts, in their order, beginning behind one.
	Accounts(ctx context.Context, behind UserID, limit int) ([]UserID, error)
	// AccountByEmail returns the account with this normalised email. It returns ErrNoRecord if there is none.
	AccountByEmail(ctx context.Context, email string) (Account, error)
	// SignUp returns the sign-up with this request id. It returns ErrNoRecord if there is none.
	SignUp(ctx context.Context, requestID string) (SignUp, error)
	// UnfinishedSignUps returns up to limit sign-ups that are not finished and were begun before a time, by user id,
	// which is the order of their making, beginning behind the one of this user.
	UnfinishedSignUps(ctx context.Context, before time.Time, behind UserID, limit int) ([]SignUp, error)
	// PasswordChange returns the change that a user made with this request id. It returns ErrNoRecord if there is none.
	PasswordChange(ctx context.Context, id UserID, requestID string) (PasswordChange, error)
}

// Tx reads and writes in one transaction. It is for use inside the function that it was given to.
type Tx interface {
	View
	AccountTx
	SignUpTx
	SessionTx
	// Append writes an event into the log, behind all that were written before.
	Append(ctx context.Context, e Event) error
	// Purge removes up to limit rows that nothing needs any more, and returns how many it removed: refresh tokens that
	// expired before a time, sessions without tokens, and the memory of requests that were done before another time.
	Purge(ctx context.Context, expiredBefore, doneBefore time.Time, limit int) (int, error)
}

// AccountTx writes accounts.
type AccountTx interface {
	// AddAccount adds an account. It returns ErrUserIDTaken or ErrEmailTaken, of which the first wins, and then the
	// transaction goes on unchanged.
	AddAccount(ctx context.Context, a Account) error
	// UpdateAccount replaces password hash, role, state, state and time of the profile, version and time of change. It
	// returns ErrNoRecord if there is no such account.
	UpdateAccount(ctx context.Context, a Account) error
	// SetEmail replaces the normalised email, which is none where it is empty. It returns ErrNoRecord if there is no
	// such account, and ErrEmailTaken, and then the transaction goes on unchanged.
	SetEmail(ctx context.Context, id UserID, email string) error
	// RemoveAccount removes an account with its sign-up, its sessions and all else that belongs to it. It returns
	// ErrNoRecord if there is no such account.
	RemoveAccount(ctx context.Context, id UserID) error
	// Admins returns how many accounts are administrators, and how many of these are active.
	Admins(ctx context.Context) (all, active int, err error)
	// AddPasswordChange remembers a change. It returns ErrRequestIDTaken, and then the transaction goes on unchanged.
	AddPasswordChange(ctx context.Context, c PasswordChange) error
}

// SignUpTx writes sign-ups and the code for the first administrator.
type SignUpTx interface {
	// AddSignUp adds a sign-up of an account that is there. It returns ErrRequestIDTaken, or ErrAdminCodeTaken when an
	// unfinished sign-up holds the code, and then the transaction goes on unchanged.
	AddSignUp(ctx context.Context, s SignUp) error
	// UpdateSignUp replaces the code and the time of finishing. It returns ErrNoRecord or ErrAdminCodeTaken, and then the
	// transaction goes on unchanged.
	UpdateSignUp(ctx context.Context, s SignUp) error
	// AdminCode returns the digest of the code for the first administrator. It returns ErrNoRecord if there is none.
	AdminCode(ctx context.Context) (Digest, error)
	// SetAdminCode replaces the code; the zero digest removes it.
	SetAdminCode(ctx context.Context, d Digest) error
}

// SessionTx writes sessions and their refresh tokens.
type SessionTx interface {
	// AddSession adds a session of an account that is there.
	AddSession(ctx context.Context, s Session) error
	// Session returns the session with this id. It returns ErrNoRecord if there is none.
	Session(ctx context.Context, id SessionID) (Session, error)
	// CloseSession closes a session and says whether it was open.
	CloseSession(ctx context.Context, id SessionID, at time.Time) (bool, error)
	// CloseSessions closes all open sessions of a user but one; an empty id excepts none.
	CloseSessions(ctx context.Context, id UserID, but SessionID, at time.Time) error
	// AddRefreshToken adds a token of a session that is there.
	AddRefreshToken(ctx context.Context, t RefreshToken) error
	// RefreshToken returns the token with this digest. It returns ErrNoRecord if there is none.
	RefreshToken(ctx context.Context, d Digest) (RefreshToken, error)
	// UseRefreshToken marks a token as used and says whether this was the first time. Of any number of transactions at
	// once one is told true.
	UseRefreshToken(ctx context.Context, d Digest, at time.Time) (bool, error)
	// CountMiss counts a sign-in for an email without an account. It is one write, as an event is.
	CountMiss(ctx context.Context) error
}
