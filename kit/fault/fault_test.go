package fault_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/fault"
)

func notFound() *fault.Fault { return fault.New(fault.NotFound, "USER_NOT_FOUND", "no such user") }

func TestAFaultSaysWhatItWasMadeOf(t *testing.T) {
	f := notFound().
		WithDomain("users.v1").
		With("user_id", "u1").
		With("tenant", "a").
		With("user_id", "u2").
		WithViolation("user.email", "string.email", "is not an email address").
		WithViolation("user.name", "string.min_len", "is empty").
		WithRetryAfter(3 * time.Second).
		WithText("no such person").
		Because(errors.New("SELECT failed"))

	if f.Kind() != fault.NotFound || f.Reason() != "USER_NOT_FOUND" || f.Domain() != "users.v1" {
		t.Errorf("kind %v, reason %q, domain %q", f.Kind(), f.Reason(), f.Domain())
	}
	if f.Text() != "no such person" {
		t.Errorf("text %q", f.Text())
	}
	if want := map[string]string{"user_id": "u2", "tenant": "a"}; !maps.Equal(f.Metadata(), want) {
		t.Errorf("metadata %v, want %v", f.Metadata(), want)
	}
	want := []fault.Violation{
		{Field: "user.email", Rule: "string.email", Text: "is not an email address"},
		{Field: "user.name", Rule: "string.min_len", Text: "is empty"},
	}
	if !slices.Equal(f.Violations(), want) {
		t.Errorf("violations %v, want %v", f.Violations(), want)
	}
	if f.RetryAfter() != 3*time.Second {
		t.Errorf("retry after %v", f.RetryAfter())
	}
	if err := f.Valid(); err != nil {
		t.Errorf("Valid() = %v", err)
	}
}

func TestACopyDoesNotChangeTheOriginal(t *testing.T) {
	original := notFound().With("a1", "1").WithViolation("f1", "r", "t")
	copies := map[string]*fault.Fault{
		"WithDomain":     original.WithDomain("users.v1"),
		"With":           original.With("a1", "2").With("b1", "3"),
		"WithViolation":  original.WithViolation("f2", "r", "t"),
		"WithRetryAfter": original.WithRetryAfter(time.Second),
		"WithText":       original.WithText("other"),
		"Because":        original.Because(errors.New("cause")),
	}
	original.Metadata()["a1"] = "changed from outside"
	original.Violations()[0].Field = "changed from outside"

	if m := original.Metadata(); len(m) != 1 || m["a1"] != "1" {
		t.Errorf("metadata is %v", m)
	}
	if v := original.Violations(); len(v) != 1 || v[0].Field != "f1" {
		t.Errorf("violations are %v", v)
	}
	if original.Domain() != "" || original.RetryAfter() != 0 || original.Text() != "no such user" || original.Unwrap() != nil {
		t.Errorf("the original became %+v", original)
	}
	for name, c := range copies {
		if c == original {
			t.Errorf("%s returned the original", name)
		}
		if !errors.Is(c, original) || !errors.Is(original, c) {
			t.Errorf("%s made something that is not the same fault", name)
		}
	}
}

// Two copies of one fault must not share the array that violations are appended to.
func TestCopiesOfACopyAreIndependent(t *testing.T) {
	base := notFound().WithViolation("a", "r", "t").WithViolation("b", "r", "t").WithViolation("c", "r", "t")
	left, right := base.WithViolation("left", "r", "t"), base.WithViolation("right", "r", "t")
	if got := left.Violations()[3].Field; got != "left" {
		t.Errorf("the fourth violation of the left copy is %q", got)
	}
	if got := right.Violations()[3].Field; got != "right" {
		t.Errorf("the fourth violation of the right copy is %q", got)
	}
}

