package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/concordat-dev/concordat/kit/sqldb"
)

// table is a table that a backup has. The kinds of its columns are types of PostgreSQL, and subject: text on SQLite and bytes on
// PostgreSQL.
type table struct {
	name    string
	columns []column
	order   string
}

const subject = "subject"

// tables are all that are kept, in the order in which they are copied. A backup has the log with what was not numbered yet.
var tables = []table{
	{"meta", []column{{"name", "text"}, {"value", "bytea"}}, "name"},
	{"users", slices.Concat(writtenColumns, claimColumns), "created_at, user_id"},
	{"user_labels", []column{{"key", "text"}, {"value", "text"}, {"created_at", "bigint"}, {"user_id", "uuid"}, {"state", "text"}}, "key, value, created_at, user_id"},
	{"requests", []column{{"request_id", "uuid"}, {"caller", "text"}, {"digest", "bytea"}, {"user_id", "uuid"}, {"at", "bigint"}}, "at, request_id"},
	{"event_log_meta", []column{{"id", "bigint"}, {"epoch", "bytea"}, {"token_key", "bytea"}, {"trimmed", "bigint"}}, "id"},
	eventTable,
}

var eventTable = table{"event_log", []column{{"seq", "bigint"}, {"at", "bigint"}, {"subject", subject}, {"type", "text"}, {"payload", "bytea"}}, "seq"}

// copyRows is how many rows are in memory.
const copyRows = 500

// copyAll copies all tables of a snapshot into a store without users, which are two engines or one.
func copyAll(ctx context.Context, from sqldb.Querier, fromEngine sqldb.Engine, to *sqldb.Tx, toEngine sqldb.Engine) error {
	for _, name := range []string{"meta", "event_log_meta"} {
		// Made when the store was.
		if _, err := to.ExecContext(ctx, "DELETE FROM "+name); err != nil {
			return err
		}
	}
	for _, t := range tables {
		if err := t.copy(ctx, from, t.selects(), to, toEngine); err != nil {
			return fmt.Errorf("copy %s: %w", t.name, err)
		}
	}
	if fromEngine == sqldb.PostgreSQL {
		if err := eventTable.copy(ctx, from, unnumbered, to, toEngine); err != nil {
			return fmt.Errorf("copy what has no number in the log: %w", err)
		}
	}
	if toEngine == sqldb.SQLite {
		return neverAgain(ctx, to)
	}
	return nil
}

// unnumbered reads the events of PostgreSQL that have no number yet, with those that they would get.
const unnumbered = `
SELECT greatest(m.trimmed, (SELECT max(seq) FROM event_log)) + row_number() OVER (ORDER BY i.arrival), i.at, i.subject, i.type, i.payload
FROM event_log_inbox i CROSS JOIN event_log_meta m ORDER BY i.arrival`

// neverAgain has SQLite give no number to an event that one had which was trimmed.
func neverAgain(ctx context.Context, to *sqldb.Tx) error {
	for _, statement := range []string{
		`INSERT INTO event_log (seq, at, subject, type, payload)
SELECT trimmed, 0, '', '-', x'' FROM event_log_meta WHERE trimmed > 0 AND NOT EXISTS (SELECT 1 FROM event_log WHERE seq >= trimmed)`,
		`DELETE FROM event_log WHERE seq <= (SELECT trimmed FROM event_log_meta)`,
	} {
		if _, err := to.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

func (t table) selects() string {
	return "SELECT " + names(t.columns) + " FROM " + t.name + " ORDER BY " + t.order
}

// copy writes the rows of a query.
func (t table) copy(ctx context.Context, from sqldb.Querier, query string, to *sqldb.Tx, engine sqldb.Engine) error {
	rows, err := from.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	batch := make([][]any, 0, copyRows)
	for rows.Next() {
		row, err := t.scan(rows, engine)
		if err != nil {
			return err
		}
		if batch = append(batch, row); len(batch) == copyRows {
			if err := t.insert(ctx, to, engine, batch); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return t.insert(ctx, to, engine, batch)
}

// scan reads a row as the values of another engine.
func (t table) scan(rows *sql.Rows, engine sqldb.Engine) ([]any, error) {
	dest := make([]any, len(t.columns))
	for i, c := range t.columns {
		switch c.postgres {
		case "bigint":
			dest[i] = new(sql.Null[int64])
		case "boolean":
			dest[i] = new(sql.Null[bool])
		case "bytea", subject:
			dest[i] = new([]byte)
		default:
			dest[i] = new(sql.Null[string])
		}
	}
	if err := rows.Scan(dest...); err != nil {
		return nil, err
	}
	row := make([]any, len(dest))
	for i, d := range dest {
		switch d := d.(type) {
		case *sql.Null[int64]:
			row[i] = orNil(*d)
		case *sql.Null[bool]:
			row[i] = orNil(*d)
		case *sql.Null[string]:
			row[i] = orNil(*d)
		case *[]byte:
			if *d == nil {
				continue
			}
			row[i] = *d
			if t.columns[i].postgres == subject && engine == sqldb.SQLite {
				row[i] = string(*d)
			}
		}
	}
	return row, nil
}

func orNil[T any](n sql.Null[T]) any {
	if !n.Valid {
		return nil
	}
	return n.V
}

func (t table) insert(ctx context.Context, to *sqldb.Tx, engine sqldb.Engine, rows [][]any) error {
	if len(rows) == 0 {
		return nil
	}
	st := &statement{engine: engine}
	if engine == sqldb.PostgreSQL {
		arrays := make([][]any, len(t.columns))
		for _, row := range rows {
			for i, value := range row {
				arrays[i] = append(arrays[i], value)
			}
		}
		columns := slices.Clone(t.columns)
		for i := range columns {
			if columns[i].postgres == subject {
				columns[i].postgres = "bytea"
			}
		}
		arrayInsert(st, t.name, columns, arrays)
		_, err := to.ExecContext(ctx, st.String(), st.args...)
		return err
	}
	st.write("INSERT INTO ", t.name, " (", names(t.columns), ") VALUES ")
	for i, row := range rows {
		if i > 0 {
			st.write(", ")
		}
		for n, value := range row {
			if n == 0 {
				st.write("(")
			} else {
				st.write(", ")
			}
			st.arg(value)
		}
		st.write(")")
	}
	_, err := to.ExecContext(ctx, st.String(), st.args...)
	return err
}

// errNotEmpty: a store has something already.
var errNotEmpty = errors.New("has data already: restore only into an empty store")

// empty returns errNotEmpty if there are users, claims or events.
func empty(ctx context.Context, q sqldb.Querier, engine sqldb.Engine) error {
	all := []string{"users", "requests", "event_log"}
	if engine == sqldb.PostgreSQL {
		all = append(all, "event_log_inbox")
	}
	for _, name := range all {
		var there bool
		if err := q.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM "+name+")").Scan(&there); err != nil {
			return err
		}
		if there {
			return errNotEmpty
		}
	}
	return nil
}
