// Package storetest is the one suite that every store of accounts passes: what it checks is what auth.Store promises.
package storetest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/services/auth/internal/auth"
)

// Backend is a store under test.
type Backend struct {
	Store auth.Store
	// Events returns all events of the log, oldest first.
	Events func(ctx context.Context) ([]auth.Event, error)
	// Reopen closes the store and opens it anew on the same data, as a restart does.
	Reopen func(t *testing.T) auth.Store
}

// Run runs the suite. open returns a new, empty store, which the test closes at its end.
func Run(t *testing.T, open func(t *testing.T) Backend) {
	t.Helper()
	for _, check := range []struct {
		name string
		run  func(*testing.T, Backend)
	}{
		{"an account is found by id and by email as it was added", accountFound},
		{"an account without an email is found by id alone", accountWithoutEmail},
		{"an unknown account is not found, changed or removed", accountUnknown},
		{"an id and an email are given once, and the transaction goes on", accountOnce},
		{"a hundred accounts with one email at once make one", emailOnceAtOnce},
		{"an update changes what can change and nothing else", accountUpdated},
		{"an email is replaced, given once and removed, and the transaction goes on", emailReplaced},
		{"accounts are listed in pages, in order", accountsListed},
		{"administrators are counted by role and state", adminsCounted},
		{"a removed account takes all that is its own with it", accountRemoved},
		{"a sign-up is found as it was added and as it was updated", signUpFound},
		{"a request id and a code are given to one unfinished sign-up, and the transaction goes on", signUpOnce},
		{"unfinished sign-ups are listed in pages, in order, if they are old enough", signUpsListed},
		{"the code for the administrator is replaced and removed", adminCode},
		{"a session is found, closed once, and stays closed", sessionClosed},
		{"all sessions of a user but one are closed, and those of nobody else", sessionsClosed},
		{"a refresh token is found as it was added", refreshTokenFound},
		{"a refresh token is used once, by one of a hundred at once", refreshTokenOnce},
		{"a password change is remembered once for its user", passwordChangeOnce},
		{"a miss is counted without an account", missCounted},
		{"events are there in the order of their transactions", eventsInOrder},
		{"a transaction that returns an error leaves nothing", errorLeavesNothing},
		{"a transaction that panics leaves nothing and blocks nobody", panicLeavesNothing},
		{"a transaction whose context ended leaves nothing", endedLeavesNothing},
		{"a read shows one moment", readShowsOneMoment},
		{"a purge removes what is past and leaves the rest", purgeRemovesPast},
		{"a purge removes no more than its limit", purgeLimited},
		{"a restart keeps everything", restartKeeps},
	} {
		t.Run(check.name, func(t *testing.T) {
			t.Parallel()
			check.run(t, open(t))
		})
	}
}

// epoch is the beginning of every check.
var epoch = time.Date(2026, 3, 1, 9, 30, 0, 123456000, time.UTC)

func userID(n int) auth.UserID { return auth.UserID(fmt.Sprintf("0195f000-0000-7000-8000-%012x", n)) }

func sessionID(n int) auth.SessionID {
	return auth.SessionID(fmt.Sprintf("0195f000-0000-7000-9000-%012x", n))
}

func requestID(n int) string { return fmt.Sprintf("7d9a0000-0000-4000-8000-%012x", n) }

func digest(n int) auth.Digest { return sha256.Sum256(fmt.Append(nil, n)) }

// account returns the n-th account of the checks, with an id and an email of its own.
func account(n int) auth.Account {
	return auth.Account{
		ID: userID(n), Email: fmt.Sprintf("user%d@example.com", n), PasswordHash: fmt.Sprintf("hash %d", n),
		Role: auth.RoleMember, State: auth.StatePending, Profile: auth.ProfileActive, Version: 1,
		CreatedAt: epoch.Add(time.Duration(n) * time.Second), UpdatedAt: epoch.Add(time.Duration(n) * time.Second),
	}
}

// signUp returns the sign-up of the n-th account.
func signUp(n int) auth.SignUp {
	return auth.SignUp{
		RequestID: requestID(n), UserID: userID(n), Email: fmt.Sprintf("User%d@example.com", n), DisplayName: "Ünal 😀",
		Content: digest(n), PasswordHash: fmt.Sprintf("hash %d", n), BeganAt: epoch.Add(time.Duration(n) * time.Second),
	}
}

// write runs a transaction that must succeed.
func write(t *testing.T, s auth.Store, fn func(ctx context.Context, tx auth.Tx) error) {
	t.Helper()
	if err := s.Write(t.Context(), func(tx auth.Tx) error { return fn(t.Context(), tx) }); err != nil {
		t.Fatalf("write: %v", err)
	}
}

// read runs a read that must succeed.
func read(t *testing.T, s auth.Store, fn func(ctx context.Context, v auth.View) error) {
	t.Helper()
	if err := s.Read(t.Context(), func(v auth.View) error { return fn(t.Context(), v) }); err != nil {
		t.Fatalf("read: %v", err)
	}
}

