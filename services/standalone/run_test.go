package main_test

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	_ "modernc.org/sqlite" // what a killed process left is read from outside

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/kittest"
)

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// person is somebody with an access token, at the gateway.
type person struct {
	ctx      context.Context
	id       string
	sessions authv1.SessionServiceClient
	auth     authv1.AuthServiceClient
	admin    authv1.AdminServiceClient
	users    usersv1.UserServiceClient
	payments paymentsv1.PaymentServiceClient
}

// at returns a person without a token.
func at(t *testing.T, gateway string) *person {
	t.Helper()
	conn, err := grpc.NewClient(gateway, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &person{
		ctx: within(t), sessions: authv1.NewSessionServiceClient(conn), auth: authv1.NewAuthServiceClient(conn),
		admin: authv1.NewAdminServiceClient(conn), users: usersv1.NewUserServiceClient(conn),
		payments: paymentsv1.NewPaymentServiceClient(conn),
	}
}

const password = "a wooden staple, twice" // and none that a page gives as an example

// signUp makes an account; requestID is any UUID, one for each account.
func (p *person) signUp(t *testing.T, email, requestID, adminCode string) {
	t.Helper()
	_, err := p.sessions.SignUp(p.ctx, &authv1.SignUpRequest{
		Email: email, Password: password, DisplayName: "Somebody", RequestId: requestID, AdminCode: adminCode,
	})
	if err != nil {
		t.Fatalf("sign up %s: %v", email, err)
	}
}

func (p *person) signIn(t *testing.T, email string) {
	t.Helper()
	resp, err := p.sessions.SignIn(p.ctx, &authv1.SignInRequest{Email: email, Password: password})
	if err != nil {
		t.Fatalf("sign in %s: %v", email, err)
	}
	p.id = resp.GetAccount().GetUserId()
	p.ctx = metadata.AppendToOutgoingContext(p.ctx, "authorization", "Bearer "+resp.GetTokens().GetAccessToken())
}

func (p *person) charge(key string, amount int64) (*paymentsv1.Payment, error) {
	resp, err := p.payments.Charge(p.ctx, &paymentsv1.ChargeRequest{
		OrderId: "order-" + key, AmountCents: amount, Currency: "EUR", IdempotencyKey: key, CustomerId: p.id,
	})
	return resp.GetPayment(), err
}

const (
	request1 = "11111111-1111-4111-8111-111111111111"
	request2 = "22222222-2222-4222-8222-222222222222"
	request3 = "33333333-3333-4333-8333-333333333333"
)

func TestWhatWasAcknowledgedSurvivesAKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := run(t, dir)
	ada := at(t, s.grpc)
	ada.signUp(t, "ada@example.com", request1, "")
	ada.signIn(t, "ada@example.com")
	first, err := ada.charge("k1", 1000)
	if err != nil {
		t.Fatal(err)
	}
	watch, err := ada.payments.WatchTransactions(ada.ctx, &paymentsv1.WatchTransactionsRequest{CustomerId: ada.id})
	if err != nil {
		t.Fatal(err)
	}
	here, err := watch.Recv() // where the stream stands, before the second charge
	if err != nil {
		t.Fatal(err)
	}
	second, err := ada.charge("k2", 2000)
	if err != nil {
		t.Fatal(err)
	}
	if code := s.signal(syscall.SIGKILL); code != -1 {
		t.Fatalf("exit code %d, want an end by the signal", code)
	}
	wantBooks(t, filepath.Join(dir, ".concordat", "payments", "payments.db"), 3000)

	s = run(t, dir)
	again := at(t, s.grpc)
	again.signIn(t, "ada@example.com")
	if again.id != ada.id {
		t.Errorf("ada is %s, was %s", again.id, ada.id)
	}
	if u, err := again.users.GetUser(again.ctx, &usersv1.GetUserRequest{UserId: ada.id}); err != nil || u.GetUser().GetEmail() != "ada@example.com" {
		t.Errorf("the profile: %v, %v", u, err)
	}
	list, err := again.payments.ListPayments(again.ctx, &paymentsv1.ListPaymentsRequest{CustomerId: ada.id})
	if err != nil {
		t.Fatal(err)
	}
	if p := list.GetPayments(); len(p) != 2 || p[0].GetPaymentId() != second.GetPaymentId() || p[1].GetPaymentId() != first.GetPaymentId() {
		t.Errorf("payments: %v, want the second and the first", p)
	}
	if p, err := again.charge("k2", 2000); err != nil || p.GetPaymentId() != second.GetPaymentId() {
		t.Errorf("the same key after the kill: %v, %v; want payment %s", p, err, second.GetPaymentId())
	}
	resumed, err := again.payments.WatchTransactions(again.ctx, &paymentsv1.WatchTransactionsRequest{CustomerId: ada.id, ResumeToken: here.GetResumeToken()})
	if err != nil {
		t.Fatal(err)
	}
	third, err := again.charge("k3", 3000)
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for len(told) < 2 {
		resp, err := resumed.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if resp.GetTransaction() != nil {
			told = append(told, resp.GetTransaction().GetPayment().GetPaymentId())
		}
	}
	if told[0] != second.GetPaymentId() || told[1] != third.GetPaymentId() {
		t.Errorf("the resumed stream tells %v, want %s and %s: no gap, nothing twice", told, second.GetPaymentId(), third.GetPaymentId())
	}
	if code := s.signal(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code after SIGTERM with a stream open: %d", code)
	}
}

