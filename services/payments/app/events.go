package app

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	"github.com/concordat-dev/concordat/kit/token"
	"github.com/concordat-dev/concordat/services/payments/internal/customers"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// userEvents returns what opens auth's feed of what happens to users. It ends access tokens, and it says which
// customers to ask about anew: both read the one stream.
func userEvents(auth grpc.ClientConnInterface, directory *customers.Directory) token.Open {
	service := authv1.NewAuthServiceClient(auth)
	return func(ctx context.Context, point string, since time.Time) (func() (token.News, error), error) {
		stream, err := service.WatchUserEvents(ctx, &authv1.WatchUserEventsRequest{ResumeToken: point, Since: timestamppb.New(since)})
		if err != nil {
			return nil, err
		}
		if point == "" {
			directory.ForgetAll() // nobody knows what was missed
		} else {
			directory.Resumed()
		}
		return func() (token.News, error) {
			resp, err := stream.Recv()
			if err != nil {
				return token.News{}, err
			}
			if user := resp.GetEvent().GetUserId(); user != "" {
				directory.Forget(payments.CustomerID(user))
			}
			directory.Heard()
			return token.News{Revocation: revocation(resp.GetEvent()), Point: resp.GetResumeToken()}, nil
		}, nil
	}
}

// revocation returns which tokens are good no more because of an event, nil where none are.
func revocation(e *authv1.UserEvent) *token.Revocation {
	ended := e.GetEndedSessions()
	if ended == nil || e.GetUserId() == "" {
		return nil
	}
	return &token.Revocation{
		UserID: e.GetUserId(), SessionID: ended.GetSessionId(), Except: ended.GetExceptSessionId(), At: e.GetTimestamp().AsTime(),
	}
}
