package api_test

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/kittest"
)

// changes are the four calls of an administrator, in one form.
var changes = map[string]func(context.Context, authv1.AdminServiceClient, string, string) (*authv1.Account, error){
	"lock": func(ctx context.Context, c authv1.AdminServiceClient, user, etag string) (*authv1.Account, error) {
		resp, err := c.LockUser(ctx, &authv1.LockUserRequest{UserId: user, Etag: etag})
		return resp.GetAccount(), err
	},
	"unlock": func(ctx context.Context, c authv1.AdminServiceClient, user, etag string) (*authv1.Account, error) {
		resp, err := c.UnlockUser(ctx, &authv1.UnlockUserRequest{UserId: user, Etag: etag})
		return resp.GetAccount(), err
	},
	"deactivate": func(ctx context.Context, c authv1.AdminServiceClient, user, etag string) (*authv1.Account, error) {
		resp, err := c.DeactivateUser(ctx, &authv1.DeactivateUserRequest{UserId: user, Etag: etag})
		return resp.GetAccount(), err
	},
	"reactivate": func(ctx context.Context, c authv1.AdminServiceClient, user, etag string) (*authv1.Account, error) {
		resp, err := c.ReactivateUser(ctx, &authv1.ReactivateUserRequest{UserId: user, Etag: etag})
		return resp.GetAccount(), err
	},
}

func TestAnAdministratorChangesTheAccountsOfOthers(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.admin(1)
	user := s.member(2)
	session := s.signIn(2)
	c := s.admins(1)
	for _, step := range []struct {
		change string
		state  authv1.AccountState
	}{
		{"lock", authv1.AccountState_ACCOUNT_STATE_LOCKED},
		{"unlock", authv1.AccountState_ACCOUNT_STATE_ACTIVE},
		{"deactivate", authv1.AccountState_ACCOUNT_STATE_DEACTIVATED},
		{"reactivate", authv1.AccountState_ACCOUNT_STATE_ACTIVE},
	} {
		a, err := changes[step.change](t.Context(), c, user.GetUserId(), user.GetEtag())
		if err != nil || a.GetState() != step.state || a.GetEtag() == user.GetEtag() || a.GetUserId() != user.GetUserId() {
			t.Fatalf("%s: got %v, %v", step.change, a, err)
		}
		user = a
	}
	_, err := s.sessions().RefreshSession(t.Context(), &authv1.RefreshSessionRequest{RefreshToken: session.GetRefreshToken()})
	kittest.WantFault(t, err, codes.Unauthenticated, "REFRESH_TOKEN_INVALID")
	s.signIn(2)
}

func TestALockedOrDeactivatedOwnerIsToldWhy(t *testing.T) {
	t.Parallel()
	for change, reason := range map[string]string{"lock": "ACCOUNT_LOCKED", "deactivate": "ACCOUNT_DEACTIVATED"} {
		t.Run(change, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			s.admin(1)
			user := s.member(2)
			session := s.signIn(2)
			if _, err := changes[change](t.Context(), s.admins(1), user.GetUserId(), ""); err != nil {
				t.Fatal(err)
			}
			_, err := s.sessions().SignIn(t.Context(), &authv1.SignInRequest{Email: signUp(2).Email, Password: secret})
			kittest.WantFault(t, err, codes.PermissionDenied, reason)
			_, err = s.sessions().RefreshSession(t.Context(), &authv1.RefreshSessionRequest{RefreshToken: session.GetRefreshToken()})
			kittest.WantFault(t, err, codes.PermissionDenied, reason)
		})
	}
}

func TestAChangeThatIsRefused(t *testing.T) {
	t.Parallel()
	s := start(t)
	admin, user := s.admin(1), s.member(2)
	c := s.admins(1)
	for change, call := range changes {
		_, err := call(t.Context(), c, nobody, "")
		if f := kittest.WantFault(t, err, codes.NotFound, "USER_NOT_FOUND"); f.Metadata()["user_id"] != nobody {
			t.Errorf("%s: metadata %v", change, f.Metadata())
		}
		_, err = call(t.Context(), authv1.NewAdminServiceClient(s.WithToken(s.signIn(2).GetAccessToken())), user.GetUserId(), "")
		kittest.WantFault(t, err, codes.PermissionDenied, "SCOPE_MISSING")
		_, err = call(t.Context(), authv1.NewAdminServiceClient(s.Anonymous()), user.GetUserId(), "")
		kittest.WantFault(t, err, codes.Unauthenticated, "CREDENTIALS_MISSING")
		_, err = call(t.Context(), c, "no id", "")
		kittest.WantViolations(t, kittest.WantFault(t, err, codes.InvalidArgument, "INVALID_REQUEST"), "user_id")
	}
	for _, change := range []string{"lock", "deactivate"} {
		_, err := changes[change](t.Context(), c, admin.GetUserId(), "")
		kittest.WantFault(t, err, codes.FailedPrecondition, "LAST_ADMIN")
		_, err = changes[change](t.Context(), c, user.GetUserId(), "another")
		kittest.WantFault(t, err, codes.Aborted, "ETAG_MISMATCH")
	}
	if _, err := changes["deactivate"](t.Context(), c, user.GetUserId(), ""); err != nil {
		t.Fatal(err)
	}
	for _, change := range []string{"lock", "unlock"} {
		_, err := changes[change](t.Context(), c, user.GetUserId(), "")
		if f := kittest.WantFault(t, err, codes.FailedPrecondition, "STATE_CONFLICT"); f.Metadata()["state"] != "DEACTIVATED" {
			t.Errorf("%s: metadata %v", change, f.Metadata())
		}
	}
}

func TestAnImportedUserIsAdoptedByAChange(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.admin(1)
	s.users.Add(&usersv1.User{UserId: imported, Email: "imported@example.com"})
	a, err := changes["lock"](t.Context(), s.admins(1), imported, "")
	if err != nil || a.GetState() != authv1.AccountState_ACCOUNT_STATE_LOCKED || a.GetEmail() != "" {
		t.Errorf("got %v, %v", a, err)
	}
}
