package main_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	"github.com/concordat-dev/concordat/kit/grpcfault"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/sqldb/postgrestest"
)

// replicas are two payments services on one PostgreSQL, behind a gateway of their own. One of them, and auth and
// users, are those of a standalone.
type replicas struct {
	first      *standalone
	second     *process
	conn       *grpc.ClientConn
	web        httpWire
	dir, url   string
	root       *person
	rootsToken string
}

func startReplicas(t *testing.T) *replicas {
	t.Helper()
	r := &replicas{dir: t.TempDir(), url: postgrestest.Database(t)}
	r.first = run(t, r.dir, "--payments-database-url="+r.url)
	auth, users := "static:///"+r.first.auth, "static:///"+r.first.users
	r.second = start(t, r.dir, binary(t, "payments"), "--listen=127.0.0.1:0", "--admin=", "--auth="+auth, "--users="+users, "--database-url="+r.url)
	second := r.second.find(`msg="payments is ready" address=(\S+)`)[1]
	gateway := start(t, r.dir, binary(t, "gateway"), "--http=127.0.0.1:0", "--grpc=127.0.0.1:0", "--admin=", "--auth="+auth, "--users="+users,
		"--payments=static:///"+r.first.payments+","+second)
	at0 := gateway.find(`msg="gateway is ready" http=(\S+) grpc=(\S+)`)

	var err error
	r.conn, err = grpc.NewClient(at0[2], grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(), grpc.WithDisableRetry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.conn.Close() })
	transport := &http.Transport{MaxConnsPerHost: 64, MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	r.web = httpWire{&http.Client{Transport: transport}, "http://" + at0[1]}

	r.root = at(t, at0[2])
	r.root.signUp(t, "root@example.com", request1, r.first.find(`"admin_code": "([^"]+)"`)[1])
	r.root.signIn(t, "root@example.com")
	header, _ := metadata.FromOutgoingContext(r.root.ctx)
	r.rootsToken = strings.TrimPrefix(header.Get("authorization")[0], "Bearer ")
	return r
}

// verify proves the books with the command, while both replicas run.
func (r *replicas) verify(t *testing.T) {
	t.Helper()
	p := start(t, r.dir, binary(t, "payments"), "verify", "--database-url="+r.url)
	if code := p.wait(); code != 0 {
		t.Errorf("verify ended with %d: %s", code, p.out)
	}
}

// wantBoth checks that both replicas were called for a method.
func (r *replicas) wantBoth(t *testing.T, method string) {
	t.Helper()
	line := `method=\S*` + method + ` code=OK`
	r.second.find(line)
	r.first.find(line)
}

// again calls until the answer is one that a repetition cannot change: a machine that has much else to do may not
// answer in time, and whoever has a key tries again.
func again(ctx context.Context, call func() error) error {
	for {
		err := call()
		switch status.Code(err) {
		case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Aborted:
			if ctx.Err() == nil {
				continue
			}
		}
		return err
	}
}

// answer is what one of many equal charges got.
type answer struct {
	way      string
	payment  *paymentsv1.Payment
	replayed bool
}

