package api_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/services/auth/internal/auth"
)

func TestASignUpMakesAnAccountAndItsProfile(t *testing.T) {
	t.Parallel()
	s := start(t)
	a := s.member(1)
	if a.GetRole() != authv1.Role_ROLE_MEMBER || a.GetState() != authv1.AccountState_ACCOUNT_STATE_ACTIVE ||
		a.GetEmail() != "user1@example.com" || a.GetEtag() == "" || a.GetCreatedAt() == nil || a.GetUpdatedAt() == nil {
		t.Errorf("got %v", a)
	}
	if u := s.users.Users()[a.GetUserId()]; u.GetEmail() != "User1@example.com" || u.GetDisplayName() != "User 1" {
		t.Errorf("profile %v", u)
	}
	if again := s.member(1); !proto.Equal(again, a) {
		t.Errorf("the repetition answers %v, not %v", again, a)
	}
}

func TestASignUpThatIsRefused(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.member(1)
	s.users.Add(&usersv1.User{UserId: imported, Email: "imported@example.com"})
	for _, row := range []struct {
		name   string
		change func(*authv1.SignUpRequest)
		code   codes.Code
		reason string
	}{
		{"an email of another account", func(r *authv1.SignUpRequest) { r.Email = "USER1@EXAMPLE.COM" }, codes.AlreadyExists, "EMAIL_TAKEN"},
		{"an email of an imported user", func(r *authv1.SignUpRequest) { r.Email = "Imported@example.com" }, codes.AlreadyExists, "EMAIL_TAKEN"},
		{"a request id of another sign-up", func(r *authv1.SignUpRequest) { r.RequestId = signUp(1).RequestId }, codes.FailedPrecondition, "REQUEST_ID_REUSED"},
		{"a code that is wrong", func(r *authv1.SignUpRequest) { r.AdminCode = "AAAA-BBBB" }, codes.PermissionDenied, "ADMIN_CODE_INVALID"},
	} {
		t.Run(row.name, func(t *testing.T) {
			req := signUp(2)
			row.change(req)
			_, err := s.sessions().SignUp(t.Context(), req)
			if f := kittest.WantFault(t, err, row.code, row.reason); f.Domain() != "auth.v1" || len(f.Metadata()) != 0 {
				t.Errorf("%s of %s with %v", f.Reason(), f.Domain(), f.Metadata())
			}
		})
	}
	for _, row := range []struct {
		name   string
		change func(*authv1.SignUpRequest)
		field  string
	}{
		{"no email", func(r *authv1.SignUpRequest) { r.Email = "no email" }, "email"},
		{"a short password", func(r *authv1.SignUpRequest) { r.Password = "short" }, "password"},
		{"no name", func(r *authv1.SignUpRequest) { r.DisplayName = "" }, "display_name"},
		{"no request id", func(r *authv1.SignUpRequest) { r.RequestId = "" }, "request_id"},
		{"a long code", func(r *authv1.SignUpRequest) { r.AdminCode = strings.Repeat("A", 65) }, "admin_code"},
	} {
		t.Run(row.name, func(t *testing.T) {
			req := signUp(2)
			row.change(req)
			_, err := s.sessions().SignUp(t.Context(), req)
			kittest.WantViolations(t, kittest.WantFault(t, err, codes.InvalidArgument, "INVALID_REQUEST"), row.field)
		})
	}
}

func TestASignUpWithoutUsersIsFinishedByItsRepetition(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.users.Down(true)
	_, err := s.sessions().SignUp(t.Context(), signUp(1))
	f := kittest.WantFault(t, err, codes.Unavailable, "UPSTREAM_UNAVAILABLE")
	if f.Domain() != "policy.v1" || f.Metadata()["upstream"] != "users" {
		t.Errorf("%s with %v", f.Domain(), f.Metadata())
	}
	other := signUp(2)
	other.Email = signUp(1).Email
	_, err = s.sessions().SignUp(t.Context(), other)
	if f := kittest.WantFault(t, err, codes.Aborted, "SIGN_UP_IN_PROGRESS"); f.RetryAfter() <= 0 {
		t.Error("it does not say when to come back")
	}
	_, err = s.sessions().SignIn(t.Context(), &authv1.SignInRequest{Email: signUp(1).Email, Password: secret})
	kittest.WantFault(t, err, codes.Unauthenticated, "INVALID_CREDENTIALS")

	s.users.Down(false)
	s.member(1)
	s.signIn(1)
}

