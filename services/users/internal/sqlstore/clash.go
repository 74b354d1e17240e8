package sqlstore

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// obstacles are the users who are in the way of drafts.
type obstacles struct {
	claims map[string]claimed // by requestOf
	ids    map[users.ID]bool
	emails map[string]bool
}

// claimed is a user and the digest of the request that made it.
type claimed struct {
	user   users.User
	digest []byte
}

// outcome returns what becomes of a draft that was refused, and whether something is in its way at all.
func (o obstacles) outcome(d users.Draft) (users.Outcome, bool) {
	if c, ok := o.claims[string(requestOf(d.Claim))]; ok {
		if err := (claim{digest: c.digest}).answers(d.Claim.Digest); err != nil {
			return users.Outcome{Err: err}, true
		}
		return users.Outcome{User: c.user}, true
	}
	if o.ids[d.User.ID] {
		return users.Outcome{Err: users.ErrIDTaken.With("user_id", string(d.User.ID))}, true
	}
	if o.emails[d.User.Email.Key] {
		return users.Outcome{Err: users.ErrEmailTaken}, true
	}
	return users.Outcome{}, false
}

// lookUp finds what is in the way of drafts.
func (b *batch) lookUp(ctx context.Context, open []int) (obstacles, error) {
	o := obstacles{claims: make(map[string]claimed), ids: make(map[users.ID]bool), emails: make(map[string]bool)}
	var requests [][]byte
	var ids, emails []string
	for _, i := range open {
		d := b.drafts[i]
		requests = append(requests, requestOf(d.Claim))
		ids, emails = append(ids, string(d.User.ID)), append(emails, d.User.Email.Key)
	}
	engine := b.store.db.Engine()
	query, args, err := lookUpClaims(engine, requests)
	if err != nil {
		return o, err
	}
	rows, err := b.tx.QueryContext(ctx, query, args...)
	if err != nil {
		return o, fmt.Errorf("by request: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var request []byte
		var c claimed
		if c.user, err = scanUser(rows, &request, &c.digest); err != nil {
			return o, fmt.Errorf("by request: %w", err)
		}
		o.claims[string(request)] = c
	}
	if err := rows.Err(); err != nil {
		return o, fmt.Errorf("by request: %w", err)
	}
	if err := lookUpTexts(ctx, b.tx, engine, "user_id", "uuid", ids, func(id string) { o.ids[users.ID(id)] = true }); err != nil {
		return o, fmt.Errorf("by id: %w", err)
	}
	if err := lookUpTexts(ctx, b.tx, engine, "email_key", "text", emails, func(key string) { o.emails[key] = true }); err != nil {
		return o, fmt.Errorf("by email: %w", err)
	}
	return o, nil
}

// lookUpClaims returns the query for the users whom requests have made.
func lookUpClaims(engine sqldb.Engine, requests [][]byte) (string, []any, error) {
	query := `SELECT ` + userColumns + `, u.request, u.request_digest FROM `
	if engine == sqldb.PostgreSQL {
		return query + `unnest($1::bytea[]) AS asked(request) JOIN users u ON u.request = asked.request`, []any{requests}, nil
	}
	texts := make([]string, len(requests))
	for i, r := range requests {
		texts[i] = hex.EncodeToString(r)
	}
	text, err := json.Marshal(texts)
	return query + `json_each($1) AS asked CROSS JOIN users u ON u.request = unhex(asked.value)`, []any{string(text)}, err
}

// lookUpTexts calls found with those of the texts that a column of users has.
func lookUpTexts(ctx context.Context, q sqldb.Querier, engine sqldb.Engine, column, kind string, texts []string, found func(string)) error {
	var list any = texts
	query := `SELECT u.` + column + ` FROM unnest($1::text[]) AS asked(value) JOIN users u ON u.` + column + ` = asked.value::` + kind
	if engine == sqldb.SQLite {
		text, err := json.Marshal(texts)
		if err != nil {
			return err
		}
		list, query = string(text), `SELECT u.`+column+` FROM json_each($1) AS asked CROSS JOIN users u ON u.`+column+` = asked.value`
	}
	rows, err := q.QueryContext(ctx, query, list)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return err
		}
		found(text)
	}
	return rows.Err()
}
