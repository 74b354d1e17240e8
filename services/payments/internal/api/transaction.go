package api

import (
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	"github.com/concordat-dev/concordat/kit/server"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// WatchTransactions streams what happens to the payments of one customer, or of all.
func (s *Server) WatchTransactions(
	req *paymentsv1.WatchTransactionsRequest, stream grpc.ServerStreamingServer[paymentsv1.WatchTransactionsResponse],
) error {
	ctx := stream.Context()
	feed, err := s.payments.Watch(ctx, customerID(req.GetCustomerId()), req.GetResumeToken())
	if err != nil {
		return err
	}
	defer feed.Close()
	return server.Follow(ctx, feed, func(t *payments.Transaction, token string) error {
		resp := &paymentsv1.WatchTransactionsResponse{ResumeToken: token}
		if t != nil {
			resp.Transaction = transactionToProto(*t)
		}
		return stream.Send(resp)
	})
}

func transactionToProto(t payments.Transaction) *paymentsv1.Transaction {
	return &paymentsv1.Transaction{
		Type:      transactionTypeToProto(t.Type),
		Payment:   toProto(t.Payment),
		Timestamp: timestamppb.New(t.At),
	}
}

func transactionTypeToProto(t payments.TransactionType) paymentsv1.TransactionType {
	switch t {
	case payments.TransactionCharged:
		return paymentsv1.TransactionType_TRANSACTION_TYPE_CHARGED
	default:
		return paymentsv1.TransactionType_TRANSACTION_TYPE_UNSPECIFIED
	}
}
