package api

import (
	"context"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/services/auth/internal/auth"
)

// adminServer answers auth.v1.AdminService.
type adminServer struct {
	authv1.UnimplementedAdminServiceServer

	auth *auth.Service
}

// by returns what changes accounts on behalf of the caller, whom the policy lets through only with a token.
func (s *adminServer) by(ctx context.Context) auth.Administrator {
	return s.auth.By(auth.UserID(identity.From(ctx).UserID()))
}

// LockUser locks an account.
func (s *adminServer) LockUser(ctx context.Context, req *authv1.LockUserRequest) (*authv1.LockUserResponse, error) {
	a, err := s.by(ctx).Lock(ctx, auth.ParseUserID(req.GetUserId()), req.GetEtag())
	if err != nil {
		return nil, err
	}
	return &authv1.LockUserResponse{Account: accountToProto(a)}, nil
}

// UnlockUser unlocks an account.
func (s *adminServer) UnlockUser(ctx context.Context, req *authv1.UnlockUserRequest) (*authv1.UnlockUserResponse, error) {
	a, err := s.by(ctx).Unlock(ctx, auth.ParseUserID(req.GetUserId()), req.GetEtag())
	if err != nil {
		return nil, err
	}
	return &authv1.UnlockUserResponse{Account: accountToProto(a)}, nil
}

// DeactivateUser deactivates an account.
func (s *adminServer) DeactivateUser(ctx context.Context, req *authv1.DeactivateUserRequest) (*authv1.DeactivateUserResponse, error) {
	a, err := s.by(ctx).Deactivate(ctx, auth.ParseUserID(req.GetUserId()), req.GetEtag())
	if err != nil {
		return nil, err
	}
	return &authv1.DeactivateUserResponse{Account: accountToProto(a)}, nil
}

// ReactivateUser reactivates an account.
func (s *adminServer) ReactivateUser(ctx context.Context, req *authv1.ReactivateUserRequest) (*authv1.ReactivateUserResponse, error) {
	a, err := s.by(ctx).Reactivate(ctx, auth.ParseUserID(req.GetUserId()), req.GetEtag())
	if err != nil {
		return nil, err
	}
	return &authv1.ReactivateUserResponse{Account: accountToProto(a)}, nil
}
