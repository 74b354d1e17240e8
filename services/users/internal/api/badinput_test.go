package api_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/grpcfault"
	"github.com/concordat-dev/concordat/kit/kittest"
)

// Whoever sends one of these is told which rule it breaks, and nothing is stored.
func TestEveryBadInputHasItsCodeReasonAndViolation(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	first := request(1)
	first.Email = "ren\u00e9@b\u00fccher.example"
	id := create(t, c, first).GetUserId()

	makeWith := func(email string) func() error {
		return func() error {
			req := request(2)
			req.Email = email
			_, err := c.CreateUser(timeout(t), req)
			return err
		}
	}
	listWith := func(req *usersv1.ListUsersRequest) func() error {
		return func() error {
			_, err := c.ListUsers(timeout(t), req)
			return err
		}
	}
	filter := func(text string) func() error { return listWith(&usersv1.ListUsersRequest{Filter: text}) }
	change := func(paths ...string) func() error {
		return func() error {
			_, err := c.UpdateUser(timeout(t), &usersv1.UpdateUserRequest{User: &usersv1.User{UserId: id}, UpdateMask: mask(paths...), RequestId: requestID(1)})
			return err
		}
	}
	terms := func(n int) string { return strings.TrimSuffix(strings.Repeat("verified OR ", n), " OR ") }
	nested := func(n int) string { return strings.Repeat("(", n) + "verified" + strings.Repeat(")", n) }

	for _, row := range []struct {
		name   string
		call   func() error
		code   codes.Code
		reason string
		field  string // of the violation; "" where there is none
		rule   string
	}{
		{"a twin in NFD", makeWith("rene\u0301@b\u00fccher.example"), codes.AlreadyExists, "EMAIL_TAKEN", "", ""},
		{"a twin whose domain is in NFD", makeWith("ren\u00e9@bu\u0308cher.example"), codes.AlreadyExists, "EMAIL_TAKEN", "", ""},
		{"a twin in upper case", makeWith("REN\u00c9@B\u00dcCHER.EXAMPLE"), codes.AlreadyExists, "EMAIL_TAKEN", "", ""},
		{"a twin in punycode", makeWith("ren\u00e9@xn--bcher-kva.example"), codes.AlreadyExists, "EMAIL_TAKEN", "", ""},
		{"a twin in full-width letters", makeWith("\uff52en\u00e9@b\u00fccher.example"), codes.AlreadyExists, "EMAIL_TAKEN", "", ""},
		{"a twin with a zero-width space", makeWith("ren\u200b\u00e9@b\u00fccher.example"), codes.InvalidArgument, "EMAIL_INVALID", "email", "email.characters"},
		{"a twin with a zero-width non-joiner in the domain", makeWith("ren\u00e9@b\u00fc\u200ccher.example"), codes.InvalidArgument, "EMAIL_INVALID", "email", "email.characters"},
		{"a twin turned around", makeWith("\u202eren\u00e9@b\u00fccher.example"), codes.InvalidArgument, "EMAIL_INVALID", "email", "email.characters"},
		{"an email with NUL", makeWith("ada\x00@example.com"), codes.InvalidArgument, "EMAIL_INVALID", "email", "email.characters"},
		{"an email with a line break", makeWith("ada@example.com\r\nbcc: x"), codes.InvalidArgument, "EMAIL_INVALID", "email", "email.characters"},
		{"an email of 255 characters", makeWith(strings.Repeat("x", 243) + "@example.com"), codes.InvalidArgument, "INVALID_REQUEST", "email", "string.max_len"},
		{"an email of 255 bytes", makeWith("x@" + strings.Repeat("\u00fc", 124) + ".comx"), codes.InvalidArgument, "EMAIL_INVALID", "email", "email.length"},
		{"an email without a domain", makeWith("ada"), codes.InvalidArgument, "EMAIL_INVALID", "email", "email.syntax"},
		{"an email at a name that is none", makeWith("ada@exa_mple.com"), codes.InvalidArgument, "EMAIL_INVALID", "email", "email.domain"},
		{"an email of a quoted local part", makeWith(`"a b"@example.com`), codes.InvalidArgument, "EMAIL_INVALID", "email", "email.characters"},
		{"a page of -1", listWith(&usersv1.ListUsersRequest{PageSize: -1}), codes.InvalidArgument, "INVALID_REQUEST", "page_size", "int32.gte_lte"},
		{"a page of 2^31-1", listWith(&usersv1.ListUsersRequest{PageSize: 1<<31 - 1}), codes.InvalidArgument, "INVALID_REQUEST", "page_size", "int32.gte_lte"},
		{"a page token that is none", listWith(&usersv1.ListUsersRequest{PageToken: "x"}), codes.InvalidArgument, "PAGE_TOKEN_INVALID", "page_token", "page_token.valid"},
		{"an order that is none", listWith(&usersv1.ListUsersRequest{OrderBy: "email; DROP TABLE users;--"}), codes.InvalidArgument, "ORDER_BY_INVALID", "order_by", "order_by.syntax"},
		{"an order by what is no order", listWith(&usersv1.ListUsersRequest{OrderBy: "verified"}), codes.InvalidArgument, "ORDER_BY_INVALID", "order_by", "order_by.field"},
		{"an order of 129 characters", listWith(&usersv1.ListUsersRequest{OrderBy: strings.Repeat("x", 129)}), codes.InvalidArgument, "INVALID_REQUEST", "order_by", "string.max_len"},
		{"a filter of 10,000 terms", filter(terms(10_000)), codes.InvalidArgument, "INVALID_REQUEST", "filter", "string.max_len"},
		{"a filter of 65 terms", filter(terms(65)), codes.InvalidArgument, "FILTER_INVALID", "filter", "filter.size"},
		{"a filter of 17 levels", filter(nested(17)), codes.InvalidArgument, "FILTER_INVALID", "filter", "filter.size"},
		{"a filter of 2,000 levels", filter(nested(2000)), codes.InvalidArgument, "FILTER_INVALID", "filter", "filter.size"},
		{"a filter in SQL", filter("1=1;--"), codes.InvalidArgument, "FILTER_INVALID", "filter", "filter.syntax"},
		{"a filter by a field that is none", filter(`password = "x"`), codes.InvalidArgument, "FILTER_INVALID", "filter", "filter.field"},
		{"a filter with a quote too few", filter(`first_name = "x`), codes.InvalidArgument, "FILTER_INVALID", "filter", "filter.syntax"},
		{"a filter with NUL", filter(`first_name = "\x00"`), codes.InvalidArgument, "FILTER_INVALID", "filter", "filter.value"},
		{"a mask of all of nothing", change("*"), codes.InvalidArgument, "UPDATE_MASK_INVALID", "update_mask.paths[0]", "mask.required"},
		{"a mask with the state", change("state"), codes.InvalidArgument, "UPDATE_MASK_INVALID", "update_mask.paths[0]", "mask.output_only"},
		{"a mask with what is no field", change("nobody"), codes.InvalidArgument, "UPDATE_MASK_INVALID", "update_mask.paths[0]", "mask.unknown"},
		{"a stream by a filter that is none", func() error {
			return received(c.StreamUsers(timeout(t), &usersv1.StreamUsersRequest{Filter: "x"}))
		}, codes.InvalidArgument, "FILTER_INVALID", "filter", "filter.syntax"},
		{"a watch by a filter that is none", func() error {
			return received(c.WatchUsers(timeout(t), &usersv1.WatchUsersRequest{Filter: "x"}))
		}, codes.InvalidArgument, "FILTER_INVALID", "filter", "filter.syntax"},
		{"a watch from a token that is none", func() error {
			return received(c.WatchUsers(timeout(t), &usersv1.WatchUsersRequest{ResumeToken: "x"}))
		}, codes.InvalidArgument, "RESUME_TOKEN_INVALID", "resume_token", "resume_token.valid"},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := kittest.WantFault(t, row.call(), row.code, row.reason)
			var want []fault.Violation
			if row.field != "" {
				want = []fault.Violation{{Field: row.field, Rule: row.rule}}
			}
			got := f.Violations()
			if len(got) < len(want) || len(want) == 0 && len(got) > 0 {
				t.Fatalf("violations %+v, want %+v", got, want)
			}
			for i := range want {
				if got[i].Field != want[i].Field || got[i].Rule != want[i].Rule || got[i].Text == "" {
					t.Errorf("violation %+v, want %s of %s", got[i], want[i].Rule, want[i].Field)
				}
			}
		})
	}
	if n := total(t, c); n != 1 {
		t.Errorf("%d users, want 1", n)
	}
}

