package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/services/auth/internal/auth"
)

func accountFound(t *testing.T, b Backend) {
	addAccounts(t, b.Store, 1, 2)
	read(t, b.Store, func(ctx context.Context, v auth.View) error {
		for n := 1; n <= 2; n++ {
			byID, err := v.Account(ctx, userID(n))
			want(t, "by id", err, nil)
			equal(t, "by id", byID, account(n))
			byEmail, err := v.AccountByEmail(ctx, account(n).Email)
			want(t, "by email", err, nil)
			equal(t, "by email", byEmail, account(n))
		}
		return nil
	})
}

func accountWithoutEmail(t *testing.T, b Backend) {
	write(t, b.Store, func(ctx context.Context, tx auth.Tx) error {
		for n := 1; n <= 2; n++ {
			a := account(n)
			a.Email, a.PasswordHash = "", ""
			if err := tx.AddAccount(ctx, a); err != nil {
				return err
			}
		}
		return nil
	})
	read(t, b.Store, func(ctx context.Context, v auth.View) error {
		for n := 1; n <= 2; n++ {
			a, err := v.Account(ctx, userID(n))
			want(t, "by id", err, nil)
			equal(t, "email", a.Email, "")
		}
		_, err := v.AccountByEmail(ctx, "")
		want(t, "by no email", err, auth.ErrNoRecord)
		return nil
	})
}

func accountUnknown(t *testing.T, b Backend) {
	write(t, b.Store, func(ctx context.Context, tx auth.Tx) error {
		_, err := tx.Account(ctx, userID(1))
		want(t, "by id", err, auth.ErrNoRecord)
		_, err = tx.AccountByEmail(ctx, account(1).Email)
		want(t, "by email", err, auth.ErrNoRecord)
		want(t, "update", tx.UpdateAccount(ctx, account(1)), auth.ErrNoRecord)
		want(t, "remove", tx.RemoveAccount(ctx, userID(1)), auth.ErrNoRecord)
		return nil
	})
}

func accountOnce(t *testing.T, b Backend) {
	addAccounts(t, b.Store, 1)
	write(t, b.Store, func(ctx context.Context, tx auth.Tx) error {
		same := account(1)
		want(t, "both are taken", tx.AddAccount(ctx, same), auth.ErrUserIDTaken)
		same.Email = account(2).Email
		want(t, "the id is taken", tx.AddAccount(ctx, same), auth.ErrUserIDTaken)
		same = account(2)
		same.Email = account(1).Email
		want(t, "the email is taken", tx.AddAccount(ctx, same), auth.ErrEmailTaken)
		return tx.AddAccount(ctx, account(3))
	})
	got, err := findAccount(t, b.Store, 1)
	want(t, "the first account", err, nil)
	equal(t, "the first account", got, account(1))
	_, err = findAccount(t, b.Store, 2)
	want(t, "the refused account", err, auth.ErrNoRecord)
	_, err = findAccount(t, b.Store, 3)
	want(t, "what came after the refusals", err, nil)
}

