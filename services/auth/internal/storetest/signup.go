package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/services/auth/internal/auth"
)

func signUpFound(t *testing.T, b Backend) {
	addAccounts(t, b.Store, 1)
	write(t, b.Store, func(ctx context.Context, tx auth.Tx) error {
		_, err := tx.SignUp(ctx, requestID(1))
		want(t, "before", err, auth.ErrNoRecord)
		want(t, "update before", tx.UpdateSignUp(ctx, signUp(1)), auth.ErrNoRecord)
		return tx.AddSignUp(ctx, signUp(1))
	})
	find := func(wanted auth.SignUp) {
		t.Helper()
		read(t, b.Store, func(ctx context.Context, v auth.View) error {
			got, err := v.SignUp(ctx, requestID(1))
			equal(t, "sign-up", got, wanted)
			return err
		})
	}
	find(signUp(1))
	wanted := signUp(1)
	wanted.AdminCode, wanted.FinishedAt = digest(9), epoch.Add(time.Hour)
	write(t, b.Store, func(ctx context.Context, tx auth.Tx) error {
		update := wanted
		update.Email, update.DisplayName, update.PasswordHash, update.BeganAt = "x", "x", "x", epoch // what cannot change
		return tx.UpdateSignUp(ctx, update)
	})
	find(wanted)
}

func signUpOnce(t *testing.T, b Backend) {
	addAccounts(t, b.Store, 1, 2, 3)
	withCode := func(n int) auth.SignUp {
		s := signUp(n)
		s.AdminCode = digest(9)
		return s
	}
	write(t, b.Store, func(ctx context.Context, tx auth.Tx) error {
		want(t, "the first", tx.AddSignUp(ctx, withCode(1)), nil)
		same := signUp(2)
		same.RequestID = requestID(1)
		want(t, "the same request id", tx.AddSignUp(ctx, same), auth.ErrRequestIDTaken)
		want(t, "the same code", tx.AddSignUp(ctx, withCode(2)), auth.ErrAdminCodeTaken)
		want(t, "no code", tx.AddSignUp(ctx, signUp(2)), nil)
		want(t, "no code either", tx.AddSignUp(ctx, signUp(3)), nil)
		want(t, "the same code later", tx.UpdateSignUp(ctx, withCode(2)), auth.ErrAdminCodeTaken)
		want(t, "its own code again", tx.UpdateSignUp(ctx, withCode(1)), nil)
		finished := withCode(1)
		finished.FinishedAt = epoch.Add(time.Hour)
		want(t, "finish the first", tx.UpdateSignUp(ctx, finished), nil)
		want(t, "the code of one that is finished", tx.UpdateSignUp(ctx, withCode(2)), nil)
		return nil
	})
	read(t, b.Store, func(ctx context.Context, v auth.View) error {
		got, err := v.SignUp(ctx, requestID(2))
		equal(t, "the second", got, withCode(2))
		return err
	})
}

func signUpsListed(t *testing.T, b Backend) {
	addAccounts(t, b.Store, 1, 2, 3, 4, 5, 6)
	write(t, b.Store, func(ctx context.Context, tx auth.Tx) error {
		for _, n := range []int{5, 3, 1, 4, 2, 6} {
			s := signUp(n)
			if n == 2 {
				s.FinishedAt = epoch
			}
			if err := tx.AddSignUp(ctx, s); err != nil {
				return err
			}
		}
		return nil
	})
	// The sixth was begun at the bound itself, the second is finished.
	var got []auth.UserID
	read(t, b.Store, func(ctx context.Context, v auth.View) error {
		var behind auth.UserID
		for {
			page, err := v.UnfinishedSignUps(ctx, signUp(6).BeganAt, behind, 3)
			if err != nil || len(page) == 0 {
				return err
			}
			for _, s := range page {
				got = append(got, s.UserID)
			}
			behind = got[len(got)-1]
		}
	})
	wanted := []auth.UserID{userID(1), userID(3), userID(4), userID(5)}
	if len(got) != len(wanted) {
		t.Fatalf("got %v, want %v", got, wanted)
	}
	for i := range wanted {
		equal(t, "sign-up", got[i], wanted[i])
	}
}

func adminCode(t *testing.T, b Backend) {
	write(t, b.Store, func(ctx context.Context, tx auth.Tx) error {
		_, err := tx.AdminCode(ctx)
		want(t, "before", err, auth.ErrNoRecord)
		want(t, "remove what is not there", tx.SetAdminCode(ctx, auth.Digest{}), nil)
		for n := 1; n <= 2; n++ {
			want(t, "set", tx.SetAdminCode(ctx, digest(n)), nil)
			got, err := tx.AdminCode(ctx)
			want(t, "get", err, nil)
			equal(t, "code", got, digest(n))
		}
		want(t, "remove", tx.SetAdminCode(ctx, auth.Digest{}), nil)
		_, err = tx.AdminCode(ctx)
		want(t, "after", err, auth.ErrNoRecord)
		return nil
	})
}
