package sqlstore

import (
	"context"

	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// label is a row of user_labels.
type label struct {
	key, value string
	user       users.ID
	created    int64
	state      users.State
}

// labelsOf returns the rows that a user has: none once it is erased.
func labelsOf(u users.User) map[label]bool {
	if u.Erased() || len(u.Labels) == 0 {
		return nil
	}
	rows := make(map[label]bool, len(u.Labels))
	for key, value := range u.Labels {
		rows[label{key, value, u.ID, u.CreatedAt.UnixMicro(), u.State}] = true
	}
	return rows
}

// relabel brings user_labels from what a user was to what it is.
func relabel(ctx context.Context, tx *sqldb.Tx, engine sqldb.Engine, before, after users.User) error {
	was, is := labelsOf(before), labelsOf(after)
	var gone, come []label
	for l := range was {
		if !is[l] {
			gone = append(gone, l)
		}
	}
	for l := range is {
		if !was[l] {
			come = append(come, l)
		}
	}
	if err := deleteLabels(ctx, tx, engine, gone); err != nil {
		return err
	}
	return insertLabels(ctx, tx, engine, come)
}

func deleteLabels(ctx context.Context, tx *sqldb.Tx, engine sqldb.Engine, rows []label) error {
	if len(rows) == 0 {
		return nil
	}
	if engine == sqldb.PostgreSQL {
		c := columnsOf(rows)
		_, err := tx.ExecContext(ctx, `
DELETE FROM user_labels l USING unnest($1::text[], $2::text[], $3::bigint[], $4::text[]) AS gone(key, value, created_at, user_id)
WHERE l.key = gone.key AND l.value = gone.value AND l.created_at = gone.created_at AND l.user_id = gone.user_id::uuid`,
			c.keys, c.values, c.created, c.users)
		return err
	}
	for _, l := range rows {
		_, err := tx.ExecContext(ctx, `DELETE FROM user_labels WHERE key = $1 AND value = $2 AND created_at = $3 AND user_id = $4`,
			l.key, l.value, l.created, string(l.user))
		if err != nil {
			return err
		}
	}
	return nil
}

func insertLabels(ctx context.Context, tx *sqldb.Tx, engine sqldb.Engine, rows []label) error {
	if len(rows) == 0 {
		return nil
	}
	if engine == sqldb.PostgreSQL {
		c := columnsOf(rows)
		_, err := tx.ExecContext(ctx, `
INSERT INTO user_labels (key, value, created_at, user_id, state)
SELECT key, value, created_at, user_id::uuid, state
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[]) AS come(key, value, created_at, user_id, state)`,
			c.keys, c.values, c.created, c.users, c.states)
		return err
	}
	for len(rows) > 0 {
		some := rows[:1]
		if len(rows) >= rowsAtOnce {
			some = rows[:rowsAtOnce]
		}
		rows = rows[len(some):]
		st := statement{engine: engine}
		for i, l := range some {
			st.write(beforeLabel(i)).arg(l.key).write(", ").arg(l.value).write(", ").arg(l.created)
			st.write(", ").arg(string(l.user)).write(", ").arg(string(l.state)).write(")")
		}
		if _, err := tx.ExecContext(ctx, st.String(), st.args...); err != nil {
			return err
		}
	}
	return nil
}

// beforeLabel returns what stands before the values of the i-th row of user_labels.
func beforeLabel(i int) string {
	if i == 0 {
		return "INSERT INTO user_labels (key, value, created_at, user_id, state) VALUES ("
	}
	return ", ("
}

// labelColumns are rows of user_labels, column by column.
type labelColumns struct {
	keys, values, users, states []string
	created                     []int64
}

func columnsOf(rows []label) labelColumns {
	var c labelColumns
	for _, l := range rows {
		c.keys, c.values, c.created = append(c.keys, l.key), append(c.values, l.value), append(c.created, l.created)
		c.users, c.states = append(c.users, string(l.user)), append(c.states, string(l.state))
	}
	return c
}
