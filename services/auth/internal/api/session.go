package api

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/services/auth/internal/auth"
)

// sessionServer answers auth.v1.SessionService.
type sessionServer struct {
	authv1.UnimplementedSessionServiceServer

	auth *auth.Service
}

// SignUp makes an account and its profile.
func (s *sessionServer) SignUp(ctx context.Context, req *authv1.SignUpRequest) (*authv1.SignUpResponse, error) {
	a, err := s.auth.SignUp(ctx, auth.SignUpRequest{
		Email:       req.GetEmail(),
		Password:    req.GetPassword(),
		DisplayName: req.GetDisplayName(),
		RequestID:   req.GetRequestId(),
		AdminCode:   req.GetAdminCode(),
	})
	if err != nil {
		return nil, err
	}
	return &authv1.SignUpResponse{Account: accountToProto(a)}, nil
}

// SignIn opens a session.
func (s *sessionServer) SignIn(ctx context.Context, req *authv1.SignInRequest) (*authv1.SignInResponse, error) {
	tokens, a, err := s.auth.SignIn(ctx, req.GetEmail(), req.GetPassword())
	if err != nil {
		return nil, err
	}
	return &authv1.SignInResponse{Tokens: tokensToProto(tokens), Account: accountToProto(a)}, nil
}

// RefreshSession exchanges a refresh token for new tokens.
func (s *sessionServer) RefreshSession(ctx context.Context, req *authv1.RefreshSessionRequest) (*authv1.RefreshSessionResponse, error) {
	tokens, err := s.auth.Refresh(ctx, req.GetRefreshToken())
	if err != nil {
		return nil, err
	}
	return &authv1.RefreshSessionResponse{Tokens: tokensToProto(tokens)}, nil
}

// SignOut closes a session.
func (s *sessionServer) SignOut(ctx context.Context, req *authv1.SignOutRequest) (*authv1.SignOutResponse, error) {
	if err := s.auth.SignOut(ctx, req.GetRefreshToken()); err != nil {
		return nil, err
	}
	return &authv1.SignOutResponse{}, nil
}

// ChangePassword changes the caller's password.
func (s *sessionServer) ChangePassword(ctx context.Context, req *authv1.ChangePasswordRequest) (*authv1.ChangePasswordResponse, error) {
	change := auth.PasswordChangeRequest{
		UserID:    auth.ParseUserID(req.GetUserId()),
		Current:   req.GetCurrentPassword(),
		New:       req.GetNewPassword(),
		RequestID: req.GetRequestId(),
	}
	if user := identity.From(ctx).User; user != nil {
		change.SessionID = auth.SessionID(user.SessionID)
	}
	if err := s.auth.ChangePassword(ctx, change); err != nil {
		return nil, err
	}
	return &authv1.ChangePasswordResponse{}, nil
}

func tokensToProto(t auth.Tokens) *authv1.SessionTokens {
	return &authv1.SessionTokens{
		AccessToken:           t.AccessToken,
		AccessTokenExpiresAt:  timestamppb.New(t.AccessExpiresAt),
		RefreshToken:          t.RefreshToken,
		RefreshTokenExpiresAt: timestamppb.New(t.RefreshExpiresAt),
		SessionId:             string(t.SessionID),
	}
}
