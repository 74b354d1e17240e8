package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Digest is a SHA-256 sum. It stands for a secret of at least 128 random bits, which it does not give away.
type Digest [sha256.Size]byte

// zero says whether there is no secret behind the digest.
func (d Digest) zero() bool { return d == Digest{} }

// equal compares in constant time.
func (d Digest) equal(other Digest) bool { return subtle.ConstantTimeCompare(d[:], other[:]) == 1 }

const (
	adminCodeBytes = 20 // of randomness
	adminCodeGroup = 4  // characters between two dashes
)

// RenewAdminCode makes a fresh one-time code while there is no administrator, and voids the one before. Given to
// SignUp, the code makes the new account an administrator. It returns "" when there is an administrator. The code is
// kept as a digest only: this is the one time that it can be shown.
func (s *Service) RenewAdminCode(ctx context.Context) (string, error) {
	raw := make([]byte, adminCodeBytes)
	if _, err := io.ReadFull(s.random, raw); err != nil {
		return "", fmt.Errorf("make the administrator's code: %w", err)
	}
	plain := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(raw)
	var needed bool
	err := s.store.Write(ctx, func(tx Tx) error {
		admins, _, err := tx.Admins(ctx)
		if err != nil {
			return err
		}
		needed = admins == 0
		if !needed {
			return tx.SetAdminCode(ctx, Digest{})
		}
		return tx.SetAdminCode(ctx, adminCodeDigest(plain))
	})
	if err != nil {
		return "", fmt.Errorf("renew the administrator's code: %w", err)
	}
	if !needed {
		return "", nil
	}
	return grouped(plain), nil
}

// grouped puts a dash behind every few characters, for people who type it.
func grouped(code string) string {
	var b strings.Builder
	for i, r := range code {
		if i > 0 && i%adminCodeGroup == 0 {
			b.WriteByte('-')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// adminCodeDigest returns the digest of a code as a person typed it: dashes, spaces and letter case do not count. No
// code has the zero digest.
func adminCodeDigest(code string) Digest {
	if code == "" {
		return Digest{}
	}
	plain := strings.Map(func(r rune) rune {
		if r == '-' || r == ' ' {
			return -1
		}
		return r
	}, code)
	return sha256.Sum256([]byte(strings.ToUpper(plain)))
}

// checkAdminCode returns ErrAdminCodeInvalid unless the code is the present one or none was given.
func checkAdminCode(ctx context.Context, tx Tx, given Digest) error {
	if given.zero() {
		return nil
	}
	present, err := tx.AdminCode(ctx)
	switch {
	case errors.Is(err, ErrNoRecord):
		return ErrAdminCodeInvalid
	case err != nil:
		return err
	case !given.equal(present):
		return ErrAdminCodeInvalid
	}
	return nil
}
