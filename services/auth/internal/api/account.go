package api

import (
	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	"github.com/concordat-dev/concordat/services/auth/internal/auth"
)

func accountToProto(a auth.Account) *authv1.Account {
	return &authv1.Account{
		UserId:    string(a.ID),
		Email:     a.Email,
		Role:      roleToProto(a.Role),
		State:     stateToProto(a.Standing()),
		Etag:      a.ETag(),
		CreatedAt: timestamppb.New(a.CreatedAt),
		UpdatedAt: timestamppb.New(a.UpdatedAt),
	}
}

// The domain's values are the names of the enum without their prefix; a test holds both against each other.

func roleToProto(r auth.Role) authv1.Role {
	return authv1.Role(authv1.Role_value["ROLE_"+string(r)])
}

func stateToProto(s auth.State) authv1.AccountState {
	return authv1.AccountState(authv1.AccountState_value["ACCOUNT_STATE_"+string(s)])
}

func eventTypeToProto(t auth.EventType) authv1.UserEventType {
	return authv1.UserEventType(authv1.UserEventType_value["USER_EVENT_TYPE_"+string(t)])
}
