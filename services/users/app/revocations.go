package app

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	"github.com/concordat-dev/concordat/kit/token"
)

// revocations returns what opens auth's feed of access tokens that are good no more.
func revocations(auth grpc.ClientConnInterface) token.Open {
	service := authv1.NewAuthServiceClient(auth)
	return func(ctx context.Context, point string, since time.Time) (func() (token.News, error), error) {
		stream, err := service.WatchUserEvents(ctx, &authv1.WatchUserEventsRequest{ResumeToken: point, Since: timestamppb.New(since)})
		if err != nil {
			return nil, err
		}
		return func() (token.News, error) {
			resp, err := stream.Recv()
			if err != nil {
				return token.News{}, err
			}
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
