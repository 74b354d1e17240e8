package rpc

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/fanout"
	"github.com/concordat-dev/concordat/kit/server"
)

// The methods that are called, each for what its policy says: GetUser wants a token of that user with the scope
// users.read; the others take a service's certificate.
const (
	getUser     = usersv1.UserService_GetUser_FullMethodName        // the unary figures
	listUsers   = usersv1.UserService_ListUsers_FullMethodName      // overload: a call is work for the processor
	streamUsers = usersv1.UserService_StreamUsers_FullMethodName    // messages on one stream
	watchEvents = authv1.AuthService_WatchUserEvents_FullMethodName // many subscribers
)

// theUser is who calls GetUser, and who is asked for; scope is what their token must carry.
const (
	theUser = "01890a5d-ac96-774b-bcce-b302099a8057"
	scope   = "users.read"
)

// work is what one call of ListUsers hashes: a millisecond or so.
const work = 2 << 20 // bytes

// users and auth are what all variants serve: handlers that touch no store, so that what is measured is the way to them.
type (
	users struct {
		usersv1.UnimplementedUserServiceServer
		work []byte
		tell tell
	}
	auth struct {
		authv1.UnimplementedAuthServiceServer
		feed *feed
		tell tell
	}
)

// tell sends the message of the event that the subscription has returned last, made and encoded once for all who get it.
type tell func(stream grpc.ServerStream, sub server.Subscription[*event], token string, message func() proto.Message) error

// tellPrepared tells as stock grpc-go has it; our services use server.Tell.
func tellPrepared(stream grpc.ServerStream, sub server.Subscription[*event], token string, message func() proto.Message) error {
	m, err := fanout.Get(sub.(*subscription).Memo(), token, func() (*grpc.PreparedMsg, error) {
		m := &grpc.PreparedMsg{}
		return m, m.Encode(stream, message())
	})
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	return stream.SendMsg(m)
}

// register adds both services; what feed publishes goes to the watchers.
func register(r grpc.ServiceRegistrar, feed *feed, tell tell) {
	usersv1.RegisterUserServiceServer(r, users{work: make([]byte, work), tell: tell})
	authv1.RegisterAuthServiceServer(r, auth{feed: feed, tell: tell})
}

// GetUser answers at once.
func (users) GetUser(_ context.Context, req *usersv1.GetUserRequest) (*usersv1.GetUserResponse, error) {
	return &usersv1.GetUserResponse{User: &usersv1.User{
		UserId: req.GetUserId(), Email: "ada@example.com", DisplayName: "Ada Lovelace", FirstName: "Ada", LastName: "Lovelace",
	}}, nil
}

// ListUsers keeps the processor busy, as a password or a report does, whoever else wants it.
func (u users) ListUsers(context.Context, *usersv1.ListUsersRequest) (*usersv1.ListUsersResponse, error) {
	sum := sha256.Sum256(u.work)
	return &usersv1.ListUsersResponse{TotalSize: int32(sum[0])}, nil
}

// StreamUsers sends one message of 100 bytes, encoded once, until the caller leaves.
func (u users) StreamUsers(_ *usersv1.StreamUsersRequest, stream grpc.ServerStreamingServer[usersv1.StreamUsersResponse]) error {
	same := &subscription{last: &event{}}
	for {
		if err := u.tell(stream, same, "", func() proto.Message { return hundredBytes() }); err != nil {
			return err
		}
	}
}

// hundredBytes returns a message that is 100 bytes long on the wire.
func hundredBytes() *usersv1.StreamUsersResponse {
	return &usersv1.StreamUsersResponse{User: &usersv1.User{
		UserId: theUser, Email: "byron@example.com", DisplayName: "Augusta Ada Byron, Countess of Lovelace",
	}}
}

// WatchUserEvents sends what the feed publishes, each message encoded once for all who watch.
func (a auth) WatchUserEvents(_ *authv1.WatchUserEventsRequest, stream grpc.ServerStreamingServer[authv1.WatchUserEventsResponse]) error {
	sub := &subscription{at: a.feed.now()}
	return server.Follow(stream.Context(), sub, func(e **event, token string) error {
		if e == nil {
			return stream.Send(&authv1.WatchUserEventsResponse{ResumeToken: token})
		}
		return a.tell(stream, sub, token, func() proto.Message { return (*e).message })
	})
}

// resumeToken is as long as those of the event log.
const resumeToken = "AQAAAAAAAAAqAAAAAAAAB9B0aGUtZXBvY2gtYW5kLXRoZS1zaWduYXR1cmU"

// feed is the shortest of event logs: what is published is told to all who watch at that moment. Watchers wait on the
// event that comes next, so that it holds no list of them.
type feed struct {
	mu   sync.Mutex
	next *event
}

// event is one thing that was published, or the one that will be.
type event struct {
	published chan struct{} // closed once the fields below are set
	message   *authv1.WatchUserEventsResponse
	next      *event
	memo      fanout.Memo
}

func newFeed() *feed { return &feed{next: &event{published: make(chan struct{})}} }

func (f *feed) now() *event {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.next
}

// publish tells all watchers of one more event, and returns when it began to.
func (f *feed) publish() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.next
	e.message = &authv1.WatchUserEventsResponse{
		Event: &authv1.UserEvent{
			UserId: theUser, EventType: authv1.UserEventType_USER_EVENT_TYPE_ACCOUNT_LOCKED, Timestamp: timestamppb.Now(),
		},
		ResumeToken: resumeToken,
	}
	e.next = &event{published: make(chan struct{})}
	f.next = e.next
	at := time.Now()
	close(e.published)
	return at
}

// subscription is a place in a feed.
type subscription struct {
	at   *event // that comes next
	last *event
}

var _ server.Subscription[*event] = (*subscription)(nil)

// Next implements server.Subscription.
func (s *subscription) Next(ctx context.Context) (*event, string, error) {
	select {
	case <-s.at.published:
	case <-ctx.Done():
		return nil, "", ctx.Err()
	}
	s.last, s.at = s.at, s.at.next
	return s.last, resumeToken, nil
}

// Memo is that of the event which Next returned last, for server.Tell.
func (s *subscription) Memo() *fanout.Memo { return &s.last.memo }

// Position implements server.Subscription.
func (s *subscription) Position() string { return resumeToken }

// OnCut implements server.Subscription: it buffers nothing, and so cuts nobody.
func (s *subscription) OnCut(func(error)) {}
