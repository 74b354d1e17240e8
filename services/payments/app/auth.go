package app

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	"github.com/concordat-dev/concordat/kit/client"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/pki"
	"github.com/concordat-dev/concordat/kit/telemetry"
	"github.com/concordat-dev/concordat/kit/token"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// dialAuth returns a connection to auth, which connects when it is first used.
func dialAuth(target string, identity *pki.Identity, signals *telemetry.Service) (*grpc.ClientConn, error) {
	return client.Dial(client.Config{
		Target:    target,
		Server:    "auth",
		Identity:  identity,
		Telemetry: signals,
		Services: []protoreflect.ServiceDescriptor{
			authv1.File_auth_v1_auth_service_proto.Services().ByName("AuthService"),
			authv1.File_auth_v1_key_service_proto.Services().ByName("KeyService"),
		},
	})
}

// keys returns what asks auth for the keys that verify access tokens.
func keys(auth grpc.ClientConnInterface) func(context.Context) ([]token.Key, error) {
	service := authv1.NewKeyServiceClient(auth)
	return func(ctx context.Context) ([]token.Key, error) {
		resp, err := service.GetJwks(ctx, &authv1.GetJwksRequest{})
		if err != nil {
			return nil, fmt.Errorf("ask auth for its keys: %w", err)
		}
		return token.ParseSet(resp.GetKeys())
	}
}

// source is where customers are known: auth.v1.
type source struct{ auth authv1.AuthServiceClient }

var _ payments.Customers = source{}

var (
	// errUserNotFound is how auth.v1 says that there is no such user.
	errUserNotFound = fault.New(fault.NotFound, "USER_NOT_FOUND", "no such user").WithDomain("auth.v1")
	// errDirectory hides an answer that says something of us and nothing to our caller.
	errDirectory = fault.New(fault.Internal, "INTERNAL", "internal error")
)

// Get asks auth for a customer.
func (c source) Get(ctx context.Context, id payments.CustomerID) (payments.Customer, error) {
	resp, err := c.auth.GetUser(ctx, &authv1.GetUserRequest{UserId: string(id)})
	switch {
	case err == nil:
		return payments.Customer{
			ID: payments.CustomerID(resp.GetUserId()), Active: resp.GetActive(), Role: role(resp.GetRole()),
		}, nil
	case errors.Is(err, errUserNotFound):
		return payments.Customer{}, payments.ErrCustomerNotFound.With("customer_id", string(id)).Because(err)
	case ctx.Err() != nil:
		// Our own caller is out of time or gone.
		return payments.Customer{}, fmt.Errorf("ask auth for a customer: %w", context.Cause(ctx))
	}
	switch fault.KindOf(err) {
	case fault.Unavailable, fault.DeadlineExceeded, fault.Canceled, fault.ResourceExhausted:
		return payments.Customer{}, payments.ErrUpstreamUnavailable.Because(err)
	default:
		return payments.Customer{}, errDirectory.Because(fmt.Errorf("ask auth for a customer: %w", err))
	}
}

// role returns the role, "" for one that is not known here.
func role(r authv1.Role) payments.Role {
	switch r {
	case authv1.Role_ROLE_MEMBER:
		return payments.RoleMember
	case authv1.Role_ROLE_ADMIN:
		return payments.RoleAdmin
	default:
		return ""
	}
}
