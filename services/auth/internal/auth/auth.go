// Package auth is the domain of accounts: who can sign in, what they may do, and whether they may act at all. The
// profile of a user belongs to users.v1, which this package knows as Profiles.
//
// What is promised: a change and its event are written in one transaction; a sign-up can be repeated from any point at
// which it broke off; a refresh token works once; an unknown email and a wrong password cannot be told apart, neither
// by the answer nor by the work that is done for it; who is disabled, deleted or erased in users.v1 may not act here;
// and once there is an administrator, there always is one who may act, unless users.v1 takes the last one away.
package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/concordat-dev/concordat/kit/clock"
)

// How long things last.
const (
	// AccessTokenLifetime is how long an access token is good for, if its session does not end sooner.
	AccessTokenLifetime = 10 * time.Minute
	// RefreshTokenLifetime is how long a refresh token waits to be used.
	RefreshTokenLifetime = 30 * 24 * time.Hour
	// ClaimLifetime is how long a request id is remembered after its request was done. A repetition after that is a new
	// request.
	ClaimLifetime = 24 * time.Hour
)

// maxRounds is how often a call starts again because what it had read was changed under it. Each round loses only to
// another call that was completed, so that coming to the end of them takes deliberate work against one's own account.
const maxRounds = 4

// Deps are what the service stands on. Every field is required.
type Deps struct {
	// Store keeps accounts and sessions.
	Store Store
	// Profiles is users.v1.
	Profiles Profiles
	// Passwords hashes and verifies passwords.
	Passwords Passwords
	// AccessTokens signs access tokens.
	AccessTokens AccessTokens
	// Clock tells the time and paces the sweeper.
	Clock clock.Clock
	// NewID makes a UUIDv7 in its canonical form.
	NewID func() string
	// Random is the source of refresh tokens and of the administrator's code. It must be cryptographically strong.
	Random io.Reader
}

// Service is the domain. It is safe for concurrent use. Make it with New.
type Service struct {
	store     Store
	profiles  Profiles
	passwords Passwords
	tokens    AccessTokens
	clock     clock.Clock
	newID     func() string
	random    io.Reader
}

// New returns a service, or an error that names what is missing in deps.
func New(deps Deps) (*Service, error) {
	var missing []error
	for _, dep := range []struct {
		name  string
		given bool
	}{
		{"Store", deps.Store != nil},
		{"Profiles", deps.Profiles != nil},
		{"Passwords", deps.Passwords != nil},
		{"AccessTokens", deps.AccessTokens != nil},
		{"Clock", deps.Clock != nil},
		{"NewID", deps.NewID != nil},
		{"Random", deps.Random != nil},
	} {
		if !dep.given {
			missing = append(missing, fmt.Errorf("auth.Deps lacks %s", dep.name))
		}
	}
	if len(missing) > 0 {
		return nil, errors.Join(missing...)
	}
	return &Service{
		store:     deps.Store,
		profiles:  deps.Profiles,
		passwords: deps.Passwords,
		tokens:    deps.AccessTokens,
		clock:     deps.Clock,
		newID:     deps.NewID,
		random:    deps.Random,
	}, nil
}

// Profiles is users.v1, as far as accounts need it. It is safe for concurrent use. All methods return
// ErrUpstreamUnavailable when users.v1 does not answer, and then nothing is known.
type Profiles interface {
	// Create makes a profile. It is the same call for the same p, however often it is made. It returns ErrEmailTaken
	// when another user has the email, and ErrProfileRefused when users.v1 will never take this profile.
	Create(ctx context.Context, p Profile) error
	// Find returns what there is of a user. It returns ErrNoRecord if there is no user with this id.
	Find(ctx context.Context, id UserID) (KnownProfile, error)
	// FindAll returns what there is of those of up to a hundred users whom there are.
	FindAll(ctx context.Context, ids []UserID) ([]KnownProfile, error)
}

// Profile is what users.v1 needs to know of a user who signs up.
type Profile struct {
	UserID      UserID
	Email       string // as it was given, without space around it
	DisplayName string
}

// Passwords hashes and verifies passwords. It is safe for concurrent use; it bounds how much memory all calls take
// together and waits for its turn no longer than ctx allows, so both methods may return the error of ctx.
type Passwords interface {
	// Hash returns a salted hash, in a form that names its parameters.
	Hash(ctx context.Context, password string) (string, error)
	// Verify compares a password with a hash. An empty hash never matches, and takes as long as one that does not
	// match. It returns an error for a hash that it cannot read.
	Verify(ctx context.Context, password, hash string) (Verdict, error)
}

// Verdict is what Passwords.Verify finds.
type Verdict struct {
	// Match says that the password is the one that was hashed.
	Match bool
	// Outdated says that the hash was made with other parameters than a new one would be.
	Outdated bool
}

// AccessTokens signs access tokens. It is safe for concurrent use.
type AccessTokens interface {
	// Issue returns a signed token.
	Issue(grant Grant) (string, error)
}

// Grant is what an access token says.
type Grant struct {
	UserID    UserID
	SessionID SessionID
	Scopes    []string
	ExpiresAt time.Time // a whole second, as tokens have it
}

// now returns the time to the microsecond, as it is stored, so that an answer does not change when it is read again.
func (s *Service) now() time.Time { return s.clock.Now().UTC().Truncate(time.Microsecond) }

// errAgain says that what a round had read was changed under it: read it again.
var errAgain = errors.New("changed meanwhile")

// rounds calls fn until it returns something else than errAgain.
func rounds[T any](fn func() (T, error)) (T, error) {
	for range maxRounds - 1 {
		if result, err := fn(); !errors.Is(err, errAgain) {
			return result, err
		}
	}
	return fn()
}