func TestTheCodeMakesAnAdministrator(t *testing.T) {
	t.Parallel()
	s := start(t)
	if a := s.admin(1); a.GetRole() != authv1.Role_ROLE_ADMIN {
		t.Errorf("got %v", a)
	}
}

// claims reads an access token and verifies it with the published key.
func (s *service) claims(access string) map[string]any {
	s.t.Helper()
	jwks, err := authv1.NewKeyServiceClient(s.Anonymous()).GetJwks(s.t.Context(), &authv1.GetJwksRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	key := jwks.GetKeys()[0]
	x, err := base64.RawURLEncoding.DecodeString(key.GetX())
	if err != nil {
		s.t.Fatal(err)
	}
	parts := strings.Split(access, ".")
	var raw [3][]byte
	for i := range parts {
		if raw[i], err = base64.RawURLEncoding.DecodeString(parts[i]); err != nil {
			s.t.Fatal(err)
		}
	}
	if !ed25519.Verify(x, []byte(parts[0]+"."+parts[1]), raw[2]) {
		s.t.Error("the published key does not verify the token")
	}
	header, claims := make(map[string]any), make(map[string]any)
	for part, into := range map[int]any{0: &header, 1: &claims} {
		if err := json.Unmarshal(raw[part], into); err != nil {
			s.t.Fatal(err)
		}
	}
	if header["kid"] != key.GetKid() || header["alg"] != "EdDSA" {
		s.t.Errorf("header %v, key %v", header, key)
	}
	return claims
}

func TestAnAccessTokenSaysWhoMayDoWhat(t *testing.T) {
	t.Parallel()
	member := []string{"account.write", "auth.read", "users.read", "users.write", "payments.read", "payments.write"}
	for _, row := range []struct {
		name   string
		sign   func(*service) *authv1.Account
		scopes []string
	}{
		{"a member", func(s *service) *authv1.Account { return s.member(1) }, member},
		{"an administrator", func(s *service) *authv1.Account { return s.admin(1) },
			append(slices.Clone(member), "auth.admin", "users.admin", "payments.admin")},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			a := row.sign(s)
			tokens := s.signIn(1)
			c := s.claims(tokens.GetAccessToken())
			if c["sub"] != a.GetUserId() || c["sid"] != tokens.GetSessionId() || c["iss"] != kittest.Issuer || c["scope"] != strings.Join(row.scopes, " ") {
				t.Errorf("claims %v", c)
			}
			end := s.clock.Now().Add(10 * time.Minute).Truncate(time.Second)
			if c["exp"] != float64(end.Unix()) || !tokens.GetAccessTokenExpiresAt().AsTime().Equal(end) {
				t.Errorf("it ends at %v, %v, want %v", c["exp"], tokens.GetAccessTokenExpiresAt().AsTime(), end)
			}
		})
	}
}

func TestThePublishedKeyIsNamedByItsThumbprint(t *testing.T) {
	t.Parallel()
	s := start(t)
	jwks, err := authv1.NewKeyServiceClient(s.Anonymous()).GetJwks(t.Context(), &authv1.GetJwksRequest{})
	if err != nil || len(jwks.GetKeys()) != 1 {
		t.Fatalf("got %v, %v", jwks, err)
	}
	key := jwks.GetKeys()[0]
	sum := sha256.Sum256(fmt.Appendf(nil, `{"crv":%q,"kty":%q,"x":%q}`, key.GetCrv(), key.GetKty(), key.GetX()))
	want := &authv1.Jwk{Kty: "OKP", Crv: "Ed25519", X: s.key.X(), Kid: base64.RawURLEncoding.EncodeToString(sum[:]), Alg: "EdDSA", Use: "sig"}
	if !proto.Equal(key, want) {
		t.Errorf("got %v, want %v", key, want)
	}
}

// answer returns all that a refusal says, but for the id of the request.
func answer(t *testing.T, err error) *spb.Status {
	t.Helper()
	st := proto.CloneOf(status.Convert(err).Proto())
	st.Details = slices.DeleteFunc(st.Details, func(d *anypb.Any) bool { return d.MessageIs((*errdetails.RequestInfo)(nil)) })
	if len(st.Details) == 0 {
		t.Errorf("a refusal without details: %v", st)
	}
	return st
}

