package api

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"time"

	"google.golang.org/grpc"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/server"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// ErrPageToken: the page token was not given out by ListUsers to this caller.
var ErrPageToken = fault.New(fault.InvalidArgument, "PAGE_TOKEN_INVALID", "the page token is not valid").
	WithDomain(fault.Domain).
	WithViolation("page_token", "page_token.valid", "must be a next_page_token that this method returned to this caller")

// ListUsers returns a page of users.
func (s *Server) ListUsers(ctx context.Context, req *usersv1.ListUsersRequest) (*usersv1.ListUsersResponse, error) {
	scope := pageScope(identity.From(ctx))
	after, err := s.openPage(scope, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	page, err := s.users.List(ctx, after, int(req.GetPageSize()))
	if err != nil {
		return nil, err
	}
	resp := &usersv1.ListUsersResponse{
		Users:     make([]*usersv1.User, len(page.Users)),
		TotalSize: int32(min(page.Total, math.MaxInt32)),
	}
	for i, u := range page.Users {
		resp.Users[i] = toProto(u)
	}
	if page.More {
		resp.NextPageToken = s.sealPage(scope, page.Users[len(page.Users)-1].Position())
	}
	return resp, nil
}

// StreamUsers streams every user.
func (s *Server) StreamUsers(_ *usersv1.StreamUsersRequest, stream grpc.ServerStreamingServer[usersv1.StreamUsersResponse]) error {
	draining := server.Draining(stream.Context())
	return s.users.Scan(stream.Context(), func(u users.User) error {
		select {
		case <-draining:
			return server.ErrDraining
		default:
			return stream.Send(&usersv1.StreamUsersResponse{User: toProto(u)})
		}
	})
}

// pageScope is what a page token is bound to.
func pageScope(caller identity.Caller) string {
	return usersv1.UserService_ListUsers_FullMethodName + " " + caller.Key()
}

// pageVersion begins the content of a page token: of another form, another byte.
const pageVersion = 1

// sealPage returns the token of the page after a position: the version, the time in microseconds (8 bytes, big-endian) and the id.
func (s *Server) sealPage(scope string, after users.Position) string {
	content := []byte{pageVersion}
	content = binary.BigEndian.AppendUint64(content, uint64(after.CreatedAt.UnixMicro()))
	content = append(content, after.ID...)
	return s.pages.Seal(scope, content)
}

// openPage returns the position that a token stands for; an empty token stands for the beginning.
func (s *Server) openPage(scope, token string) (users.Position, error) {
	if token == "" {
		return users.Position{}, nil
	}
	content, err := s.pages.Open(scope, token)
	if err != nil {
		return users.Position{}, ErrPageToken.Because(err)
	}
	if len(content) < 9 || content[0] != pageVersion {
		return users.Position{}, ErrPageToken.Because(errors.New("a token of another form"))
	}
	return users.Position{
		CreatedAt: time.UnixMicro(int64(binary.BigEndian.Uint64(content[1:9]))).UTC(),
		ID:        users.ID(content[9:]),
	}, nil
}
