package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// userColumns are those of a row u of users in the order of scanUser. What is NULL comes as the zero value of the domain.
const userColumns = `u.user_id, u.email, coalesce(u.email_key, ''), u.display_name, u.first_name, u.last_name, coalesce(u.address, ''), ` +
	`u.verified, u.labels, u.state, u.restores, u.revision, u.created_at, u.updated_at, ` +
	`coalesce(u.deleted_at, 0), coalesce(u.purge_at, 0), coalesce(u.erased_at, 0)`

// Get returns a user; see users.Store.
func (s *Store) Get(ctx context.Context, id users.ID) (users.User, error) {
	if s.db.Engine() == sqldb.SQLite {
		return s.getAlone(ctx, id)
	}
	u, ok, err := s.points.Get(ctx, id)
	if err == nil && !ok {
		err = notFound(id)
	}
	return u, err
}

// getAlone reads one user by itself: where there is no way to a server to be shared, gathering costs more than it spares.
func (s *Store) getAlone(ctx context.Context, id users.ID) (users.User, error) {
	var u users.User
	// It takes less time than the goroutines that would be ready to interrupt it.
	statement := context.WithoutCancel(ctx)
	err := s.db.ReadOne(ctx, func(q sqldb.Querier) (err error) {
		u, err = scanUser(q.QueryRowContext(statement, `SELECT `+userColumns+` FROM users u WHERE u.user_id = $1`, string(id)))
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		return users.User{}, notFound(id)
	}
	return u, err
}

// readPoints reads users by their ids for many callers at once.
func (s *Store) readPoints(ctx context.Context, ids []users.ID, found func(users.ID, users.User)) error {
	return s.eachOf(ctx, ids, func(u users.User) { found(u.ID, u) })
}

func notFound(id users.ID) error { return users.ErrNotFound.With("user_id", string(id)) }

// BatchGet returns users; see users.Store.
func (s *Store) BatchGet(ctx context.Context, ids []users.ID) ([]users.User, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	found := make([]users.User, 0, len(ids))
	err := s.eachOf(ctx, ids, func(u users.User) { found = append(found, u) })
	return found, err
}

// eachOf calls found with each user of some ids, which are distinct.
func (s *Store) eachOf(ctx context.Context, ids []users.ID, found func(users.User)) error {
	list, err := idList(s.db.Engine(), ids)
	if err != nil {
		return err
	}
	return s.db.ReadRows(ctx, func(row sqldb.Row) error {
		u, err := scanUser(row)
		if err == nil {
			found(u)
		}
		return err
	}, s.db.Engine().Pick(
		`SELECT `+userColumns+` FROM json_each($1) AS asked CROSS JOIN users u WHERE u.user_id = asked.value`,
		`SELECT `+userColumns+` FROM users u WHERE u.user_id = ANY ($1::text[]::uuid[])`), list)
}

// idList returns ids as one argument: an array on PostgreSQL, JSON on SQLite.
func idList(engine sqldb.Engine, ids []users.ID) (any, error) {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = string(id)
	}
	if engine == sqldb.PostgreSQL {
		return texts, nil
	}
	text, err := json.Marshal(texts)
	return string(text), err
}

// Due returns who is to be erased; see users.Store.
func (s *Store) Due(ctx context.Context, at time.Time, limit int) ([]users.ID, error) {
	var due []users.ID
	err := s.db.ReadOne(ctx, func(q sqldb.Querier) error {
		due = nil
		rows, err := q.QueryContext(ctx, `SELECT user_id FROM users WHERE purge_at IS NOT NULL AND purge_at <= $1 ORDER BY purge_at, user_id LIMIT $2`,
			at.UnixMicro(), limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id string
			if err := rows.Scan(&id); err != nil {
				return err
			}
			due = append(due, users.ID(id))
		}
		return rows.Err()
	})
	return due, err
}

func readUsers(ctx context.Context, q sqldb.Querier, query string, args ...any) ([]users.User, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []users.User
	for rows.Next() {
		u, err := scanUser(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, u)
	}
	return all, rows.Err()
}

