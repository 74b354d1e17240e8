package api_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
)

// Everything secret that a call carries, in requests that are granted and in ones that are refused, stays out of the
// log and out of the errors.
func TestNothingSecretIsLoggedOrAnswered(t *testing.T) {
	t.Parallel()
	const canary = "canary-kV7q2-password"
	s := start(t)
	code, err := s.auth.RenewAdminCode(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{canary, code, strings.ReplaceAll(code, "-", "")}
	var errs []error
	note := func(err error) { errs = append(errs, err) }
	keep := func(tokens *authv1.SessionTokens) {
		secrets = append(secrets, tokens.GetAccessToken(), tokens.GetRefreshToken())
	}

	up := signUp(1)
	up.Password, up.AdminCode = canary, code
	s.users.Down(true)
	_, err = s.sessions().SignUp(t.Context(), up)
	note(err)
	s.users.Down(false)
	made, err := s.sessions().SignUp(t.Context(), up)
	if err != nil {
		t.Fatal(err)
	}
	again := proto.CloneOf(up)
	again.Password += "-other"
	_, err = s.sessions().SignUp(t.Context(), again)
	note(err)
	again.RequestId, again.Email = signUp(2).RequestId, signUp(2).Email
	_, err = s.sessions().SignUp(t.Context(), again) // the code is used up
	note(err)
	again.DisplayName = ""
	_, err = s.sessions().SignUp(t.Context(), again) // a violation
	note(err)

	in, err := s.sessions().SignIn(t.Context(), &authv1.SignInRequest{Email: up.Email, Password: canary})
	if err != nil {
		t.Fatal(err)
	}
	keep(in.GetTokens())
	_, err = s.sessions().SignIn(t.Context(), &authv1.SignInRequest{Email: up.Email, Password: canary + "-wrong"})
	note(err)
	_, err = s.asService().ValidateUser(t.Context(), &authv1.ValidateUserRequest{Username: up.Email, Password: canary})
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := s.sessions().RefreshSession(t.Context(), &authv1.RefreshSessionRequest{RefreshToken: in.GetTokens().GetRefreshToken()})
	if err != nil {
		t.Fatal(err)
	}
	keep(fresh.GetTokens())
	mine := authv1.NewSessionServiceClient(s.WithToken(in.GetTokens().GetAccessToken()))
	change := &authv1.ChangePasswordRequest{
		UserId: made.GetAccount().GetUserId(), CurrentPassword: canary + "-wrong", NewPassword: canary + "-new", RequestId: signUp(3).RequestId,
	}
	_, err = mine.ChangePassword(t.Context(), change)
	note(err)
	change.CurrentPassword = canary
	if _, err := mine.ChangePassword(t.Context(), change); err != nil {
		t.Fatal(err)
	}
	_, err = s.sessions().RefreshSession(t.Context(), &authv1.RefreshSessionRequest{RefreshToken: in.GetTokens().GetRefreshToken()})
	note(err)
	if _, err := s.sessions().SignOut(t.Context(), &authv1.SignOutRequest{RefreshToken: fresh.GetTokens().GetRefreshToken()}); err != nil {
		t.Fatal(err)
	}

	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	logged := s.Log.String() + s.users.Log.String()
	if !strings.Contains(logged, "/auth.v1.SessionService/ChangePassword") || !strings.Contains(logged, "/users.v1.UserService/CreateUser") {
		t.Fatalf("the log is not that of the calls: %s", logged)
	}
	for _, secret := range secrets {
		if secret == "" {
			t.Fatal("a secret is empty")
		}
		if strings.Contains(logged, secret) {
			t.Errorf("%q is in the log", secret)
		}
		for _, err := range errs {
			if err == nil {
				t.Fatal("a call that was to be refused was not")
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%q is in the error %v", secret, err)
			}
		}
	}
}
