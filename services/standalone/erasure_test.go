package main_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/kittest"
)

// What is written of ada must go, what is written of root must stay; neither is in a file by chance.
const (
	ofAda  = "ada-likes-blue-4f1c9b"
	ofRoot = "root-likes-red-7d20ae"
)

func TestWhatUsersErasesIsErasedInPaymentsAndTheBooksStay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := run(t, dir)
	root, ada := at(t, s.grpc), at(t, s.grpc)
	root.signUp(t, "root@example.com", request1, s.find(`"admin_code": "([^"]+)"`)[1])
	root.signIn(t, "root@example.com")
	ada.signUp(t, "ada@example.com", request2, "")
	ada.signIn(t, "ada@example.com")

	watch, err := root.payments.WatchTransactions(root.ctx, &paymentsv1.WatchTransactionsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	beginning, err := watch.Recv()
	if err != nil {
		t.Fatal(err)
	}
	charge := func(by *person, of, key, note string, capture bool) *paymentsv1.Payment {
		t.Helper()
		resp, err := by.payments.Charge(by.ctx, &paymentsv1.ChargeRequest{
			OrderId: "order", AmountCents: 1000, Currency: "EUR", IdempotencyKey: key, CustomerId: of,
			Metadata: map[string]string{"note": note}, Capture: proto.Bool(capture),
		})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetPayment()
	}
	before := []*paymentsv1.Payment{
		charge(ada, ada.id, "paid", ofAda, true), charge(root, ada.id, "held", ofAda, false), charge(root, root.id, "other", ofRoot, true),
	}
	conn, err := grpc.NewClient(s.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ledger := paymentsv1.NewLedgerServiceClient(conn)
	accounts, err := ledger.ListAccounts(root.ctx, &paymentsv1.ListAccountsRequest{})
	if err != nil || len(accounts.GetAccounts()) != 3 {
		t.Fatalf("accounts: %v, %v", accounts, err)
	}
	var legs []*paymentsv1.TransferLeg
	for _, a := range accounts.GetAccounts() {
		switch {
		case a.GetOwner() == ada.id:
			legs = append(legs, &paymentsv1.TransferLeg{AccountId: a.GetAccountId(), AmountCents: 5})
		case a.GetKind() == paymentsv1.AccountKind_ACCOUNT_KIND_MERCHANT:
			legs = append(legs, &paymentsv1.TransferLeg{AccountId: a.GetAccountId(), AmountCents: -5})
		}
	}
	thanks, err := ledger.Transfer(root.ctx, &paymentsv1.TransferRequest{
		IdempotencyKey: "thanks", Metadata: map[string]string{"why": ofAda},
		Operations: []*paymentsv1.TransferOperation{{Operation: &paymentsv1.TransferOperation_Move{Move: &paymentsv1.MoveOperation{Legs: legs}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	books, err := ledger.GetTrialBalance(root.ctx, &paymentsv1.GetTrialBalanceRequest{})
	if err != nil {
		t.Fatal(err)
	}

	if _, err := root.users.EraseUser(root.ctx, &usersv1.EraseUserRequest{UserId: ada.id, RequestId: request3}); err != nil {
		t.Fatal(err)
	}
	get := func(p *paymentsv1.Payment) *paymentsv1.Payment {
		t.Helper()
		resp, err := root.payments.GetPayment(root.ctx, &paymentsv1.GetPaymentRequest{PaymentId: p.GetPaymentId()})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetPayment()
	}
	for end := time.Now().Add(soon); len(get(before[0]).GetMetadata()) > 0; {
		if time.Now().After(end) {
			t.Fatal("what was written of ada is still there")
		}
	}

	// What is left is what was there, but for what was written of ada: in the payments, in the answer to an old key, in
	// the events.
	for i, want := range before {
		if want.GetCustomerId() == ada.id {
			want = proto.Clone(want).(*paymentsv1.Payment)
			want.Metadata = nil
			before[i] = want
		}
		if got := get(want); !proto.Equal(got, want) {
			t.Errorf("payment %d is %v, want %v", i, got, want)
		}
	}
	var header metadata.MD
	replay, err := root.payments.Charge(root.ctx, &paymentsv1.ChargeRequest{
		OrderId: "order", AmountCents: 1000, Currency: "EUR", IdempotencyKey: "held", CustomerId: ada.id,
		Metadata: map[string]string{"note": ofAda}, Capture: proto.Bool(false),
	}, grpc.Header(&header))
	if err != nil || !proto.Equal(replay.GetPayment(), before[1]) || len(header.Get("idempotency-replayed")) != 1 {
		t.Errorf("the old key: %v, %v", replay, err)
	}
	moved, err := ledger.GetTransfer(root.ctx, &paymentsv1.GetTransferRequest{TransferNumber: thanks.GetTransfers()[0].GetTransferNumber()})
	if want := thanks.GetTransfers()[0]; err != nil || len(moved.GetTransfer().GetMetadata()) != 0 || !bytes.Equal(moved.GetTransfer().GetHash(), want.GetHash()) {
		t.Errorf("the transfer: %v, %v", moved, err)
	}
	resumed, err := root.payments.WatchTransactions(root.ctx, &paymentsv1.WatchTransactionsRequest{ResumeToken: beginning.GetResumeToken()})
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(before); {
		resp, err := resumed.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if resp.GetTransaction() == nil {
			continue
		}
		if got := resp.GetTransaction().GetPayment(); !proto.Equal(got, before[i]) {
			t.Errorf("event %d tells %v, want %v", i, got, before[i])
		}
		i++
	}

	// The books say what they said.
	after, err := ledger.GetTrialBalance(root.ctx, &paymentsv1.GetTrialBalanceRequest{})
	if err != nil || !proto.Equal(after, books) {
		t.Errorf("the trial balance is %v, was %v (%v)", after, books, err)
	}
	// Nobody charges who is gone, once auth and then payments have heard of it.
	for key, end := 0, time.Now().Add(soon); ; key++ {
		_, err = root.payments.Charge(root.ctx, &paymentsv1.ChargeRequest{
			OrderId: "order", AmountCents: 1000, Currency: "EUR", IdempotencyKey: fmt.Sprint("late-", key), CustomerId: ada.id,
		})
		if err != nil || time.Now().After(end) {
			break
		}
	}
	kittest.WantFault(t, err, codes.FailedPrecondition, "CUSTOMER_INACTIVE")
	if code := s.signal(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	data := filepath.Join(dir, ".concordat", "payments")
	p := start(t, dir, binary(t, "payments"), "verify", "--data="+data)
	if code := p.wait(); code != 0 {
		t.Errorf("verify ended with %d: %s", code, p.out)
	}
	if n := filesWith(t, data, ofAda); len(n) != 0 {
		t.Errorf("what was written of ada is in %v", n)
	}
	if n := filesWith(t, data, ofRoot); len(n) == 0 {
		t.Error("what was written of root is in no file: they cannot tell")
	}
}

// filesWith returns the files below a directory that have a text in them.
func filesWith(t *testing.T, dir, text string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(text)) {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