// scanUser reads userColumns, and what stands after them into more.
func scanUser(row interface{ Scan(...any) error }, more ...any) (users.User, error) {
	var r struct {
		id, email, emailKey, displayName, firstName, lastName, address, labels, state, restores string

		verified                               bool
		revision                               int64
		created, updated, deleted, purge, gone int64
	}
	dest := make([]any, 0, 20)
	dest = append(dest, &r.id, &r.email, &r.emailKey, &r.displayName, &r.firstName, &r.lastName, &r.address, &r.verified, &r.labels,
		&r.state, &r.restores, &r.revision, &r.created, &r.updated, &r.deleted, &r.purge, &r.gone)
	if err := row.Scan(append(dest, more...)...); err != nil {
		return users.User{}, err
	}
	u := users.User{
		ID:          users.ID(r.id),
		Email:       users.Email{Text: r.email, Key: r.emailKey},
		DisplayName: r.displayName,
		FirstName:   r.firstName,
		LastName:    r.lastName,
		Verified:    r.verified,
		State:       users.State(r.state),
		Restores:    users.State(r.restores),
		Revision:    r.revision,
		CreatedAt:   time.UnixMicro(r.created).UTC(),
		UpdatedAt:   time.UnixMicro(r.updated).UTC(),
		DeletedAt:   fromMicro(r.deleted),
		PurgeAt:     fromMicro(r.purge),
		ErasedAt:    fromMicro(r.gone),
	}
	var err error
	if u.Labels, err = parseLabels(r.labels); err != nil {
		return users.User{}, fmt.Errorf("labels of user %s: %w", u.ID, err)
	}
	if u.Address, err = parseAddress(r.address); err != nil {
		return users.User{}, fmt.Errorf("address of user %s: %w", u.ID, err)
	}
	return u, nil
}

// values returns the columns of a user for a statement that writes them: those of writtenColumns.
func values(u users.User) ([]any, error) {
	labels, err := formatLabels(u.Labels)
	if err != nil {
		return nil, err
	}
	address, err := formatAddress(u.Address)
	if err != nil {
		return nil, err
	}
	return []any{
		string(u.ID), u.Email.Text, orNull(u.Email.Key), u.DisplayName, u.FirstName, u.LastName, orNull(address), u.Verified, labels,
		string(u.State), string(u.Restores), u.Revision, u.CreatedAt.UnixMicro(), u.UpdatedAt.UnixMicro(),
		micro(u.DeletedAt), micro(u.PurgeAt), micro(u.ErasedAt),
	}, nil
}

// column is a column of users that is written, with its type on PostgreSQL.
type column struct{ name, postgres string }

// writtenColumns are those of values.
var writtenColumns = []column{
	{"user_id", "uuid"}, {"email", "text"}, {"email_key", "text"}, {"display_name", "text"}, {"first_name", "text"}, {"last_name", "text"},
	{"address", "text"}, {"verified", "boolean"}, {"labels", "jsonb"}, {"state", "text"}, {"restores", "text"}, {"revision", "bigint"},
	{"created_at", "bigint"}, {"updated_at", "bigint"}, {"deleted_at", "bigint"}, {"purge_at", "bigint"}, {"erased_at", "bigint"},
}

// orNull returns NULL for an empty text.
func orNull(text string) any {
	if text == "" {
		return nil
	}
	return text
}

// micro returns a time as it is stored: NULL when it is not set.
func micro(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

// fromMicro returns a stored time; 0 stands for NULL.
func fromMicro(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}

// noLabels is how an empty map is stored.
const noLabels = "{}"

func parseLabels(text string) (map[string]string, error) {
	if text == noLabels {
		return nil, nil
	}
	var labels map[string]string
	err := json.Unmarshal([]byte(text), &labels)
	return labels, err
}

func formatLabels(labels map[string]string) (string, error) {
	if len(labels) == 0 {
		return noLabels, nil
	}
	text, err := json.Marshal(labels)
	return string(text), err
}

// address is how an address is stored, in rows and in events. A field is added, never renamed or given another meaning.
type address struct {
	CountryCode        string   `json:"country_code"`
	Lines              []string `json:"lines,omitempty"`
	Locality           string   `json:"locality,omitempty"`
	AdministrativeArea string   `json:"administrative_area,omitempty"`
	PostalCode         string   `json:"postal_code,omitempty"`
}

func parseAddress(text string) (*users.Address, error) {
	if text == "" {
		return nil, nil
	}
	var a address
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		return nil, err
	}
	return a.domain(), nil
}

func (a *address) domain() *users.Address {
	if a == nil {
		return nil
	}
	d := users.Address(*a)
	return &d
}

func storedAddress(a *users.Address) *address {
	if a == nil {
		return nil
	}
	d := address(*a)
	return &d
}

// formatAddress returns an empty text for none.
func formatAddress(a *users.Address) (string, error) {
	if a == nil {
		return "", nil
	}
	text, err := json.Marshal(storedAddress(a))
	return string(text), err
}
