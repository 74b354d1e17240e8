package sqlstore

import (
	"context"
	"strings"

	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// claimColumns stand behind writtenColumns where a user is inserted.
var claimColumns = []column{{"request", "bytea"}, {"request_digest", "bytea"}}

// rowOf returns the values of a draft: those of writtenColumns and claimColumns.
func rowOf(d users.Draft) ([]any, error) {
	row, err := values(d.User)
	if err != nil {
		return nil, err
	}
	return append(row, requestOf(d.Claim), d.Claim.Digest[:]), nil
}

// rowsAtOnce is how many rows one statement inserts on SQLite. Fewer go one by one, so that there are only two statements.
const rowsAtOnce = 25

// insertValues inserts drafts on SQLite, and returns the ids of those that were made. How many rows a statement made usually says
// all; only else are the new rows read, which are those numbered last.
func (b *batch) insertValues(ctx context.Context, order []int) (map[users.ID]bool, error) {
	made := make(map[users.ID]bool, len(order))
	var last int64
	if err := b.tx.QueryRowContext(ctx, `SELECT coalesce(max(seq), 0) FROM users`).Scan(&last); err != nil {
		return nil, err
	}
	for len(order) > 0 {
		n := 1
		if len(order) >= rowsAtOnce {
			n = rowsAtOnce
		}
		args := make([]any, 0, n*(len(writtenColumns)+len(claimColumns)))
		for _, i := range order[:n] {
			row, err := rowOf(b.drafts[i])
			if err != nil {
				return nil, err
			}
			args = append(args, row...)
		}
		res, err := b.tx.ExecContext(ctx, insertStatement(n), args...)
		if err != nil {
			return nil, err
		}
		count, err := res.RowsAffected()
		if err != nil {
			return nil, err
		}
		if int(count) == n {
			for _, i := range order[:n] {
				made[b.drafts[i].User.ID] = true
			}
		} else if err := readIDs(ctx, b.tx, made, `SELECT user_id FROM users WHERE seq > ?`, last); err != nil {
			return nil, err
		}
		order = order[n:]
	}
	return made, nil
}

// insertStatement returns the statement that inserts n rows on SQLite.
func insertStatement(n int) string {
	st := statement{engine: sqldb.SQLite}
	st.write("INSERT INTO users (", names(writtenColumns), ", ", names(claimColumns), ") VALUES ")
	for row := range n {
		if row > 0 {
			st.write(", ")
		}
		st.write("(")
		for i := range len(writtenColumns) + len(claimColumns) {
			if i > 0 {
				st.write(", ")
			}
			st.arg(nil)
		}
		st.write(")")
	}
	return st.write(" ON CONFLICT DO NOTHING").String()
}

func names(columns []column) string {
	all := make([]string, len(columns))
	for i, c := range columns {
		all[i] = c.name
	}
	return strings.Join(all, ", ")
}

// insertArrays inserts drafts on PostgreSQL by one statement, and returns the ids of those that were made. It waits for
// transactions in flight that want the same.
func (b *batch) insertArrays(ctx context.Context, order []int) (map[users.ID]bool, error) {
	made := make(map[users.ID]bool, len(order))
	var arrays [][]any
	for _, i := range order {
		row, err := rowOf(b.drafts[i])
		if err != nil {
			return nil, err
		}
		if arrays == nil {
			arrays = make([][]any, len(row))
		}
		for c, value := range row {
			arrays[c] = append(arrays[c], value)
		}
	}
	st := b.store.statement()
	arrayInsert(st, "users", append(append([]column{}, writtenColumns...), claimColumns...), arrays)
	st.write(" ON CONFLICT DO NOTHING RETURNING user_id")
	return made, readIDs(ctx, b.tx, made, st.String(), st.args...)
}

// readIDs runs a statement that returns ids.
func readIDs(ctx context.Context, q sqldb.Querier, into map[users.ID]bool, query string, args ...any) error {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return err
		}
		into[users.ID(id)] = true
	}
	return rows.Err()
}

// arrayInsert writes an INSERT of rows that are given column by column, one array each.
func arrayInsert(st *statement, table string, columns []column, arrays [][]any) {
	st.write("INSERT INTO ", table, " (", names(columns), ") SELECT ")
	for i, c := range columns {
		if i > 0 {
			st.write(", ")
		}
		st.write("r.", c.name, "::", c.postgres)
	}
	st.write(" FROM unnest(")
	for i, c := range columns {
		if i > 0 {
			st.write(", ")
		}
		value, kind := array(c.postgres, arrays[i])
		st.arg(value).write("::", kind)
	}
	st.write(") AS r(", names(columns), ")")
}

// array returns values of one type of PostgreSQL, some of which may be NULL, as an argument, and the type of the argument. What has no
// array of its own goes as text.
func array(kind string, all []any) (any, string) {
	switch kind {
	case "bigint":
		return nullable[int64](all), "bigint[]"
	case "boolean":
		return nullable[bool](all), "boolean[]"
	case "bytea":
		return nullable[[]byte](all), "bytea[]"
	default:
		return nullable[string](all), "text[]"
	}
}

// nullable returns values of one type; nil stays nil.
func nullable[T any](all []any) []*T {
	out := make([]*T, len(all))
	for i, value := range all {
		if v, ok := value.(T); ok {
			out[i] = &v
		}
	}
	return out
}
