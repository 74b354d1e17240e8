package api

import (
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/server"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// watchScope begins the scope of the resume tokens: one that was given out for one filter is not good for another.
const watchScope = "users.v1.UserService/WatchUsers filter="

// WatchUsers streams the changes of users.
func (s *Server) WatchUsers(req *usersv1.WatchUsersRequest, stream grpc.ServerStreamingServer[usersv1.WatchUsersResponse]) error {
	filter, err := parseFilter(req.GetFilter())
	if err != nil {
		return err
	}
	ctx := stream.Context()
	sub, err := s.users.Watch(ctx, users.Watch{Filter: filter, Scope: watchScope + req.GetFilter(), Token: req.GetResumeToken()})
	if err != nil {
		return err
	}
	defer sub.Close()
	return server.Follow(ctx, sub, func(e *users.Event, token string) error {
		if e == nil {
			return stream.Send(&usersv1.WatchUsersResponse{ResumeToken: token})
		}
		return server.Tell(stream, sub, token, func() proto.Message {
			return &usersv1.WatchUsersResponse{Event: eventToProto(*e), ResumeToken: token}
		})
	})
}

// ExportUserData streams all that is kept of a user.
func (s *Server) ExportUserData(req *usersv1.ExportUserDataRequest, stream grpc.ServerStreamingServer[usersv1.ExportUserDataResponse]) error {
	ctx := stream.Context()
	draining := server.Draining(ctx)
	return s.users.Export(ctx, users.CanonicalID(req.GetUserId()), func(u users.User) error {
		return stream.Send(&usersv1.ExportUserDataResponse{Data: &usersv1.ExportUserDataResponse_User{User: toProto(u)}})
	}, func(e users.Event) error {
		select {
		case <-draining:
			return server.ErrDraining
		default:
			return stream.Send(&usersv1.ExportUserDataResponse{Data: &usersv1.ExportUserDataResponse_Event{Event: eventToProto(e)}})
		}
	})
}

func eventToProto(e users.Event) *usersv1.UserEvent {
	return &usersv1.UserEvent{
		UserId:    string(e.User.ID),
		EventType: eventTypeToProto(e.Type),
		Timestamp: timestamppb.New(e.At),
		User:      toProto(e.User),
		Matches:   e.Matches,
	}
}

func eventTypeToProto(t users.EventType) usersv1.UserEventType {
	switch t {
	case users.EventCreated:
		return usersv1.UserEventType_USER_EVENT_TYPE_CREATED
	case users.EventUpdated:
		return usersv1.UserEventType_USER_EVENT_TYPE_UPDATED
	case users.EventDisabled:
		return usersv1.UserEventType_USER_EVENT_TYPE_DISABLED
	case users.EventEnabled:
		return usersv1.UserEventType_USER_EVENT_TYPE_ENABLED
	case users.EventDeleted:
		return usersv1.UserEventType_USER_EVENT_TYPE_DELETED
	case users.EventUndeleted:
		return usersv1.UserEventType_USER_EVENT_TYPE_UNDELETED
	case users.EventErased:
		return usersv1.UserEventType_USER_EVENT_TYPE_ERASED
	default:
		return usersv1.UserEventType_USER_EVENT_TYPE_UNSPECIFIED
	}
}
