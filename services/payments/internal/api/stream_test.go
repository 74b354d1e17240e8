package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/grpcfault"
	"github.com/concordat-dev/concordat/kit/kittest"
)

type chargeStream = grpc.BidiStreamingClient[paymentsv1.ProcessChargesRequest, paymentsv1.ProcessChargesResponse]

func process(t *testing.T, client paymentsv1.PaymentServiceClient) chargeStream {
	t.Helper()
	stream, err := client.ProcessCharges(limit(t))
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func send(t *testing.T, stream chargeStream, charges ...*paymentsv1.ChargeRequest) {
	t.Helper()
	for _, c := range charges {
		if err := stream.Send(&paymentsv1.ProcessChargesRequest{Charge: c}); err != nil {
			t.Fatalf("send %s: %v", c.GetIdempotencyKey(), err)
		}
	}
}

// receive takes n answers, each of another key.
func receive(t *testing.T, stream chargeStream, n int) map[string]*paymentsv1.ProcessChargesResponse {
	t.Helper()
	answers := make(map[string]*paymentsv1.ProcessChargesResponse, n)
	for range n {
		resp, err := stream.Recv()
		if err != nil {
			t.Fatalf("after %d of %d answers: %v", len(answers), n, err)
		}
		if answers[resp.GetIdempotencyKey()] != nil {
			t.Fatalf("key %s was answered twice", resp.GetIdempotencyKey())
		}
		answers[resp.GetIdempotencyKey()] = resp
	}
	return answers
}

// wantEnd checks that the stream ends well and has nothing more.
func wantEnd(t *testing.T, stream chargeStream) {
	t.Helper()
	if resp, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, %v; want the end of the stream", resp, err)
	}
}

func TestChargesOfAStreamAreAnsweredEachWithItsKey(t *testing.T) {
	t.Parallel()
	const n = 300
	s := start(t, t.TempDir())
	stream := process(t, s.orders())
	sent := make(chan error, 1)
	go func() {
		for i := range n {
			req := request(fmt.Sprint("k", i))
			req.AmountCents = int64(100 + i)
			if err := stream.Send(&paymentsv1.ProcessChargesRequest{Charge: req}); err != nil {
				sent <- err
				return
			}
		}
		sent <- stream.CloseSend()
	}()
	answers := receive(t, stream, n)
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	wantEnd(t, stream)
	for i := range n {
		resp := answers[fmt.Sprint("k", i)]
		if resp.GetPayment().GetAmountCents() != int64(100+i) || resp.GetReplayed() {
			t.Errorf("charge %d was answered with %v", i, resp)
		}
	}
	s.verify(t)
}

func TestAStreamThatIsClosedAtOnceEndsWell(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	stream := process(t, s.orders())
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	wantEnd(t, stream)
}

func TestAChargeOfAStreamFailsAlone(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	charge(t, s, "used")
	s.customers.set(bob, false)
	change := func(key string, f func(*paymentsv1.ChargeRequest)) *paymentsv1.ChargeRequest {
		r := request(key)
		f(r)
		return r
	}
	stream := process(t, s.orders())
	send(t, stream,
		request("good-1"),
		change("small", func(r *paymentsv1.ChargeRequest) { r.AmountCents = 49 }),
		change("long", func(r *paymentsv1.ChargeRequest) { r.Currency = "EURO" }),
		change("", func(r *paymentsv1.ChargeRequest) {}),
		change("unknown", func(r *paymentsv1.ChargeRequest) { r.Currency = "ZZZ" }),
		change("nobody", func(r *paymentsv1.ChargeRequest) { r.CustomerId = nobody }),
		change("locked", ofBob),
		change("used", func(r *paymentsv1.ChargeRequest) { r.AmountCents++ }),
		request("good-2"),
	)
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	answers := receive(t, stream, 9)
	wantEnd(t, stream)
	for key, want := range map[string]struct {
		code   codes.Code
		reason string
		domain string
		field  string
	}{
		"small":   {codes.InvalidArgument, "INVALID_REQUEST", "policy.v1", "amount_cents"},
		"long":    {codes.InvalidArgument, "INVALID_REQUEST", "policy.v1", "currency"},
		"":        {codes.InvalidArgument, "INVALID_REQUEST", "policy.v1", "idempotency_key"},
		"unknown": {codes.InvalidArgument, "CURRENCY_UNKNOWN", "payments.v1", "currency"},
		"nobody":  {codes.NotFound, "CUSTOMER_NOT_FOUND", "payments.v1", ""},
		"locked":  {codes.FailedPrecondition, "CUSTOMER_INACTIVE", "payments.v1", ""},
		"used":    {codes.FailedPrecondition, "IDEMPOTENCY_KEY_REUSED", "payments.v1", ""},
	} {
		f := grpcfault.FromStatus(answers[key].GetError())
		if f == nil || grpcfault.Code(f.Kind()) != want.code || f.Reason() != want.reason || f.Domain() != want.domain {
			t.Errorf("%q was answered with %v, want %s %s", key, answers[key], want.code, want.reason)
			continue
		}
		if want.field != "" {
			kittest.WantViolations(t, f, want.field)
		}
	}
	for _, key := range []string{"good-1", "good-2"} {
		if answers[key].GetPayment() == nil {
			t.Errorf("%q was answered with %v", key, answers[key])
		}
	}
	s.verify(t)
}

func TestARequestWithoutAChargeFailsAlone(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	stream := process(t, s.orders())
	if err := stream.Send(&paymentsv1.ProcessChargesRequest{}); err != nil {
		t.Fatal(err)
	}
	send(t, stream, request("good"))
	answers := receive(t, stream, 2)
	f := grpcfault.FromStatus(answers[""].GetError())
	if f == nil || f.Reason() != "INVALID_REQUEST" {
		t.Fatalf("got %v", answers[""])
	}
	kittest.WantViolations(t, f, "charge")
	if answers["good"].GetPayment() == nil {
		t.Errorf("the good one was answered with %v", answers["good"])
	}
}

