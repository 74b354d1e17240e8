// Package fault is the error of a domain: a kind that says what a caller can do, a reason that programs
// compare, and a text that is safe to show to a stranger. What must not be shown (SQL, paths, another user's
// data) goes into the cause, which only logs see. The package imports the standard library only, because
// domains import it.
package fault

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"time"
)

// Fault is an error that may be shown. It never changes once made: the With methods and Because return a copy,
// so that package-level faults can be shared and refined.
//
//	var ErrNotFound = fault.New(fault.NotFound, "USER_NOT_FOUND", "no such user")
//
//	return ErrNotFound.With("user_id", id) // errors.Is(…, ErrNotFound) holds
type Fault struct {
	kind       Kind
	reason     string
	domain     string
	text       string
	metadata   map[string]string
	violations []Violation
	retryAfter time.Duration
	cause      error
}

// Violation is one field of a request that breaks a rule.
type Violation struct {
	Field string // the path of the field in the request, such as "user.email"
	Rule  string // the id of the rule, such as "string.email"; programs compare it
	Text  string // what is wrong, safe to show
}

// Domain is the domain of faults that belong to no service: those of the request path, and of the stores and logs under
// all of them. Their reasons are the values of policy.v1.ErrorReason.
const Domain = "policy.v1"

// New returns a fault. The reason is UPPER_SNAKE_CASE of 3 to 63 characters and unique in its domain. The text
// is safe to show and holds nothing that varies: what varies goes into metadata. New serves package-level
// variables, so it does not fail; a test calls Valid.
func New(kind Kind, reason, text string) *Fault {
	return &Fault{kind: kind, reason: reason, text: text}
}

// Kind returns what a caller can do about it.
func (f *Fault) Kind() Kind { return f.kind }

// Reason returns the constant that programs compare, such as "USER_NOT_FOUND".
func (f *Fault) Reason() string { return f.reason }

// Text returns the text that is safe to show. It never has anything of the cause.
func (f *Fault) Text() string { return f.text }

// Domain returns whose reason it is, such as "users.v1", or "" when nobody has said so yet.
func (f *Fault) Domain() string { return f.domain }

// Metadata returns a copy of the details for programs; nil when there are none. They are shown to the caller.
func (f *Fault) Metadata() map[string]string { return maps.Clone(f.metadata) }

// Violations returns a copy of the fields that break a rule, in the order in which they were added.
func (f *Fault) Violations() []Violation { return slices.Clone(f.violations) }

// RetryAfter returns how long the caller should wait before it asks again; zero when nothing is known.
func (f *Fault) RetryAfter() time.Duration { return f.retryAfter }

// WithDomain returns a copy that says whose reason it is.
func (f *Fault) WithDomain(domain string) *Fault {
	c := f.clone()
	c.domain = domain
	return c
}

// With returns a copy with one more detail, which is shown to the caller. The key is a letter followed by
// letters, digits, "-" or "_", in all 2 to 64 characters. A key that is there already takes the new value.
func (f *Fault) With(key, value string) *Fault {
	c := f.clone()
	if c.metadata == nil {
		c.metadata = make(map[string]string, 1)
	}
	c.metadata[key] = value
	return c
}

// WithViolation returns a copy with one more field that breaks a rule.
func (f *Fault) WithViolation(field, rule, text string) *Fault {
	c := f.clone()
	c.violations = append(c.violations, Violation{Field: field, Rule: rule, Text: text})
	return c
}

// Under returns a copy whose violations are of fields below path: "legs[0]" becomes "operations[2].legs[0]" under
// "operations[2]".
func (f *Fault) Under(path string) *Fault {
	c := f.clone()
	for i := range c.violations {
		c.violations[i].Field = path + "." + c.violations[i].Field
	}
	return c
}

// WithRetryAfter returns a copy that says how long to wait before asking again. Zero or less says nothing.
func (f *Fault) WithRetryAfter(d time.Duration) *Fault {
	c := f.clone()
	c.retryAfter = max(d, 0)
	return c
}

// WithText returns a copy with another text, which must be safe to show.
func (f *Fault) WithText(text string) *Fault {
	c := f.clone()
	c.text = text
	return c
}

// Because returns a copy that remembers err as its cause, for logs and errors.Is; it is never shown. It
// replaces an earlier cause.
func (f *Fault) Because(err error) *Fault {
	c := f.clone()
	c.cause = err
	return c
}

func (f *Fault) clone() *Fault {
	c := *f
	c.metadata = maps.Clone(f.metadata)
	c.violations = slices.Clone(f.violations)
	return &c
}

// Error returns the text and the cause. It is for logs and must not be sent to a caller: send Text.
func (f *Fault) Error() string {
	text := f.text
	if text == "" {
		text = f.reason
	}
	if text == "" {
		text = f.kind.String()
	}
	if f.cause == nil {
		return text
	}
	return text + ": " + f.cause.Error()
}

// Unwrap returns the cause.
func (f *Fault) Unwrap() error { return f.cause }

// Is says whether target is the same fault: a *Fault of the same kind and reason, and of the same domain where
// both name one. Text, details and cause do not count. A fault without a reason is the same as no other.
func (f *Fault) Is(target error) bool {
	t, ok := target.(*Fault)
	if !ok || t == nil {
		return false
	}
	if f.kind != t.kind || f.reason != t.reason || f.reason == "" {
		return false
	}
	return f.domain == "" || t.domain == "" || f.domain == t.domain
}

// The limits of google.rpc.ErrorInfo, as which faults travel.
const (
	maxReason = 63
	maxKey    = 64
)

// Valid returns an error that lists what is wrong with the fault: a kind that does not exist, a reason or a
// metadata key of the wrong form, a missing text, a violation that names no field. It is for tests over all
// faults of a domain.
func (f *Fault) Valid() error {
	var problems []error
	if int(f.kind) >= len(kindNames) {
		problems = append(problems, fmt.Errorf("kind %d does not exist", f.kind))
	}
	if len(f.reason) > maxReason || !regexp.MustCompile(`^[A-Z][A-Z0-9_]+[A-Z0-9]$`).MatchString(f.reason) {
		problems = append(problems, fmt.Errorf("reason %q is not UPPER_SNAKE_CASE of 3 to %d characters", f.reason, maxReason))
	}
	if f.text == "" {
		problems = append(problems, errors.New("text is empty"))
	}
	key := regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_-]+$`)
	for _, k := range slices.Sorted(maps.Keys(f.metadata)) {
		if len(k) > maxKey || !key.MatchString(k) {
			problems = append(problems, fmt.Errorf("metadata key %q is not a name of 2 to %d characters", k, maxKey))
		}
	}
	for i, v := range f.violations {
		if v.Field == "" {
			problems = append(problems, fmt.Errorf("violation %d names no field", i))
		}
	}
	return errors.Join(problems...)
}
