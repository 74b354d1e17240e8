package api

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/server"
	"github.com/concordat-dev/concordat/kit/token"
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
	if req.GetSince() != nil {
		watch.Since = req.GetSince().AsTime()
	}
	if user != "" {
		watch.Match = func(e eventlog.Event) bool { return e.Subject == user }
	}
	sub, err := s.events.Subscribe(ctx, watch)
	if err != nil {
		return err
	}
	defer sub.Close()
	self := identity.From(ctx).User
	told := ""      // the point that was sent last
	unsent := false // there is an event that the stream is resumed before
	send := func(e *eventlog.Event, token string) error {
		var err error
		if e == nil {
			err = stream.Send(&authv1.WatchUserEventsResponse{ResumeToken: token})
		} else {
			err = server.Tell(stream, sub, token, func() proto.Message {
				return &authv1.WatchUserEventsResponse{Event: eventToProto(e), ResumeToken: token}
			})
		}
		if err != nil {
			unsent = true
			return err
		}
		told = token
		if e == nil || self == nil || e.Subject != self.ID {
			return nil
		}
		return endOf(self, eventOf(*e), token)
	}
	err = server.Follow(ctx, sub, send)
	if errors.Is(err, token.ErrRevoked) && !unsent && (user == "" || user == self.ID) {
		if err = lastWords(ctx, sub, send, err); errors.Is(err, token.ErrRevoked) {
			if !unsent {
				told = sub.Position() // which has moved on past what is of others
			}
			return token.ErrRevoked.With(eventlog.MetadataResumeToken, told)
		}
	}
	return err
}

// endOf returns what an event means for a stream of the user that it happened to: that they may no longer act, and so not
// watch, that the session of the stream has ended, or nothing.
func endOf(self *identity.User, e auth.Event, resume string) error {
	if err := e.Type.Blocks(); err != nil {
		return err
	}
	r := revocationOf(e)
	if r == nil || !r.Concerns(self) {
		return nil
	}
	return token.ErrRevoked.With(eventlog.MetadataResumeToken, resume)
}

// lastWords tells a stream that was cut, because the session of its caller has ended, how that came about: the event is in
// the log, where the revocation was read as well. It returns what the event says, else why it was cut.
func lastWords(ctx context.Context, sub *eventlog.Subscription, send func(*eventlog.Event, string) error, cut error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWordsIn)
	defer cancel()
	for {
		e, token, err := sub.Next(ctx)
		if err != nil {
			return cut
		}
		if err := send(&e, token); err != nil {
			return err
		}
	}
}

// lastWordsIn bounds lastWords: the request path leaves a call that is cut a little time.
const lastWordsIn = 100 * time.Millisecond

// eventOf returns the domain's event of an entry of the log.
func eventOf(e eventlog.Event) auth.Event {
	return auth.Event{
		UserID: auth.UserID(e.Subject), Type: auth.EventType(e.Type), At: e.At, SessionID: auth.SessionID(e.Payload),
	}
}

func eventToProto(e *eventlog.Event) *authv1.UserEvent {
	event := eventOf(*e)
	p := &authv1.UserEvent{
		UserId:    string(event.UserID),
		EventType: eventTypeToProto(event.Type),
		Timestamp: timestamppb.New(event.At),
	}
	if ended, ok := event.Ended(); ok {
		p.EndedSessions = &authv1.EndedSessions{SessionId: string(ended.SessionID), ExceptSessionId: string(ended.Except)}
	}
	return p
}
