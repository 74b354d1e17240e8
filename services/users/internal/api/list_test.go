package api_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/kittest"
)

// fill imports users from..to and returns their ids.
func fill(t *testing.T, c usersv1.UserServiceClient, from, to int) []string {
	t.Helper()
	var rows []*usersv1.CreateUserRequest
	var ids []string
	for n := from; n < to; n++ {
		rows = append(rows, request(n))
		ids = append(ids, request(n).GetUserId())
	}
	if resp := importAll(t, c, rows); int(resp.GetCreatedCount()) != len(rows) {
		t.Fatalf("%d of %d users were made", resp.GetCreatedCount(), len(rows))
	}
	return ids
}

func list(t *testing.T, c usersv1.UserServiceClient, req *usersv1.ListUsersRequest) *usersv1.ListUsersResponse {
	t.Helper()
	resp, err := c.ListUsers(timeout(t), req)
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	return resp
}

func TestPagesShowEachUserOnceOldestFirst(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	want := fill(t, c, 0, 120)
	for _, row := range []struct {
		name  string
		size  int32
		pages []int
	}{
		{"no size means 50", 0, []int{50, 50, 20}},
		{"pages that end with the last user", 40, []int{40, 40, 40}},
		{"a page for all", 1000, []int{120}},
		{"an odd size", 77, []int{77, 43}},
	} {
		t.Run(row.name, func(t *testing.T) {
			var got []string
			var pages []int
			req := &usersv1.ListUsersRequest{PageSize: row.size}
			for {
				page := list(t, c, req)
				if page.GetTotalSize() != 120 {
					t.Errorf("the total is %d, want 120", page.GetTotalSize())
				}
				for _, u := range page.GetUsers() {
					got = append(got, u.GetUserId())
				}
				pages = append(pages, len(page.GetUsers()))
				if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
					break
				}
			}
			if !slices.Equal(pages, row.pages) || !slices.Equal(got, want) {
				t.Errorf("pages of %v, want %v; %d users", pages, row.pages, len(got))
			}
		})
	}
}

