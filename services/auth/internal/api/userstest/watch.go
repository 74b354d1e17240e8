package userstest

import (
	"context"
	"fmt"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/server"
)

// Change changes a user, and tells of it.
func (s *Server) Change(id string, what usersv1.UserEventType, change func(*usersv1.User)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	user := proto.CloneOf(s.users[id])
	change(user)
	user.UpdatedAt = timestamppb.Now()
	s.users[id] = user
	s.events = append(s.events, &usersv1.UserEvent{UserId: id, EventType: what, Timestamp: user.GetUpdatedAt(), User: user})
	close(s.more)
	s.more = make(chan struct{})
}

// Forget has no watch resume from before now.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.oldest = len(s.events) + 1
	s.events = append(s.events, nil)
}

// WatchUsers streams what Change told; the token is the number of events.
func (s *Server) WatchUsers(req *usersv1.WatchUsersRequest, stream grpc.ServerStreamingServer[usersv1.WatchUsersResponse]) error {
	if err := s.before(stream.Context()); err != nil {
		return err
	}
	s.mu.Lock()
	at := len(s.events)
	s.mu.Unlock()
	if token := req.GetResumeToken(); token != "" {
		var err error
		if at, err = strconv.Atoi(token); err != nil {
			return eventlog.ErrBadToken
		}
	} else if err := stream.Send(&usersv1.WatchUsersResponse{ResumeToken: strconv.Itoa(at)}); err != nil {
		return err
	}
	for {
		s.mu.Lock()
		oldest, more, event := s.oldest, s.more, (*usersv1.UserEvent)(nil)
		there := at < len(s.events)
		if there {
			event = s.events[at]
		}
		s.mu.Unlock()
		switch {
		case at < oldest:
			return eventlog.ErrTooOld
		case !there:
			select {
			case <-more:
			case <-server.Draining(stream.Context()):
				return fmt.Errorf("draining: %w", ErrDown)
			case <-stream.Context().Done():
				return stream.Context().Err()
			}
		default:
			at++
			if err := stream.Send(&usersv1.WatchUsersResponse{Event: event, ResumeToken: strconv.Itoa(at)}); err != nil {
				return err
			}
		}
	}
}

// BatchGetUsers returns users, one in each answer, so that whoever asks for several asks again.
func (s *Server) BatchGetUsers(ctx context.Context, req *usersv1.BatchGetUsersRequest) (*usersv1.BatchGetUsersResponse, error) {
	if err := s.before(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	resp := &usersv1.BatchGetUsersResponse{}
	for _, id := range req.GetUserIds() {
		switch user, found := s.users[id]; {
		case !found:
			resp.MissingUserIds = append(resp.MissingUserIds, id)
		case len(resp.GetUsers()) > 0:
			resp.RemainingUserIds = append(resp.RemainingUserIds, id)
		default:
			resp.Users = append(resp.Users, user)
		}
	}
	return resp, nil
}
