package app

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/client"
	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
	"github.com/concordat-dev/concordat/services/payments/internal/sqlstore"
)

// followErasures has what users erases erased here as well, once for each customer, over crashes and breaks.
func followErasures(h *kit.Host, target string, store *sqlstore.Store) error {
	conn, err := client.Dial(client.Config{
		Target: target, Server: "users", Identity: h.Identity, Telemetry: h.Signals,
		Services: []protoreflect.ServiceDescriptor{usersv1.File_users_v1_user_service_proto.Services().ByName("UserService")},
	})
	if err != nil {
		return fmt.Errorf("--users: %w", err)
	}
	h.OnClose(conn.Close)
	users := usersv1.NewUserServiceClient(conn)
	consumer, err := store.Erasures(erasures{users}, gone(users), h.Random, func(err error) {
		h.Log.Warn("erasures are not heard of", "cause", err)
	})
	if err != nil {
		return err
	}
	h.Beside(consumer.Run)
	return nil
}

// erasures are the events of users that tell of an erasure.
type erasures struct{ users usersv1.UserServiceClient }

// onlyDeleted keeps the changes of users who are there away: an erasure is told to every watch.
const onlyDeleted = `state = "DELETED"`

// Open implements eventlog.Source.
func (e erasures) Open(ctx context.Context, token string) (eventlog.Stream[payments.CustomerID], error) {
	stream, err := e.users.WatchUsers(ctx, &usersv1.WatchUsersRequest{Filter: onlyDeleted, ResumeToken: token})
	if err != nil {
		return nil, err
	}
	return erasureStream{stream}, nil
}

type erasureStream struct {
	stream grpc.ServerStreamingClient[usersv1.WatchUsersResponse]
}

// Next implements eventlog.Stream.
func (s erasureStream) Next(context.Context) (*payments.CustomerID, string, error) {
	resp, err := s.stream.Recv()
	switch {
	case errors.Is(err, eventlog.ErrTooOld):
		return nil, "", eventlog.ErrTooOld.Because(err)
	case err != nil:
		return nil, "", err
	}
	if e := resp.GetEvent(); e.GetEventType() == usersv1.UserEventType_USER_EVENT_TYPE_ERASED {
		customer := payments.CustomerID(e.GetUserId())
		return &customer, resp.GetResumeToken(), nil
	}
	return nil, resp.GetResumeToken(), nil
}

// gone returns what asks users which of some customers were erased.
func gone(users usersv1.UserServiceClient) func(context.Context, []payments.CustomerID) ([]payments.CustomerID, error) {
	return func(ctx context.Context, ids []payments.CustomerID) (erased []payments.CustomerID, err error) {
		left := make([]string, len(ids))
		for i, id := range ids {
			left[i] = string(id)
		}
		for len(left) > 0 {
			resp, err := users.BatchGetUsers(ctx, &usersv1.BatchGetUsersRequest{UserIds: left})
			if err != nil {
				return nil, fmt.Errorf("ask users who was erased: %w", err)
			}
			for _, u := range resp.GetUsers() {
				if u.GetErasedAt() != nil {
					erased = append(erased, payments.CustomerID(u.GetUserId()))
				}
			}
			if len(resp.GetRemainingUserIds()) >= len(left) {
				return nil, errors.New("ask users who was erased: it answers of nobody")
			}
			left = resp.GetRemainingUserIds()
		}
		return erased, nil
	}
}
