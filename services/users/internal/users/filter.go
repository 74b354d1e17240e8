package users

import (
	"strings"
	"time"
)

// Filter says which users are meant. It is one of And, Or, Not, Compare, Present and Verified. A user either matches or does not: what is
// absent (a label that the user does not have, a time that is not set) makes a Compare false, and its Not true.
type Filter interface {
	// Matches says whether the user is meant, by what is kept of it.
	Matches(u User) bool
}

// Matches says whether a user is meant by a filter, where nil means all. An erased user never is.
func Matches(f Filter, u User) bool { return !u.Erased() && (f == nil || f.Matches(u)) }

type (
	// And matches who matches all; an empty And matches everyone.
	And []Filter
	// Or matches who matches one; an empty Or matches nobody.
	Or []Filter
	// Not matches who does not match.
	Not struct{ Filter Filter }
	// Compare matches by the value of a field. It says of a user without that value that it does not match.
	Compare struct {
		Field Field
		Label string // the key of the label where the field is FieldLabel, else empty
		Op    Op
		Text  string    // for text fields: any valid UTF-8 without NUL; for FieldEmail a key, or for Prefix the beginning of one
		Time  time.Time // for time fields: UTC, to the microsecond
	}
	// Present matches where the field has a value: a label that is there, even if it is empty; a time that is set; a text
	// that is not empty.
	Present struct {
		Field Field
		Label string // the key of the label where the field is FieldLabel, else empty
	}
	// Verified matches whose email is verified.
	Verified struct{}
)

// Field is what a filter can look at.
type Field int

// The fields of filters.
const (
	FieldID          Field = iota // text, canonical
	FieldEmail                    // text: Email.Key
	FieldDisplayName              // text
	FieldFirstName                // text, empty when not told
	FieldLastName                 // text, empty when not told
	FieldState                    // text, a State; only Equal
	FieldLabel                    // text, by its key
	FieldCreatedAt                // time
	FieldUpdatedAt                // time
	FieldDeletedAt                // time, not always set
)

// IsTime says whether the field is a time; it is a text otherwise.
func (f Field) IsTime() bool {
	return f == FieldCreatedAt || f == FieldUpdatedAt || f == FieldDeletedAt
}

// Op is how a value is compared. Texts are compared byte by byte.
type Op int

// The comparisons.
const (
	Equal Op = iota
	Less
	LessOrEqual
	Greater
	GreaterOrEqual
	Prefix // texts only: begins with
)

// Matches implements Filter.
func (f And) Matches(u User) bool {
	for _, part := range f {
		if !part.Matches(u) {
			return false
		}
	}
	return true
}

// Matches implements Filter.
func (f Or) Matches(u User) bool {
	for _, part := range f {
		if part.Matches(u) {
			return true
		}
	}
	return false
}

// Matches implements Filter.
func (f Not) Matches(u User) bool { return !f.Filter.Matches(u) }

// Matches implements Filter.
func (Verified) Matches(u User) bool { return u.Verified }

// Matches implements Filter.
func (f Present) Matches(u User) bool {
	if f.Field.IsTime() {
		return !timeOf(u, f.Field).IsZero()
	}
	text, there := textOf(u, f.Field, f.Label)
	return there && (f.Field == FieldLabel || text != "")
}

// Matches implements Filter.
func (f Compare) Matches(u User) bool {
	if f.Field.IsTime() {
		at := timeOf(u, f.Field)
		return !at.IsZero() && f.Op.holds(at.Compare(f.Time))
	}
	text, there := textOf(u, f.Field, f.Label)
	if f.Op == Prefix {
		return there && strings.HasPrefix(text, f.Text)
	}
	return there && f.Op.holds(strings.Compare(text, f.Text))
}

// holds says whether the op holds of a value that is before (-1), at (0) or behind (1) what it is compared with.
func (op Op) holds(side int) bool {
	switch op {
	case Less:
		return side < 0
	case LessOrEqual:
		return side <= 0
	case Greater:
		return side > 0
	case GreaterOrEqual:
		return side >= 0
	default:
		return side == 0
	}
}

// textOf returns the value of a text field, and whether the user has it.
func textOf(u User, f Field, label string) (string, bool) {
	switch f {
	case FieldID:
		return string(u.ID), true
	case FieldEmail:
		return u.Email.Key, true
	case FieldDisplayName:
		return u.DisplayName, true
	case FieldFirstName:
		return u.FirstName, true
	case FieldLastName:
		return u.LastName, true
	case FieldState:
		return string(u.State), true
	default:
		text, there := u.Labels[label]
		return text, there
	}
}

// timeOf returns the value of a time field; zero means that the user does not have it.
func timeOf(u User, f Field) time.Time {
	switch f {
	case FieldUpdatedAt:
		return u.UpdatedAt
	case FieldDeletedAt:
		return u.DeletedAt
	default:
		return u.CreatedAt
	}
}
