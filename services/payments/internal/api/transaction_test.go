package api_test

import (
	"testing"

	"google.golang.org/grpc/codes"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	"github.com/concordat-dev/concordat/kit/kittest"
)

type watch = interface {
	Recv() (*paymentsv1.WatchTransactionsResponse, error)
}

// follow begins a watch and takes its first response, which is bare. It returns the token of that.
func follow(t *testing.T, client paymentsv1.PaymentServiceClient, customer, token string) (watch, string) {
	t.Helper()
	stream, err := client.WatchTransactions(limit(t), &paymentsv1.WatchTransactionsRequest{
		CustomerId: customer, ResumeToken: token,
	})
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil {
		t.Fatalf("the first response: %v", err)
	}
	if first.Transaction != nil || first.GetResumeToken() == "" {
		t.Fatalf("the first response is %v, want a bare token", first)
	}
	return stream, first.GetResumeToken()
}

// wantCharged takes the next response, which must say that p was charged, and returns its token.
func wantCharged(t *testing.T, stream watch, p *paymentsv1.Payment) string {
	t.Helper()
	resp, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, resp.GetTransaction(), &paymentsv1.Transaction{
		Type: paymentsv1.TransactionType_TRANSACTION_TYPE_CHARGED, Payment: p, Timestamp: p.GetCreatedAt(),
		AmountCents: p.GetAmountCents(),
	})
	if resp.GetResumeToken() == "" {
		t.Error("a transaction without a token")
	}
	return resp.GetResumeToken()
}

func TestAWatchGetsTheTransactionsOfItsCustomerAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	charge(t, s, "before")
	own, _ := follow(t, s.as(ann), ann, "")
	all, _ := follow(t, s.orders(), "", "")
	admin, _ := follow(t, s.as(bob, "payments.admin"), "", "")
	first := charge(t, s, "k1")
	second := charge(t, s, "k2", ofBob)
	third := charge(t, s, "k3")
	charge(t, s, "k3") // a replay is no transaction
	fourth := charge(t, s, "k4")
	for _, want := range []*paymentsv1.Payment{first, third, fourth} {
		wantCharged(t, own, want)
	}
	for _, want := range []*paymentsv1.Payment{first, second, third, fourth} {
		wantCharged(t, all, want)
		wantCharged(t, admin, want)
	}
}

func TestAWatchResumesWithoutGapOrDuplicateAfterANewStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir)
	stream, bare := follow(t, s.as(ann), ann, "")
	first := charge(t, s, "k1")
	token := wantCharged(t, stream, first)
	charge(t, s, "k2", ofBob)
	second := charge(t, s, "k3")
	wantCharged(t, stream, second)
	s.close()

	s = start(t, dir)
	third := charge(t, s, "k4")
	again, _ := follow(t, s.as(ann), ann, token)
	fromStart, _ := follow(t, s.as(ann), ann, bare)
	fourth := charge(t, s, "k5")
	for _, want := range []*paymentsv1.Payment{second, third, fourth} {
		wantCharged(t, again, want)
	}
	for _, want := range []*paymentsv1.Payment{first, second, third, fourth} {
		wantCharged(t, fromStart, want)
	}
	s.verify(t)
}

func TestADrainEndsAWatchWithThePlaceToResumeFrom(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir)
	stream, _ := follow(t, s.orders(), "", "")
	wantCharged(t, stream, charge(t, s, "k1"))
	s.Begin()
	_, err := stream.Recv()
	f := kittest.WantFault(t, err, codes.Unavailable, "DRAINING")
	token := f.Metadata()["resume_token"]
	s.close()

	s = start(t, dir)
	second := charge(t, s, "k2")
	stream, _ = follow(t, s.orders(), "", token)
	wantCharged(t, stream, second)
}

func TestAResumeTokenOfAnotherWatchIsRefused(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	_, own := follow(t, s.as(ann), ann, "")
	_, all := follow(t, s.orders(), "", "")
	for name, req := range map[string]*paymentsv1.WatchTransactionsRequest{
		"one that was made up":             {ResumeToken: "nonsense"},
		"one of all, for one customer":     {CustomerId: ann, ResumeToken: all},
		"one of a customer, for all":       {ResumeToken: own},
		"one of a customer, for another's": {CustomerId: bob, ResumeToken: own},
	} {
		stream, err := s.orders().WatchTransactions(limit(t), req)
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		t.Log(name)
		f := kittest.WantFault(t, err, codes.InvalidArgument, "RESUME_TOKEN_INVALID")
		kittest.WantViolations(t, f, "resume_token")
		if f.Domain() != "policy.v1" {
			t.Errorf("%s: the domain is %q", name, f.Domain())
		}
	}
}

func TestAWatchThatBreaksTheRulesNamesTheField(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	for field, req := range map[string]*paymentsv1.WatchTransactionsRequest{
		"customer_id":  {CustomerId: "ann"},
		"resume_token": {ResumeToken: string(make([]byte, 257))},
	} {
		stream, err := s.orders().WatchTransactions(limit(t), req)
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		kittest.WantViolations(t, kittest.WantFault(t, err, codes.InvalidArgument, "INVALID_REQUEST"), field)
	}
}
