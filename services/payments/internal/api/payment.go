package api

import (
	"context"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// replayedHeader says that the answer is that of an earlier call with the same key.
const replayedHeader = "idempotency-replayed"

// Charge charges a customer.
func (s *Server) Charge(ctx context.Context, req *paymentsv1.ChargeRequest) (*paymentsv1.ChargeResponse, error) {
	outcome, err := s.charge(ctx, req)
	if err != nil {
		return nil, err
	}
	return &paymentsv1.ChargeResponse{Payment: told(ctx, outcome)}, nil
}

// charge asks the domain for a charge, on behalf of the caller of ctx.
func (s *Server) charge(ctx context.Context, req *paymentsv1.ChargeRequest) (payments.Outcome, error) {
	return s.payments.Charge(ctx, identity.From(ctx).Key(), req.GetIdempotencyKey(), payments.Charge{
		Order:         payments.OrderID(req.GetOrderId()),
		Customer:      customerID(req.GetCustomerId()),
		Amount:        req.GetAmountCents(),
		Currency:      req.GetCurrency(),
		Token:         req.GetPaymentToken(),
		AuthorizeOnly: req.Capture != nil && !req.GetCapture(),
		Metadata:      req.GetMetadata(),
	})
}

// CapturePayment captures what was authorized.
func (s *Server) CapturePayment(
	ctx context.Context, req *paymentsv1.CapturePaymentRequest,
) (*paymentsv1.CapturePaymentResponse, error) {
	caller := identity.From(ctx)
	outcome, err := s.payments.Capture(ctx, caller.Key(), req.GetIdempotencyKey(), viewer(caller),
		paymentID(req.GetPaymentId()), req.GetAmountCents(), req.GetFinalCapture())
	if err != nil {
		return nil, err
	}
	return &paymentsv1.CapturePaymentResponse{Payment: told(ctx, outcome)}, nil
}

// CancelPayment releases what was authorized.
func (s *Server) CancelPayment(
	ctx context.Context, req *paymentsv1.CancelPaymentRequest,
) (*paymentsv1.CancelPaymentResponse, error) {
	caller := identity.From(ctx)
	outcome, err := s.payments.Cancel(ctx, caller.Key(), req.GetIdempotencyKey(), viewer(caller), paymentID(req.GetPaymentId()))
	if err != nil {
		return nil, err
	}
	return &paymentsv1.CancelPaymentResponse{Payment: told(ctx, outcome)}, nil
}

// RefundPayment gives back what was captured.
func (s *Server) RefundPayment(
	ctx context.Context, req *paymentsv1.RefundPaymentRequest,
) (*paymentsv1.RefundPaymentResponse, error) {
	caller := identity.From(ctx)
	outcome, err := s.payments.Refund(ctx, caller.Key(), req.GetIdempotencyKey(), viewer(caller),
		paymentID(req.GetPaymentId()), req.GetAmountCents())
	if err != nil {
		return nil, err
	}
	return &paymentsv1.RefundPaymentResponse{Payment: told(ctx, outcome)}, nil
}

// told returns the payment of an outcome, and says in a header when it is that of an earlier call.
func told(ctx context.Context, outcome payments.Outcome) *paymentsv1.Payment {
	sayReplayed(ctx, outcome)
	return toProto(outcome.Payment)
}

func sayReplayed(ctx context.Context, outcome payments.Outcome) {
	if outcome.Replayed {
		// It fails only where headers are out already, and nothing has sent any.
		_ = grpc.SetHeader(ctx, metadata.Pairs(replayedHeader, "true"))
	}
}

// GetPayment returns a payment.
func (s *Server) GetPayment(
	ctx context.Context, req *paymentsv1.GetPaymentRequest,
) (*paymentsv1.GetPaymentResponse, error) {
	p, err := s.payments.Get(ctx, viewer(identity.From(ctx)), paymentID(req.GetPaymentId()))
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
	where, err := parseFilter(req.GetFilter())
	if err != nil {
		return nil, err
	}
	scope := pageScope(ctx, paymentsv1.PaymentService_ListPayments_FullMethodName, string(customer), req.GetFilter())
	before, err := s.openPage(scope, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	page, err := s.payments.List(ctx, payments.Query{Customer: customer, Where: where, Before: before, Limit: int(req.GetPageSize())})
	if err != nil {
		return nil, err
	}
	resp := &paymentsv1.ListPaymentsResponse{Payments: make([]*paymentsv1.Payment, len(page.Payments))}
	for i, p := range page.Payments {
		resp.Payments[i] = toProto(p)
	}
	if page.More {
		resp.NextPageToken = s.sealPage(scope, page.Payments[len(page.Payments)-1].Number)
	}
	return resp, nil
}

// pageScope is what a page token is bound to: the method, the caller and what is listed. Lengths keep the parts apart.
func pageScope(ctx context.Context, method string, what ...string) string {
	var scope strings.Builder
	scope.WriteString(method)
	for _, part := range append([]string{identity.From(ctx).Key()}, what...) {
		scope.WriteString(" " + strconv.Itoa(len(part)) + ":" + part)
	}
	return scope.String()
}

// openPage returns the number that a token stands for; an empty token stands for zero, the beginning.
func (s *Server) openPage(scope, token string) (int64, error) {
	if token == "" {
		return 0, nil
	}
	text, err := s.pages.Open(scope, token)
	if err != nil {
		return 0, payments.ErrPageTokenInvalid.Because(err)
	}
	number, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		return 0, payments.ErrPageTokenInvalid.Because(err)
	}
	return number, nil
}

func (s *Server) sealPage(scope string, number int64) string {
	return s.pages.Seal(scope, strconv.AppendInt(nil, number, 10))
}
