package main_test

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/kittest"
)

// until waits for what comes true by itself, soon.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(soon); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func TestWhatUsersDecidesOfAProfileHoldsInEveryService(t *testing.T) {
	t.Parallel()
	s := run(t, t.TempDir())
	root, ada := at(t, s.grpc), at(t, s.grpc)
	root.signUp(t, "root@example.com", request1, s.find(`"admin_code": "([^"]+)"`)[1])
	root.signIn(t, "root@example.com")
	ada.signUp(t, "ada@example.com", request2, "")
	ada.signIn(t, "ada@example.com")
	session := ada.session(t, "ada@example.com")
	session.wantGood(t, "before")

	_, err := root.users.UpdateUser(root.ctx, &usersv1.UpdateUserRequest{
		User: &usersv1.User{UserId: ada.id, Email: "Lovelace@example.com"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"email"}}, RequestId: request1,
	})
	if err != nil {
		t.Fatal(err)
	}
	signIn := func(email string) error {
		_, err := at(t, s.grpc).sessions.SignIn(within(t), &authv1.SignInRequest{Email: email, Password: password})
		return err
	}
	until(t, "a sign-in with the new email", func() bool { return signIn("lovelace@example.com") == nil })
	kittest.WantFault(t, signIn("ada@example.com"), codes.Unauthenticated, "INVALID_CREDENTIALS")
	session.wantGood(t, "with another email")

	if _, err := root.users.DisableUser(root.ctx, &usersv1.DisableUserRequest{UserId: ada.id, RequestId: request2}); err != nil {
		t.Fatal(err)
	}
	session.wantRevoked(t, "disabled")
	kittest.WantFault(t, signIn("lovelace@example.com"), codes.PermissionDenied, "ACCOUNT_DEACTIVATED")
	until(t, "no charge of a disabled customer", func() bool {
		_, err := root.payments.Charge(root.ctx, &paymentsv1.ChargeRequest{OrderId: "o", AmountCents: 50, Currency: "EUR", IdempotencyKey: "k1", CustomerId: ada.id})
		return err != nil
	})
	if _, err := root.users.EnableUser(root.ctx, &usersv1.EnableUserRequest{UserId: ada.id, RequestId: request3}); err != nil {
		t.Fatal(err)
	}
	until(t, "a sign-in of who is enabled", func() bool { return signIn("lovelace@example.com") == nil })

	if _, err := root.users.EraseUser(root.ctx, &usersv1.EraseUserRequest{UserId: ada.id, RequestId: request1[:35] + "2"}); err != nil {
		t.Fatal(err)
	}
	until(t, "no sign-in of who is erased", func() bool { return signIn("lovelace@example.com") != nil })
	kittest.WantFault(t, signIn("lovelace@example.com"), codes.Unauthenticated, "INVALID_CREDENTIALS")
	at(t, s.grpc).signUp(t, "lovelace@example.com", request3, "") // the email is free
}
