package main_test

import (
	"context"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/grpcfault"
	"github.com/concordat-dev/concordat/kit/kittest"
)

// soon is how long a revocation may take here. It takes milliseconds; the rest is for a machine that has more to do.
const soon = 5 * time.Second

// session is one of the sessions of a person.
type session struct {
	*person
	refresh string
}

// session signs in once more.
func (p *person) session(t *testing.T, email string) *session {
	t.Helper()
	resp, err := p.sessions.SignIn(p.ctx, &authv1.SignInRequest{Email: email, Password: password})
	if err != nil {
		t.Fatalf("sign in %s: %v", email, err)
	}
	own := *p
	own.id = resp.GetAccount().GetUserId()
	own.ctx = metadata.AppendToOutgoingContext(within(t), "authorization", "Bearer "+resp.GetTokens().GetAccessToken())
	return &session{&own, resp.GetTokens().GetRefreshToken()}
}

func (s *session) signOut(t *testing.T) {
	t.Helper()
	if _, err := s.sessions.SignOut(within(t), &authv1.SignOutRequest{RefreshToken: s.refresh}); err != nil {
		t.Fatalf("sign out: %v", err)
	}
}

// tries are one call to each service with the token of the session.
func (s *session) tries() map[string]func() error {
	return map[string]func() error{
		"auth": func() error {
			ctx, cancel := context.WithCancel(s.ctx)
			defer cancel()
			events, err := s.auth.WatchUserEvents(ctx, &authv1.WatchUserEventsRequest{UserId: s.id})
			if err == nil {
				_, err = events.Recv()
			}
			return err
		},
		"users": func() error {
			_, err := s.users.GetUser(s.ctx, &usersv1.GetUserRequest{UserId: s.id})
			return err
		},
		"payments": func() error {
			_, err := s.payments.ListPayments(s.ctx, &paymentsv1.ListPaymentsRequest{CustomerId: s.id})
			return err
		},
	}
}

// wantGood fails the test unless the token is good everywhere.
func (s *session) wantGood(t *testing.T, what string) {
	t.Helper()
	for service, try := range s.tries() {
		if err := try(); err != nil {
			t.Errorf("%s: %s refuses: %v", what, service, err)
		}
	}
}

// wantRevoked fails the test unless every service refuses the token soon, and goes on to.
func (s *session) wantRevoked(t *testing.T, what string) {
	t.Helper()
	from := time.Now()
	for service, try := range s.tries() {
		var err error
		for err = try(); err == nil && time.Since(from) < soon; err = try() {
		}
		if err == nil {
			t.Errorf("%s: %s takes the token after %s", what, service, soon)
			continue
		}
		t.Logf("%s: %s refuses after %s", what, service, time.Since(from))
		kittest.WantFault(t, err, codes.Unauthenticated, "TOKEN_REVOKED")
		kittest.WantFault(t, try(), codes.Unauthenticated, "TOKEN_REVOKED")
	}
}

type transactions = grpc.ServerStreamingClient[paymentsv1.WatchTransactionsResponse]

// watch opens a stream of the person's transactions and takes the first response.
func (s *session) watch(t *testing.T, resume string) transactions {
	t.Helper()
	stream, err := s.payments.WatchTransactions(s.ctx, &paymentsv1.WatchTransactionsRequest{CustomerId: s.id, ResumeToken: resume})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	return stream
}

// wantCut fails the test unless the stream ends soon, for the reason, and returns where to resume.
func wantCut(t *testing.T, stream transactions) string {
	t.Helper()
	ended := make(chan error, 1)
	go func() {
		_, err := stream.Recv()
		ended <- err
	}()
	select {
	case err := <-ended:
		return kittest.WantFault(t, err, codes.Unauthenticated, "TOKEN_REVOKED").Metadata()["resume_token"]
	case <-time.After(soon):
		t.Fatalf("the stream goes on after %s", soon)
		return ""
	}
}

// wantCharge fails the test unless the next transaction on the stream is of this order.
func wantCharge(t *testing.T, stream transactions, order string) {
	t.Helper()
	resp, err := stream.Recv()
	if err != nil || resp.GetTransaction().GetPayment().GetOrderId() != order {
		t.Fatalf("got %v, %v; want order %s", resp, err, order)
	}
}

