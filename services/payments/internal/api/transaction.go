package api

import (
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

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
		if t == nil {
			return stream.Send(&paymentsv1.WatchTransactionsResponse{ResumeToken: token})
		}
		return server.Tell(stream, feed, token, func() proto.Message {
			return &paymentsv1.WatchTransactionsResponse{Transaction: transactionToProto(*t), ResumeToken: token}
		})
	})
}