// wantBooks reads the ledger that a killed process left, as the disk has it: every payment has two entries that sum to
// zero, every balance is the sum of its entries, and the merchant was paid this much.
func wantBooks(t *testing.T, path string, paid int64) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for what, query := range map[string]string{
		"payments without two entries that sum to zero": `SELECT count(*) FROM payments p WHERE (SELECT count(*) || '/' || total(amount) FROM entries e JOIN transfers t ON t.number = e.transfer WHERE t.payment_id = p.payment_id) <> '2/0.0'`,
		"balances that are not the sum of the entries":  `SELECT count(*) FROM entries e WHERE balance_after <> (SELECT sum(amount) FROM entries b WHERE b.account = e.account AND b.transfer <= e.transfer)`,
	} {
		var n int
		if err := db.QueryRow(query).Scan(&n); err != nil || n != 0 {
			t.Errorf("%d %s (%v)", n, what, err)
		}
	}
	var balance int64
	if err := db.QueryRow(`SELECT sum(amount) FROM entries GROUP BY account HAVING sum(amount) > 0`).Scan(&balance); err != nil || balance != paid {
		t.Errorf("the merchant has %d (%v), want %d", balance, err, paid)
	}
}

func TestDemoPlaysAndEndsWithZero(t *testing.T) {
	t.Parallel()
	p := start(t, t.TempDir(), binary(t, "standalone"), append(anyPorts(), "--demo")...)
	if code := p.wait(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	for _, step := range []string{"sign up", "sign in", "watch", "charge", "event      CHARGED EUR 19.99", "replay", "refused", "REST", "PASSWORD_CHANGED", "done"} {
		if !strings.Contains(p.out.String(), step) {
			t.Errorf("the demo does not print %q", step)
		}
	}
}

func TestFourProcessesDoTheSame(t *testing.T) {
	t.Parallel()
	dir, ip := t.TempDir(), ownAddress(t)
	targets := map[string]string{"auth": "dns:///" + ip + ":50051", "users": "dns:///" + ip + ":50052", "payments": "dns:///" + ip + ":50053"}
	args := map[string][]string{
		"gateway":  {"--admin=" + ip + ":51080", "--http=" + ip + ":8080", "--grpc=" + ip + ":8081", "--auth=" + targets["auth"], "--users=" + targets["users"], "--payments=" + targets["payments"]},
		"payments": {"--admin=" + ip + ":51053", "--listen=" + ip + ":50053", "--auth=" + targets["auth"]},
		"auth":     {"--admin=" + ip + ":51051", "--listen=" + ip + ":50051", "--users=" + targets["users"]},
		"users":    {"--admin=" + ip + ":51052", "--listen=" + ip + ":50052", "--auth=" + targets["auth"]},
	}
	// The wrong way round: who stands on others comes first.
	var running []*process
	for _, name := range []string{"gateway", "payments", "auth", "users"} {
		p := start(t, dir, binary(t, name), args[name]...)
		running = append(running, p)
	}
	for _, p := range running { // the gateway's line comes once it has found the others
		p.find(filepath.Base(p.cmd.Path) + " is ready")
	}
	demo := start(t, dir, binary(t, "standalone"), "--demo", "--demo-at="+ip+":8081", "--demo-http="+ip+":8080")
	if code := demo.wait(); code != 0 {
		t.Errorf("the demo's exit code: %d", code)
	}
	for _, p := range running {
		if code := p.signal(syscall.SIGTERM); code != 0 {
			t.Errorf("%s: exit code %d after SIGTERM", filepath.Base(p.cmd.Path), code)
		}
	}
}

// TestTheCertificateOfTheEdgeOpensNothing calls what is for services through the gateway.
func TestTheCertificateOfTheEdgeOpensNothing(t *testing.T) {
	t.Parallel()
	s := run(t, t.TempDir())
	code := s.find(`"admin_code": "([^"]+)"`)[1]
	root := at(t, s.grpc)
	root.signUp(t, "root@example.com", request1, code)
	root.signIn(t, "root@example.com")
	for who, p := range map[string]*person{"nobody": at(t, s.grpc), "an administrator": root} {
		_, err := p.auth.GetUser(p.ctx, &authv1.GetUserRequest{UserId: root.id})
		t.Log(who)
		kittest.WantFault(t, err, codes.PermissionDenied, "CALLER_REFUSED")
	}
}

func TestALockedCustomerIsNotCharged(t *testing.T) {
	t.Parallel()
	s := run(t, t.TempDir())
	root, ada, eve := at(t, s.grpc), at(t, s.grpc), at(t, s.grpc)
	root.signUp(t, "root@example.com", request1, s.find(`"admin_code": "([^"]+)"`)[1])
	root.signIn(t, "root@example.com")
	ada.signUp(t, "ada@example.com", request2, "")
	ada.signIn(t, "ada@example.com")
	eve.signUp(t, "eve@example.com", request3, "")
	eve.signIn(t, "eve@example.com")

	_, err := eve.sessions.SignUp(eve.ctx, &authv1.SignUpRequest{Email: "ADA@example.com", Password: password, DisplayName: "x", RequestId: "44444444-4444-4444-8444-444444444444"})
	kittest.WantFault(t, err, codes.AlreadyExists, "EMAIL_TAKEN")

	paid, err := ada.charge("k1", 1000)
	if err != nil {
		t.Fatal(err)
	}
	_, err = ada.charge("k1", 1001)
	kittest.WantFault(t, err, codes.FailedPrecondition, "IDEMPOTENCY_KEY_REUSED")
	for _, amount := range []int64{49, 100_000_000} {
		_, err := ada.charge("k2", amount)
		kittest.WantViolations(t, kittest.WantFault(t, err, codes.InvalidArgument, "INVALID_REQUEST"), "amount_cents")
	}

	// Another's payment and one that is not there are the same answer.
	_, theirs := eve.payments.GetPayment(eve.ctx, &paymentsv1.GetPaymentRequest{PaymentId: paid.GetPaymentId()})
	_, nobodys := eve.payments.GetPayment(eve.ctx, &paymentsv1.GetPaymentRequest{PaymentId: request1})
	a, b := kittest.WantFault(t, theirs, codes.NotFound, "PAYMENT_NOT_FOUND"), kittest.WantFault(t, nobodys, codes.NotFound, "PAYMENT_NOT_FOUND")
	if a.Text() != b.Text() || len(a.Metadata()) != len(b.Metadata()) {
		t.Errorf("another's: %v %v, missing: %v %v", a, a.Metadata(), b, b.Metadata())
	}
	_, err = eve.payments.Charge(eve.ctx, &paymentsv1.ChargeRequest{OrderId: "o", AmountCents: 50, Currency: "EUR", IdempotencyKey: "k", CustomerId: ada.id})
	kittest.WantFault(t, err, codes.PermissionDenied, "NOT_SELF")

	events, err := ada.auth.WatchUserEvents(ada.ctx, &authv1.WatchUserEventsRequest{UserId: ada.id})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := events.Recv(); err != nil {
		t.Fatal(err)
	}
	if _, err := root.admin.LockUser(root.ctx, &authv1.LockUserRequest{UserId: ada.id}); err != nil {
		t.Fatal(err)
	}
	if e, err := events.Recv(); err != nil || e.GetEvent().GetEventType() != authv1.UserEventType_USER_EVENT_TYPE_ACCOUNT_LOCKED {
		t.Errorf("ada's stream: %v, %v; want the lock", e, err)
	}
	_, err = events.Recv()
	kittest.WantFault(t, err, codes.PermissionDenied, "ACCOUNT_LOCKED")
	// Payments hears of it within a second, and from then on ada is not charged, by herself or by others.
	refused := false
	for n, locked := 0, time.Now(); !refused && time.Since(locked) < time.Second; n++ {
		_, err := ada.charge(fmt.Sprint("locked", n), 1000)
		refused = err != nil
	}
	if !refused {
		t.Error("ada, who is locked, is still charged after a second")
	}
	_, err = root.payments.Charge(root.ctx, &paymentsv1.ChargeRequest{OrderId: "o", AmountCents: 1000, Currency: "EUR", IdempotencyKey: "k3", CustomerId: ada.id})
	kittest.WantFault(t, err, codes.FailedPrecondition, "CUSTOMER_INACTIVE")
	_, err = root.payments.Charge(root.ctx, &paymentsv1.ChargeRequest{OrderId: "o", AmountCents: 50, Currency: "EUR", IdempotencyKey: "k", CustomerId: request3})
	kittest.WantFault(t, err, codes.NotFound, "CUSTOMER_NOT_FOUND")

	// A profile that was imported, and whom auth has never heard of, can be charged at once.
	imported, err := root.users.CreateUser(root.ctx, &usersv1.CreateUserRequest{Email: "imported@example.com", DisplayName: "Imported", RequestId: request1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := root.payments.Charge(root.ctx, &paymentsv1.ChargeRequest{OrderId: "o", AmountCents: 50, Currency: "EUR", IdempotencyKey: "k9", CustomerId: imported.GetUser().GetUserId()}); err != nil {
		t.Errorf("an imported user: %v", err)
	}
}

func TestTextThatNoStoreShouldKeepIsRefused(t *testing.T) {
	t.Parallel()
	s := run(t, t.TempDir())
	root := at(t, s.grpc)
	root.signUp(t, "root@example.com", request1, s.find(`"admin_code": "([^"]+)"`)[1])
	root.signIn(t, "root@example.com")
	charge := func(change func(*paymentsv1.ChargeRequest)) error {
		req := &paymentsv1.ChargeRequest{OrderId: "o", AmountCents: 50, Currency: "EUR", IdempotencyKey: "k", CustomerId: root.id}
		change(req)
		_, err := root.payments.Charge(root.ctx, req)
		return err
	}
	create := func(change func(*usersv1.CreateUserRequest)) error {
		req := &usersv1.CreateUserRequest{Email: "a@example.com", DisplayName: "A", RequestId: request1}
		change(req)
		_, err := root.users.CreateUser(root.ctx, req)
		return err
	}
	for field, err := range map[string]error{
		"order_id":          charge(func(r *paymentsv1.ChargeRequest) { r.OrderId = "o\x00" }),
		"metadata[\"a b\"]": charge(func(r *paymentsv1.ChargeRequest) { r.Metadata = map[string]string{"a b": "v"} }),
		"metadata[\"a\"]":   charge(func(r *paymentsv1.ChargeRequest) { r.Metadata = map[string]string{"a": "\x00"} }),
		"idempotency_key":   charge(func(r *paymentsv1.ChargeRequest) { r.IdempotencyKey = "k\x00" }),
		"display_name":      create(func(r *usersv1.CreateUserRequest) { r.DisplayName = "   " }),
		"last_name":         create(func(r *usersv1.CreateUserRequest) { r.LastName = "a\nb" }),
		"user_id":           create(func(r *usersv1.CreateUserRequest) { r.UserId = request1 }), // a version 4 id
	} {
		kittest.WantViolations(t, kittest.WantFault(t, err, codes.InvalidArgument, "INVALID_REQUEST"), field)
	}
}

func TestWhatKeepsItFromStartingIsOneLine(t *testing.T) {
	t.Parallel()
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	locked, newer := t.TempDir(), t.TempDir()
	run(t, locked)
	kittest.NewerDatabase(t, filepath.Join(newer, ".concordat", "users"), "users.db", "users")
	for name, tc := range map[string]struct {
		dir  string
		args []string
		code int
		want string
	}{
		"an unknown setting":              {t.TempDir(), []string{"--gateway-htpp=x"}, 2, "--gateway-htpp"},
		"a busy port":                     {t.TempDir(), []string{"--users-listen=" + busy.Addr().String()}, 1, "--users-listen"},
		"a directory that is a file":      {t.TempDir(), []string{"--dir=file"}, 1, "file"},
		"a locked directory":              {locked, nil, 1, "--users-data"},
		"a newer schema":                  {newer, nil, 1, "--users-data"},
		"--demo-at without --demo":        {t.TempDir(), []string{"--demo-at=127.0.0.1:1"}, 2, "--demo-at"},
		"beyond loopback, no certificate": {t.TempDir(), []string{"--gateway-http=0.0.0.0:0"}, 2, "--gateway-http"},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.args != nil && strings.HasPrefix(tc.args[0], "--dir=") {
				if err := os.WriteFile(filepath.Join(tc.dir, "file"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			p := start(t, tc.dir, binary(t, "standalone"), append(anyPorts(), tc.args...)...)
			if code := p.wait(); code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			lines := strings.Split(strings.TrimRight(p.out.String(), "\n"), "\n")
			if len(lines) != 1 || !strings.HasPrefix(lines[0], "standalone: ") || !strings.Contains(lines[0], tc.want) {
				t.Errorf("it printed %q, want one line that names %s", lines, tc.want)
			}
		})
	}
}