// addAccounts adds the accounts with these numbers.
func addAccounts(t *testing.T, s auth.Store, numbers ...int) {
	t.Helper()
	write(t, s, func(ctx context.Context, tx auth.Tx) error {
		for _, n := range numbers {
			if err := tx.AddAccount(ctx, account(n)); err != nil {
				return err
			}
		}
		return nil
	})
}

// want fails the test unless err is target.
func want(t *testing.T, what string, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("%s: got %v, want %v", what, err, target)
	}
}

// equal fails the test unless both are the same.
func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %+v, want %+v", what, got, want)
	}
}

// findAccount returns the account with that number, or the error of looking it up.
func findAccount(t *testing.T, s auth.Store, n int) (a auth.Account, err error) {
	t.Helper()
	err = s.Read(t.Context(), func(v auth.View) (err error) {
		a, err = v.Account(t.Context(), userID(n))
		return err
	})
	return a, err
}

func eventsInOrder(t *testing.T, b Backend) {
	event := func(n int, kind auth.EventType) auth.Event {
		e := auth.Event{UserID: userID(n), Type: kind, At: epoch.Add(time.Duration(n) * time.Second)}
		if n%2 == 1 {
			e.SessionID = sessionID(n)
		}
		return e
	}
	for n, kind := range auth.EventTypes() {
		write(t, b.Store, func(ctx context.Context, tx auth.Tx) error { return tx.Append(ctx, event(n, kind)) })
	}
	events, err := b.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(events) != len(auth.EventTypes()) {
		t.Fatalf("got %d events", len(events))
	}
	for n, kind := range auth.EventTypes() {
		equal(t, "event", events[n], event(n, kind))
	}
}

// change writes something of each kind.
func change(ctx context.Context, tx auth.Tx) error {
	return errors.Join(
		tx.AddAccount(ctx, account(1)),
		tx.AddSignUp(ctx, signUp(1)),
		tx.SetAdminCode(ctx, digest(7)),
		tx.AddSession(ctx, auth.Session{ID: sessionID(1), UserID: userID(1), OpenedAt: epoch}),
		tx.AddRefreshToken(ctx, auth.RefreshToken{Digest: digest(1), SessionID: sessionID(1), ExpiresAt: epoch.Add(time.Hour)}),
		tx.AddPasswordChange(ctx, auth.PasswordChange{UserID: userID(1), RequestID: requestID(1), PasswordHash: "new", At: epoch}),
		tx.Append(ctx, auth.Event{UserID: userID(1), Type: auth.EventLogin, At: epoch}),
	)
}

// wantChange checks that everything of change is there, or that nothing is.
func wantChange(t *testing.T, b Backend, there bool) {
	t.Helper()
	var missing error
	if !there {
		missing = auth.ErrNoRecord
	}
	write(t, b.Store, func(ctx context.Context, tx auth.Tx) error {
		_, err := tx.Account(ctx, userID(1))
		want(t, "account", err, missing)
		_, err = tx.SignUp(ctx, requestID(1))
		want(t, "sign-up", err, missing)
		_, err = tx.AdminCode(ctx)
		want(t, "code", err, missing)
		_, err = tx.Session(ctx, sessionID(1))
		want(t, "session", err, missing)
		_, err = tx.RefreshToken(ctx, digest(1))
		want(t, "refresh token", err, missing)
		_, err = tx.PasswordChange(ctx, userID(1), requestID(1))
		want(t, "password change", err, missing)
		return nil
	})
	events, err := b.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "there are events", len(events) > 0, there)
}

func errorLeavesNothing(t *testing.T, b Backend) {
	broken := errors.New("broken")
	err := b.Store.Write(t.Context(), func(tx auth.Tx) error {
		if err := change(t.Context(), tx); err != nil {
			return err
		}
		return broken
	})
	want(t, "write", err, broken)
	wantChange(t, b, false)
}

func panicLeavesNothing(t *testing.T, b Backend) {
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_ = b.Store.Write(t.Context(), func(tx auth.Tx) error {
			if err := change(t.Context(), tx); err != nil {
				return err
			}
			panic("broken")
		})
	}()
	wantChange(t, b, false)
}

func endedLeavesNothing(t *testing.T, b Backend) {
	ctx, cancel := context.WithCancel(t.Context())
	err := b.Store.Write(ctx, func(tx auth.Tx) error {
		err := change(ctx, tx)
		cancel()
		return err
	})
	want(t, "write", err, context.Canceled)
	wantChange(t, b, false)
}

func readShowsOneMoment(t *testing.T, b Backend) {
	addAccounts(t, b.Store, 1)
	read(t, b.Store, func(ctx context.Context, v auth.View) error {
		before, err := v.Account(ctx, userID(1))
		if err != nil {
			return err
		}
		changed := before
		changed.State, changed.Version = auth.StateLocked, 2
		write(t, b.Store, func(ctx context.Context, tx auth.Tx) error { return tx.UpdateAccount(ctx, changed) })
		after, err := v.Account(ctx, userID(1))
		equal(t, "account", after, before)
		return err
	})
	got, err := findAccount(t, b.Store, 1)
	want(t, "find", err, nil)
	equal(t, "state", got.State, auth.StateLocked)
}

func restartKeeps(t *testing.T, b Backend) {
	write(t, b.Store, change)
	b.Store = b.Reopen(t)
	wantChange(t, b, true)
}
