package app

import (
	"context"
	"crypto/ed25519"
	"errors"
	"testing"

	"google.golang.org/grpc"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/token"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// answers is a connection to auth that answers every call in one way.
type answers struct {
	grpc.ClientConnInterface
	user authv1.GetUserResponse
	keys []*authv1.Jwk
	err  error
}

func (a *answers) Invoke(_ context.Context, _ string, _, reply any, _ ...grpc.CallOption) error {
	if a.err != nil {
		return a.err
	}
	switch r := reply.(type) {
	case *authv1.GetUserResponse:
		r.UserId, r.Active, r.Role = a.user.UserId, a.user.Active, a.user.Role
	case *authv1.GetJwksResponse:
		r.Keys = a.keys
	}
	return nil
}

func TestTheCustomerIsWhatAuthSays(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		active bool
		role   authv1.Role
		want   payments.Customer
	}{
		"an active member":          {true, authv1.Role_ROLE_MEMBER, payments.Customer{ID: ann, Active: true, Role: payments.RoleMember}},
		"an active administrator":   {true, authv1.Role_ROLE_ADMIN, payments.Customer{ID: ann, Active: true, Role: payments.RoleAdmin}},
		"one who is locked":         {false, authv1.Role_ROLE_MEMBER, payments.Customer{ID: ann, Role: payments.RoleMember}},
		"one with a role not known": {true, authv1.Role(99), payments.Customer{ID: ann, Active: true}},
	} {
		a := &answers{}
		a.user.UserId, a.user.Active, a.user.Role = ann, c.active, c.role
		got, err := source{authv1.NewAuthServiceClient(a)}.Get(t.Context(), ann)
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, c.want)
		}
	}
}

func TestWhatAuthAnswersInsteadOfACustomerIsTranslated(t *testing.T) {
	t.Parallel()
	const policy = "policy.v1"
	for name, c := range map[string]struct {
		err  error
		kind fault.Kind
		want *fault.Fault // nil where the caller is told nothing
	}{
		"there is no such user":         {fault.New(fault.NotFound, "USER_NOT_FOUND", "").WithDomain("auth.v1"), fault.NotFound, payments.ErrCustomerNotFound},
		"it cannot be reached":          {fault.New(fault.Unavailable, "UPSTREAM_UNAVAILABLE", "dial tcp 10.0.0.7").WithDomain(policy), fault.Unavailable, payments.ErrUpstreamUnavailable},
		"users cannot be reached by it": {fault.New(fault.Unavailable, "UPSTREAM_UNAVAILABLE", "").WithDomain(policy).With("upstream", "users"), fault.Unavailable, payments.ErrUpstreamUnavailable},
		"it is too slow":                {fault.New(fault.DeadlineExceeded, "DEADLINE_EXCEEDED", "").WithDomain(policy), fault.Unavailable, payments.ErrUpstreamUnavailable},
		"it hangs up":                   {fault.New(fault.Canceled, "CANCELED", "").WithDomain(policy), fault.Unavailable, payments.ErrUpstreamUnavailable},
		"it has too much to do":         {fault.New(fault.ResourceExhausted, "RATE_LIMITED", "").WithDomain(policy), fault.Unavailable, payments.ErrUpstreamUnavailable},
		"it refuses us":                 {fault.New(fault.PermissionDenied, "CALLER_REFUSED", "").WithDomain(policy), fault.Internal, nil},
		"it does not know the method":   {fault.New(fault.Unimplemented, "UNIMPLEMENTED", "").WithDomain(policy), fault.Internal, nil},
		"it is broken":                  {fault.New(fault.Internal, "INTERNAL", "").WithDomain(policy), fault.Internal, nil},
		"another NOT_FOUND":             {fault.New(fault.NotFound, "NOT_FOUND", "").WithDomain(policy), fault.Internal, nil},
	} {
		_, err := source{authv1.NewAuthServiceClient(&answers{err: c.err})}.Get(t.Context(), ann)
		f, ok := fault.As(err)
		if !ok || f.Kind() != c.kind {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if c.kind == fault.Unavailable && (f.Metadata()["upstream"] != "auth" || f.Text() != payments.ErrUpstreamUnavailable.Text()) {
			t.Errorf("%s: text %q, metadata %v", name, f.Text(), f.Metadata())
		}
		if c.kind == fault.NotFound && f.Metadata()["customer_id"] != ann {
			t.Errorf("%s: metadata %v", name, f.Metadata())
		}
	}
}

func TestACallerThatIsGoneIsNotTakenForAuthBeingDown(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := source{authv1.NewAuthServiceClient(&answers{err: fault.New(fault.Canceled, "CANCELED", "")})}.Get(ctx, ann)
	if !errors.Is(err, context.Canceled) || errors.Is(err, payments.ErrUpstreamUnavailable) {
		t.Errorf("got %v", err)
	}
}

func TestKeysTakesTheKeysThatItCanVerifyWith(t *testing.T) {
	t.Parallel()
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key := token.NewKey(public)
	good := &authv1.Jwk{Kty: "OKP", Crv: "Ed25519", Kid: key.ID, X: key.X(), Alg: "EdDSA", Use: "sig"}
	other := &authv1.Jwk{Kty: "RSA", Kid: "rsa"}
	got, err := keys(&answers{keys: []*authv1.Jwk{other, good}})(t.Context())
	if err != nil || len(got) != 1 || got[0].ID != key.ID || !got[0].Public.Equal(public) {
		t.Errorf("got %v, %v", got, err)
	}
	wrong := &authv1.Jwk{Kty: "OKP", Crv: "Ed25519", Kid: "another", X: key.X()}
	if got, err := keys(&answers{keys: []*authv1.Jwk{good, wrong}})(t.Context()); err == nil {
		t.Errorf("a key under another name was taken: %v", got)
	}
	if got, err := keys(&answers{err: payments.ErrUpstreamUnavailable})(t.Context()); !errors.Is(err, payments.ErrUpstreamUnavailable) {
		t.Errorf("got %v, %v", got, err)
	}
}
