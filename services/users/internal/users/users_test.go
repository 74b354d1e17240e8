package users

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/clock/clocktest"
)

// recorder is a store that only notes what it is asked: what a store does is the matter of storetest.
type recorder struct {
	Store
	drafts []Draft
	mode   Mode
	limit  int
	err    error
}

func (r *recorder) Create(_ context.Context, drafts []Draft, mode Mode) ([]Outcome, error) {
	r.mode = mode
	r.drafts = append(r.drafts, drafts...)
	outcomes := make([]Outcome, len(drafts))
	for i, d := range drafts {
		outcomes[i] = Outcome{User: d.User}
	}
	return outcomes, r.err
}

func (r *recorder) List(_ context.Context, q Query) (Page, error) {
	r.limit = q.Limit
	return Page{}, r.err
}

var start = time.Date(2026, 3, 1, 10, 30, 0, 123456789, time.FixedZone("CET", 3600))

func newService(r *recorder) *Service {
	n := 0
	return NewService(Deps{Store: r, Clock: clocktest.New(start), PurgeAfter: time.Hour, NewID: func() string {
		n++
		return fmt.Sprintf("0195f000-0000-7000-8000-%012d", n)
	}})
}

func ada() NewUser {
	return NewUser{
		Caller: "service:auth", RequestID: "7d9a0000-0000-4000-8000-000000000001",
		Email: "Ada@Example.com", DisplayName: "Ada", FirstName: "Augusta", LastName: "King",
	}
}

func TestCreateCompletesWhatIsAskedFor(t *testing.T) {
	r := &recorder{}
	u, err := newService(r).Create(t.Context(), ada())
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 3, 1, 9, 30, 0, 123456000, time.UTC)
	want := User{
		ID: "0195f000-0000-7000-8000-000000000001", Email: Email{"Ada@Example.com", "ada@example.com"}, DisplayName: "Ada", FirstName: "Augusta", LastName: "King",
		State: Active, Revision: 1, CreatedAt: at, UpdatedAt: at,
	}
	if !u.Equal(want) {
		t.Errorf("got %+v, want %+v", u, want)
	}
	d := r.drafts[0]
	if d.Claim.Caller != "service:auth" || d.Claim.RequestID != ada().RequestID || !d.Claim.At.Equal(at) {
		t.Errorf("claim %+v", d.Claim)
	}
}