func TestAThousandEqualChargesOverTwoReplicasAndEveryProtocolAreOne(t *testing.T) {
	t.Parallel()
	r := startReplicas(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	charge := &paymentsv1.ChargeRequest{
		OrderId: "order", AmountCents: 1999, Currency: "EUR", IdempotencyKey: "equal", CustomerId: r.root.id,
		Metadata: map[string]string{"a": "1", "b": "2", "c": "3", "d": "4"},
	}
	const each, streamed = 125, 125
	ways := []wire{
		&grpcWire{"gRPC", r.conn}, restWire{httpWire: r.web},
		connectWire{r.web, "proto"}, connectWire{r.web, "json"}, webWire{r.web, "proto"}, webWire{r.web, "json"}, &grpcWire{"gRPC again", r.conn},
	}
	var (
		mu      sync.Mutex
		answers []answer
		group   sync.WaitGroup
		open    = make(chan struct{}) // closed when all are there
		m       = methodOf(t, "Charge")
	)
	got := func(a answer) {
		mu.Lock()
		defer mu.Unlock()
		answers = append(answers, a)
	}
	for _, w := range ways {
		for range each {
			group.Go(func() {
				body, err := w.encode(charge)
				if err != nil {
					t.Error(err)
					return
				}
				<-open
				var a answer
				err = again(ctx, func() error {
					var err error
					a, err = charged(ctx, w, m, r.rootsToken, body)
					return err
				})
				if err != nil {
					t.Errorf("%s: %v", w, err)
					return
				}
				got(a)
			})
		}
	}
	group.Go(func() {
		<-open
		for _, a := range streamedCharges(t, r, charge, streamed) {
			got(a)
		}
	})
	close(open)
	group.Wait()
	if len(answers) != each*len(ways)+streamed {
		t.Fatalf("%d answers", len(answers))
	}
	fresh := map[string]int{}
	for _, a := range answers {
		if !proto.Equal(a.payment, answers[0].payment) {
			t.Errorf("%s got %v, %s got %v", a.way, a.payment, answers[0].way, answers[0].payment)
		}
		if !a.replayed {
			fresh[a.way]++
		}
	}
	made := 0
	for _, n := range fresh {
		made += n
	}
	if made > 1 { // it is none where the first answer was lost on the way
		t.Errorf("more than one answer does not say that it is a replay: %v", fresh)
	}
	if p := answers[0].payment; p.GetState() != paymentsv1.PaymentState_PAYMENT_STATE_CAPTURED || p.GetAmountCents() != 1999 || len(p.GetMetadata()) != 4 {
		t.Errorf("the payment is %v", p)
	}
	list, err := r.root.payments.ListPayments(r.root.ctx, &paymentsv1.ListPaymentsRequest{})
	if err != nil || len(list.GetPayments()) != 1 {
		t.Errorf("%d payments, %v", len(list.GetPayments()), err)
	}
	r.wantBoth(t, "Charge")
	r.verify(t)
}

// methodOf returns a method of the contract by its name.
func methodOf(t *testing.T, name string) method {
	t.Helper()
	for _, m := range contract(t) {
		if string(m.Name()) == name {
			return m
		}
	}
	t.Fatalf("there is no method %s", name)
	return method{}
}

// charged makes a charge over a wire and returns what it got, whatever form that came in.
func charged(ctx context.Context, w wire, m method, token string, body []byte) (answer, error) {
	r, err := w.call(ctx, m, token, body)
	switch {
	case err != nil:
		return answer{}, err
	case r.refused != nil:
		return answer{}, r.refused
	case r.status != nil:
		return answer{}, status.FromProto(r.status).Err()
	}
	var resp paymentsv1.ChargeResponse
	if r.json != nil {
		err = protojson.Unmarshal(r.json, &resp)
	} else {
		err = proto.Unmarshal(r.message, &resp)
	}
	return answer{w.String(), resp.GetPayment(), strings.Contains(strings.ToLower(r.all), "idempotency-replayed")}, err
}

// streamedCharges sends a charge n times over one ProcessCharges and returns the answers.
func streamedCharges(t *testing.T, r *replicas, charge *paymentsv1.ChargeRequest, n int) []answer {
	stream, err := r.root.payments.ProcessCharges(r.root.ctx)
	if err != nil {
		t.Error(err)
		return nil
	}
	go func() {
		for range n {
			if stream.Send(&paymentsv1.ProcessChargesRequest{Charge: charge}) != nil {
				return // Recv says why
			}
		}
		_ = stream.CloseSend()
	}()
	var all []answer
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil || resp.GetError() != nil || resp.GetIdempotencyKey() != charge.GetIdempotencyKey() {
			t.Errorf("ProcessCharges: %v, %v", resp, err)
			return all
		}
		all = append(all, answer{"ProcessCharges", resp.GetPayment(), resp.GetReplayed()})
	}
}