func TestASessionThatEndsTakesItsTokensAndStreamsWithIt(t *testing.T) {
	t.Parallel()
	s := run(t, t.TempDir())
	const mail = "ada@example.com"
	guest := at(t, s.grpc)
	guest.signUp(t, "root@example.com", request1, s.find(`"admin_code": "([^"]+)"`)[1])
	guest.signUp(t, mail, request2, "")
	root := guest.session(t, "root@example.com")
	phone, laptop, tablet, car := guest.session(t, mail), guest.session(t, mail), guest.session(t, mail), guest.session(t, mail)
	phone.wantGood(t, "before")
	onPhone, onLaptop := phone.watch(t, ""), laptop.watch(t, "")

	phone.signOut(t)
	resume := wantCut(t, onPhone)
	phone.wantRevoked(t, "signed out")
	laptop.wantGood(t, "another session signed out")
	if _, err := laptop.charge("k1", 1000); err != nil {
		t.Fatal(err)
	}
	wantCharge(t, onLaptop, "order-k1")
	wantCharge(t, laptop.watch(t, resume), "order-k1") // the stream that was cut goes on without a gap

	stolen := tablet.refresh
	for _, want := range []error{nil, fault.New(fault.Unauthenticated, "REFRESH_TOKEN_REUSED", "").WithDomain("auth.v1")} {
		_, err := guest.sessions.RefreshSession(within(t), &authv1.RefreshSessionRequest{RefreshToken: stolen})
		if got := grpcfault.FromError(err); (want == nil) != (err == nil) || want != nil && !got.Is(want) {
			t.Fatalf("refresh: %v, want %v", err, want)
		}
	}
	tablet.wantRevoked(t, "refresh token used twice")
	car.wantGood(t, "refresh token of another session used twice")

	onCar := car.watch(t, "")
	if _, err := laptop.sessions.ChangePassword(laptop.ctx, &authv1.ChangePasswordRequest{
		UserId: laptop.id, CurrentPassword: password, NewPassword: password + " 2", RequestId: request3,
	}); err != nil {
		t.Fatal(err)
	}
	wantCut(t, onCar)
	car.wantRevoked(t, "password changed by another session")
	laptop.wantGood(t, "password changed by this session")
	if _, err := laptop.charge("k2", 1000); err != nil {
		t.Fatal(err)
	}
	wantCharge(t, onLaptop, "order-k2")

	if _, err := root.admin.LockUser(root.ctx, &authv1.LockUserRequest{UserId: laptop.id}); err != nil {
		t.Fatal(err)
	}
	wantCut(t, onLaptop)
	laptop.wantRevoked(t, "locked")
	root.wantGood(t, "another user locked")
	if _, err := root.admin.UnlockUser(root.ctx, &authv1.UnlockUserRequest{UserId: laptop.id}); err != nil {
		t.Fatal(err)
	}
	laptop.wantRevoked(t, "locked and unlocked")
	resp, err := guest.sessions.SignIn(within(t), &authv1.SignInRequest{Email: mail, Password: password + " 2"})
	if err != nil {
		t.Fatal(err)
	}
	laptop.ctx = metadata.AppendToOutgoingContext(within(t), "authorization", "Bearer "+resp.GetTokens().GetAccessToken())
	laptop.wantGood(t, "signed in again")
}

func TestARevocationSurvivesRestartsAndABreakOfTheConnection(t *testing.T) {
	t.Parallel()
	dir, ip := t.TempDir(), strings.Replace(ownAddress(t), "127.83.", "127.84.", 1)
	auth, users, payments := ip+":50051", ip+":50052", ip+":50053"
	args := map[string][]string{
		"auth":     {"--admin=", "--listen=" + auth, "--users=dns:///" + users},
		"users":    {"--admin=", "--listen=" + users, "--auth=dns:///" + auth},
		"payments": {"--admin=", "--listen=" + payments, "--auth=dns:///" + auth},
		"gateway": {"--admin=", "--http=" + ip + ":8080", "--grpc=" + ip + ":8081",
			"--auth=dns:///" + auth, "--users=dns:///" + users, "--payments=dns:///" + payments},
	}
	begin := func(name string) *process {
		p := start(t, dir, binary(t, name), args[name]...)
		p.find(name + " is ready")
		return p
	}
	running := map[string]*process{}
	for _, name := range []string{"payments", "users", "auth", "gateway"} { // those who follow come first
		running[name] = start(t, dir, binary(t, name), args[name]...)
	}
	for name, p := range running {
		p.find(name + " is ready")
	}
	again := func(name string) {
		t.Helper()
		running[name].signal(syscall.SIGKILL)
		running[name] = begin(name)
	}
	const mail = "ada@example.com"
	guest := at(t, ip+":8081")
	guest.signUp(t, mail, request1, "")
	first, second, third, last := guest.session(t, mail), guest.session(t, mail), guest.session(t, mail), guest.session(t, mail)

	first.signOut(t)
	first.wantRevoked(t, "signed out")

	// Auth has forgotten all but what is in its log. What it writes at once is written while nobody is connected: the gateway
	// waits as long before it connects again.
	again("auth")
	developer, err := authority(t, filepath.Join(dir, ".concordat", "pki")).Identity(t.Context(), kit.Developer, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	direct, err := grpc.NewClient(auth, grpc.WithTransportCredentials(credentials.NewTLS(developer.ClientTLS("auth"))), grpc.WithNoProxy())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = direct.Close() })
	if _, err := authv1.NewSessionServiceClient(direct).SignOut(within(t), &authv1.SignOutRequest{RefreshToken: second.refresh}); err != nil {
		t.Fatal(err)
	}
	ready(t, last)
	first.wantRevoked(t, "signed out, auth restarted")
	second.wantRevoked(t, "signed out in a break of the connection")
	last.wantGood(t, "auth restarted")

	// Whoever verifies tokens has forgotten all.
	third.signOut(t)
	again("users")
	again("payments")
	ready(t, last)
	for what, s := range map[string]*session{"first": first, "second": second, "third": third} {
		s.wantRevoked(t, what+", all restarted")
	}
	last.wantGood(t, "all restarted")
}

// ready waits until the gateway reaches every service again.
func ready(t *testing.T, s *session) {
	t.Helper()
	for ctx := within(t); ; {
		var down error
		for _, try := range s.tries() {
			if err := try(); err != nil && fault.KindOf(grpcfault.FromError(err)) == fault.Unavailable {
				down = err
			}
		}
		if down == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("the services are not reached again: %v", down)
		}
	}
}