func TestWhichFaultsAreTheSame(t *testing.T) {
	for _, row := range []struct {
		name string
		a, b error
		want bool
	}{
		{"same kind and reason, other text", notFound(), fault.New(fault.NotFound, "USER_NOT_FOUND", "gone"), true},
		{"another reason", notFound(), fault.New(fault.NotFound, "ORDER_NOT_FOUND", "no such user"), false},
		{"another kind", notFound(), fault.New(fault.Internal, "USER_NOT_FOUND", "no such user"), false},
		{"one names a domain", notFound().WithDomain("users.v1"), notFound(), true},
		{"the same domain", notFound().WithDomain("users.v1"), notFound().WithDomain("users.v1"), true},
		{"two domains", notFound().WithDomain("users.v1"), notFound().WithDomain("auth.v1"), false},
		{"wrapped", fmt.Errorf("get user: %w", notFound()), notFound(), true},
		{"the cause of another fault", fault.New(fault.Unavailable, "UPSTREAM_DOWN", "down").Because(notFound()), notFound(), true},
		{"two without a reason", fault.New(fault.Internal, "", "a"), fault.New(fault.Internal, "", "a"), false},
		{"another type of error", notFound(), errors.New("no such user"), false},
		{"a nil fault", notFound(), (*fault.Fault)(nil), false},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := errors.Is(row.a, row.b); got != row.want {
				t.Errorf("errors.Is(%v, %v) = %v, want %v", row.a, row.b, got, row.want)
			}
		})
	}
}

func TestTheCauseIsForLogsOnly(t *testing.T) {
	cause := errors.New(`pq: relation "users" does not exist`)
	f := notFound().Because(cause)
	if strings.Contains(f.Text(), "pq") {
		t.Errorf("the text %q shows the cause", f.Text())
	}
	for k, v := range f.Metadata() {
		t.Errorf("metadata %s=%s came from nowhere", k, v)
	}
	if !errors.Is(f, cause) {
		t.Error("the cause cannot be reached")
	}
	if got := f.Error(); !strings.Contains(got, "no such user") || !strings.Contains(got, cause.Error()) {
		t.Errorf("Error() = %q, want text and cause", got)
	}
}

func TestAnErrorWithoutATextStillSaysSomething(t *testing.T) {
	var zero fault.Fault
	for want, f := range map[string]*fault.Fault{
		"USER_NOT_FOUND": fault.New(fault.NotFound, "USER_NOT_FOUND", ""),
		"INTERNAL":       &zero,
	} {
		if got := f.Error(); got != want {
			t.Errorf("Error() = %q, want %q", got, want)
		}
	}
}

func TestANegativeWaitIsNone(t *testing.T) {
	if d := notFound().WithRetryAfter(-time.Second).RetryAfter(); d != 0 {
		t.Errorf("RetryAfter() = %v, want 0", d)
	}
}

func TestWhatIsValid(t *testing.T) {
	for _, row := range []struct {
		name  string
		fault *fault.Fault
		want  string // part of the problem; "" where there is none
	}{
		{"an ordinary fault", notFound(), ""},
		{"the shortest reason", fault.New(fault.NotFound, "ABC", "text"), ""},
		{"the longest reason", fault.New(fault.NotFound, strings.Repeat("A", 63), "text"), ""},
		{"a reason that is too long", fault.New(fault.NotFound, strings.Repeat("A", 64), "text"), "reason"},
		{"a reason in small letters", fault.New(fault.NotFound, "user_not_found", "text"), "reason"},
		{"a reason that ends in an underscore", fault.New(fault.NotFound, "USER_", "text"), "reason"},
		{"a reason that begins with a digit", fault.New(fault.NotFound, "2FA_NEEDED", "text"), "reason"},
		{"a reason with a line feed behind it", fault.New(fault.NotFound, "USER_GONE\n", "text"), "reason"},
		{"no reason", fault.New(fault.NotFound, "", "text"), "reason"},
		{"no text", fault.New(fault.NotFound, "USER_NOT_FOUND", ""), "text"},
		{"a kind that does not exist", fault.New(fault.Kind(200), "USER_NOT_FOUND", "text"), "kind"},
		{"a metadata key with a space", notFound().With("user id", "1"), "metadata"},
		{"a metadata key that is too long", notFound().With(strings.Repeat("k", 65), "1"), "metadata"},
		{"a violation of no field", notFound().WithViolation("", "r", "t"), "violation"},
	} {
		t.Run(row.name, func(t *testing.T) {
			err := row.fault.Valid()
			if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
				t.Errorf("Valid() = %v, want %q in it", err, row.want)
			}
		})
	}
}

func TestViolationsUnderAPath(t *testing.T) {
	f := fault.New(fault.InvalidArgument, "UNBALANCED", "no").WithViolation("legs[0]", "r", "x").WithViolation("amount", "r", "y")
	under := f.Under("operations[2]")
	if got := under.Violations(); got[0].Field != "operations[2].legs[0]" || got[1].Field != "operations[2].amount" {
		t.Errorf("violations %v", got)
	}
	if f.Violations()[0].Field != "legs[0]" {
		t.Error("the original has changed")
	}
}
