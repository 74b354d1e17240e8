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
	limit  int
	err    error
}

func (r *recorder) Create(_ context.Context, drafts []Draft) ([]Outcome, error) {
	r.drafts = append(r.drafts, drafts...)
	outcomes := make([]Outcome, len(drafts))
	for i, d := range drafts {
		outcomes[i] = Outcome{User: d.User}
	}
	return outcomes, r.err
}

func (r *recorder) List(_ context.Context, _ Position, limit int) (Page, error) {
	r.limit = limit
	return Page{}, r.err
}

var start = time.Date(2026, 3, 1, 10, 30, 0, 123456789, time.FixedZone("CET", 3600))

func newService(r *recorder) *Service {
	n := 0
	return NewService(r, clocktest.New(start), func() string {
		n++
		return fmt.Sprintf("0195f000-0000-7000-8000-%012d", n)
	})
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
		ID: "0195f000-0000-7000-8000-000000000001", Email: "Ada@Example.com", DisplayName: "Ada", FirstName: "Augusta", LastName: "King",
		State: Active, Revision: 1, CreatedAt: at, UpdatedAt: at,
	}
	if u != want {
		t.Errorf("got %+v, want %+v", u, want)
	}
	d := r.drafts[0]
	if d.EmailKey != "ada@example.com" || d.Claim.Caller != "service:auth" || d.Claim.RequestID != ada().RequestID {
		t.Errorf("key %q, claim %+v", d.EmailKey, d.Claim)
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
	if u.ID != "0195f000-abcd-7000-8000-00000000000f" || u.Email != "Ada@Example.com" {
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

func TestListAsksForAPageOfAnAllowedSize(t *testing.T) {
	for size, want := range map[int]int{0: 50, 1: 1, 50: 50, 1000: 1000, 1001: 1000, -1: 50} {
		r := &recorder{}
		if _, err := newService(r).List(t.Context(), Position{}, size); err != nil {
			t.Fatal(err)
		}
		if r.limit != want {
			t.Errorf("size %d asks for %d, want %d", size, r.limit, want)
		}
	}
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
	} {
		t.Run(row.name, func(t *testing.T) {
			n := base
			row.change(&n)
			// Two calls of a service: each makes an id of its own, and the time goes on.
			a := base.draft(start, func() string { return "a" })
			b := n.draft(start.Add(time.Hour), func() string { return "b" })
			if equal := a.Claim.Digest == b.Claim.Digest; equal != row.equal {
				t.Errorf("equal: %t, want %t", equal, row.equal)
			}
		})
	}
}

func TestAnIDInEitherCaseIsTheSameRequest(t *testing.T) {
	lower, upper := ada(), ada()
	lower.ID, upper.ID = "0195f000-abcd-7000-8000-00000000000f", "0195F000-ABCD-7000-8000-00000000000F"
	a, b := lower.draft(start, nil), upper.draft(start, nil)
	if a.Claim != b.Claim || a.User.ID != b.User.ID {
		t.Errorf("%+v is not %+v", a, b)
	}
}

// The digests of requests are stored: one that changes turns a repetition into a clash after an update.
func TestTheDigestOfARequestNeverChanges(t *testing.T) {
	d := ada().draft(start, func() string { return "a" })
	if got := fmt.Sprintf("%x", d.Claim.Digest); got != "7baf028781b046c7c67990d281ebe3953496722ba28097bd7f4ba6ddcb34034c" {
		t.Errorf("got %s", got)
	}
}

func TestEmailKey(t *testing.T) {
	for _, row := range []struct {
		name  string
		a, b  string
		equal bool
	}{
		{"letter case does not count", "Ada@Example.COM", "ada@example.com", true},
		{"space around it does not count", "\u00a0 ada@example.com\n", "ada@example.com", true},
		{"composed and decomposed are one", "rene\u0301@example.com", "ren\u00e9@example.com", true},
		{"case and composition together", "RENE\u0301@EXAMPLE.COM", "ren\u00e9@example.com", true},
		{"sharp s is double s", "Stra\u00dfe@example.com", "STRASSE@example.com", true},
		{"final sigma is sigma", "\u039f\u0394\u039f\u03a3@example.com", "\u03bf\u03b4\u03bf\u03c2@example.com", true},
		{"another letter is another email", "ada@example.com", "adb@example.com", false},
		{"a dot counts", "a.da@example.com", "ada@example.com", false},
		{"a tag counts", "ada+x@example.com", "ada@example.com", false},
		{"another domain is another email", "ada@example.com", "ada@example.org", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			a, b := EmailKey(row.a), EmailKey(row.b)
			if (a == b) != row.equal {
				t.Errorf("keys %q and %q, want equal: %t", a, b, row.equal)
			}
			if again := EmailKey(a); again != a {
				t.Errorf("the key of %q is %q", a, again)
			}
		})
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