func TestAnUnknownEmailAndAWrongPasswordHaveTheSameAnswer(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.member(1)
	var refusals []*spb.Status
	var validations []*authv1.ValidateUserResponse
	for _, email := range []string{signUp(1).Email, "nobody@example.com"} {
		_, err := s.sessions().SignIn(t.Context(), &authv1.SignInRequest{Email: email, Password: "wrong"})
		kittest.WantFault(t, err, codes.Unauthenticated, "INVALID_CREDENTIALS")
		refusals = append(refusals, answer(t, err))
		v, err := s.asService().ValidateUser(t.Context(), &authv1.ValidateUserRequest{Username: email, Password: "wrong"})
		if err != nil {
			t.Fatal(err)
		}
		validations = append(validations, v)
	}
	if !proto.Equal(refusals[0], refusals[1]) {
		t.Errorf("%v\n%v", refusals[0], refusals[1])
	}
	if !proto.Equal(validations[0], validations[1]) || validations[0].GetIsValid() || validations[0].GetMessage() == "" {
		t.Errorf("%v\n%v", validations[0], validations[1])
	}
}

func TestASessionIsRefreshedAndEnds(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.member(1)
	refresh := func(token string) (*authv1.SessionTokens, error) {
		resp, err := s.sessions().RefreshSession(t.Context(), &authv1.RefreshSessionRequest{RefreshToken: token})
		return resp.GetTokens(), err
	}
	first := s.signIn(1)
	second, err := refresh(first.GetRefreshToken())
	if err != nil {
		t.Fatal(err)
	}
	if second.GetSessionId() != first.GetSessionId() || second.GetRefreshTokenExpiresAt().AsTime().Sub(s.clock.Now()) < 30*24*time.Hour-time.Second {
		t.Errorf("got %v", second)
	}
	_, err = refresh(first.GetRefreshToken())
	kittest.WantFault(t, err, codes.Unauthenticated, "REFRESH_TOKEN_REUSED")
	_, err = refresh(second.GetRefreshToken())
	kittest.WantFault(t, err, codes.Unauthenticated, "REFRESH_TOKEN_INVALID")

	third := s.signIn(1)
	for range 2 {
		if _, err := s.sessions().SignOut(t.Context(), &authv1.SignOutRequest{RefreshToken: third.GetRefreshToken()}); err != nil {
			t.Fatal(err)
		}
	}
	_, err = refresh(third.GetRefreshToken())
	kittest.WantFault(t, err, codes.Unauthenticated, "REFRESH_TOKEN_INVALID")
}

func TestAPasswordIsChangedByItsOwnerWhoseSessionStays(t *testing.T) {
	t.Parallel()
	s := start(t)
	a, other := s.member(1), s.member(2)
	mine, another := s.signIn(1), s.signIn(1)
	c := authv1.NewSessionServiceClient(s.WithToken(mine.GetAccessToken()))
	change := &authv1.ChangePasswordRequest{
		UserId: a.GetUserId(), CurrentPassword: secret, NewPassword: "another password", RequestId: signUp(9).RequestId,
	}
	for range 2 {
		if _, err := c.ChangePassword(t.Context(), change); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.RefreshSession(t.Context(), &authv1.RefreshSessionRequest{RefreshToken: mine.GetRefreshToken()}); err != nil {
		t.Errorf("the session that changed it: %v", err)
	}
	_, err := c.RefreshSession(t.Context(), &authv1.RefreshSessionRequest{RefreshToken: another.GetRefreshToken()})
	kittest.WantFault(t, err, codes.Unauthenticated, "REFRESH_TOKEN_INVALID")

	wrong := proto.CloneOf(change)
	wrong.RequestId = signUp(10).RequestId
	_, err = c.ChangePassword(t.Context(), wrong)
	kittest.WantFault(t, err, codes.Unauthenticated, "INVALID_CREDENTIALS")
	wrong.UserId = other.GetUserId()
	_, err = c.ChangePassword(t.Context(), wrong)
	kittest.WantFault(t, err, codes.PermissionDenied, "NOT_SELF")
	_, err = s.sessions().ChangePassword(t.Context(), change)
	kittest.WantFault(t, err, codes.Unauthenticated, "CREDENTIALS_MISSING")
	unknown := proto.CloneOf(change)
	unknown.UserId = nobody
	_, err = authv1.NewSessionServiceClient(s.As(nobody, "account.write")).ChangePassword(t.Context(), unknown)
	if f := kittest.WantFault(t, err, codes.NotFound, "USER_NOT_FOUND"); f.Metadata()["user_id"] != nobody {
		t.Errorf("metadata %v", f.Metadata())
	}
	s.clock.Advance(auth.AccessTokenLifetime)
	_, err = c.ChangePassword(t.Context(), change)
	kittest.WantFault(t, err, codes.Unauthenticated, "TOKEN_EXPIRED")
}
