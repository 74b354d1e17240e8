package users

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
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
}

// Draft is a user who is ready to be stored.
type Draft struct {
	User     User
	EmailKey string // EmailKey of the email
	Claim    Claim
}

// Claim is what makes a repeated request the same request.
type Claim struct {
	Caller    string
	RequestID string // canonical
	Digest    [sha256.Size]byte
}

// Outcome is what became of a draft.
type Outcome struct {
	User User  // who was made, now or by an earlier equal request; zero if Err is set
	Err  error // ErrEmailTaken, ErrIDTaken, ErrRequestIDReused, or nil
}

// draft makes the user that is asked for.
func (n NewUser) draft(now time.Time, newID func() string) Draft {
	now = now.UTC().Truncate(time.Microsecond)
	n.Email = strings.TrimSpace(n.Email)
	asked := CanonicalID(n.ID)
	id := asked
	if id == "" {
		id = CanonicalID(newID())
	}
	return Draft{
		User: User{
			ID:          id,
			Email:       n.Email,
			DisplayName: n.DisplayName,
			FirstName:   n.FirstName,
			LastName:    n.LastName,
			State:       Active,
			Revision:    1,
			CreatedAt:   now,
			UpdatedAt:   now,
		},
		EmailKey: EmailKey(n.Email),
		Claim: Claim{
			Caller:    n.Caller,
			RequestID: strings.ToLower(n.RequestID),
			Digest:    digest(asked, n),
		},
	}
}

// digest is what binds a request id to its request: SHA-256 over the fields of the request in a fixed form, which
// must never change for a request that could be made before. Each field that is not empty adds its number, its length and its
// bytes; so a field that is added later, under a number of its own, leaves the digests of requests without it as they are.
func digest(asked ID, n NewUser) [sha256.Size]byte {
	h := sha256.New()
	h.Write([]byte("users.CreateUser\x00"))
	field(h, 1, string(asked))
	field(h, 2, n.Email)
	field(h, 3, n.DisplayName)
	field(h, 4, n.FirstName)
	field(h, 5, n.LastName)
	return [sha256.Size]byte(h.Sum(nil))
}

func field(h hash.Hash, number uint32, text string) {
	if text == "" {
		return
	}
	var head [12]byte
	binary.BigEndian.PutUint32(head[:4], number)
	binary.BigEndian.PutUint64(head[4:], uint64(len(text)))
	h.Write(head[:])
	h.Write([]byte(text))
}
