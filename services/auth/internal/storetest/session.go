package storetest

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/services/auth/internal/auth"
)

// openSession adds the n-th session, which belongs to a user.
func openSession(ctx context.Context, tx auth.Tx, n, user int) error {
	return tx.AddSession(ctx, auth.Session{ID: sessionID(n), UserID: userID(user), OpenedAt: epoch})
}

func sessionClosed(t *testing.T, b Backend) {
	addAccounts(t, b.Store, 1)
	write(t, b.Store, func(ctx context.Context, tx auth.Tx) error {
		_, err := tx.Session(ctx, sessionID(1))
		want(t, "before", err, auth.ErrNoRecord)
		closed, err := tx.CloseSession(ctx, sessionID(1), epoch)
		want(t, "close what is not there", err, nil)
		equal(t, "close what is not there", closed, false)
		return openSession(ctx, tx, 1, 1)
	})
	for round, wanted := range []bool{true, false} {
		write(t, b.Store, func(ctx context.Context, tx auth.Tx) error {
			closed, err := tx.CloseSession(ctx, sessionID(1), epoch.Add(time.Duration(round+1)*time.Hour))
			equal(t, "close", closed, wanted)
			return err
		})
	}
	write(t, b.Store, func(ctx context.Context, tx auth.Tx) error {
		got, err := tx.Session(ctx, sessionID(1))
		equal(t, "session", got, auth.Session{ID: sessionID(1), UserID: userID(1), OpenedAt: epoch, ClosedAt: epoch.Add(time.Hour)})
		return err
	})
}

func sessionsClosed(t *testing.T, b Backend) {
	addAccounts(t, b.Store, 1, 2)
	at := epoch.Add(time.Hour)
	write(t, b.Store, func(ctx context.Context, tx auth.Tx) error {
		for n, user := range map[int]int{1: 1, 2: 1, 3: 1, 4: 2} {
			if err := openSession(ctx, tx, n, user); err != nil {
				return err
			}
		}
		if _, err := tx.CloseSession(ctx, sessionID(3), epoch); err != nil {
			return err
		}
		return tx.CloseSessions(ctx, userID(1), sessionID(2), at)
	})
	check := func(wanted map[int]time.Time) {
		t.Helper()
		write(t, b.Store, func(ctx context.Context, tx auth.Tx) error {
			for n, closedAt := range wanted {
				got, err := tx.Session(ctx, sessionID(n))
				if err != nil {
					return err
				}
				equal(t, "closed at", got.ClosedAt, closedAt)
			}
			return nil
		})
	}
	check(map[int]time.Time{1: at, 2: {}, 3: epoch, 4: {}})
	write(t, b.Store, func(ctx context.Context, tx auth.Tx) error {
		return tx.CloseSessions(ctx, userID(1), "", at.Add(time.Hour))
	})
	check(map[int]time.Time{1: at, 2: at.Add(time.Hour), 3: epoch, 4: {}})
}

func refreshTokenFound(t *testing.T, b Backend) {
	addAccounts(t, b.Store, 1)
	wanted := auth.RefreshToken{Digest: digest(1), SessionID: sessionID(1), ExpiresAt: epoch.Add(time.Hour)}
	write(t, b.Store, func(ctx context.Context, tx auth.Tx) error {
		_, err := tx.RefreshToken(ctx, digest(1))
		want(t, "before", err, auth.ErrNoRecord)
		first, err := tx.UseRefreshToken(ctx, digest(1), epoch)
		want(t, "use before", err, nil)
		equal(t, "use before", first, false)
		if err := openSession(ctx, tx, 1, 1); err != nil {
			return err
		}
		return tx.AddRefreshToken(ctx, wanted)
	})
	write(t, b.Store, func(ctx context.Context, tx auth.Tx) error {
		got, err := tx.RefreshToken(ctx, digest(1))
		want(t, "find", err, nil)
		equal(t, "token", got, wanted)
		first, err := tx.UseRefreshToken(ctx, digest(1), epoch.Add(time.Minute))
		want(t, "use", err, nil)
		equal(t, "use", first, true)
		first, err = tx.UseRefreshToken(ctx, digest(1), epoch.Add(2*time.Minute))
		want(t, "use again", err, nil)
		equal(t, "use again", first, false)
		wanted.UsedAt = epoch.Add(time.Minute)
		got, err = tx.RefreshToken(ctx, digest(1))
		equal(t, "used token", got, wanted)
		return err
	})
}