func TestAThousandRefundsOverTwoReplicasGiveBackNoMoreThanWasCaptured(t *testing.T) {
	t.Parallel()
	r := startReplicas(t)
	paid, err := r.root.charge("k", 10_000)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(r.root.ctx, 25*time.Second)
	t.Cleanup(cancel)
	var given atomic.Int64
	var group sync.WaitGroup
	for i := range 1000 {
		group.Go(func() {
			err := again(ctx, func() error {
				_, err := r.root.payments.RefundPayment(ctx, &paymentsv1.RefundPaymentRequest{
					PaymentId: paid.GetPaymentId(), AmountCents: 17, IdempotencyKey: fmt.Sprint(i),
				})
				return err
			})
			if err == nil {
				given.Add(17)
			} else if grpcfault.FromError(err).Reason() != "AMOUNT_EXCEEDED" {
				t.Error(err)
			}
		})
	}
	group.Wait()
	got, err := r.root.payments.GetPayment(ctx, &paymentsv1.GetPaymentRequest{PaymentId: paid.GetPaymentId()})
	if p := got.GetPayment(); err != nil || p.GetRefundedCents() != given.Load() || given.Load() != 588*17 ||
		p.GetState() != paymentsv1.PaymentState_PAYMENT_STATE_PARTIALLY_REFUNDED {
		t.Errorf("acknowledged %d, %v, %v", given.Load(), p, err)
	}
	_, err = r.root.payments.RefundPayment(ctx, &paymentsv1.RefundPaymentRequest{PaymentId: paid.GetPaymentId(), AmountCents: 17, IdempotencyKey: "one-more"})
	if f := kittest.WantFault(t, err, codes.FailedPrecondition, "AMOUNT_EXCEEDED"); f.Metadata()["available_cents"] != "4" {
		t.Errorf("left: %v", f.Metadata())
	}
	r.wantBoth(t, "RefundPayment")
	r.verify(t)
}

func TestOppositeTransfersOfTwoHundredOverTwoReplicasLoseNothing(t *testing.T) {
	t.Parallel()
	r := startReplicas(t)
	ctx, cancel := context.WithTimeout(r.root.ctx, 25*time.Second)
	t.Cleanup(cancel)
	ledger := paymentsv1.NewLedgerServiceClient(r.conn)
	var accounts []string
	for _, owner := range []string{"left", "right"} {
		resp, err := ledger.OpenAccount(ctx, &paymentsv1.OpenAccountRequest{
			Owner: owner, Kind: paymentsv1.AccountKind_ACCOUNT_KIND_GENERAL, Currency: "EUR", IdempotencyKey: owner,
		})
		if err != nil {
			t.Fatal(err)
		}
		accounts = append(accounts, resp.GetAccount().GetAccountId())
	}
	const workers, each = 200, 5
	var group sync.WaitGroup
	for i := range workers {
		group.Go(func() {
			from, to, cents := accounts[i%2], accounts[(i+1)%2], int64(1+i%2) // to the left one cent, to the right two
			for n := range each {
				err := again(ctx, func() error {
					_, err := ledger.Transfer(ctx, &paymentsv1.TransferRequest{
						IdempotencyKey: fmt.Sprint(i, "-", n),
						Operations: []*paymentsv1.TransferOperation{{Operation: &paymentsv1.TransferOperation_Move{Move: &paymentsv1.MoveOperation{
							Legs: []*paymentsv1.TransferLeg{{AccountId: from, AmountCents: -cents}, {AccountId: to, AmountCents: cents}},
						}}}},
					})
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	for i, want := range []int64{workers / 2 * each, -workers / 2 * each} {
		resp, err := ledger.GetAccount(ctx, &paymentsv1.GetAccountRequest{AccountId: accounts[i]})
		if err != nil || resp.GetAccount().GetBalanceCents() != want {
			t.Errorf("account %d: %v, %v; want %d", i, resp, err, want)
		}
	}
	proof, err := ledger.VerifyLedger(ctx, &paymentsv1.VerifyLedgerRequest{})
	if err != nil || !proof.GetSound() || proof.GetTransferCount() != workers*each {
		t.Errorf("the books: %v, %v", proof, err)
	}
	r.wantBoth(t, "Transfer")
	for _, p := range []*process{r.second, r.first.process} {
		if code := p.signal(syscall.SIGTERM); code != 0 {
			t.Errorf("exit code %d", code)
		}
	}
}
