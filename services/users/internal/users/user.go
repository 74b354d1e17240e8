package users

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ID is the id of a user: a UUID in its canonical form, which is lower case.
type ID string

// CanonicalID returns the id that a UUID in upper or lower case means.
func CanonicalID(uuid string) ID { return ID(strings.ToLower(uuid)) }

// State is whether a user may be dealt with. The values are those of users.v1.UserState without the prefix; they are
// stored, so they never change.
type State string

// The states of a user.
const (
	// Active: may be dealt with.
	Active State = "ACTIVE"
	// Disabled: may not be dealt with until it is enabled again.
	Disabled State = "DISABLED"
	// Deleted: is listed no more, can be brought back until PurgeAt, and is erased then.
	Deleted State = "DELETED"
)

// States returns every state, for tables that must be complete.
func States() []State { return []State{Active, Disabled, Deleted} }

// User is a profile: who somebody is, not what they may do. Users share what their maps, slices and pointers hold, and so nobody
// changes it: a change makes a new map, slice or Address.
//
// Times are in UTC, to the microsecond.
type User struct {
	ID          ID
	Email       Email // zero once erased
	DisplayName string
	FirstName   string // empty when not told
	LastName    string // empty when not told
	Address     *Address
	Verified    bool
	Labels      map[string]string // an empty map is the same as none
	State       State
	// Restores is the state that Undelete brings back. Empty unless the user is deleted and not erased.
	Restores  State
	Revision  int64 // 1 when made, one more with each change
	CreatedAt time.Time
	UpdatedAt time.Time
	DeletedAt time.Time // zero unless the state is Deleted
	PurgeAt   time.Time // when a deleted user will be erased; zero unless it is deleted and not erased
	ErasedAt  time.Time // zero unless everything personal was removed
}

// Address is where post reaches somebody.
type Address struct {
	CountryCode        string // ISO 3166-1 alpha-2
	Lines              []string
	Locality           string
	AdministrativeArea string
	PostalCode         string
}

// Erased says whether the user is a tombstone: what is left when everything personal was removed.
func (u User) Erased() bool { return !u.ErasedAt.IsZero() }

// Scrubbed returns what may be kept of the user when everything personal is removed: the id, the state, the revision and the times
// but PurgeAt.
func (u User) Scrubbed() User {
	return User{
		ID: u.ID, State: u.State, Revision: u.Revision, CreatedAt: u.CreatedAt, UpdatedAt: u.UpdatedAt, DeletedAt: u.DeletedAt,
		ErasedAt: u.ErasedAt,
	}
}

// ETag returns a text that is another one after each change of the user, in the quoted form of RFC 9110.
func (u User) ETag() string { return strconv.Quote(strconv.FormatInt(u.Revision, 10)) }

// Equal says whether two users are the same in all that is kept of them.
func (u User) Equal(v User) bool {
	return u.ID == v.ID && u.Email == v.Email && u.DisplayName == v.DisplayName && u.FirstName == v.FirstName && u.LastName == v.LastName &&
		u.Address.Equal(v.Address) && u.Verified == v.Verified && maps.Equal(u.Labels, v.Labels) &&
		u.State == v.State && u.Restores == v.Restores && u.Revision == v.Revision &&
		u.CreatedAt.Equal(v.CreatedAt) && u.UpdatedAt.Equal(v.UpdatedAt) && u.DeletedAt.Equal(v.DeletedAt) &&
		u.PurgeAt.Equal(v.PurgeAt) && u.ErasedAt.Equal(v.ErasedAt)
}

// Equal says whether two addresses are the same; none is the same as none.
func (a *Address) Equal(b *Address) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.CountryCode == b.CountryCode && slices.Equal(a.Lines, b.Lines) && a.Locality == b.Locality &&
		a.AdministrativeArea == b.AdministrativeArea && a.PostalCode == b.PostalCode
}

// EventType is what can happen to a user. The values are those of users.v1.UserEventType with another prefix; they are
// stored, so they never change.
type EventType string

// The types of events.
const (
	EventCreated   EventType = "USER_CREATED"
	EventUpdated   EventType = "USER_UPDATED"
	EventDisabled  EventType = "USER_DISABLED"
	EventEnabled   EventType = "USER_ENABLED"
	EventDeleted   EventType = "USER_DELETED"
	EventUndeleted EventType = "USER_UNDELETED"
	// EventErased: everything personal was removed for good.
	EventErased EventType = "USER_ERASED"
)

// EventTypes returns every type, for tables that must be complete.
func EventTypes() []EventType {
	return []EventType{EventCreated, EventUpdated, EventDisabled, EventEnabled, EventDeleted, EventUndeleted, EventErased}
}

// Event is one change of a user.
type Event struct {
	Type EventType
	At   time.Time
	// User is as it was right after the change; once it has been erased, only what a tombstone has: the id, the state, the
	// revision and the times.
	User User
	// Matches says whether User is one of those that the watch is for: Matches(filter, User).
	Matches bool
}
