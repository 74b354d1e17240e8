package sqlstore

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// payload is what an event says: the whole user as it is after the change, so that whoever reads the log needs to ask nobody,
// and as it was before, so that a watch finds who has just left it. Logs are kept: a field is added, never renamed or given
// another meaning.
type payload struct {
	User   profile  `json:"user"`
	Before *profile `json:"before,omitempty"` // none of a new user, nor of one that was erased since
}

// profile is a user in an event. Times are RFC 3339, UTC, to the microsecond.
type profile struct {
	UserID      string            `json:"user_id"`
	Email       string            `json:"email,omitempty"`
	EmailKey    string            `json:"email_key,omitempty"`
	DisplayName string            `json:"display_name,omitempty"`
	FirstName   string            `json:"first_name,omitempty"`
	LastName    string            `json:"last_name,omitempty"`
	Address     *address          `json:"address,omitempty"`
	Verified    bool              `json:"verified,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	State       string            `json:"state"`
	Restores    string            `json:"restores,omitempty"`
	Revision    int64             `json:"revision"`
	CreatedAt   time.Time         `json:"created_at"`
	UpdatedAt   time.Time         `json:"updated_at"`
	DeletedAt   time.Time         `json:"deleted_at,omitzero"`
	PurgeAt     time.Time         `json:"purge_at,omitzero"`
	ErasedAt    time.Time         `json:"erased_at,omitzero"`
}

func profileOf(u users.User) profile {
	return profile{
		UserID:      string(u.ID),
		Email:       u.Email.Text,
		EmailKey:    u.Email.Key,
		DisplayName: u.DisplayName,
		FirstName:   u.FirstName,
		LastName:    u.LastName,
		Address:     storedAddress(u.Address),
		Verified:    u.Verified,
		Labels:      u.Labels,
		State:       string(u.State),
		Restores:    string(u.Restores),
		Revision:    u.Revision,
		CreatedAt:   u.CreatedAt.UTC(),
		UpdatedAt:   u.UpdatedAt.UTC(),
		DeletedAt:   u.DeletedAt.UTC(),
		PurgeAt:     u.PurgeAt.UTC(),
		ErasedAt:    u.ErasedAt.UTC(),
	}
}

func (p profile) user() users.User {
	return users.User{
		ID:          users.ID(p.UserID),
		Email:       users.Email{Text: p.Email, Key: p.EmailKey},
		DisplayName: p.DisplayName,
		FirstName:   p.FirstName,
		LastName:    p.LastName,
		Address:     p.Address.domain(),
		Verified:    p.Verified,
		Labels:      p.Labels,
		State:       users.State(p.State),
		Restores:    users.State(p.Restores),
		Revision:    p.Revision,
		CreatedAt:   p.CreatedAt,
		UpdatedAt:   p.UpdatedAt,
		DeletedAt:   p.DeletedAt,
		PurgeAt:     p.PurgeAt,
		ErasedAt:    p.ErasedAt,
	}
}

// created returns the event that tells that u was made.
func created(u users.User) (eventlog.Event, error) {
	return event(users.EventCreated, payload{User: profileOf(u)})
}

// changed returns the event that tells of a change.
func changed(before, after users.User, what users.EventType) (eventlog.Event, error) {
	was := profileOf(before)
	return event(what, payload{User: profileOf(after), Before: &was})
}

func event(what users.EventType, p payload) (eventlog.Event, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return eventlog.Event{}, fmt.Errorf("encode event of user %s: %w", p.User.UserID, err)
	}
	return eventlog.Event{At: p.User.UpdatedAt, Subject: p.User.UserID, Type: string(what), Payload: text}, nil
}

// redact returns what an event says once its user is erased: what a tombstone has, and no more.
func redact(e eventlog.Event) ([]byte, error) {
	p, err := parsePayload(e)
	if err != nil {
		return nil, err
	}
	u := p.User
	return json.Marshal(payload{User: profile{
		UserID: u.UserID, State: u.State, Revision: u.Revision,
		CreatedAt: u.CreatedAt, UpdatedAt: u.UpdatedAt, DeletedAt: u.DeletedAt, ErasedAt: u.ErasedAt,
	}})
}

func parsePayload(e eventlog.Event) (payload, error) {
	var p payload
	if err := json.Unmarshal(e.Payload, &p); err != nil {
		return payload{}, fmt.Errorf("decode event %d: %w", e.Seq, err)
	}
	return p, nil
}

// told returns the event as the domain knows it.
func (p payload) told(e eventlog.Event) users.Event {
	return users.Event{Type: users.EventType(e.Type), At: e.At, User: p.User.user()}
}
