package users

import (
	"strings"
	"time"
)

// NewUser is a request to make a user.
type NewUser struct {
	Caller      string // whose request it is; request ids of different callers have nothing to do with each other
	RequestID   string // a UUID that stays the same when the request is sent again
	ID          string // a UUID; empty means that one is made
	Email       string
	DisplayName string
	FirstName   string
	LastName    string
	Address     *Address
	Verified    bool
	Labels      map[string]string
	CheckOnly   bool // whether only to say what would be made
}

// draft makes the user that is asked for. It returns ErrEmailInvalid.
func (n NewUser) draft(now time.Time, newID func() string) (Draft, error) {
	email, err := ParseEmail("email", n.Email)
	if err != nil {
		return Draft{}, err
	}
	now = now.UTC().Truncate(time.Microsecond)
	asked := CanonicalID(n.ID)
	id := asked
	if id == "" {
		id = CanonicalID(newID())
	}
	return Draft{
		User: User{
			ID:          id,
			Email:       email,
			DisplayName: n.DisplayName,
			FirstName:   n.FirstName,
			LastName:    n.LastName,
			Address:     n.Address,
			Verified:    n.Verified,
			Labels:      n.Labels,
			State:       Active,
			Revision:    1,
			CreatedAt:   now,
			UpdatedAt:   now,
		},
		Claim: Claim{
			Caller:    n.Caller,
			RequestID: strings.ToLower(n.RequestID),
			Digest:    n.digest(asked, email.Text),
			At:        now,
		},
	}, nil
}

func (n NewUser) digest(asked ID, email string) Digest {
	d := newDigest("users.CreateUser")
	d.text(1, string(asked))
	d.text(2, email)
	d.text(3, n.DisplayName)
	d.text(4, n.FirstName)
	d.text(5, n.LastName)
	d.labels(6, n.Labels)
	d.address(7, n.Address)
	d.flag(8, n.Verified)
	return d.sum()
}