func TestAChargeAndAChargeOfAStreamShareTheirKeys(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	first := charge(t, s, "k1")
	stream := process(t, s.orders())
	send(t, stream, request("k1"))
	if got := receive(t, stream, 1)["k1"]; !got.GetReplayed() || !proto.Equal(got.GetPayment(), first) {
		t.Errorf("got %v, want %v replayed", got, first)
	}
	send(t, stream, request("k2"))
	second := receive(t, stream, 1)["k2"]
	if second.GetReplayed() {
		t.Errorf("got %v", second)
	}
	wantEqual(t, charge(t, s, "k2"), second.GetPayment())
	// After a broken stream what was not answered is sent again, over another one.
	again := process(t, s.orders())
	send(t, again, request("k2"))
	if got := receive(t, again, 1)["k2"]; !got.GetReplayed() || !proto.Equal(got.GetPayment(), second.GetPayment()) {
		t.Errorf("got %v, want %v replayed", got, second)
	}
	s.verify(t)
}

func TestEqualChargesOfAStreamAreOnePayment(t *testing.T) {
	t.Parallel()
	const n = 200
	s := start(t, t.TempDir())
	stream := process(t, s.orders())
	sent := make(chan error, 1)
	go func() {
		var errs []error
		for range n {
			errs = append(errs, stream.Send(&paymentsv1.ProcessChargesRequest{Charge: request("k")}))
		}
		sent <- errors.Join(append(errs, stream.CloseSend())...)
	}()
	var first *paymentsv1.Payment
	made := 0
	for i := range n {
		resp, err := stream.Recv()
		if err != nil {
			t.Fatalf("after %d answers: %v", i, err)
		}
		if first == nil {
			first = resp.GetPayment()
		}
		if !resp.GetReplayed() {
			made++
		}
		wantEqual(t, resp.GetPayment(), first)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	wantEnd(t, stream)
	if made != 1 || first == nil {
		t.Errorf("%d charges made a payment, want 1", made)
	}
	s.verify(t)
}

func TestAUserChargesOnlyThemselvesOverAStream(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	stream := process(t, s.as(ann))
	send(t, stream, request("k1"))
	if got := receive(t, stream, 1)["k1"]; got.GetPayment() == nil {
		t.Errorf("got %v", got)
	}
	send(t, stream, &paymentsv1.ChargeRequest{
		OrderId: "X1", AmountCents: 150, Currency: "EUR", IdempotencyKey: "k2", CustomerId: bob,
	})
	_, err := stream.Recv()
	kittest.WantFault(t, err, codes.PermissionDenied, "NOT_SELF")
	s.verify(t)
}

func TestADrainAnswersTheChargesOfAStreamThatWereReceived(t *testing.T) {
	t.Parallel()
	const n = 10
	dir := t.TempDir()
	s := start(t, dir)
	asked, release := make(chan struct{}, n), make(chan struct{})
	s.customers.setAnswer(func(ctx context.Context) error {
		asked <- struct{}{}
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	stream := process(t, s.orders())
	for i := range n {
		send(t, stream, request(fmt.Sprint("k", i)))
	}
	for range n {
		<-asked
	}
	s.Begin()
	close(release)
	for key, resp := range receive(t, stream, n) {
		if resp.GetPayment() == nil {
			t.Errorf("%s was answered with %v", key, resp)
		}
	}
	_, err := stream.Recv()
	kittest.WantFault(t, err, codes.Unavailable, "DRAINING")
	s.verify(t)
}

func TestAClientThatLeavesEndsItsCharges(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	asked, ended := make(chan struct{}, 1), make(chan error, 1)
	s.customers.setAnswer(func(ctx context.Context) error {
		asked <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	})
	ctx, leave := context.WithCancel(limit(t))
	stream, err := s.orders().ProcessCharges(ctx)
	if err != nil {
		t.Fatal(err)
	}
	send(t, stream, request("k"))
	<-asked
	leave()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the charge ended with %v", err)
	}
	// The key was not used up.
	s.customers.setAnswer(nil)
	charge(t, s, "k")
	s.verify(t)
}

func TestWhatBreaksInsideAStreamIsLoggedAndNotShown(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	var calls atomic.Int32
	s.customers.setAnswer(func(context.Context) error {
		switch calls.Add(1) {
		case 1:
			return errors.New("the secret of the house, for tok_of_the_house")
		case 2:
			panic("the secret of the cellar, for tok_of_the_house")
		}
		return nil
	})
	stream := process(t, s.orders())
	for i := range 3 {
		key := fmt.Sprint("k", i)
		req := request(key)
		if i < 2 {
			req.PaymentToken = "tok_of_the_house"
		}
		send(t, stream, req)
		resp := receive(t, stream, 1)[key]
		if i == 2 {
			if resp.GetPayment() == nil {
				t.Errorf("the charge after them was answered with %v", resp)
			}
			continue
		}
		f := grpcfault.FromStatus(resp.GetError())
		if f == nil || f.Kind() != fault.Internal || f.Reason() != "INTERNAL" {
			t.Errorf("%s was answered with %v", key, resp)
		}
		if strings.Contains(resp.String(), "secret") {
			t.Errorf("the client is told %v", resp)
		}
	}
	log := s.inside.String()
	for _, want := range []string{"the secret of the house", "the secret of the cellar", "request_id"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log has no %q:\n%s", want, log)
		}
	}
	if strings.Contains(log, "tok_of_the_house") {
		t.Errorf("the log has the payment token:\n%s", log)
	}
	s.verify(t)
}