func refreshTokenOnce(t *testing.T, b Backend) {
	addAccounts(t, b.Store, 1)
	write(t, b.Store, func(ctx context.Context, tx auth.Tx) error {
		if err := openSession(ctx, tx, 1, 1); err != nil {
			return err
		}
		return tx.AddRefreshToken(ctx, auth.RefreshToken{Digest: digest(1), SessionID: sessionID(1), ExpiresAt: epoch.Add(time.Hour)})
	})
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			var first bool
			err := b.Store.Write(t.Context(), func(tx auth.Tx) (err error) {
				first, err = tx.UseRefreshToken(t.Context(), digest(1), epoch)
				return err
			})
			if err != nil {
				t.Errorf("use: %v", err)
			} else if first {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	equal(t, "winners", won.Load(), 1)
}

func missCounted(t *testing.T, b Backend) {
	for range 3 {
		write(t, b.Store, func(ctx context.Context, tx auth.Tx) error { return tx.CountMiss(ctx) })
	}
	events, err := b.Events(t.Context())
	want(t, "events", err, nil)
	equal(t, "events", len(events), 0)
}

// purge runs one purge and returns how much it removed.
func purge(t *testing.T, b Backend, expiredBefore, doneBefore time.Time, limit int) (removed int) {
	t.Helper()
	write(t, b.Store, func(ctx context.Context, tx auth.Tx) (err error) {
		removed, err = tx.Purge(ctx, expiredBefore, doneBefore, limit)
		return err
	})
	return removed
}

func purgeRemovesPast(t *testing.T, b Backend) {
	const past, present, unfinished = 1, 2, 3
	bound := epoch.Add(time.Hour)
	addAccounts(t, b.Store, past, present, unfinished)
	write(t, b.Store, func(ctx context.Context, tx auth.Tx) error {
		for _, n := range []int{past, present} {
			at := bound
			if n == past {
				at = bound.Add(-time.Second)
			}
			s := signUp(n)
			s.FinishedAt = at
			for _, err := range []error{
				openSession(ctx, tx, n, n),
				tx.AddRefreshToken(ctx, auth.RefreshToken{Digest: digest(n), SessionID: sessionID(n), ExpiresAt: at}),
				tx.AddSignUp(ctx, s),
				tx.AddPasswordChange(ctx, auth.PasswordChange{UserID: userID(n), RequestID: requestID(n), PasswordHash: "x", At: at}),
			} {
				if err != nil {
					return err
				}
			}
		}
		// A session of which one token is past and another is not.
		if err := tx.AddRefreshToken(ctx, auth.RefreshToken{Digest: digest(9), SessionID: sessionID(present), ExpiresAt: epoch}); err != nil {
			return err
		}
		return tx.AddSignUp(ctx, signUp(unfinished))
	})
	equal(t, "removed", purge(t, b, bound, bound, 100), 5)
	equal(t, "removed again", purge(t, b, bound, bound, 100), 0)
	write(t, b.Store, func(ctx context.Context, tx auth.Tx) error {
		for n, wanted := range map[int]error{past: auth.ErrNoRecord, present: nil} {
			_, err := tx.Session(ctx, sessionID(n))
			want(t, "session", err, wanted)
			_, err = tx.RefreshToken(ctx, digest(n))
			want(t, "refresh token", err, wanted)
			_, err = tx.SignUp(ctx, requestID(n))
			want(t, "sign-up", err, wanted)
			_, err = tx.PasswordChange(ctx, userID(n), requestID(n))
			want(t, "password change", err, wanted)
			_, err = tx.Account(ctx, userID(n))
			want(t, "account", err, nil)
		}
		_, err := tx.RefreshToken(ctx, digest(9))
		want(t, "the past token of a session that lives", err, auth.ErrNoRecord)
		_, err = tx.SignUp(ctx, requestID(unfinished))
		want(t, "the unfinished sign-up", err, nil)
		return nil
	})
}

func purgeLimited(t *testing.T, b Backend) {
	addAccounts(t, b.Store, 1)
	write(t, b.Store, func(ctx context.Context, tx auth.Tx) error {
		if err := openSession(ctx, tx, 1, 1); err != nil {
			return err
		}
		for n := range 7 {
			if err := tx.AddRefreshToken(ctx, auth.RefreshToken{Digest: digest(n), SessionID: sessionID(1), ExpiresAt: epoch}); err != nil {
				return err
			}
		}
		return nil
	})
	bound := epoch.Add(time.Hour)
	for _, wanted := range []int{3, 3, 2, 0} { // seven tokens, then their session
		equal(t, "removed", purge(t, b, bound, bound, 3), wanted)
	}
}
