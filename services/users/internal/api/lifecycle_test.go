package api_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/kit/kittest"
)

const (
	active   = usersv1.UserState_USER_STATE_ACTIVE
	disabled = usersv1.UserState_USER_STATE_DISABLED
	deleted  = usersv1.UserState_USER_STATE_DELETED
)

// life makes the changes of one user, each with a request id of its own.
type life struct {
	t  *testing.T
	c  usersv1.UserServiceClient
	id string
	n  int
}

func (l *life) next() string { l.n++; return requestID(l.n) }

func (l *life) disable() (*usersv1.User, error) {
	resp, err := l.c.DisableUser(timeout(l.t), &usersv1.DisableUserRequest{UserId: l.id, RequestId: l.next()})
	return resp.GetUser(), err
}

func (l *life) enable() (*usersv1.User, error) {
	resp, err := l.c.EnableUser(timeout(l.t), &usersv1.EnableUserRequest{UserId: l.id, RequestId: l.next()})
	return resp.GetUser(), err
}

func (l *life) delete() (*usersv1.User, error) {
	resp, err := l.c.DeleteUser(timeout(l.t), &usersv1.DeleteUserRequest{UserId: l.id, RequestId: l.next()})
	return resp.GetUser(), err
}

func (l *life) undelete() (*usersv1.User, error) {
	resp, err := l.c.UndeleteUser(timeout(l.t), &usersv1.UndeleteUserRequest{UserId: l.id, RequestId: l.next()})
	return resp.GetUser(), err
}

func (l *life) erase() (*usersv1.User, error) {
	resp, err := l.c.EraseUser(timeout(l.t), &usersv1.EraseUserRequest{UserId: l.id, RequestId: l.next()})
	return resp.GetUser(), err
}

func (l *life) rename() (*usersv1.User, error) {
	resp, err := l.c.UpdateUser(timeout(l.t), &usersv1.UpdateUserRequest{
		User: &usersv1.User{UserId: l.id, DisplayName: "New"}, UpdateMask: mask("display_name"), RequestId: l.next(),
	})
	return resp.GetUser(), err
}

