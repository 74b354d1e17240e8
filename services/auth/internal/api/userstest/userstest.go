// Package userstest is a users.v1 for tests of auth: it stands behind the real request path on a port of its own, and
// keeps users, emails and requests in memory as the contract promises.
package userstest

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/kittest"
)

// Server is a users.v1 with the calls that auth makes. It is safe for concurrent use.
type Server struct {
	usersv1.UnimplementedUserServiceServer

	*kittest.Harness
	address string

	mu       sync.Mutex
	users    map[string]*usersv1.User              // by id
	requests map[string]*usersv1.CreateUserRequest // by caller and request id
	answer   func(context.Context) error           // where set, what comes before each answer
	events   []*usersv1.UserEvent
	oldest   int           // the events before it are forgotten
	more     chan struct{} // closed and made anew with each event
}

// Start serves until the test ends. dir holds the PKI that it shares with its callers.
func Start(t testing.TB, dir string) *Server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return StartOn(t, dir, listener)
}

// StartOn is Start on a listener that is there.
func StartOn(t testing.TB, dir string, listener net.Listener) *Server {
	t.Helper()
	s := &Server{
		address:  listener.Addr().String(),
		users:    make(map[string]*usersv1.User),
		requests: make(map[string]*usersv1.CreateUserRequest),
		more:     make(chan struct{}),
	}
	s.Harness = kittest.Start(t, func(r grpc.ServiceRegistrar) { usersv1.RegisterUserServiceServer(r, s) }, func(o *kittest.Options) {
		o.Name, o.Dir, o.Listener = "users", dir, listener
	})
	return s
}

// Target returns where the server is.
func (s *Server) Target() string { return "dns:///" + s.address }

// Answer makes every call end with the error of fn, where it returns one, before anything is done. Nil ends that.
func (s *Server) Answer(fn func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = fn
}

// ErrDown is what Answer gives for a users that is not there.
var ErrDown = fault.New(fault.Unavailable, "DRAINING", "the server is stopping").WithDomain("policy.v1")

// Down makes users unavailable, or available again.
func (s *Server) Down(down bool) {
	if !down {
		s.Answer(nil)
		return
	}
	s.Answer(func(context.Context) error { return ErrDown })
}

// Add adds a user as an import does: active, where no state is given.
func (s *Server) Add(user *usersv1.User) {
	if user.GetState() == usersv1.UserState_USER_STATE_UNSPECIFIED {
		user.State = usersv1.UserState_USER_STATE_ACTIVE
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users[user.GetUserId()] = user
}

// Users returns all users, by id.
func (s *Server) Users() map[string]*usersv1.User {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]*usersv1.User, len(s.users))
	for id, u := range s.users {
		all[id] = u
	}
	return all
}

var (
	errEmailInvalid    = fault.New(fault.InvalidArgument, "EMAIL_INVALID", "the email is not valid").WithViolation("email", "email.syntax", "must be an email")
	errEmailTaken      = fault.New(fault.AlreadyExists, "EMAIL_TAKEN", "the email is taken")
	errUserIDTaken     = fault.New(fault.AlreadyExists, "USER_ID_TAKEN", "the id is taken")
	errRequestIDReused = fault.New(fault.FailedPrecondition, "REQUEST_ID_REUSED", "the request_id was used for another request")
	errUserNotFound    = fault.New(fault.NotFound, "USER_NOT_FOUND", "no such user")
)

func (s *Server) before(ctx context.Context) error {
	s.mu.Lock()
	answer := s.answer
	s.mu.Unlock()
	if answer == nil {
		return nil
	}
	return answer(ctx)
}

// CreateUser makes a user, once for each request of a caller.
func (s *Server) CreateUser(ctx context.Context, req *usersv1.CreateUserRequest) (*usersv1.CreateUserResponse, error) {
	if err := s.before(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	request := identity.From(ctx).Key() + " " + req.GetRequestId()
	if first, found := s.requests[request]; found {
		if !proto.Equal(first, req) {
			return nil, errRequestIDReused
		}
		return &usersv1.CreateUserResponse{User: s.users[req.GetUserId()]}, nil
	}
	if _, found := s.users[req.GetUserId()]; found {
		return nil, errUserIDTaken.With("user_id", req.GetUserId())
	}
	if !strings.Contains(req.GetEmail(), "@") || strings.Contains(req.GetEmail(), "..") {
		return nil, errEmailInvalid
	}
	for _, other := range s.users {
		if strings.EqualFold(other.GetEmail(), req.GetEmail()) {
			return nil, errEmailTaken
		}
	}
	user := &usersv1.User{
		UserId: req.GetUserId(), Email: req.GetEmail(), DisplayName: req.GetDisplayName(), State: usersv1.UserState_USER_STATE_ACTIVE,
	}
	s.users[req.GetUserId()] = user
	s.requests[request] = req
	return &usersv1.CreateUserResponse{User: user}, nil
}

// GetUser returns a user.
func (s *Server) GetUser(ctx context.Context, req *usersv1.GetUserRequest) (*usersv1.GetUserResponse, error) {
	if err := s.before(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	user, found := s.users[req.GetUserId()]
	if !found {
		return nil, errUserNotFound.With("user_id", req.GetUserId())
	}
	return &usersv1.GetUserResponse{User: user}, nil
}