// Some scripts need format characters, and the contract refuses control characters and ASCII spaces alone.
func TestADisplayNameOfUnusualCharactersIsTakenOnPurpose(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	for n, row := range []struct{ name, text string }{
		{"a zero-width non-joiner, as Persian has it", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"},
		{"a zero-width joiner, as Sinhala has it", "\u0dc1\u0dca\u200d\u0dbb\u0dd3"},
		{"a zero-width space", "A\u200bda"},
		{"nothing but a zero-width space", "\u200b"},
		{"a mark of direction", "\u200fAda"},
		{"a text turned around", "\u202eadA\u202c"},
		{"nothing but a no-break space", "\u00a0"},
		{"nothing but an ideographic space", "\u3000"},
	} {
		t.Run(row.name, func(t *testing.T) {
			req := request(n)
			req.DisplayName = row.text
			if got := create(t, c, req).GetDisplayName(); got != row.text {
				t.Errorf("%+q is shown as %+q", row.text, got)
			}
		})
	}
}

func TestADotlessIIsAnotherLetterThanI(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	for n, email := range []string{"i@example.com", "\u0131@example.com", "\u0130@example.com"} {
		req := request(n)
		req.Email = email
		if got := create(t, c, req); got.GetEmail() != email {
			t.Errorf("%+q is shown as %+q", email, got.GetEmail())
		}
	}
	req := request(9)
	req.Email = "I@example.com"
	_, err := c.CreateUser(timeout(t), req)
	kittest.WantFault(t, err, codes.AlreadyExists, "EMAIL_TAKEN")
}

// Signs that mean something to a database mean themselves.
func TestAFilterFindsWhatItSaysByTheLetter(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	names := []string{"100%", "100_", "100x", "O'Brien", `"quoted"`, `back\slash`, "'; DROP TABLE users;--", "\u00e9t\u00e9", "e\u0301te\u0301"}
	for n, name := range names {
		req := request(n)
		req.DisplayName = name
		create(t, c, req)
	}
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	for n, name := range names {
		page := list(t, c, &usersv1.ListUsersRequest{Filter: fmt.Sprintf(`display_name = "%s"`, quote.Replace(name))})
		if len(page.GetUsers()) != 1 || page.GetUsers()[0].GetUserId() != request(n).GetUserId() || page.GetTotalSize() != 1 {
			t.Errorf("%q: %v", name, page)
		}
	}
	for filter, want := range map[string]int{`display_name = "100%*"`: 1, `display_name = "100*"`: 3, `display_name = "%*"`: 0, `display_name = "_*"`: 0} {
		if page := list(t, c, &usersv1.ListUsersRequest{Filter: filter}); len(page.GetUsers()) != want {
			t.Errorf("%s: %d users, want %d", filter, len(page.GetUsers()), want)
		}
	}
}

func TestAPageTokenWithAnyBitFlippedIsRefused(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	fill(t, c, 0, 3)
	req := &usersv1.ListUsersRequest{PageSize: 1, OrderBy: "email desc"}
	token := list(t, c, req).GetNextPageToken()
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	for bit := range 8 * len(raw) {
		flipped := append([]byte(nil), raw...)
		flipped[bit/8] ^= 1 << (bit % 8)
		req.PageToken = base64.RawURLEncoding.EncodeToString(flipped)
		_, err := c.ListUsers(timeout(t), req)
		if kittest.WantFault(t, err, codes.InvalidArgument, "PAGE_TOKEN_INVALID"); t.Failed() {
			t.Fatalf("bit %d", bit)
		}
	}
	for i := range token { // and the text itself, of which some bits mean nothing to base64
		for bit := range 7 {
			flipped := []byte(token)
			flipped[i] ^= 1 << bit
			req.PageToken = string(flipped)
			if _, err := c.ListUsers(timeout(t), req); grpcfault.FromError(err).Kind() != fault.InvalidArgument {
				t.Fatalf("character %d, bit %d: %v", i, bit, err)
			}
		}
	}
	req.PageToken = token
	list(t, c, req)
}

func TestAPageTokenIsForOneListing(t *testing.T) {
	t.Parallel()
	c := admin(start(t))
	fill(t, c, 0, 5)
	base := func() *usersv1.ListUsersRequest {
		return &usersv1.ListUsersRequest{PageSize: 2, Filter: "state = ACTIVE", OrderBy: "display_name"}
	}
	token := list(t, c, base()).GetNextPageToken()
	for name, change := range map[string]func(*usersv1.ListUsersRequest){
		"another filter":      func(r *usersv1.ListUsersRequest) { r.Filter = "state = DISABLED" },
		"no filter":           func(r *usersv1.ListUsersRequest) { r.Filter = "" },
		"another order":       func(r *usersv1.ListUsersRequest) { r.OrderBy = "email" },
		"the reverse":         func(r *usersv1.ListUsersRequest) { r.OrderBy = "display_name desc" },
		"deleted users too":   func(r *usersv1.ListUsersRequest) { r.ShowDeleted = true },
		"order and filter":    func(r *usersv1.ListUsersRequest) { r.OrderBy, r.Filter = "", "display_name\nstate = ACTIVE" },
		"a space more in one": func(r *usersv1.ListUsersRequest) { r.Filter += " " },
	} {
		req := base()
		change(req)
		req.PageToken = token
		_, err := c.ListUsers(timeout(t), req)
		if grpcfault.FromError(err).Reason() != "PAGE_TOKEN_INVALID" && grpcfault.FromError(err).Reason() != "FILTER_INVALID" {
			t.Errorf("%s: %v", name, err)
		}
	}
	req := base()
	req.PageSize, req.PageToken = 3, token // the size is free
	if page := list(t, c, req); len(page.GetUsers()) != 3 {
		t.Errorf("got %v", page)
	}
}