// must fails the test on an error.
func must(t *testing.T) func(*usersv1.User, error) *usersv1.User {
	return func(u *usersv1.User, err error) *usersv1.User {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
}

func TestAUserIsDisabledAndEnabled(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	made := create(t, c, full(1))
	l, ok := &life{t: t, c: c, id: made.GetUserId()}, must(t)
	off := ok(l.disable())
	if off.GetState() != disabled || off.GetEtag() != `"2"` || off.GetEmail() != made.GetEmail() {
		t.Errorf("disabled: %v", off)
	}
	if again := ok(l.disable()); !proto.Equal(again, off) {
		t.Errorf("disabled twice: %v", again)
	}
	if u := ok(l.rename()); u.GetState() != disabled || u.GetDisplayName() != "New" {
		t.Errorf("renamed: %v", u)
	}
	on := ok(l.enable())
	if on.GetState() != active || on.GetEtag() != `"4"` {
		t.Errorf("enabled: %v", on)
	}
	if again := ok(l.enable()); !proto.Equal(again, on) {
		t.Errorf("enabled twice: %v", again)
	}
}

func TestADeletedUserComesBackAsItWas(t *testing.T) {
	t.Parallel()
	for _, state := range []usersv1.UserState{active, disabled} {
		t.Run(state.String(), func(t *testing.T) {
			at := clocktest.New(time.Date(2026, 3, 1, 9, 30, 0, 0, time.UTC))
			c := admin(serve(t, at))
			made := create(t, c, full(1))
			l, ok := &life{t: t, c: c, id: made.GetUserId()}, must(t)
			if state == disabled {
				made = ok(l.disable())
			}
			at.Advance(time.Second)
			gone := ok(l.delete())
			want := proto.CloneOf(made)
			want.State, want.Etag, want.UpdatedAt = deleted, gone.GetEtag(), gone.GetUpdatedAt()
			want.DeletedAt, want.PurgeAt = gone.GetDeletedAt(), gone.GetPurgeAt()
			if !proto.Equal(gone, want) {
				t.Errorf("deleted: %v, want %v", gone, want)
			}
			if !gone.GetDeletedAt().AsTime().Equal(at.Now()) || !gone.GetPurgeAt().AsTime().Equal(at.Now().Add(purgeAfter)) {
				t.Errorf("deleted at %v, purged at %v", gone.GetDeletedAt().AsTime(), gone.GetPurgeAt().AsTime())
			}
			at.Advance(time.Second)
			if again := ok(l.delete()); !proto.Equal(again, gone) {
				t.Errorf("deleted twice: %v, want %v", again, gone)
			}

			// It is there for whoever knows it, keeps its email and is not listed.
			if got := get(t, c, l.id); !proto.Equal(got, gone) {
				t.Errorf("got %v", got)
			}
			if page := list(t, c, &usersv1.ListUsersRequest{}); len(page.GetUsers()) != 0 || page.GetTotalSize() != 0 {
				t.Errorf("listed %v", page)
			}
			if page := list(t, c, &usersv1.ListUsersRequest{ShowDeleted: true}); len(page.GetUsers()) != 1 || page.GetTotalSize() != 1 {
				t.Errorf("listed with deleted ones %v", page)
			}
			twin := request(2)
			twin.Email = made.GetEmail()
			_, err := c.CreateUser(timeout(t), twin)
			kittest.WantFault(t, err, codes.AlreadyExists, "EMAIL_TAKEN")
			for name, change := range map[string]func() (*usersv1.User, error){"disable": l.disable, "enable": l.enable, "update": l.rename} {
				_, err := change()
				if f := kittest.WantFault(t, err, codes.FailedPrecondition, "USER_DELETED"); f.Metadata()["user_id"] != l.id {
					t.Errorf("%s: metadata %v", name, f.Metadata())
				}
			}

			back := ok(l.undelete())
			want = proto.CloneOf(made)
			want.Etag, want.UpdatedAt = back.GetEtag(), back.GetUpdatedAt()
			if !proto.Equal(back, want) || back.GetEtag() == gone.GetEtag() {
				t.Errorf("back: %v, want %v", back, want)
			}
			if again := ok(l.undelete()); !proto.Equal(again, back) {
				t.Errorf("undeleted twice: %v", again)
			}
		})
	}
}

func TestAnErasedUserIsATombstoneForGood(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	made := create(t, c, full(1))
	l, ok := &life{t: t, c: c, id: made.GetUserId()}, must(t)
	stone := ok(l.erase())
	want := &usersv1.User{
		UserId: made.GetUserId(), State: deleted, Etag: `"2"`, CreatedAt: made.GetCreatedAt(), UpdatedAt: stone.GetUpdatedAt(),
		DeletedAt: stone.GetErasedAt(), ErasedAt: stone.GetErasedAt(),
	}
	if !proto.Equal(stone, want) || stone.GetErasedAt() == nil {
		t.Fatalf("left is %v, want %v", stone, want)
	}
	if again := ok(l.erase()); !proto.Equal(again, stone) {
		t.Errorf("erased twice: %v", again)
	}
	if got := get(t, c, l.id); !proto.Equal(got, stone) {
		t.Errorf("got %v", got)
	}
	for name, change := range map[string]func() (*usersv1.User, error){
		"disable": l.disable, "enable": l.enable, "update": l.rename, "delete": l.delete, "undelete": l.undelete,
	} {
		_, err := change()
		if f := kittest.WantFault(t, err, codes.FailedPrecondition, "USER_ERASED"); f.Metadata()["user_id"] != l.id {
			t.Errorf("%s: metadata %v", name, f.Metadata())
		}
	}
	if page := list(t, c, &usersv1.ListUsersRequest{ShowDeleted: true}); len(page.GetUsers()) != 0 || page.GetTotalSize() != 0 {
		t.Errorf("listed %v", page)
	}
	if again := create(t, c, full(1)); !proto.Equal(again, stone) {
		t.Errorf("the request that made it, sent again: %v, want the tombstone", again)
	}
	heir := request(2)
	heir.Email = made.GetEmail()
	if u := create(t, c, heir); u.GetUserId() == made.GetUserId() {
		t.Errorf("the email is not free: %v", u)
	}
}

func TestAnExportHasTheProfileAndWhatBecameOfIt(t *testing.T) {
	t.Parallel()
	h := start(t)
	c := admin(h)
	made := create(t, c, full(1))
	create(t, c, full(2))
	l, ok := &life{t: t, c: c, id: made.GetUserId()}, must(t)
	ok(l.rename())
	now := ok(l.disable())
	// export returns the profile and the types of the events.
	export := func(c usersv1.UserServiceClient) (profile *usersv1.User, events []*usersv1.UserEvent) {
		t.Helper()
		stream, err := c.ExportUserData(timeout(t), &usersv1.ExportUserDataRequest{UserId: l.id})
		if err != nil {
			t.Fatal(err)
		}
		for first := true; ; first = false {
			msg, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return profile, events
			}
			if err != nil {
				t.Fatal(err)
			}
			if first {
				profile = msg.GetUser()
				continue
			}
			events = append(events, msg.GetEvent())
		}
	}
	profile, events := export(usersv1.NewUserServiceClient(h.As(l.id, "users.read")))
	if !proto.Equal(profile, now) || len(events) != 3 {
		t.Fatalf("profile %v, %d events", profile, len(events))
	}
	for i, want := range []usersv1.UserEventType{
		usersv1.UserEventType_USER_EVENT_TYPE_CREATED, usersv1.UserEventType_USER_EVENT_TYPE_UPDATED, usersv1.UserEventType_USER_EVENT_TYPE_DISABLED,
	} {
		if e := events[i]; e.GetEventType() != want || e.GetUserId() != l.id || !proto.Equal(e.GetTimestamp(), e.GetUser().GetUpdatedAt()) {
			t.Errorf("event %d: %v, want %v", i, e, want)
		}
	}
	if !proto.Equal(events[0].GetUser(), made) || !proto.Equal(events[2].GetUser(), now) {
		t.Errorf("the events tell of %v and %v", events[0].GetUser(), events[2].GetUser())
	}

	stone := ok(l.erase())
	profile, events = export(c)
	if !proto.Equal(profile, stone) || len(events) != 4 {
		t.Fatalf("profile %v, %d events", profile, len(events))
	}
	for i, e := range events {
		if u := e.GetUser(); u.GetEmail()+u.GetDisplayName()+u.GetFirstName()+u.GetLastName() != "" || len(u.GetLabels()) > 0 || u.GetAddress() != nil || u.GetVerified() {
			t.Errorf("event %d still tells of %v", i, u)
		}
	}
	stream, err := c.ExportUserData(timeout(t), &usersv1.ExportUserDataRequest{UserId: request(3).GetUserId()})
	if err == nil {
		_, err = stream.Recv()
	}
	kittest.WantFault(t, err, codes.NotFound, "USER_NOT_FOUND")
}

