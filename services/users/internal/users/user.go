package users

import (
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/concordat-dev/concordat/kit/fault"
)

// What the service and its stores answer with when they refuse.
var (
	// ErrNotFound: there is no such user. Metadata: user_id.
	ErrNotFound = fault.New(fault.NotFound, "USER_NOT_FOUND", "no such user")
	// ErrEmailTaken: another user has the email.
	ErrEmailTaken = fault.New(fault.AlreadyExists, "EMAIL_TAKEN", "another user has this email")
	// ErrIDTaken: another user has the id. Metadata: user_id.
	ErrIDTaken = fault.New(fault.AlreadyExists, "USER_ID_TAKEN", "another user has this id")
	// ErrRequestIDReused: the caller has used the request id for another request.
	ErrRequestIDReused = fault.New(fault.FailedPrecondition, "REQUEST_ID_REUSED", "the request id was used for another request")
)

// Faults returns every fault of the domain, for tests that must know all.
func Faults() []*fault.Fault {
	return []*fault.Fault{ErrNotFound, ErrEmailTaken, ErrIDTaken, ErrRequestIDReused}
}

// ID is the id of a user: a UUID in its canonical form, which is lower case.
type ID string

// CanonicalID returns the id that a UUID in upper or lower case means.
func CanonicalID(uuid string) ID { return ID(strings.ToLower(uuid)) }

// State is whether a user may be dealt with.
type State string

// Active is the state of a user who may be dealt with.
const Active State = "ACTIVE"

// User is a profile: who somebody is, not what they may do.
type User struct {
	ID          ID
	Email       string // as it was given, without space around it
	DisplayName string
	FirstName   string // empty when not told
	LastName    string // empty when not told
	State       State
	Revision    int64     // 1 when made, one more with each change
	CreatedAt   time.Time // UTC, to the microsecond
	UpdatedAt   time.Time // UTC, to the microsecond
}

// Position returns the place of the user in the order in which users are listed.
func (u User) Position() Position { return Position{CreatedAt: u.CreatedAt, ID: u.ID} }

// ETag returns a text that is another one after each change of the user, in the quoted form of RFC 9110.
func (u User) ETag() string { return strconv.Quote(strconv.FormatInt(u.Revision, 10)) }

// EmailKey returns what is unique about an email: two emails are the same when their keys are. It leaves out the space
// around it, letter case and the ways in which Unicode writes one character (canonical caseless matching, composed).
func EmailKey(email string) string {
	// A Caser may hold state, so each call has its own.
	folded := cases.Fold().String(norm.NFD.String(strings.TrimSpace(email)))
	return norm.NFC.String(folded)
}
