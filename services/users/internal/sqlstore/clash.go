package sqlstore

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// obstacles are the users who are in the way of drafts.
type obstacles struct {
	claims map[[2]string]claimed
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
	if c, ok := o.claims[claimKey(d.Claim)]; ok {
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
	o := obstacles{claims: make(map[[2]string]claimed), ids: make(map[users.ID]bool), emails: make(map[string]bool)}
	var requests, callers, ids, emails []string
	for _, i := range open {
		d := b.drafts[i]
		requests, callers = append(requests, d.Claim.RequestID), append(callers, d.Claim.Caller)
		ids, emails = append(ids, string(d.User.ID)), append(emails, d.User.Email.Key)
	}
	engine := b.store.db.Engine()
	query, args, err := lookUpClaims(engine, requests, callers)
	if err != nil {
		return o, err
	}
	rows, err := b.tx.QueryContext(ctx, query, args...)
	if err != nil {
		return o, fmt.Errorf("by request: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var request, caller string
		var c claimed
		if c.user, err = scanUser(rows, &request, &caller, &c.digest); err != nil {
			return o, fmt.Errorf("by request: %w", err)
		}
		o.claims[[2]string{request, caller}] = c
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
func lookUpClaims(engine sqldb.Engine, requests, callers []string) (string, []any, error) {
	query := `SELECT ` + userColumns + `, u.request_id, u.created_by, u.request_digest FROM `
	if engine == sqldb.PostgreSQL {
		return query + `unnest($1::text[], $2::text[]) AS asked(request_id, created_by)
JOIN users u ON u.request_id = asked.request_id::uuid AND u.created_by = asked.created_by`, []any{requests, callers}, nil
	}
	pairs := make([][2]string, len(requests))
	for i := range pairs {
		pairs[i] = [2]string{requests[i], callers[i]}
	}
	text, err := json.Marshal(pairs)
	return query + `json_each($1) AS asked
CROSS JOIN users u ON u.request_id = asked.value ->> 0 AND u.created_by = asked.value ->> 1`, []any{string(text)}, err
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
