package api

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/policy"
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

const (
	// maxBatchBytes is how much of an answer the users of a batch take: what is left of the limit of a message has room for 1,000 ids.
	maxBatchBytes = policy.MaxMessageBytes - 128<<10
	// fieldBytes is what a message takes in another one beside its own size, at most.
	fieldBytes = 6
)

// BatchGetUsers returns users by their ids, as many as there is room for.
func (s *Server) BatchGetUsers(ctx context.Context, req *usersv1.BatchGetUsersRequest) (*usersv1.BatchGetUsersResponse, error) {
	ids := make([]users.ID, len(req.GetUserIds()))
	for i, id := range req.GetUserIds() {
		ids[i] = users.CanonicalID(id)
	}
	found, missing, err := s.users.BatchGet(ctx, ids)
	if err != nil {
		return nil, err
	}
	resp := &usersv1.BatchGetUsersResponse{Users: make([]*usersv1.User, 0, len(found))}
	size := 0
	for i, u := range found {
		msg := toProto(u)
		if size += proto.Size(msg) + fieldBytes; size > maxBatchBytes {
			for _, left := range found[i:] {
				resp.RemainingUserIds = append(resp.RemainingUserIds, string(left.ID))
			}
			break
		}
		resp.Users = append(resp.Users, msg)
	}
	for _, id := range missing {
		resp.MissingUserIds = append(resp.MissingUserIds, string(id))
	}
	return resp, nil
}

// adminScope is the scope of those who may say that an email is verified.
const adminScope = "users.admin"

// UpdateUser changes what is known of a user.
func (s *Server) UpdateUser(ctx context.Context, req *usersv1.UpdateUserRequest) (*usersv1.UpdateUserResponse, error) {
	caller, user := identity.From(ctx), req.GetUser()
	u, err := s.users.Update(ctx, users.Update{
		Target: target(ctx, user.GetUserId(), req.GetRequestId(), user.GetEtag()),
		Paths:  req.GetUpdateMask().GetPaths(),
		Values: users.Values{
			Email:       user.GetEmail(),
			DisplayName: user.GetDisplayName(),
			FirstName:   user.GetFirstName(),
			LastName:    user.GetLastName(),
			Address:     fromAddress(user.GetAddress()),
			Verified:    user.GetVerified(),
			Labels:      user.GetLabels(),
		},
		Privileged: caller.Service() != "" || caller.Has(adminScope),
		CheckOnly:  req.GetValidateOnly(),
	})
	if err != nil {
		return nil, err
	}
	return &usersv1.UpdateUserResponse{User: toProto(u)}, nil
}

// DisableUser disables a user.
func (s *Server) DisableUser(ctx context.Context, req *usersv1.DisableUserRequest) (*usersv1.DisableUserResponse, error) {
	u, err := s.users.Disable(ctx, target(ctx, req.GetUserId(), req.GetRequestId(), req.GetEtag()))
	if err != nil {
		return nil, err
	}
	return &usersv1.DisableUserResponse{User: toProto(u)}, nil
}

// EnableUser enables a user.
func (s *Server) EnableUser(ctx context.Context, req *usersv1.EnableUserRequest) (*usersv1.EnableUserResponse, error) {
	u, err := s.users.Enable(ctx, target(ctx, req.GetUserId(), req.GetRequestId(), req.GetEtag()))
	if err != nil {
		return nil, err
	}
	return &usersv1.EnableUserResponse{User: toProto(u)}, nil
}

// DeleteUser deletes a user.
func (s *Server) DeleteUser(ctx context.Context, req *usersv1.DeleteUserRequest) (*usersv1.DeleteUserResponse, error) {
	u, err := s.users.Delete(ctx, target(ctx, req.GetUserId(), req.GetRequestId(), req.GetEtag()))
	if err != nil {
		return nil, err
	}
	return &usersv1.DeleteUserResponse{User: toProto(u)}, nil
}

// UndeleteUser brings a deleted user back.
func (s *Server) UndeleteUser(ctx context.Context, req *usersv1.UndeleteUserRequest) (*usersv1.UndeleteUserResponse, error) {
	u, err := s.users.Undelete(ctx, target(ctx, req.GetUserId(), req.GetRequestId(), req.GetEtag()))
	if err != nil {
		return nil, err
	}
	return &usersv1.UndeleteUserResponse{User: toProto(u)}, nil
}

// EraseUser removes everything personal of a user.
func (s *Server) EraseUser(ctx context.Context, req *usersv1.EraseUserRequest) (*usersv1.EraseUserResponse, error) {
	u, err := s.users.Erase(ctx, target(ctx, req.GetUserId(), req.GetRequestId(), ""))
	if err != nil {
		return nil, err
	}
	return &usersv1.EraseUserResponse{User: toProto(u)}, nil
}

func target(ctx context.Context, id, requestID, etag string) users.Target {
	return users.Target{Caller: identity.From(ctx).Key(), RequestID: requestID, ID: users.CanonicalID(id), ETag: etag}
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
		Address:     fromAddress(req.GetAddress()),
		Verified:    req.GetVerified(),
		Labels:      req.GetLabels(),
		CheckOnly:   req.GetValidateOnly(),
	}
}

func toProto(u users.User) *usersv1.User {
	return &usersv1.User{
		UserId:      string(u.ID),
		Email:       u.Email.Text,
		DisplayName: u.DisplayName,
		FirstName:   u.FirstName,
		LastName:    u.LastName,
		State:       stateToProto(u.State),
		Etag:        u.ETag(),
		CreatedAt:   timestamppb.New(u.CreatedAt),
		UpdatedAt:   timestamppb.New(u.UpdatedAt),
		Verified:    u.Verified,
		Labels:      u.Labels,
		Address:     toAddress(u.Address),
		DeletedAt:   toTime(u.DeletedAt),
		PurgeAt:     toTime(u.PurgeAt),
		ErasedAt:    toTime(u.ErasedAt),
	}
}

func stateToProto(s users.State) usersv1.UserState {
	switch s {
	case users.Active:
		return usersv1.UserState_USER_STATE_ACTIVE
	case users.Disabled:
		return usersv1.UserState_USER_STATE_DISABLED
	case users.Deleted:
		return usersv1.UserState_USER_STATE_DELETED
	default:
		return usersv1.UserState_USER_STATE_UNSPECIFIED
	}
}

// toTime returns nil for a time that is not set.
func toTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func toAddress(a *users.Address) *usersv1.Address {
	if a == nil {
		return nil
	}
	return &usersv1.Address{
		CountryCode: a.CountryCode, Lines: a.Lines, Locality: a.Locality, AdministrativeArea: a.AdministrativeArea, PostalCode: a.PostalCode,
	}
}

func fromAddress(a *usersv1.Address) *users.Address {
	if a == nil {
		return nil
	}
	return &users.Address{
		CountryCode: a.GetCountryCode(), Lines: a.GetLines(), Locality: a.GetLocality(), AdministrativeArea: a.GetAdministrativeArea(),
		PostalCode: a.GetPostalCode(),
	}
}
