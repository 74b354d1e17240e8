package api

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// CreateUser makes a user.
func (s *Server) CreateUser(ctx context.Context, req *usersv1.CreateUserRequest) (*usersv1.CreateUserResponse, error) {
	u, err := s.users.Create(ctx, newUser(identity.From(ctx), req))
	if err != nil {
		return nil, err
	}
	return &usersv1.CreateUserResponse{User: toProto(u)}, nil
}

// GetUser returns a user.
func (s *Server) GetUser(ctx context.Context, req *usersv1.GetUserRequest) (*usersv1.GetUserResponse, error) {
	u, err := s.users.Get(ctx, users.CanonicalID(req.GetUserId()))
	if err != nil {
		return nil, err
	}
	return &usersv1.GetUserResponse{User: toProto(u)}, nil
}

func newUser(caller identity.Caller, req *usersv1.CreateUserRequest) users.NewUser {
	return users.NewUser{
		Caller:      caller.Key(),
		RequestID:   req.GetRequestId(),
		ID:          req.GetUserId(),
		Email:       req.GetEmail(),
		DisplayName: req.GetDisplayName(),
		FirstName:   req.GetFirstName(),
		LastName:    req.GetLastName(),
	}
}

func toProto(u users.User) *usersv1.User {
	return &usersv1.User{
		UserId:      string(u.ID),
		Email:       u.Email,
		DisplayName: u.DisplayName,
		FirstName:   u.FirstName,
		LastName:    u.LastName,
		State:       usersv1.UserState(usersv1.UserState_value["USER_STATE_"+string(u.State)]),
		Etag:        u.ETag(),
		CreatedAt:   timestamppb.New(u.CreatedAt),
		UpdatedAt:   timestamppb.New(u.UpdatedAt),
	}
}
