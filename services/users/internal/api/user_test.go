package api_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/kittest"
)

func TestAUserIsFoundAsItWasMade(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	before := time.Now().Add(-time.Millisecond)
	made := create(t, c, request(1))
	want := &usersv1.User{
		UserId: request(1).GetUserId(), Email: "Person.1@example.com", DisplayName: "Person 1", FirstName: "Per", LastName: "Son",
		State: usersv1.UserState_USER_STATE_ACTIVE, Etag: `"1"`, CreatedAt: made.GetCreatedAt(), UpdatedAt: made.GetCreatedAt(),
	}
	if !proto.Equal(made, want) {
		t.Errorf("made %v, want %v", made, want)
	}
	if at := made.GetCreatedAt().AsTime(); at.Before(before) || at.After(time.Now()) {
		t.Errorf("made at %v", at)
	}
	for _, id := range []string{made.GetUserId(), strings.ToUpper(made.GetUserId())} {
		got, err := c.GetUser(timeout(t), &usersv1.GetUserRequest{UserId: id})
		if err != nil || !proto.Equal(got.GetUser(), made) {
			t.Errorf("got %v, %v", got, err)
		}
	}
}

func TestAnIDIsMadeWhereNoneIsGiven(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	req := request(1)
	req.UserId = ""
	made := create(t, c, req)
	if id := made.GetUserId(); len(id) != 36 || id[14] != '7' {
		t.Errorf("%q is not a UUIDv7", id)
	}
	if again := create(t, c, req); !proto.Equal(again, made) {
		t.Errorf("the repetition made %v, want the first user %v", again, made)
	}
}

func TestAnIDAndARequestIDCountInEitherCase(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	req := request(0xabc)
	made := create(t, c, req)
	req.UserId, req.RequestId = strings.ToUpper(req.GetUserId()), strings.ToUpper(req.GetRequestId())
	if again := create(t, c, req); !proto.Equal(again, made) {
		t.Errorf("got %v, want the first user %v", again, made)
	}
}

func TestEqualCallsAtOnceMakeOneUser(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	req := request(1)
	req.UserId = ""
	const n = 100
	made := make([]*usersv1.User, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			resp, err := c.CreateUser(t.Context(), req)
			if err != nil {
				t.Errorf("call %d: %v", i, err)
			}
			made[i] = resp.GetUser()
		})
	}
	wg.Wait()
	for i, u := range made {
		if !proto.Equal(u, made[0]) {
			t.Errorf("call %d: %v, want %v", i, u, made[0])
		}
	}
	if got := total(t, c); got != 1 {
		t.Errorf("%d users, want 1", got)
	}
}

func TestWhatIsTakenIsRefused(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		change func(*usersv1.CreateUserRequest)
		code   codes.Code
		reason string
		md     string // the metadata user_id
	}{
		{"an email that another user has", func(r *usersv1.CreateUserRequest) { r.Email = "person.1@EXAMPLE.com" }, codes.AlreadyExists, "EMAIL_TAKEN", ""},
		{"an id that another user has", func(r *usersv1.CreateUserRequest) { r.UserId = request(1).GetUserId() }, codes.AlreadyExists, "USER_ID_TAKEN", request(1).GetUserId()},
		{"an id and an email that another user has", func(r *usersv1.CreateUserRequest) {
			r.UserId, r.Email = request(1).GetUserId(), request(1).GetEmail()
		}, codes.AlreadyExists, "USER_ID_TAKEN", request(1).GetUserId()},
		{"a request id of another request", func(r *usersv1.CreateUserRequest) { r.RequestId = request(1).GetRequestId() }, codes.FailedPrecondition, "REQUEST_ID_REUSED", ""},
		{"the request id of a request that asked for another name", func(r *usersv1.CreateUserRequest) {
			proto.Reset(r)
			proto.Merge(r, request(1))
			r.DisplayName = "Another"
		}, codes.FailedPrecondition, "REQUEST_ID_REUSED", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c := admin(start(t))
			create(t, c, request(1))
			req := request(2)
			row.change(req)
			_, err := c.CreateUser(timeout(t), req)
			f := kittest.WantFault(t, err, row.code, row.reason)
			if f.Domain() != "users.v1" || f.Metadata()["user_id"] != row.md {
				t.Errorf("domain %s, metadata %v", f.Domain(), f.Metadata())
			}
			if got := total(t, c); got != 1 {
				t.Errorf("%d users, want 1", got)
			}
		})
	}
}

