// Package profiles is users.v1 as the domain knows it: the calls that auth makes itself, as a service.
package profiles

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/client"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/pki"
	"github.com/concordat-dev/concordat/kit/telemetry"
	"github.com/concordat-dev/concordat/services/auth/internal/auth"
)

// Dial returns a connection to users at target, which connects when it is first used. signals is the telemetry of the
// service, nil for none.
func Dial(target string, identity *pki.Identity, signals *telemetry.Service) (*grpc.ClientConn, error) {
	return client.Dial(client.Config{
		Target:    target,
		Server:    "users",
		Identity:  identity,
		Telemetry: signals,
		Services:  []protoreflect.ServiceDescriptor{usersv1.File_users_v1_user_service_proto.Services().ByName("UserService")},
	})
}

// Profiles asks users.v1. It is safe for concurrent use.
type Profiles struct{ users usersv1.UserServiceClient }

var _ auth.Profiles = Profiles{}

// New returns the profiles behind a connection that Dial made.
func New(users grpc.ClientConnInterface) Profiles {
	return Profiles{usersv1.NewUserServiceClient(users)}
}

// What users.v1 says that means something to the domain.
var (
	errEmailTaken   = fault.New(fault.AlreadyExists, "EMAIL_TAKEN", "the email is taken").WithDomain("users.v1")
	errEmailInvalid = fault.New(fault.InvalidArgument, "EMAIL_INVALID", "the email is not valid").WithDomain("users.v1")
	errUserNotFound = fault.New(fault.NotFound, "USER_NOT_FOUND", "no such user").WithDomain("users.v1")
)

// errInternal hides an answer that says something of us and nothing to our caller.
var errInternal = fault.New(fault.Internal, "INTERNAL", "internal error")

// Create makes a profile; see auth.Profiles. The user's id is the request id too, so that each repetition is the same
// request.
func (p Profiles) Create(ctx context.Context, profile auth.Profile) error {
	_, err := p.users.CreateUser(ctx, &usersv1.CreateUserRequest{
		UserId:      string(profile.UserID),
		Email:       profile.Email,
		DisplayName: profile.DisplayName,
		RequestId:   string(profile.UserID),
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errEmailTaken):
		return auth.ErrEmailTaken.Because(err)
	case errors.Is(err, errEmailInvalid):
		return emailRefused(err)
	}
	switch fault.KindOf(err) {
	case fault.InvalidArgument, fault.AlreadyExists, fault.FailedPrecondition, fault.OutOfRange:
		return errInternal.Because(fmt.Errorf("create user: %w: %w", auth.ErrProfileRefused, err))
	default:
		return failed(ctx, "create user", err)
	}
}

// emailRefused tells our own caller what users.v1 says of the email, which is the caller's: the rules there are stricter than those of
// SignUp's message.
func emailRefused(err error) error {
	refused := fault.New(fault.InvalidArgument, "INVALID_REQUEST", "the request breaks the rules of its message").WithDomain(fault.Domain)
	if f, ok := fault.As(err); ok {
		for _, v := range f.Violations() {
			refused = refused.WithViolation("email", v.Rule, v.Text)
		}
	}
	return refused.Because(fmt.Errorf("create user: %w: %w", auth.ErrProfileRefused, err))
}

// Find returns what there is of a user; see auth.Profiles.
func (p Profiles) Find(ctx context.Context, id auth.UserID) (auth.KnownProfile, error) {
	resp, err := p.users.GetUser(ctx, &usersv1.GetUserRequest{UserId: string(id)})
	switch {
	case err == nil:
		return known(resp.GetUser()), nil
	case errors.Is(err, errUserNotFound):
		return auth.KnownProfile{}, auth.ErrNoRecord
	default:
		return auth.KnownProfile{}, failed(ctx, "get user", err)
	}
}

// FindAll returns what there is of several; see auth.Profiles.
func (p Profiles) FindAll(ctx context.Context, ids []auth.UserID) ([]auth.KnownProfile, error) {
	left := make([]string, len(ids))
	for i, id := range ids {
		left[i] = string(id)
	}
	var all []auth.KnownProfile
	for len(left) > 0 {
		resp, err := p.users.BatchGetUsers(ctx, &usersv1.BatchGetUsersRequest{UserIds: left})
		if err != nil {
			return nil, failed(ctx, "get users", err)
		}
		for _, u := range resp.GetUsers() {
			all = append(all, known(u))
		}
		if len(resp.GetRemainingUserIds()) >= len(left) {
			return nil, errInternal.Because(errors.New("get users: it answers of nobody"))
		}
		left = resp.GetRemainingUserIds()
	}
	return all, nil
}

// failed returns what a call that was not answered means to our own caller.
func failed(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil { // our own caller is out of time or gone
		return fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
	switch fault.KindOf(err) {
	case fault.Unavailable, fault.DeadlineExceeded, fault.Canceled, fault.ResourceExhausted, fault.Aborted:
		return auth.ErrUpstreamUnavailable.Because(err)
	default:
		return errInternal.Because(fmt.Errorf("%s: %w", what, err))
	}
}