func TestABatchIsInTheOrderOfItsIDs(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	for n := range 5 {
		create(t, c, request(n))
	}
	id := func(n int) string { return request(n).GetUserId() }
	_, err := c.DeleteUser(timeout(t), &usersv1.DeleteUserRequest{UserId: id(1), RequestId: requestID(1)})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.BatchGetUsers(timeout(t), &usersv1.BatchGetUsersRequest{UserIds: []string{id(9), id(4), id(1), id(8), id(0)}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, u := range resp.GetUsers() {
		got = append(got, u.GetUserId())
	}
	if len(got) != 3 || got[0] != id(4) || got[1] != id(1) || got[2] != id(0) {
		t.Errorf("users %q", got)
	}
	if m := resp.GetMissingUserIds(); len(m) != 2 || m[0] != id(9) || m[1] != id(8) {
		t.Errorf("missing %q", m)
	}
	for name, ids := range map[string][]string{"none": nil, "twice the same": {id(1), id(1)}, "1001": make([]string, 1001), "no UUID": {"7"}} {
		_, err := c.BatchGetUsers(timeout(t), &usersv1.BatchGetUsersRequest{UserIds: ids})
		if f := kittest.WantFault(t, err, codes.InvalidArgument, "INVALID_REQUEST"); len(f.Violations()) == 0 {
			t.Errorf("%s: no violation", name)
		}
	}
}

// largest makes of a request one for a user as large as users are.
func largest(req *usersv1.CreateUserRequest) *usersv1.CreateUserRequest {
	wide := func(n int) string { return strings.Repeat("𝄞", n) }
	req.DisplayName, req.FirstName, req.LastName = wide(100), wide(100), wide(100)
	req.Address = &usersv1.Address{
		CountryCode: "CH", Lines: []string{wide(200), wide(200), wide(200), wide(200), wide(200)},
		Locality: wide(100), AdministrativeArea: wide(100), PostalCode: wide(20),
	}
	req.Labels = make(map[string]string, 64)
	for n := range 64 {
		req.Labels[fmt.Sprintf("l%s%02d", strings.Repeat("a", 60), n)] = wide(255)
	}
	return req
}

func TestABatchOfTheLargestUsersIsAnsweredInParts(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	const count = 57
	ids := []string{request(count).GetUserId()} // nobody's
	for n := range count {
		create(t, c, largest(request(n)))
		ids = append(ids, request(n).GetUserId())
	}
	var got []string
	for parts := 1; len(ids) > 0; parts++ {
		resp, err := c.BatchGetUsers(timeout(t), &usersv1.BatchGetUsersRequest{UserIds: ids})
		if err != nil {
			t.Fatal(err)
		}
		if n := len(resp.GetUsers()); n < min(50, len(ids)-len(resp.GetMissingUserIds())) {
			t.Fatalf("%d of %d users had room", n, len(ids))
		}
		for _, u := range resp.GetUsers() {
			got = append(got, u.GetUserId())
		}
		if wantMissing := 2 - min(parts, 2); len(resp.GetMissingUserIds()) != wantMissing {
			t.Errorf("part %d: missing %q", parts, resp.GetMissingUserIds())
		}
		if ids = resp.GetRemainingUserIds(); parts == 1 && len(ids) == 0 {
			t.Error("all had room: the users of this test are too small")
		}
	}
	for n := range count {
		if len(got) != count || got[n] != request(n).GetUserId() {
			t.Fatalf("the parts together have %q", got)
		}
	}
}
