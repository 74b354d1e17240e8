package profiles

import (
	"context"
	"errors"

	"google.golang.org/grpc"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/services/auth/internal/auth"
)

// known returns what the domain needs to know of a user. A state that is not known here is one in which the user may
// not act.
func known(u *usersv1.User) auth.KnownProfile {
	p := auth.KnownProfile{UserID: auth.UserID(u.GetUserId()), Email: u.GetEmail(), At: u.GetUpdatedAt().AsTime(), State: auth.ProfileDisabled}
	switch {
	case u.GetErasedAt() != nil:
		p.State = auth.ProfileErased
	case u.GetState() == usersv1.UserState_USER_STATE_ACTIVE:
		p.State = auth.ProfileActive
	case u.GetState() == usersv1.UserState_USER_STATE_DELETED:
		p.State = auth.ProfileDeleted
	}
	return p
}

// Changes are the changes of profiles that mean something to accounts, for a consumer.
func (p Profiles) Changes() eventlog.Source[auth.ProfileChange] { return changes(p) }

type changes struct{ users usersv1.UserServiceClient }

// Open implements eventlog.Source.
func (c changes) Open(ctx context.Context, token string) (eventlog.Stream[auth.ProfileChange], error) {
	stream, err := c.users.WatchUsers(ctx, &usersv1.WatchUsersRequest{ResumeToken: token})
	if err != nil {
		return nil, err
	}
	return changeStream{stream}, nil
}

type changeStream struct {
	stream grpc.ServerStreamingClient[usersv1.WatchUsersResponse]
}

// Next implements eventlog.Stream.
func (s changeStream) Next(context.Context) (*auth.ProfileChange, string, error) {
	resp, err := s.stream.Recv()
	switch {
	case errors.Is(err, eventlog.ErrTooOld):
		return nil, "", eventlog.ErrTooOld.Because(err)
	case err != nil:
		return nil, "", err
	case resp.GetEvent() == nil:
		return nil, resp.GetResumeToken(), nil
	}
	change := auth.ProfileChange{KnownProfile: known(resp.GetEvent().GetUser()), Moved: true}
	change.UserID = auth.UserID(resp.GetEvent().GetUserId())
	switch resp.GetEvent().GetEventType() {
	case usersv1.UserEventType_USER_EVENT_TYPE_CREATED:
		return nil, resp.GetResumeToken(), nil // who signs up has an account already, and who is imported gets one when it is asked for
	case usersv1.UserEventType_USER_EVENT_TYPE_UPDATED:
		change.Moved = false
	}
	return &change, resp.GetResumeToken(), nil
}