func TestAListingGoesOnWhereFewMatch(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	fill(t, c, 0, 2500)
	var want []string
	for _, n := range []int{3, 1700, 2499} {
		update(t, c, n, &usersv1.User{UserId: request(n).GetUserId(), Labels: map[string]string{"rare": ""}}, "labels")
		want = append(want, request(n).GetUserId())
	}
	var got []string
	req := &usersv1.ListUsersRequest{Filter: "labels:rare", PageSize: 2}
	pages := 0
	for {
		page := list(t, c, req)
		for _, u := range page.GetUsers() {
			got = append(got, u.GetUserId())
		}
		if pages++; page.GetTotalSize() != 3 {
			t.Errorf("the total is %d, want 3", page.GetTotalSize())
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	if !slices.Equal(got, want) || pages < 2 {
		t.Errorf("%q on %d pages, want %q", got, pages, want)
	}
}

func TestUsersAreListedInTheOrderThatIsAskedFor(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	for n, name := range []string{"b", "a", "c", "a"} {
		req := request(n)
		req.DisplayName, req.Email = name, fmt.Sprintf("%c@example.com", "xZya"[n])
		create(t, c, req)
	}
	update(t, c, 1, &usersv1.User{UserId: request(1).GetUserId(), FirstName: "New"}, "first_name")
	for order, want := range map[string][]int{
		"": {0, 1, 2, 3}, "created_at desc": {3, 2, 1, 0}, "updated_at": {0, 2, 3, 1}, "updated_at desc": {1, 3, 2, 0},
		"display_name": {1, 3, 0, 2}, "display_name desc": {2, 0, 3, 1}, "email": {3, 0, 2, 1}, "email desc": {1, 2, 0, 3},
	} {
		for _, size := range []int32{1, 3, 4} {
			var got, ids []string
			for _, n := range want {
				ids = append(ids, request(n).GetUserId())
			}
			req := &usersv1.ListUsersRequest{OrderBy: order, PageSize: size}
			for {
				page := list(t, c, req)
				for _, u := range page.GetUsers() {
					got = append(got, u.GetUserId())
				}
				if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
					break
				}
			}
			if !slices.Equal(got, ids) {
				t.Errorf("%q in pages of %d: %q, want %q", order, size, got, ids)
			}
		}
	}
}

func TestAPageIsNoLargerThanAMessage(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	big := make(map[string]string, 64)
	for i := range 64 {
		big[fmt.Sprintf("key-%d", i)] = strings.Repeat("\U0001f600", 255)
	}
	const n = 80 // 64 kB each, together more than a message
	for i := range n {
		req := request(i)
		req.Labels = big
		create(t, c, req)
	}
	got := 0
	req := &usersv1.ListUsersRequest{PageSize: 1000}
	for {
		page := list(t, c, req)
		got += len(page.GetUsers())
		if len(page.GetUsers()) == 0 {
			t.Fatal("a page is empty")
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	if got != n {
		t.Errorf("%d users, want %d", got, n)
	}
}

func TestAStreamCarriesThoseWhoMatch(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	fill(t, c, 0, 10)
	for _, n := range []int{2, 5} {
		if _, err := c.DeleteUser(timeout(t), &usersv1.DeleteUserRequest{UserId: request(n).GetUserId(), RequestId: requestID(n)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		filter  string
		deleted bool
		want    int
	}{
		{"", false, 8}, {"", true, 10}, {"state = DELETED", false, 0}, {"state = DELETED", true, 2}, {`email = "person.3@*"`, false, 1},
	} {
		stream, err := c.StreamUsers(timeout(t), &usersv1.StreamUsersRequest{Filter: row.filter, ShowDeleted: row.deleted})
		got := 0
		for err == nil {
			if _, err = stream.Recv(); err == nil {
				got++
			}
		}
		if !errors.Is(err, io.EOF) || got != row.want {
			t.Errorf("%+v: %d users, %v", row, got, err)
		}
	}
}

func TestAnEmptyServiceHasAnEmptyPage(t *testing.T) {
	t.Parallel()
	page := list(t, admin(start(t)), &usersv1.ListUsersRequest{})
	if len(page.GetUsers()) != 0 || page.GetTotalSize() != 0 || page.GetNextPageToken() != "" {
		t.Errorf("got %v", page)
	}
}

func TestAPageSizeOutOfRangeIsAViolation(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	for _, size := range []int32{-1, 1001, -1 << 31, 1<<31 - 1} {
		_, err := c.ListUsers(timeout(t), &usersv1.ListUsersRequest{PageSize: size})
		kittest.WantViolations(t, kittest.WantFault(t, err, codes.InvalidArgument, "INVALID_REQUEST"), "page_size")
	}
}

func TestAPageTokenOpensForItsCallerAlone(t *testing.T) {
	t.Parallel()
	h := start(t)
	c := admin(h)
	fill(t, c, 0, 10)
	token := list(t, c, &usersv1.ListUsersRequest{PageSize: 3}).GetNextPageToken()
	foreign := start(t)
	fill(t, admin(foreign), 0, 10)

	flip := func(n int) string {
		raw, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil {
			t.Fatal(err)
		}
		raw[n] ^= 1
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	other := usersv1.NewUserServiceClient(h.As(strangerID, "users.admin"))
	service := usersv1.NewUserServiceClient(h.AsService("payments"))
	for _, row := range []struct {
		name  string
		c     usersv1.UserServiceClient
		token string
	}{
		{"a token with a bit of its seal flipped", c, flip(0)},
		{"a token with a bit of its content flipped", c, flip(20)},
		{"a token without its end", c, token[:len(token)-4]},
		{"a token with something behind it", c, token + "AAAA"},
		{"a token that is none", c, "next"},
		{"a token that is not base64url", c, "%%%%"},
		{"a token of another user", other, token},
		{"a token of a user in the hands of a service", service, token},
		{"a token of another store", c, list(t, admin(foreign), &usersv1.ListUsersRequest{PageSize: 3}).GetNextPageToken()},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := row.c.ListUsers(timeout(t), &usersv1.ListUsersRequest{PageSize: 3, PageToken: row.token})
			f := kittest.WantFault(t, err, codes.InvalidArgument, "PAGE_TOKEN_INVALID")
			if f.Domain() != "policy.v1" {
				t.Errorf("domain %s", f.Domain())
			}
			kittest.WantViolations(t, f, "page_token")
		})
	}
	_, err := c.ListUsers(timeout(t), &usersv1.ListUsersRequest{PageToken: strings.Repeat("a", 1025)})
	kittest.WantViolations(t, kittest.WantFault(t, err, codes.InvalidArgument, "INVALID_REQUEST"), "page_token")
	if got := list(t, c, &usersv1.ListUsersRequest{PageSize: 5, PageToken: token}); len(got.GetUsers()) != 5 {
		t.Errorf("the token itself opens a page of %d, want 5", len(got.GetUsers()))
	}
}

func TestThePagesOfAListingSayTheTotalOfTheFirst(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	fill(t, c, 0, 6)
	first := list(t, c, &usersv1.ListUsersRequest{PageSize: 2})
	fill(t, c, 6, 9)
	second := list(t, c, &usersv1.ListUsersRequest{PageSize: 2, PageToken: first.GetNextPageToken()})
	third := list(t, c, &usersv1.ListUsersRequest{PageSize: 2, PageToken: second.GetNextPageToken()})
	if got := []int32{first.GetTotalSize(), second.GetTotalSize(), third.GetTotalSize()}; !slices.Equal(got, []int32{6, 6, 6}) {
		t.Errorf("the totals are %v, want 6 each time", got)
	}
	if anew := list(t, c, &usersv1.ListUsersRequest{PageSize: 2}); anew.GetTotalSize() != 9 {
		t.Errorf("a listing that begins says %d, want 9", anew.GetTotalSize())
	}
}

func TestAStreamCarriesEveryUserOldestFirst(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	want := fill(t, c, 0, 1300)
	stream, err := c.StreamUsers(timeout(t), &usersv1.StreamUsersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == 0 {
			create(t, c, request(9999)) // comes too late for this stream
		}
		got = append(got, msg.GetUser().GetUserId())
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d users, want %d", len(got), len(want))
	}
}

func TestAStreamOfNobodyEndsAtOnce(t *testing.T) {
	t.Parallel()
	stream, err := admin(start(t)).StreamUsers(timeout(t), &usersv1.StreamUsersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if msg, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, %v; want the end", msg, err)
	}
}

// long is how many users are more than the transport takes from the handler before the client reads.
const long = 6000

// openStream begins a stream that the client does not read to its end.
func openStream(ctx context.Context, t *testing.T, c usersv1.UserServiceClient) usersv1.UserService_StreamUsersClient {
	t.Helper()
	stream, err := c.StreamUsers(ctx, &usersv1.StreamUsersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	return stream
}

func TestAStreamEndsWhenTheServerStops(t *testing.T) {
	t.Parallel()
	h := start(t)
	c := admin(h)
	fill(t, c, 0, long)
	stream := openStream(timeout(t), t, c)
	stopping(t, h, c)
	n := 1
	for {
		_, err := stream.Recv()
		if err == nil {
			n++
			continue
		}
		kittest.WantFault(t, err, codes.Unavailable, "DRAINING")
		break
	}
	if n >= long {
		t.Errorf("all %d users came", n)
	}
	if err := h.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// stopping tells the server to stop and returns once it does: when it takes no new calls, open streams have been told.
func stopping(t *testing.T, h *kittest.Harness, c usersv1.UserServiceClient) {
	t.Helper()
	h.Begin()
	ctx := timeout(t)
	for {
		_, err := c.ListUsers(ctx, &usersv1.ListUsersRequest{PageSize: 1})
		if ctx.Err() != nil {
			t.Fatal("the server does not stop")
		}
		if err != nil {
			kittest.WantFault(t, err, codes.Unavailable, "UPSTREAM_UNAVAILABLE")
			return
		}
	}
}

func TestAStreamThatItsClientLeavesEnds(t *testing.T) {
	t.Parallel()
	h := start(t)
	c := admin(h)
	fill(t, c, 0, long)
	ctx, leave := context.WithCancel(timeout(t))
	stream := openStream(ctx, t, c)
	leave()
	for {
		if _, err := stream.Recv(); err != nil {
			kittest.WantFault(t, err, codes.Canceled, "CANCELED")
			break
		}
	}
	// A handler that went on would keep the server from stopping before its bound, which Stop reports.
	if err := h.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if strings.Contains(h.Log.String(), "drain timed out") {
		t.Error("the handler went on after its client had left")
	}
}

// Up to 10,000 who match the size is exact, and beyond that it says itself that it is not; later pages say the same.
func TestTheSizeOfAListSaysWhetherItIsAnEstimate(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	const exact = 10_000
	importAll(t, c, requests(0, exact))
	for _, row := range []struct {
		users     int
		estimated bool
	}{{exact, false}, {exact + 1, true}} {
		for n := total(t, c); n < row.users; n++ {
			create(t, c, request(n))
		}
		req := &usersv1.ListUsersRequest{PageSize: 10, OrderBy: "created_at desc"}
		for page := range 2 {
			resp := list(t, c, req)
			if off := int(resp.GetTotalSize()) - row.users; resp.GetTotalSizeEstimated() != row.estimated || !row.estimated && off != 0 || max(off, -off) > row.users/2 {
				t.Errorf("of %d users, page %d: %d, estimated: %t", row.users, page+1, resp.GetTotalSize(), resp.GetTotalSizeEstimated())
			}
			req.PageToken = resp.GetNextPageToken()
		}
	}
}
