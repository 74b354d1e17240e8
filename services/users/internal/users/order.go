package users

import "time"

// Order is the order in which users are listed. Users who are equal in it are in the order of their ids; descending turns
// that around too.
type Order struct {
	By   OrderBy
	Desc bool
}

// OrderBy is what users are ordered by. The zero OrderBy is ByCreatedAt.
type OrderBy int

// What users can be ordered by.
const (
	ByCreatedAt OrderBy = iota
	ByUpdatedAt
	ByDisplayName // byte by byte
	ByEmail       // by Email.Key, byte by byte
)

// Position is a place in an order: right behind the user with these values. The zero Position is before every user, in either
// direction.
type Position struct {
	Time time.Time // in the order ByCreatedAt or ByUpdatedAt, else zero
	Text string    // in the order ByDisplayName or ByEmail, else empty
	ID   ID        // never empty but in the zero Position
}

// Zero says whether the position is before every user.
func (p Position) Zero() bool { return p.ID == "" }

// Position returns the place of a user in the order.
func (o Order) Position(u User) Position {
	switch o.By {
	case ByUpdatedAt:
		return Position{Time: u.UpdatedAt, ID: u.ID}
	case ByDisplayName:
		return Position{Text: u.DisplayName, ID: u.ID}
	case ByEmail:
		return Position{Text: u.Email.Key, ID: u.ID}
	default:
		return Position{Time: u.CreatedAt, ID: u.ID}
	}
}