func TestRequestIDsBelongToTheirCaller(t *testing.T) {
	t.Parallel()
	h := start(t)
	first := create(t, admin(h), request(1))
	other := request(2)
	other.RequestId = request(1).GetRequestId()
	second := create(t, usersv1.NewUserServiceClient(h.AsService("auth")), other)
	if first.GetUserId() == second.GetUserId() {
		t.Errorf("two callers were given one user: %v", first)
	}
}

// labels returns n labels.
func labels(n int) map[string]string {
	all := make(map[string]string, n)
	for i := range n {
		all[fmt.Sprintf("key-%d", i)] = "value"
	}
	return all
}

func TestInvalidRequestsNameTheField(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	long := strings.Repeat("x", 101)
	for _, row := range []struct {
		name   string
		change func(*usersv1.CreateUserRequest)
		fields []string
	}{
		{"a missing email", func(r *usersv1.CreateUserRequest) { r.Email = "" }, []string{"email"}},
		{"an email of 255 characters", func(r *usersv1.CreateUserRequest) { r.Email = strings.Repeat("x", 243) + "@example.com" }, []string{"email"}},
		{"a missing display name", func(r *usersv1.CreateUserRequest) { r.DisplayName = "" }, []string{"display_name"}},
		{"a display name of 101 characters", func(r *usersv1.CreateUserRequest) { r.DisplayName = long }, []string{"display_name"}},
		{"a first name of 101 characters", func(r *usersv1.CreateUserRequest) { r.FirstName = long }, []string{"first_name"}},
		{"a last name of 101 characters", func(r *usersv1.CreateUserRequest) { r.LastName = long }, []string{"last_name"}},
		{"an id that is no UUIDv7", func(r *usersv1.CreateUserRequest) { r.UserId = "7d9a0000-0000-4000-8000-000000000001" }, []string{"user_id"}},
		{"a country that is no code", func(r *usersv1.CreateUserRequest) { r.Address = &usersv1.Address{CountryCode: "che"} }, []string{"address.country_code"}},
		{"an address without a country", func(r *usersv1.CreateUserRequest) { r.Address = &usersv1.Address{Locality: "Bern"} }, []string{"address.country_code"}},
		{"65 labels", func(r *usersv1.CreateUserRequest) { r.Labels = labels(65) }, []string{"labels"}},
		{"a label whose key is none", func(r *usersv1.CreateUserRequest) { r.Labels = map[string]string{"A": ""} }, []string{`labels["A"]`}},
		{"a label with a control character", func(r *usersv1.CreateUserRequest) { r.Labels = map[string]string{"a": "\x00"} }, []string{`labels["a"]`}},
		{"a display name with NUL", func(r *usersv1.CreateUserRequest) { r.DisplayName = "A\x00da" }, []string{"display_name"}},
		{"a display name of spaces", func(r *usersv1.CreateUserRequest) { r.DisplayName = "  " }, []string{"display_name"}},
		{"an id that is no UUID", func(r *usersv1.CreateUserRequest) { r.UserId = "7" }, []string{"user_id"}},
		{"a missing request id", func(r *usersv1.CreateUserRequest) { r.RequestId = "" }, []string{"request_id"}},
		{"a request id that is no UUID", func(r *usersv1.CreateUserRequest) { r.RequestId = "again" }, []string{"request_id"}},
		{"nothing at all", func(r *usersv1.CreateUserRequest) { proto.Reset(r) }, []string{"email", "display_name", "request_id"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			req := request(1)
			row.change(req)
			_, err := c.CreateUser(timeout(t), req)
			kittest.WantViolations(t, kittest.WantFault(t, err, codes.InvalidArgument, "INVALID_REQUEST"), row.fields...)
		})
	}
	if got := total(t, c); got != 0 {
		t.Errorf("%d users, want none", got)
	}
}

func TestAnUnknownUserIsNotFound(t *testing.T) {
	t.Parallel()
	h := start(t)
	create(t, admin(h), request(1))
	id := request(2).GetUserId()
	_, err := admin(h).GetUser(timeout(t), &usersv1.GetUserRequest{UserId: id})
	f := kittest.WantFault(t, err, codes.NotFound, "USER_NOT_FOUND")
	if f.Domain() != "users.v1" || f.Metadata()["user_id"] != id {
		t.Errorf("domain %s, metadata %v", f.Domain(), f.Metadata())
	}
	for _, id := range []string{"", "7", strings.Repeat("a", 1000)} {
		_, err := admin(h).GetUser(timeout(t), &usersv1.GetUserRequest{UserId: id})
		kittest.WantViolations(t, kittest.WantFault(t, err, codes.InvalidArgument, "INVALID_REQUEST"), "user_id")
	}
}
