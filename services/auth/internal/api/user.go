package api

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/server"
	"github.com/concordat-dev/concordat/services/auth/internal/auth"
)

// userServer answers auth.v1.AuthService.
type userServer struct {
	authv1.UnimplementedAuthServiceServer

	auth   *auth.Service
	events *eventlog.Log
}

// GetUser says whether a user exists and may act.
func (s *userServer) GetUser(ctx context.Context, req *authv1.GetUserRequest) (*authv1.GetUserResponse, error) {
	a, err := s.auth.Account(ctx, auth.ParseUserID(req.GetUserId()))
	if err != nil {
		return nil, err
	}
	return &authv1.GetUserResponse{UserId: string(a.ID), Active: a.Active(), Role: roleToProto(a.Role)}, nil
}

// ValidateUser checks an email and a password.
func (s *userServer) ValidateUser(ctx context.Context, req *authv1.ValidateUserRequest) (*authv1.ValidateUserResponse, error) {
	v, err := s.auth.ValidateUser(ctx, req.GetUsername(), req.GetPassword())
	if err != nil {
		return nil, err
	}
	return &authv1.ValidateUserResponse{IsValid: v.Valid, Message: v.Message, UserId: string(v.UserID)}, nil
}

// watchScope begins the scope of the resume tokens: one that was given out for one user is not good for another.
const watchScope = "auth.v1.AuthService/WatchUserEvents user="

// WatchUserEvents streams the events of one user, or of all.
func (s *userServer) WatchUserEvents(req *authv1.WatchUserEventsRequest, stream grpc.ServerStreamingServer[authv1.WatchUserEventsResponse]) error {
	ctx := stream.Context()
	user := string(auth.ParseUserID(req.GetUserId()))
	watch := eventlog.Watch{Scope: watchScope + user, Token: req.GetResumeToken()}
	if user != "" {
		watch.Match = func(e eventlog.Event) bool { return e.Subject == user }
	}
	sub, err := s.events.Subscribe(ctx, watch)
	if err != nil {
		return err
	}
	defer sub.Close()
	self := identity.From(ctx).UserID()
	return server.Follow(ctx, sub, func(e *eventlog.Event, token string) error {
		if err := stream.Send(&authv1.WatchUserEventsResponse{Event: eventToProto(e), ResumeToken: token}); err != nil {
			return err
		}
		if e == nil || e.Subject != self {
			return nil
		}
		return auth.EventType(e.Type).Blocks() // the caller may no longer act, and so not watch
	})
}

func eventToProto(e *eventlog.Event) *authv1.UserEvent {
	if e == nil {
		return nil
	}
	return &authv1.UserEvent{
		UserId:    e.Subject,
		EventType: eventTypeToProto(auth.EventType(e.Type)),
		Timestamp: timestamppb.New(e.At),
	}
}
