package api_test

import (
	"maps"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/kittest"
)

// full returns a request with every field.
func full(n int) *usersv1.CreateUserRequest {
	req := request(n)
	req.Labels = map[string]string{"plan": "pro", "the-team": "a"}
	req.Address = &usersv1.Address{CountryCode: "CH", Lines: []string{"Gasse 1"}, Locality: "Bern", AdministrativeArea: "BE", PostalCode: "3011"}
	req.Verified = true
	return req
}

// update changes a user and returns it.
func update(t *testing.T, c usersv1.UserServiceClient, n int, user *usersv1.User, paths ...string) *usersv1.User {
	t.Helper()
	resp, err := c.UpdateUser(timeout(t), &usersv1.UpdateUserRequest{User: user, UpdateMask: mask(paths...), RequestId: requestID(n)})
	if err != nil {
		t.Fatalf("update of %q: %v", paths, err)
	}
	return resp.GetUser()
}

func TestAnUpdateChangesWhatItsMaskNames(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	// All rows send these values: what the mask does not name stays as it is.
	values := &usersv1.User{
		Email: "New@example.com", DisplayName: "New", FirstName: "N", LastName: "", Verified: false, Labels: map[string]string{"plan": "free", "x": ""},
		Address: &usersv1.Address{CountryCode: "FR", Locality: "Lyon"},
	}
	for n, row := range []struct {
		paths []string
		want  func(*usersv1.User)
	}{
		{[]string{"display_name"}, func(u *usersv1.User) { u.DisplayName = "New" }},
		{[]string{"email"}, func(u *usersv1.User) { u.Email, u.Verified = "New@example.com", false }},
		{[]string{"last_name"}, func(u *usersv1.User) { u.LastName = "" }},
		{[]string{"first_name", "last_name", "first_name"}, func(u *usersv1.User) { u.FirstName, u.LastName = "N", "" }},
		{[]string{"verified"}, func(u *usersv1.User) { u.Verified = false }},
		{[]string{"labels"}, func(u *usersv1.User) { u.Labels = map[string]string{"plan": "free", "x": ""} }},
		{[]string{"labels.plan"}, func(u *usersv1.User) { u.Labels["plan"] = "free" }},
		{[]string{"labels.x"}, func(u *usersv1.User) { u.Labels["x"] = "" }},
		{[]string{"labels.the-team", "labels.nobody"}, func(u *usersv1.User) { delete(u.Labels, "the-team") }},
		{[]string{"address"}, func(u *usersv1.User) { u.Address = &usersv1.Address{CountryCode: "FR", Locality: "Lyon"} }},
		{[]string{"address.locality"}, func(u *usersv1.User) { u.Address.Locality = "Lyon" }},
		{[]string{"address.lines", "address.postal_code"}, func(u *usersv1.User) { u.Address.Lines, u.Address.PostalCode = nil, "" }},
		{[]string{"address.country_code"}, func(u *usersv1.User) { u.Address.CountryCode = "FR" }},
		{[]string{"*"}, func(u *usersv1.User) {
			u.Email, u.DisplayName, u.FirstName, u.LastName, u.Verified = "New@example.com", "New", "N", "", false
			u.Labels, u.Address = map[string]string{"plan": "free", "x": ""}, &usersv1.Address{CountryCode: "FR", Locality: "Lyon"}
		}},
	} {
		t.Run(strings.Join(row.paths, " "), func(t *testing.T) {
			made := create(t, c, full(n))
			change := proto.CloneOf(values)
			change.UserId = strings.ToUpper(made.GetUserId())
			if change.Email = strings.Replace(change.GetEmail(), "@", "-"+row.paths[0][:1]+"@", 1); row.paths[0] == "*" {
				change.Email = "All@example.com"
			}
			checked, err := c.UpdateUser(timeout(t), &usersv1.UpdateUserRequest{User: change, UpdateMask: mask(row.paths...), RequestId: requestID(n), ValidateOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			if now := get(t, c, made.GetUserId()); !proto.Equal(now, made) {
				t.Fatalf("validate_only has made %v of %v", now, made)
			}
			got := update(t, c, n, change, row.paths...)
			want := proto.CloneOf(made)
			row.want(want)
			if want.GetEmail() != made.GetEmail() {
				want.Email = change.GetEmail()
			}
			want.Etag, want.UpdatedAt = `"2"`, got.GetUpdatedAt()
			if !proto.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			if got.GetUpdatedAt().AsTime().Before(made.GetUpdatedAt().AsTime()) {
				t.Errorf("changed at %v, made at %v", got.GetUpdatedAt().AsTime(), made.GetUpdatedAt().AsTime())
			}
			checked.User.UpdatedAt = got.GetUpdatedAt()
			if !proto.Equal(checked.GetUser(), got) {
				t.Errorf("validate_only said %v, and it became %v", checked.GetUser(), got)
			}
			if now := get(t, c, made.GetUserId()); !proto.Equal(now, got) {
				t.Errorf("stored %v, answered %v", now, got)
			}
		})
	}
}

func get(t *testing.T, c usersv1.UserServiceClient, id string) *usersv1.User {
	t.Helper()
	resp, err := c.GetUser(timeout(t), &usersv1.GetUserRequest{UserId: id})
	if err != nil {
		t.Fatalf("get: %v", err)
	}
	return resp.GetUser()
}

func TestAnUpdateThatChangesNothingKeepsTheEtag(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	made := create(t, c, full(1))
	if got := update(t, c, 1, made, "*"); !proto.Equal(got, made) {
		t.Errorf("got %v, want %v", got, made)
	}
}

func TestAMaskThatIsNotValidIsRefusedPathByPath(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	made := create(t, c, full(1))
	bare := create(t, c, request(2))
	many := labels(64)
	for n, row := range []struct {
		name   string
		user   *usersv1.User
		paths  []string
		fields []string // of the violations
		rules  []string
	}{
		{"an unknown field", &usersv1.User{}, []string{"password"}, []string{"update_mask.paths[0]"}, []string{"mask.unknown"}},
		{"an empty path", &usersv1.User{}, []string{""}, []string{"update_mask.paths[0]"}, []string{"mask.unknown"}},
		{"a field of a field that has none", &usersv1.User{}, []string{"display_name.x"}, []string{"update_mask.paths[0]"}, []string{"mask.unknown"}},
		{"a field that the address has not", &usersv1.User{}, []string{"address.street"}, []string{"update_mask.paths[0]"}, []string{"mask.unknown"}},
		{"a field in lower camel case", &usersv1.User{DisplayName: "x"}, []string{"displayName"}, []string{"update_mask.paths[0]"}, []string{"mask.unknown"}},
		{"a label that can be none", &usersv1.User{}, []string{"labels.A", "labels."}, []string{"update_mask.paths[0]", "update_mask.paths[1]"}, []string{"mask.unknown", "mask.unknown"}},
		{"the state", &usersv1.User{}, []string{"state"}, []string{"update_mask.paths[0]"}, []string{"mask.output_only"}},
		{"all that is not the caller's to set", &usersv1.User{}, []string{"user_id", "etag", "created_at", "updated_at", "deleted_at", "purge_at", "erased_at"},
			[]string{"update_mask.paths[0]", "update_mask.paths[1]", "update_mask.paths[2]", "update_mask.paths[3]", "update_mask.paths[4]", "update_mask.paths[5]", "update_mask.paths[6]"},
			[]string{"mask.output_only", "mask.output_only", "mask.output_only", "mask.output_only", "mask.output_only", "mask.output_only", "mask.output_only"}},
		{"good and bad paths", &usersv1.User{FirstName: "x"}, []string{"first_name", "state", "x"}, []string{"update_mask.paths[1]", "update_mask.paths[2]"}, []string{"mask.output_only", "mask.unknown"}},
		{"all and more", &usersv1.User{DisplayName: "x", Email: "x@example.com"}, []string{"*", "first_name"}, []string{"update_mask.paths[0]"}, []string{"mask.alone"}},
		{"no email", &usersv1.User{}, []string{"email"}, []string{"update_mask.paths[0]"}, []string{"mask.required"}},
		{"an email of spaces", &usersv1.User{Email: "  "}, []string{"email"}, []string{"update_mask.paths[0]"}, []string{"mask.required"}},
		{"no display name", &usersv1.User{}, []string{"display_name"}, []string{"update_mask.paths[0]"}, []string{"mask.required"}},
		{"all of nothing", &usersv1.User{}, []string{"*"}, []string{"update_mask.paths[0]", "update_mask.paths[0]"}, []string{"mask.required", "mask.required"}},
		{"no country", &usersv1.User{}, []string{"address.country_code"}, []string{"update_mask.paths[0]"}, []string{"mask.required"}},
		{"a place without a country", &usersv1.User{UserId: bare.GetUserId(), Address: &usersv1.Address{CountryCode: "CH", Locality: "Bern"}},
			[]string{"first_name", "address.locality"}, []string{"update_mask.paths[1]"}, []string{"mask.required"}},
		{"a 65th label", &usersv1.User{Labels: map[string]string{"one-more": ""}}, []string{"labels.one-more"}, []string{"update_mask.paths[0]"}, []string{"mask.labels"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			if row.user.GetUserId() == "" {
				row.user.UserId = made.GetUserId()
			}
			if row.rules[0] == "mask.labels" {
				update(t, c, 5000, &usersv1.User{UserId: made.GetUserId(), Labels: many}, "labels")
			}
			before := get(t, c, row.user.GetUserId())
			_, err := c.UpdateUser(timeout(t), &usersv1.UpdateUserRequest{User: row.user, UpdateMask: mask(row.paths...), RequestId: requestID(n)})
			f := kittest.WantFault(t, err, codes.InvalidArgument, "UPDATE_MASK_INVALID")
			v := f.Violations()
			if len(v) != len(row.rules) {
				t.Fatalf("violations %+v", v)
			}
			for i := range v {
				if v[i].Field != row.fields[i] || v[i].Rule != row.rules[i] {
					t.Errorf("violation %+v, want %s of %s", v[i], row.rules[i], row.fields[i])
				}
			}
			if now := get(t, c, row.user.GetUserId()); !proto.Equal(now, before) {
				t.Errorf("it made %v of %v", now, before)
			}
		})
	}
}

func TestAnUpdateThatBreaksTheRulesOfItsMessageNamesTheField(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	made := create(t, c, request(1))
	for _, row := range []struct {
		name   string
		change func(*usersv1.UpdateUserRequest)
		field  string
	}{
		{"no user", func(r *usersv1.UpdateUserRequest) { r.User = nil }, "user"},
		{"no id", func(r *usersv1.UpdateUserRequest) { r.User.UserId = "" }, "user"},
		{"no mask", func(r *usersv1.UpdateUserRequest) { r.UpdateMask = nil }, "update_mask"},
		{"an empty mask", func(r *usersv1.UpdateUserRequest) { r.UpdateMask = mask() }, "update_mask"},
		{"101 paths", func(r *usersv1.UpdateUserRequest) { r.UpdateMask = mask(make([]string, 101)...) }, "update_mask"},
		{"a path of 129 characters", func(r *usersv1.UpdateUserRequest) { r.UpdateMask = mask(strings.Repeat("x", 129)) }, "update_mask"},
		{"no request id", func(r *usersv1.UpdateUserRequest) { r.RequestId = "" }, "request_id"},
		{"a name with a control character", func(r *usersv1.UpdateUserRequest) { r.User.FirstName = "\x1b" }, "user.first_name"},
		{"an etag of 65 characters", func(r *usersv1.UpdateUserRequest) { r.User.Etag = strings.Repeat("x", 65) }, "user.etag"},
	} {
		t.Run(row.name, func(t *testing.T) {
			req := &usersv1.UpdateUserRequest{User: &usersv1.User{UserId: made.GetUserId()}, UpdateMask: mask("first_name"), RequestId: requestID(1)}
			row.change(req)
			_, err := c.UpdateUser(timeout(t), req)
			kittest.WantViolations(t, kittest.WantFault(t, err, codes.InvalidArgument, "INVALID_REQUEST"), row.field)
		})
	}
}

func TestOnlyWhoMayDoesSayThatAnEmailIsVerified(t *testing.T) {
	t.Parallel()
	h := start(t)
	made := create(t, admin(h), full(1))
	self := usersv1.NewUserServiceClient(h.As(made.GetUserId(), "users.write"))
	refused := func(n int, user *usersv1.User, paths ...string) {
		t.Helper()
		_, err := self.UpdateUser(timeout(t), &usersv1.UpdateUserRequest{User: user, UpdateMask: mask(paths...), RequestId: requestID(n)})
		if f := kittest.WantFault(t, err, codes.PermissionDenied, "FIELD_NOT_YOURS"); f.Metadata()["field"] != "verified" {
			t.Errorf("metadata %v", f.Metadata())
		}
	}
	whole := proto.CloneOf(made)
	refused(1, made, "verified")
	refused(2, made, "first_name", "verified")
	whole.Verified = false
	refused(3, whole, "*")

	// What is sent as it was read is no wish to change it, and an email that changes is verified no more.
	whole.Verified, whole.FirstName = true, "New"
	if got := update(t, self, 4, whole, "*"); !got.GetVerified() || got.GetFirstName() != "New" {
		t.Errorf("got %v", got)
	}
	whole.Email, whole.Etag = "other@example.com", ""
	if got := update(t, self, 5, whole, "*"); got.GetVerified() || got.GetEmail() != "other@example.com" {
		t.Errorf("got %v", got)
	}
	service := usersv1.NewUserServiceClient(h.AsService("auth"))
	if got := update(t, service, 6, &usersv1.User{UserId: made.GetUserId(), Email: "third@example.com", Verified: true}, "email", "verified"); !got.GetVerified() {
		t.Errorf("got %v", got)
	}
}

func TestAChangeOfAnotherVersionIsRefused(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	made := create(t, c, request(1))
	id := made.GetUserId()
	update(t, c, 1, &usersv1.User{UserId: id, FirstName: "New", Etag: made.GetEtag()}, "first_name")
	for method, call := range map[string]func(etag, request string) error{
		"UpdateUser": func(etag, request string) error {
			_, err := c.UpdateUser(timeout(t), &usersv1.UpdateUserRequest{User: &usersv1.User{UserId: id, Etag: etag}, UpdateMask: mask("first_name"), RequestId: request})
			return err
		},
		"DisableUser": func(etag, request string) error {
			_, err := c.DisableUser(timeout(t), &usersv1.DisableUserRequest{UserId: id, Etag: etag, RequestId: request})
			return err
		},
		"EnableUser": func(etag, request string) error {
			_, err := c.EnableUser(timeout(t), &usersv1.EnableUserRequest{UserId: id, Etag: etag, RequestId: request})
			return err
		},
		"DeleteUser": func(etag, request string) error {
			_, err := c.DeleteUser(timeout(t), &usersv1.DeleteUserRequest{UserId: id, Etag: etag, RequestId: request})
			return err
		},
		"UndeleteUser": func(etag, request string) error {
			_, err := c.UndeleteUser(timeout(t), &usersv1.UndeleteUserRequest{UserId: id, Etag: etag, RequestId: request})
			return err
		},
	} {
		for _, etag := range []string{made.GetEtag(), `W/"2"`, "2", "*"} {
			f := kittest.WantFault(t, call(etag, requestID(2)), codes.Aborted, "ETAG_MISMATCH")
			if f.Metadata()["user_id"] != id {
				t.Errorf("%s: metadata %v", method, f.Metadata())
			}
		}
	}
	if got := get(t, c, id); got.GetEtag() != `"2"` {
		t.Errorf("got %v", got)
	}
}

func TestAnEmailThatIsTakenCannotBeTaken(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	create(t, c, request(1))
	made := create(t, c, request(2))
	for _, check := range []bool{true, false} {
		_, err := c.UpdateUser(timeout(t), &usersv1.UpdateUserRequest{
			User: &usersv1.User{UserId: made.GetUserId(), Email: "PERSON.1@example.com"}, UpdateMask: mask("email"), RequestId: requestID(1), ValidateOnly: check,
		})
		kittest.WantFault(t, err, codes.AlreadyExists, "EMAIL_TAKEN")
	}
	_, err := c.UpdateUser(timeout(t), &usersv1.UpdateUserRequest{
		User: &usersv1.User{UserId: made.GetUserId(), Email: "a\u200b@example.com"}, UpdateMask: mask("email"), RequestId: requestID(1),
	})
	kittest.WantViolations(t, kittest.WantFault(t, err, codes.InvalidArgument, "EMAIL_INVALID"), "user.email")
	if got := update(t, c, 2, &usersv1.User{UserId: made.GetUserId(), Email: "PERSON.2@example.com"}, "email"); got.GetEmail() != "PERSON.2@example.com" {
		t.Errorf("one's own email in another case: %v", got)
	}
}

func TestAnUpdateSentAgainIsDoneOnce(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	made := create(t, c, full(1))
	id := made.GetUserId()
	first := update(t, c, 1, &usersv1.User{UserId: id, FirstName: "A", Etag: made.GetEtag()}, "first_name", "last_name")
	if again := update(t, c, 1, &usersv1.User{UserId: id, FirstName: "A", Etag: made.GetEtag()}, "last_name", "first_name"); !proto.Equal(again, first) {
		t.Errorf("got %v, want %v", again, first)
	}
	second := update(t, c, 2, &usersv1.User{UserId: id, FirstName: "B"}, "first_name")
	if again := update(t, c, 1, &usersv1.User{UserId: id, FirstName: "A", Etag: made.GetEtag()}, "first_name", "last_name"); !proto.Equal(again, second) {
		t.Errorf("the first one sent again: %v, want what the user is now: %v", again, second)
	}
	base := &usersv1.UpdateUserRequest{User: &usersv1.User{UserId: id, FirstName: "B"}, UpdateMask: mask("first_name"), RequestId: requestID(2)}
	for name, change := range map[string]func(*usersv1.UpdateUserRequest){
		"another value": func(r *usersv1.UpdateUserRequest) { r.User.FirstName = "C" },
		"another mask":  func(r *usersv1.UpdateUserRequest) { r.UpdateMask = mask("first_name", "last_name") },
		"another etag":  func(r *usersv1.UpdateUserRequest) { r.User.Etag = `"3"` },
		"a label":       func(r *usersv1.UpdateUserRequest) { r.User.Labels = map[string]string{"a": ""} },
	} {
		req := proto.CloneOf(base)
		change(req)
		_, err := c.UpdateUser(timeout(t), req)
		if kittest.WantFault(t, err, codes.FailedPrecondition, "REQUEST_ID_REUSED"); t.Failed() {
			t.Fatal(name)
		}
	}
	_, err := c.DisableUser(timeout(t), &usersv1.DisableUserRequest{UserId: id, RequestId: requestID(2)})
	kittest.WantFault(t, err, codes.FailedPrecondition, "REQUEST_ID_REUSED")
	if got := get(t, c, id); !proto.Equal(got, second) || !maps.Equal(got.GetLabels(), made.GetLabels()) {
		t.Errorf("got %v, want %v", got, second)
	}
}
