package api

import (
	"context"
	"math"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/kit/server"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// maxPageBytes ends a page that would be too large for a message: the rest is on the next one.
const maxPageBytes = 2 << 20

// ListUsers returns a page of users.
func (s *Server) ListUsers(ctx context.Context, req *usersv1.ListUsersRequest) (*usersv1.ListUsersResponse, error) {
	filter, err := parseFilter(req.GetFilter())
	if err != nil {
		return nil, err
	}
	order, err := parseOrder(req.GetOrderBy())
	if err != nil {
		return nil, err
	}
	scope := pageScope(identity.From(ctx), req)
	from, err := s.openPage(scope, req.GetPageToken(), order)
	if err != nil {
		return nil, err
	}
	selection := users.Selection{Filter: filter, ShowDeleted: req.GetShowDeleted()}
	page, err := s.users.List(ctx, users.Query{Selection: selection, Order: order, After: from.after, Limit: int(req.GetPageSize())})
	if err != nil {
		return nil, err
	}
	if req.GetPageToken() == "" {
		if from.count, err = s.users.Count(ctx, selection); err != nil {
			return nil, err
		}
	}
	resp := &usersv1.ListUsersResponse{
		Users:              make([]*usersv1.User, 0, len(page.Users)),
		TotalSize:          int32(min(from.count.N, math.MaxInt32)),
		TotalSizeEstimated: from.count.Estimated,
	}
	size := 0
	for i, u := range page.Users {
		msg := toProto(u)
		if size += proto.Size(msg); size > maxPageBytes && i > 0 {
			page.Next = order.Position(page.Users[i-1])
			break
		}
		resp.Users = append(resp.Users, msg)
	}
	if !page.Next.Zero() {
		resp.NextPageToken = s.sealPage(scope, place{after: page.Next, count: from.count})
	}
	return resp, nil
}

// StreamUsers streams users as they are at one moment.
func (s *Server) StreamUsers(req *usersv1.StreamUsersRequest, stream grpc.ServerStreamingServer[usersv1.StreamUsersResponse]) error {
	filter, err := parseFilter(req.GetFilter())
	if err != nil {
		return err
	}
	draining := server.Draining(stream.Context())
	return s.users.Snapshot(stream.Context(), users.Selection{Filter: filter, ShowDeleted: req.GetShowDeleted()}, func(u users.User) error {
		select {
		case <-draining:
			return server.ErrDraining
		default:
			return stream.Send(&usersv1.StreamUsersResponse{User: toProto(u)})
		}
	})
}
