package skew

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/pki"
	"github.com/concordat-dev/concordat/proof/internal/figure"
	"github.com/concordat-dev/concordat/proof/internal/skew/upstream"
)

// trustDomain is that of the development PKI.
const trustDomain = "concordat"

// ofLater is a field that no version has: number 9000, a text.
var ofLater = append([]byte{0xc2, 0xb2, 0x04, 0x06}, "future"...)

// later adds the field to a message, as a peer of a later version would.
func later[M proto.Message](m M) M {
	m.ProtoReflect().SetUnknown(ofLater)
	return m
}

// passages are the messages that go through the edge: of each kind of call one, with a field that no version has in it
// and in what is in it.
func passages() []upstream.Passage {
	charge := func() *paymentsv1.ChargeRequest {
		return later(&paymentsv1.ChargeRequest{OrderId: "order-later", AmountCents: 1999, Currency: "EUR", IdempotencyKey: "later"})
	}
	payment := func() *paymentsv1.Payment {
		return later(&paymentsv1.Payment{PaymentId: "later", OrderId: "order-later"})
	}
	return []upstream.Passage{
		{
			Method: paymentsv1.PaymentService_Charge_FullMethodName, Kind: upstream.Unary,
			Request: charge(), Answer: later(&paymentsv1.ChargeResponse{Payment: payment()}),
		}, {
			Method: paymentsv1.PaymentService_WatchTransactions_FullMethodName, Kind: upstream.ServerStream,
			Request: later(&paymentsv1.WatchTransactionsRequest{}),
			Answer:  later(&paymentsv1.WatchTransactionsResponse{Transaction: later(&paymentsv1.Transaction{Payment: payment()})}),
		}, {
			Method: usersv1.UserService_CreateUsers_FullMethodName, Kind: upstream.ClientStream,
			Request: later(&usersv1.CreateUsersRequest{User: later(&usersv1.CreateUserRequest{Email: "later@skew.example"})}),
			Answer:  later(&usersv1.CreateUsersResponse{CreatedCount: 1}),
		}, {
			Method: paymentsv1.PaymentService_ProcessCharges_FullMethodName, Kind: upstream.BothWays,
			Request: later(&paymentsv1.ProcessChargesRequest{Charge: charge()}),
			Answer:  later(&paymentsv1.ProcessChargesResponse{Result: &paymentsv1.ProcessChargesResponse_Payment{Payment: payment()}}),
		},
	}
}

// edges sends messages of a later version through the edge of each version, to a service that stands for one of a later
// version.
func (l *lab) edges(ctx context.Context) ([]figure.Figure, error) {
	sent, lost := 0, 0
	rows := [][]string{{"edge", "wire", "passed", "lost"}}
	for _, v := range []*version{l.old, l.new} {
		results, err := l.edge(ctx, v)
		if err != nil {
			return nil, fmt.Errorf("the %s edge: %w", v.name, err)
		}
		for _, r := range results {
			sent, lost = sent+r.Passed+len(r.Lost), lost+len(r.Lost)
			rows = append(rows, []string{v.name, r.Wire, fmt.Sprint(r.Passed), fmt.Sprint(len(r.Lost))})
			for _, what := range r.Lost {
				l.out.Line("FAILED the %s edge, %s: %s", v.name, r.Wire, what)
			}
		}
	}
	l.out.Table("messages with fields of a later version, each way", rows)
	return []figure.Figure{count("skew.unknown_fields_lost", lost), count("skew.unknown_fields_sent", sent)}, nil
}

// edge sends them through one edge.
func (l *lab) edge(ctx context.Context, v *version) (results []upstream.Result, err error) {
	dir, err := os.MkdirTemp(l.dir, "edge-")
	if err != nil {
		return nil, err
	}
	certificates := filepath.Join(dir, "state", "pki")
	if err := os.MkdirAll(certificates, 0o700); err != nil {
		return nil, err
	}
	dev, err := pki.NewDevelopment(certificates, trustDomain, clock.System())
	if err != nil {
		return nil, err
	}
	var flags []string
	behind := upstream.New(passages())
	for _, name := range []string{"users", "payments"} {
		identity, err := dev.Identity(ctx, name, func(err error) { l.out.Line("certificate of %s: %v", name, err) })
		if err != nil {
			return nil, err
		}
		at, stop, err := behind.Serve(identity.ServerTLS())
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, stop()) }()
		flags = append(flags, "--gateway-"+name, "dns:///"+at)
	}
	s, err := start(ctx, v.server, dir, flags...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	return behind.Through(ctx, s.at.GRPC, s.at.HTTP)
}