func TestCreateBringsIDsAndEmailsIntoOneForm(t *testing.T) {
	r := &recorder{}
	n := ada()
	n.ID, n.RequestID, n.Email = "0195F000-ABCD-7000-8000-00000000000F", "7D9A0000-0000-4000-8000-00000000000A", " Ada@Example.com\t"
	u, err := newService(r).Create(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	if u.ID != "0195f000-abcd-7000-8000-00000000000f" || u.Email.Text != "Ada@Example.com" {
		t.Errorf("got %+v", u)
	}
	if got := r.drafts[0].Claim.RequestID; got != "7d9a0000-0000-4000-8000-00000000000a" {
		t.Errorf("request id %q", got)
	}
}

func TestCreateAllSaysThatNothingIsKnownWhenTheStoreFails(t *testing.T) {
	broken := errors.New("broken")
	outcomes, err := newService(&recorder{err: broken}).CreateAll(t.Context(), []NewUser{ada(), ada()})
	if !errors.Is(err, broken) || outcomes != nil {
		t.Errorf("got %v, %v", outcomes, err)
	}
}

func TestCreateAllTellsOfABadEmailInItsPlace(t *testing.T) {
	r := &recorder{}
	bad := ada()
	bad.Email = "ada@"
	outcomes, err := newService(r).CreateAll(t.Context(), []NewUser{bad, ada(), bad})
	if err != nil || len(r.drafts) != 1 {
		t.Fatalf("%v, %d drafts", err, len(r.drafts))
	}
	for i, want := range []error{ErrEmailInvalid, nil, ErrEmailInvalid} {
		if !errors.Is(outcomes[i].Err, want) {
			t.Errorf("outcome %d: %v, want %v", i, outcomes[i].Err, want)
		}
	}
	if outcomes[1].User.Email.Key != "ada@example.com" {
		t.Errorf("got %+v", outcomes[1])
	}
}

func TestCreateOfNobodyAsksNothingOfTheStore(t *testing.T) {
	bad := ada()
	bad.Email = ""
	_, err := newService(&recorder{err: errors.New("asked")}).Create(t.Context(), bad)
	if !errors.Is(err, ErrEmailInvalid) {
		t.Errorf("got %v", err)
	}
}

func TestCreateOnlyChecksWhereThatIsAskedFor(t *testing.T) {
	for _, check := range []bool{false, true} {
		r := &recorder{}
		n := ada()
		n.CheckOnly = check
		if _, err := newService(r).Create(t.Context(), n); err != nil || bool(r.mode) != check {
			t.Errorf("%v, mode %v, want %v", err, r.mode, check)
		}
	}
}

func TestListAsksForAPageOfAnAllowedSize(t *testing.T) {
	for size, want := range map[int]int{0: 50, 1: 1, 50: 50, 1000: 1000, 1001: 1000, -1: 50} {
		r := &recorder{}
		if _, err := newService(r).List(t.Context(), Query{Limit: size}); err != nil {
			t.Fatal(err)
		}
		if r.limit != want {
			t.Errorf("size %d asks for %d, want %d", size, r.limit, want)
		}
	}
}

// draftOf makes a draft as a service does that has made no id before.
func draftOf(t *testing.T, n NewUser, at time.Time) Draft {
	t.Helper()
	d, err := n.draft(at, func() string { return at.String() })
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDigest(t *testing.T) {
	base := ada()
	for _, row := range []struct {
		name   string
		change func(*NewUser)
		equal  bool
	}{
		{"nothing changed is the same request", func(*NewUser) {}, true},
		{"the caller and the request id are no part of it", func(n *NewUser) { n.Caller, n.RequestID = "user:x", "y" }, true},
		{"space around the email says nothing", func(n *NewUser) { n.Email = " " + n.Email + " " }, true},
		{"an email in another case is shown in another way", func(n *NewUser) { n.Email = "ada@example.com" }, false},
		{"another display name is another request", func(n *NewUser) { n.DisplayName = "Ada " }, false},
		{"an id that is asked for is another request than none", func(n *NewUser) { n.ID = "0195f000-0000-7000-8000-000000000001" }, false},
		{"text that moved to the next field is another request", func(n *NewUser) { n.FirstName, n.LastName = "AugustaK", "ing" }, false},
		{"fields that changed places are another request", func(n *NewUser) { n.FirstName, n.LastName = n.LastName, n.FirstName }, false},
		{"a field that is left out is another request", func(n *NewUser) { n.LastName = "" }, false},
		{"no labels are none", func(n *NewUser) { n.Labels = map[string]string{} }, true},
		{"a label is another request", func(n *NewUser) { n.Labels = map[string]string{"a": ""} }, false},
		{"an address is another request, even an empty one", func(n *NewUser) { n.Address = &Address{} }, false},
		{"a verified email is another request", func(n *NewUser) { n.Verified = true }, false},
		{"to ask whether it can be done is no part of it", func(n *NewUser) { n.CheckOnly = true }, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			n := base
			row.change(&n)
			// Two calls of a service: each makes an id of its own, and the time goes on.
			a := draftOf(t, base, start)
			b := draftOf(t, n, start.Add(time.Hour))
			if equal := a.Claim.Digest == b.Claim.Digest; equal != row.equal {
				t.Errorf("equal: %t, want %t", equal, row.equal)
			}
		})
	}
}

func TestAnIDInEitherCaseIsTheSameRequest(t *testing.T) {
	lower, upper := ada(), ada()
	lower.ID, upper.ID = "0195f000-abcd-7000-8000-00000000000f", "0195F000-ABCD-7000-8000-00000000000F"
	a, b := draftOf(t, lower, start), draftOf(t, upper, start)
	if a.Claim != b.Claim || a.User.ID != b.User.ID {
		t.Errorf("%+v is not %+v", a, b)
	}
}

// The digests of requests are stored: one that changes turns a repetition into a clash after an update.
func TestTheDigestOfARequestNeverChanges(t *testing.T) {
	d := draftOf(t, ada(), start)
	if got := fmt.Sprintf("%x", d.Claim.Digest); got != "7baf028781b046c7c67990d281ebe3953496722ba28097bd7f4ba6ddcb34034c" {
		t.Errorf("got %s", got)
	}
}

func TestETagIsAnotherAfterAChange(t *testing.T) {
	u := User{Revision: 1}
	first := u.ETag()
	u.Revision++
	if second := u.ETag(); first == second || first != `"1"` {
		t.Errorf("%s, then %s", first, second)
	}
}

func TestFaultsAreWellFormedAndDistinct(t *testing.T) {
	var reasons []string
	for _, f := range Faults() {
		if err := f.Valid(); err != nil {
			t.Errorf("%s: %v", f.Reason(), err)
		}
		reasons = append(reasons, f.Reason())
	}
	slices.Sort(reasons)
	if n := len(slices.Compact(slices.Clone(reasons))); n != len(reasons) {
		t.Errorf("reasons repeat: %q", reasons)
	}
}
