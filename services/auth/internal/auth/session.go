package auth

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"time"
)

// SessionID is the id of a session, a UUID in lower case.
type SessionID string

// Session is a series of refresh tokens, of which each but the last was exchanged for the next.
type Session struct {
	ID       SessionID
	UserID   UserID
	OpenedAt time.Time
	ClosedAt time.Time // zero while it is open
}

// RefreshToken is what is kept of a refresh token.
type RefreshToken struct {
	Digest    Digest
	SessionID SessionID
	ExpiresAt time.Time
	UsedAt    time.Time // zero until it is used
}

// Tokens are what a session gives its owner. They are secret: they are shown to the owner and to nobody else.
type Tokens struct {
	SessionID        SessionID
	AccessToken      string
	AccessExpiresAt  time.Time
	RefreshToken     string
	RefreshExpiresAt time.Time
}

const refreshTokenBytes = 32 // of randomness

func refreshTokenDigest(token string) Digest { return sha256.Sum256([]byte(token)) }

// SignIn opens a session. It returns ErrInvalidCredentials, ErrAccountLocked or ErrAccountDeactivated.
func (s *Service) SignIn(ctx context.Context, email, password string) (Tokens, Account, error) {
	refresh, err := s.newRefreshToken()
	if err != nil {
		return Tokens{}, Account{}, fmt.Errorf("sign in: %w", err)
	}
	id := SessionID(s.newID())
	var tokens Tokens
	a, err := s.authenticate(ctx, email, password, func(tx Tx, a Account) (err error) {
		now := s.now()
		if err := tx.AddSession(ctx, Session{ID: id, UserID: a.ID, OpenedAt: now}); err != nil {
			return err
		}
		tokens, err = s.grant(ctx, tx, a, id, refresh, now)
		return err
	})
	if err != nil {
		return Tokens{}, Account{}, fmt.Errorf("sign in: %w", err)
	}
	return tokens, a, nil
}

func (s *Service) newRefreshToken() (string, error) {
	raw := make([]byte, refreshTokenBytes)
	if _, err := io.ReadFull(s.random, raw); err != nil {
		return "", fmt.Errorf("make refresh token: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(raw), nil
}

// grant keeps a refresh token and signs the access token beside it.
func (s *Service) grant(ctx context.Context, tx Tx, a Account, id SessionID, refresh string, now time.Time) (Tokens, error) {
	tokens := Tokens{
		SessionID:        id,
		AccessExpiresAt:  now.Add(AccessTokenLifetime).Truncate(time.Second),
		RefreshToken:     refresh,
		RefreshExpiresAt: now.Add(RefreshTokenLifetime),
	}
	var err error
	tokens.AccessToken, err = s.tokens.Issue(Grant{
		UserID: a.ID, SessionID: id, Scopes: a.Role.Scopes(), ExpiresAt: tokens.AccessExpiresAt,
	})
	if err != nil {
		return Tokens{}, fmt.Errorf("sign access token: %w", err)
	}
	return tokens, tx.AddRefreshToken(ctx, RefreshToken{
		Digest: refreshTokenDigest(refresh), SessionID: id, ExpiresAt: tokens.RefreshExpiresAt,
	})
}

// Refresh exchanges a refresh token for new tokens of the same session. It returns ErrRefreshTokenInvalid,
// ErrAccountLocked, ErrAccountDeactivated, or ErrRefreshTokenReused after it has closed the session, because a token
// that comes twice may be in other hands.
func (s *Service) Refresh(ctx context.Context, token string) (Tokens, error) {
	next, err := s.newRefreshToken()
	if err != nil {
		return Tokens{}, fmt.Errorf("refresh session: %w", err)
	}
	digest := refreshTokenDigest(token)
	var tokens Tokens
	var reused bool
	err = s.store.Write(ctx, func(tx Tx) error {
		reused = false
		kept, session, err := findSession(ctx, tx, digest)
		if err != nil {
			return err
		}
		now := s.now()
		first, err := tx.UseRefreshToken(ctx, digest, now)
		if err != nil {
			return err
		}
		if !first {
			reused = true
			return s.closeSession(ctx, tx, session, EventRefreshTokenReused, now)
		}
		if !now.Before(kept.ExpiresAt) {
			return ErrRefreshTokenInvalid
		}
		a, err := tx.Account(ctx, session.UserID)
		if err != nil {
			return err
		}
		if err := a.blocked(); err != nil { // before the session, which ended with the right to act
			return err
		}
		if !session.ClosedAt.IsZero() {
			return ErrRefreshTokenInvalid
		}
		tokens, err = s.grant(ctx, tx, a, session.ID, next, now)
		return err
	})
	switch {
	case errors.Is(err, ErrNoRecord):
		return Tokens{}, ErrRefreshTokenInvalid
	case err != nil:
		return Tokens{}, fmt.Errorf("refresh session: %w", err)
	case reused:
		return Tokens{}, ErrRefreshTokenReused
	}
	return tokens, nil
}

// SignOut closes the session of a refresh token, used or not. It is no error if there is nothing to close.
func (s *Service) SignOut(ctx context.Context, token string) error {
	err := s.store.Write(ctx, func(tx Tx) error {
		_, session, err := findSession(ctx, tx, refreshTokenDigest(token))
		if errors.Is(err, ErrNoRecord) {
			return nil
		}
		if err != nil {
			return err
		}
		return s.closeSession(ctx, tx, session, EventLogout, s.now())
	})
	if err != nil {
		return fmt.Errorf("sign out: %w", err)
	}
	return nil
}

// findSession returns a token with its session, or ErrNoRecord.
func findSession(ctx context.Context, tx Tx, d Digest) (RefreshToken, Session, error) {
	token, err := tx.RefreshToken(ctx, d)
	if err != nil {
		return RefreshToken{}, Session{}, err
	}
	session, err := tx.Session(ctx, token.SessionID)
	if err != nil {
		return RefreshToken{}, Session{}, err
	}
	return token, session, nil
}

// closeSession closes a session and writes why, or does nothing if it is closed already.
func (s *Service) closeSession(ctx context.Context, tx Tx, session Session, why EventType, at time.Time) error {
	closed, err := tx.CloseSession(ctx, session.ID, at)
	if err != nil || !closed {
		return err
	}
	return tx.Append(ctx, Event{UserID: session.UserID, Type: why, At: at, SessionID: session.ID})
}
