package sqlstore

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// typeCreated is the type of the event that tells of a new user.
const typeCreated = "USER_CREATED"

// payload is what an event says of a user: all of it, as it is after the change, so that whoever reads the log needs to
// ask nobody. Logs are kept: a field is added, never renamed or given another meaning.
type payload struct {
	UserID      string    `json:"user_id"`
	Email       string    `json:"email"`
	DisplayName string    `json:"display_name"`
	FirstName   string    `json:"first_name,omitempty"`
	LastName    string    `json:"last_name,omitempty"`
	State       string    `json:"state"`
	Revision    int64     `json:"revision"`
	CreatedAt   time.Time `json:"created_at"` // RFC 3339, UTC
	UpdatedAt   time.Time `json:"updated_at"` // RFC 3339, UTC
}

// created returns the event that tells that u was made.
func created(u users.User) (eventlog.Event, error) {
	text, err := json.Marshal(payload{
		UserID:      string(u.ID),
		Email:       u.Email,
		DisplayName: u.DisplayName,
		FirstName:   u.FirstName,
		LastName:    u.LastName,
		State:       string(u.State),
		Revision:    u.Revision,
		CreatedAt:   u.CreatedAt,
		UpdatedAt:   u.UpdatedAt,
	})
	if err != nil {
		return eventlog.Event{}, fmt.Errorf("encode event of user %s: %w", u.ID, err)
	}
	return eventlog.Event{At: u.CreatedAt, Subject: string(u.ID), Type: typeCreated, Payload: text}, nil
}