func emailOnceAtOnce(t *testing.T, b Backend) {
	var added atomic.Int32
	var wg sync.WaitGroup
	for n := range 100 {
		wg.Go(func() {
			a := account(n)
			a.Email = "one@example.com"
			err := b.Store.Write(t.Context(), func(tx auth.Tx) error { return tx.AddAccount(t.Context(), a) })
			switch {
			case err == nil:
				added.Add(1)
			case !errors.Is(err, auth.ErrEmailTaken):
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
	equal(t, "accounts", added.Load(), 1)
}

func accountUpdated(t *testing.T, b Backend) {
	addAccounts(t, b.Store, 1, 2)
	wanted := account(1)
	wanted.PasswordHash, wanted.Role, wanted.State, wanted.Version = "other", auth.RoleAdmin, auth.StateDeactivated, 9
	wanted.UpdatedAt, wanted.Profile, wanted.ProfileAt = epoch.Add(time.Hour), auth.ProfileDeleted, epoch.Add(time.Minute)
	write(t, b.Store, func(ctx context.Context, tx auth.Tx) error {
		update := wanted
		update.Email, update.CreatedAt = "other@example.com", epoch.Add(time.Hour) // what cannot change
		return tx.UpdateAccount(ctx, update)
	})
	got, err := findAccount(t, b.Store, 1)
	want(t, "find", err, nil)
	equal(t, "the updated account", got, wanted)
	got, err = findAccount(t, b.Store, 2)
	want(t, "find", err, nil)
	equal(t, "the other account", got, account(2))
}

func emailReplaced(t *testing.T, b Backend) {
	addAccounts(t, b.Store, 1, 2, 3)
	write(t, b.Store, func(ctx context.Context, tx auth.Tx) error {
		want(t, "another's", tx.SetEmail(ctx, userID(1), account(2).Email), auth.ErrEmailTaken)
		want(t, "the own", tx.SetEmail(ctx, userID(2), account(2).Email), nil)
		want(t, "of nobody", tx.SetEmail(ctx, userID(9), "nobody@example.com"), auth.ErrNoRecord)
		want(t, "none", errors.Join(tx.SetEmail(ctx, userID(2), ""), tx.SetEmail(ctx, userID(3), "")), nil)
		return tx.SetEmail(ctx, userID(1), account(2).Email)
	})
	read(t, b.Store, func(ctx context.Context, v auth.View) error {
		got, err := v.AccountByEmail(ctx, account(2).Email)
		wanted := account(1)
		wanted.Email = account(2).Email
		equal(t, "who has the email", got, wanted)
		_, gone := v.AccountByEmail(ctx, account(1).Email)
		want(t, "by the email before", gone, auth.ErrNoRecord)
		return err
	})
}

func accountsListed(t *testing.T, b Backend) {
	addAccounts(t, b.Store, 3, 1, 2)
	read(t, b.Store, func(ctx context.Context, v auth.View) error {
		var all []auth.UserID
		for behind := auth.UserID(""); ; {
			page, err := v.Accounts(ctx, behind, 2)
			if err != nil || len(page) == 0 {
				equal(t, "accounts", fmt.Sprint(all), fmt.Sprint([]auth.UserID{userID(1), userID(2), userID(3)}))
				return err
			}
			all = append(all, page...)
			behind = page[len(page)-1]
		}
	})
}

func adminsCounted(t *testing.T, b Backend) {
	write(t, b.Store, func(ctx context.Context, tx auth.Tx) error {
		for n, kind := range []struct {
			role    auth.Role
			state   auth.State
			profile auth.ProfileState
		}{
			{auth.RoleMember, auth.StateActive, auth.ProfileActive}, {auth.RoleAdmin, auth.StateActive, auth.ProfileActive},
			{auth.RoleAdmin, auth.StateActive, auth.ProfileActive}, {auth.RoleAdmin, auth.StateLocked, auth.ProfileActive},
			{auth.RoleAdmin, auth.StateDeactivated, auth.ProfileActive}, {auth.RoleAdmin, auth.StateActive, auth.ProfileDisabled},
		} {
			all, active, err := tx.Admins(ctx)
			want(t, "count", err, nil)
			equal(t, fmt.Sprintf("counts before account %d", n), [2]int{all, active}, [2]int{max(n-1, 0), min(max(n-1, 0), 2)})
			a := account(n)
			a.Role, a.State, a.Profile = kind.role, kind.state, kind.profile
			if err := tx.AddAccount(ctx, a); err != nil {
				return err
			}
		}
		all, active, err := tx.Admins(ctx)
		equal(t, "counts", [2]int{all, active}, [2]int{5, 2})
		return err
	})
}

func accountRemoved(t *testing.T, b Backend) {
	write(t, b.Store, func(ctx context.Context, tx auth.Tx) error {
		if err := change(ctx, tx); err != nil {
			return err
		}
		return tx.AddAccount(ctx, account(2))
	})
	write(t, b.Store, func(ctx context.Context, tx auth.Tx) error {
		if err := tx.RemoveAccount(ctx, userID(1)); err != nil {
			return err
		}
		_, err := tx.Account(ctx, userID(1))
		want(t, "account", err, auth.ErrNoRecord)
		_, err = tx.SignUp(ctx, requestID(1))
		want(t, "sign-up", err, auth.ErrNoRecord)
		_, err = tx.Session(ctx, sessionID(1))
		want(t, "session", err, auth.ErrNoRecord)
		_, err = tx.RefreshToken(ctx, digest(1))
		want(t, "refresh token", err, auth.ErrNoRecord)
		_, err = tx.Account(ctx, userID(2))
		want(t, "the other account", err, nil)
		want(t, "the email is free again", tx.AddAccount(ctx, account(1)), nil)
		want(t, "the request id is free again", tx.AddSignUp(ctx, signUp(1)), nil)
		return nil
	})
}

func passwordChangeOnce(t *testing.T, b Backend) {
	addAccounts(t, b.Store, 1, 2)
	first := auth.PasswordChange{UserID: userID(1), RequestID: requestID(1), PasswordHash: "first", At: epoch}
	write(t, b.Store, func(ctx context.Context, tx auth.Tx) error {
		_, err := tx.PasswordChange(ctx, userID(1), requestID(1))
		want(t, "before", err, auth.ErrNoRecord)
		want(t, "add", tx.AddPasswordChange(ctx, first), nil)
		again := first
		again.PasswordHash = "second"
		want(t, "add again", tx.AddPasswordChange(ctx, again), auth.ErrRequestIDTaken)
		again.UserID = userID(2)
		want(t, "add for another user", tx.AddPasswordChange(ctx, again), nil)
		return nil
	})
	read(t, b.Store, func(ctx context.Context, v auth.View) error {
		got, err := v.PasswordChange(ctx, userID(1), requestID(1))
		equal(t, "the first change", got, first)
		return err
	})
}
