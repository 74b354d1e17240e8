package api

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"time"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// ErrPageToken: the page token was not given out by ListUsers to this caller for this filter, order and show_deleted.
var ErrPageToken = fault.New(fault.InvalidArgument, "PAGE_TOKEN_INVALID", "the page token is not valid").
	WithDomain(fault.Domain).
	WithViolation("page_token", "page_token.valid", "must be a next_page_token that this method returned to this caller for the same filter, order_by and show_deleted")

// place is what a page token stands for: where the page begins, and the count of the first page, which the later ones repeat.
type place struct {
	after users.Position
	count users.Count
}

// pageScope is what a page token is bound to.
func pageScope(caller identity.Caller, req *usersv1.ListUsersRequest) string {
	deleted := "without deleted"
	if req.GetShowDeleted() {
		deleted = "with deleted"
	}
	// None of the parts before the filter has a line break: a caller's key is made of ids and names, and order_by has been parsed.
	return strings.Join([]string{usersv1.UserService_ListUsers_FullMethodName, caller.Key(), deleted, req.GetOrderBy(), req.GetFilter()}, "\n")
}

// pageVersion begins the content of a page token: of another form, another byte.
const pageVersion = 2

// pageHead is how many bytes stand before the texts: the version, whether the count is estimated, the count (4), the time in
// microseconds (8) and the length of the id (1).
const pageHead = 15

// sealPage returns the token of a place.
func (s *Server) sealPage(scope string, p place) string {
	content := make([]byte, 2, pageHead+len(p.after.ID)+len(p.after.Text))
	content[0] = pageVersion
	if p.count.Estimated {
		content[1] = 1
	}
	content = binary.BigEndian.AppendUint32(content, uint32(min(p.count.N, math.MaxInt32)))
	micros := int64(0)
	if !p.after.Time.IsZero() {
		micros = p.after.Time.UnixMicro()
	}
	content = binary.BigEndian.AppendUint64(content, uint64(micros))
	content = append(content, byte(len(p.after.ID)))
	content = append(content, p.after.ID...)
	content = append(content, p.after.Text...)
	return s.pages.Seal(scope, content)
}

// openPage returns the place that a token stands for in an order; an empty token stands for none. It returns ErrPageToken.
func (s *Server) openPage(scope, token string, order users.Order) (place, error) {
	if token == "" {
		return place{}, nil
	}
	content, err := s.pages.Open(scope, token)
	if err != nil {
		return place{}, ErrPageToken.Because(err)
	}
	if len(content) < pageHead || content[0] != pageVersion || len(content) < pageHead+int(content[pageHead-1]) ||
		binary.BigEndian.Uint32(content[2:6]) > math.MaxInt32 {
		return place{}, ErrPageToken.Because(errors.New("a token of another form"))
	}
	id := pageHead + int(content[pageHead-1])
	p := place{
		after: users.Position{ID: users.ID(content[pageHead:id]), Text: string(content[id:])},
		count: users.Count{N: int(binary.BigEndian.Uint32(content[2:6])), Estimated: content[1] == 1},
	}
	if order.By == users.ByCreatedAt || order.By == users.ByUpdatedAt {
		p.after.Time = time.UnixMicro(int64(binary.BigEndian.Uint64(content[6:14]))).UTC()
	}
	return p, nil
}
