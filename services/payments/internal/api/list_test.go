package api_test

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	"github.com/concordat-dev/concordat/kit/kittest"
)

// fill charges ann and bob in turn and returns the ids of the payments, newest first.
func fill(t *testing.T, s *service, n int) []string {
	t.Helper()
	var ids []string
	for i := range n {
		ids = append(ids, charge(t, s, fmt.Sprint("k", i), func(r *paymentsv1.ChargeRequest) {
			if i%2 == 1 {
				r.CustomerId = bob
			}
		}).GetPaymentId())
	}
	slices.Reverse(ids)
	return ids
}

// walk reads a list in pages.
func walk(t *testing.T, client paymentsv1.PaymentServiceClient, customer string, size int32) []string {
	t.Helper()
	var ids []string
	req := &paymentsv1.ListPaymentsRequest{CustomerId: customer, PageSize: size}
	for {
		resp, err := client.ListPayments(limit(t), req)
		if err != nil {
			t.Fatal(err)
		}
		if len(resp.GetPayments()) > int(size) {
			t.Fatalf("a page of %d, the size is %d", len(resp.GetPayments()), size)
		}
		for _, p := range resp.GetPayments() {
			ids = append(ids, p.GetPaymentId())
		}
		if resp.GetNextPageToken() == "" {
			return ids
		}
		if len(resp.GetPayments()) == 0 {
			t.Fatal("an empty page with a token")
		}
		req.PageToken = resp.GetNextPageToken()
	}
}

func TestAListIsNewestFirstInPagesWithoutGapOrDuplicate(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	all := fill(t, s, 7)
	var anns []string
	for i, id := range all {
		if i%2 == 0 {
			anns = append(anns, id)
		}
	}
	for _, size := range []int32{1, 2, 3, 7, 1000} {
		if got := walk(t, s.orders(), "", size); !slices.Equal(got, all) {
			t.Errorf("all by %d: %v, want %v", size, got, all)
		}
		if got := walk(t, s.as(bob, "payments.admin"), "", size); !slices.Equal(got, all) {
			t.Errorf("all by %d for an administrator: %v, want %v", size, got, all)
		}
		if got := walk(t, s.as(ann), ann, size); !slices.Equal(got, anns) {
			t.Errorf("ann's by %d: %v, want %v", size, got, anns)
		}
	}
}

func TestAPageHasFiftyPaymentsWhereNoSizeIsGiven(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	all := fill(t, s, 51)
	resp, err := s.orders().ListPayments(limit(t), &paymentsv1.ListPaymentsRequest{})
	if err != nil || len(resp.GetPayments()) != 50 || resp.GetNextPageToken() == "" {
		t.Fatalf("%d payments, token %q, %v", len(resp.GetPayments()), resp.GetNextPageToken(), err)
	}
	rest, err := s.orders().ListPayments(limit(t), &paymentsv1.ListPaymentsRequest{PageToken: resp.GetNextPageToken()})
	if err != nil || len(rest.GetPayments()) != 1 || rest.GetPayments()[0].GetPaymentId() != all[50] || rest.GetNextPageToken() != "" {
		t.Errorf("the rest is %v, %v", rest, err)
	}
}

func TestAPageTokenIsGoodForItsListAndItsCallerAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir)
	all := fill(t, s, 6)
	token := func(client paymentsv1.PaymentServiceClient, customer string) string {
		t.Helper()
		resp, err := client.ListPayments(limit(t), &paymentsv1.ListPaymentsRequest{CustomerId: customer, PageSize: 1})
		if err != nil || resp.GetNextPageToken() == "" {
			t.Fatalf("no token: %v, %v", resp, err)
		}
		return resp.GetNextPageToken()
	}
	good := token(s.orders(), "")
	for name, c := range map[string]struct {
		client   paymentsv1.PaymentServiceClient
		customer string
		token    string
	}{
		"one that was made up":                   {s.orders(), "", "nonsense"},
		"one that lacks its last letter":         {s.orders(), "", good[:len(good)-1]},
		"the id of a payment":                    {s.orders(), "", all[1]},
		"one of all, for one customer":           {s.orders(), ann, good},
		"one of a customer, for another one":     {s.orders(), bob, token(s.orders(), ann)},
		"one of another caller":                  {paymentsv1.NewPaymentServiceClient(s.AsService("auth")), "", good},
		"one of a service, from the customer":    {s.as(ann), ann, token(s.orders(), ann)},
		"a resume token":                         {s.orders(), "", resumeToken(t, s)},
		"one of the customer, from someone else": {s.as(bob, "payments.admin"), ann, token(s.as(ann), ann)},
	} {
		_, err := c.client.ListPayments(limit(t), &paymentsv1.ListPaymentsRequest{CustomerId: c.customer, PageToken: c.token})
		t.Log(name)
		f := kittest.WantFault(t, err, codes.InvalidArgument, "PAGE_TOKEN_INVALID")
		kittest.WantViolations(t, f, "page_token")
		if f.Domain() != "policy.v1" {
			t.Errorf("%s: the domain is %q", name, f.Domain())
		}
	}
	// A token outlives the process that gave it out.
	s.close()
	s = start(t, dir)
	resp, err := s.orders().ListPayments(limit(t), &paymentsv1.ListPaymentsRequest{PageToken: good, PageSize: 1})
	if err != nil || len(resp.GetPayments()) != 1 || resp.GetPayments()[0].GetPaymentId() != all[1] {
		t.Errorf("after a new start: %v, %v", resp, err)
	}
}

// resumeToken returns the token of a watch.
func resumeToken(t *testing.T, s *service) string {
	t.Helper()
	stream, err := s.orders().WatchTransactions(limit(t), &paymentsv1.WatchTransactionsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetResumeToken()
}

func TestAListThatBreaksTheRulesNamesTheField(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	for field, req := range map[string]*paymentsv1.ListPaymentsRequest{
		"page_size":   {PageSize: 1001},
		"customer_id": {CustomerId: "ann"},
		"page_token":  {PageToken: string(make([]byte, 257))},
	} {
		_, err := s.orders().ListPayments(limit(t), req)
		f := kittest.WantFault(t, err, codes.InvalidArgument, "INVALID_REQUEST")
		kittest.WantViolations(t, f, field)
	}
	_, err := s.orders().ListPayments(limit(t), &paymentsv1.ListPaymentsRequest{PageSize: -1})
	kittest.WantViolations(t, kittest.WantFault(t, err, codes.InvalidArgument, "INVALID_REQUEST"), "page_size")
}

func TestAUserListsAndWatchesOnlyWhatIsTheirs(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	for _, customer := range []string{"", ann} {
		_, err := s.as(bob).ListPayments(limit(t), &paymentsv1.ListPaymentsRequest{CustomerId: customer})
		kittest.WantFault(t, err, codes.PermissionDenied, "NOT_SELF")
		stream, err := s.as(bob).WatchTransactions(limit(t), &paymentsv1.WatchTransactionsRequest{CustomerId: customer})
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		kittest.WantFault(t, err, codes.PermissionDenied, "NOT_SELF")
	}
}
