package api

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// replayedHeader says that the answer is that of an earlier call with the same key.
const replayedHeader = "idempotency-replayed"

// Charge charges a customer.
func (s *Server) Charge(ctx context.Context, req *paymentsv1.ChargeRequest) (*paymentsv1.ChargeResponse, error) {
	receipt, err := s.charge(ctx, req)
	if err != nil {
		return nil, err
	}
	if receipt.Replayed {
		// It fails only where headers are out already, and nothing has sent any.
		_ = grpc.SetHeader(ctx, metadata.Pairs(replayedHeader, "true"))
	}
	return &paymentsv1.ChargeResponse{Payment: toProto(receipt.Payment)}, nil
}

// charge asks the domain for a charge, on behalf of the caller of ctx.
func (s *Server) charge(ctx context.Context, req *paymentsv1.ChargeRequest) (payments.Receipt, error) {
	return s.payments.Charge(ctx, identity.From(ctx).Key(), req.GetIdempotencyKey(), payments.Charge{
		Order:    payments.OrderID(req.GetOrderId()),
		Customer: customerID(req.GetCustomerId()),
		Amount:   req.GetAmountCents(),
		Currency: req.GetCurrency(),
		Metadata: req.GetMetadata(),
	})
}

// GetPayment returns a payment.
func (s *Server) GetPayment(
	ctx context.Context, req *paymentsv1.GetPaymentRequest,
) (*paymentsv1.GetPaymentResponse, error) {
	p, err := s.payments.Get(ctx, viewer(identity.From(ctx)), payments.ID(strings.ToLower(req.GetPaymentId())))
	if err != nil {
		return nil, err
	}
	return &paymentsv1.GetPaymentResponse{Payment: toProto(p)}, nil
}

// ListPayments returns a page of payments.
func (s *Server) ListPayments(
	ctx context.Context, req *paymentsv1.ListPaymentsRequest,
) (*paymentsv1.ListPaymentsResponse, error) {
	customer := customerID(req.GetCustomerId())
	scope := pageScope(identity.From(ctx), customer)
	after, err := s.openPage(scope, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	page, err := s.payments.List(ctx, payments.Query{Customer: customer, After: after, Limit: int(req.GetPageSize())})
	if err != nil {
		return nil, err
	}
	resp := &paymentsv1.ListPaymentsResponse{Payments: make([]*paymentsv1.Payment, len(page.Payments))}
	for i, p := range page.Payments {
		resp.Payments[i] = toProto(p)
	}
	if page.More {
		resp.NextPageToken = s.pages.Seal(scope, []byte(page.Payments[len(page.Payments)-1].ID))
	}
	return resp, nil
}

// pageScope is what a page token is bound to: the method, the caller and the filter, none of which has a space in it.
func pageScope(caller identity.Caller, customer payments.CustomerID) string {
	return paymentsv1.PaymentService_ListPayments_FullMethodName + " " + caller.Key() + " " + string(customer)
}

// openPage returns the payment that a token comes after; an empty token stands for the beginning.
func (s *Server) openPage(scope, token string) (payments.ID, error) {
	if token == "" {
		return "", nil
	}
	id, err := s.pages.Open(scope, token)
	if err != nil {
		return "", payments.ErrPageTokenInvalid.Because(err)
	}
	return payments.ID(id), nil
}

// customerID returns the id in its canonical form; a UUID may come in capitals.
func customerID(text string) payments.CustomerID { return payments.CustomerID(strings.ToLower(text)) }

func toProto(p payments.Payment) *paymentsv1.Payment {
	return &paymentsv1.Payment{
		PaymentId:   string(p.ID),
		OrderId:     string(p.Order),
		CustomerId:  string(p.Customer),
		AmountCents: p.Amount,
		Currency:    string(p.Currency),
		State:       stateToProto(p.State),
		Metadata:    p.Metadata,
		CreatedAt:   timestamppb.New(p.CreatedAt),
	}
}

func stateToProto(s payments.State) paymentsv1.PaymentState {
	switch s {
	case payments.StateCaptured:
		return paymentsv1.PaymentState_PAYMENT_STATE_CAPTURED
	default:
		return paymentsv1.PaymentState_PAYMENT_STATE_UNSPECIFIED
	}
}
