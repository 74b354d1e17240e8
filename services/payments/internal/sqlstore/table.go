package sqlstore

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/concordat-dev/concordat/kit/sqldb"
)

// kind is the type of a column, as PostgreSQL calls it.
type kind string

const (
	number kind = "bigint"
	text   kind = "text"
	bytes  kind = "bytea"
)

// column is a column that is written. A nil value is NULL.
type column struct {
	name string
	kind kind
}

// columns makes columns of names, each followed by its kind.
func columns(pairs ...any) []column {
	all := make([]column, 0, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		all = append(all, column{pairs[i].(string), pairs[i+1].(kind)})
	}
	return all
}

// change is rows that are written alike: added, or changed where the first column is as in the row.
type change struct {
	table   string
	columns []column
	update  bool
	upsert  bool // an added row whose first column is there already replaces the others
	rows    [][]any
}

// rowsAtOnce is how many rows one statement writes on SQLite. Fewer are written one by one, so that there are two
// statements for each kind of change, which stay prepared.
const rowsAtOnce = 16

// write writes all changes, with the head as the last.
func write(ctx context.Context, tx *sqldb.Tx, changes []change) error {
	if tx.Engine() == sqldb.PostgreSQL {
		return writeArrays(ctx, tx, changes)
	}
	for _, c := range changes {
		if err := c.writeRows(ctx, tx); err != nil {
			return fmt.Errorf("write %s: %w", c.table, err)
		}
	}
	return nil
}

// writeRows writes the rows on SQLite.
func (c *change) writeRows(ctx context.Context, tx *sqldb.Tx) error {
	for rows := c.rows; len(rows) > 0; {
		n := 1
		if !c.update && len(rows) >= rowsAtOnce {
			n = rowsAtOnce
		}
		args := make([]any, 0, n*len(c.columns))
		for _, row := range rows[:n] {
			if c.update {
				row = append(row[1:len(row):len(row)], row[0])
			}
			args = append(args, row...)
		}
		if _, err := tx.ExecContext(ctx, c.statement(n), args...); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// statement returns the statement that writes n rows on SQLite.
func (c *change) statement(n int) string {
	if c.update {
		return "UPDATE " + c.table + " SET " + c.each(c.columns[1:], func(col column) string { return col.name + " = ?" }) +
			" WHERE " + c.columns[0].name + " = ?"
	}
	row := "(?" + strings.Repeat(", ?", len(c.columns)-1) + ")"
	return "INSERT INTO " + c.table + " (" + c.each(c.columns, func(col column) string { return col.name }) + ") VALUES " +
		row + strings.Repeat(", "+row, n-1) + c.onConflict()
}

func (c *change) onConflict() string {
	if !c.upsert {
		return ""
	}
	return " ON CONFLICT (" + c.columns[0].name + ") DO UPDATE SET " +
		c.each(c.columns[1:], func(col column) string { return col.name + " = excluded." + col.name })
}

func (c *change) each(list []column, say func(column) string) string {
	all := make([]string, len(list))
	for i, col := range list {
		all[i] = say(col)
	}
	return strings.Join(all, ", ")
}

// writeArrays writes all changes on PostgreSQL by one statement, with an array for each column.
func writeArrays(ctx context.Context, tx *sqldb.Tx, changes []change) error {
	var (
		query strings.Builder
		args  []any
		last  int
	)
	for i := range changes {
		if len(changes[i].rows) > 0 {
			last = i
		}
	}
	query.WriteString("WITH ")
	first := true
	for i := range changes[:last+1] {
		c := &changes[i]
		if len(c.rows) == 0 {
			continue
		}
		arrays := make([]string, len(c.columns))
		for j, col := range c.columns {
			args = append(args, col.kind.array(c.rows, j))
			arrays[j] = "$" + strconv.Itoa(len(args)) + "::" + string(col.kind) + "[]"
		}
		names := c.each(c.columns, func(col column) string { return col.name })
		from := " FROM unnest(" + strings.Join(arrays, ", ") + ") AS r (" + names + ")"
		if i < last {
			if !first {
				query.WriteString(", ")
			}
			fmt.Fprintf(&query, "w%d AS (", i)
		} else if first { // it is the only one
			query.Reset()
		} else {
			query.WriteString(" ")
		}
		first = false
		if c.update {
			query.WriteString("UPDATE " + c.table + " AS t SET " +
				c.each(c.columns[1:], func(col column) string { return col.name + " = r." + col.name }) +
				from + " WHERE t." + c.columns[0].name + " = r." + c.columns[0].name)
		} else {
			query.WriteString("INSERT INTO " + c.table + " (" + names + ") SELECT " + names + from + c.onConflict())
		}
		if i < last {
			query.WriteString(")")
		}
	}
	if len(args) == 0 {
		return nil
	}
	if _, err := tx.ExecContext(ctx, query.String(), args...); err != nil {
		return fmt.Errorf("write a batch: %w", err)
	}
	return nil
}

// array returns the i-th value of each row as the array of PostgreSQL.
func (k kind) array(rows [][]any, i int) any {
	switch k {
	case number:
		all, null := make([]int64, len(rows)), false
		for n, row := range rows {
			v, ok := row[i].(int64)
			all[n] = v
			null = null || !ok
		}
		if !null {
			return all
		}
		return pointers[int64](rows, i)
	case text:
		all, null := make([]string, len(rows)), false
		for n, row := range rows {
			v, ok := row[i].(string)
			all[n] = v
			null = null || !ok
		}
		if !null {
			return all
		}
		return pointers[string](rows, i)
	default:
		all := make([][]byte, len(rows))
		for n, row := range rows {
			all[n], _ = row[i].([]byte)
		}
		return all
	}
}

// pointers returns the i-th value of each row, nil for NULL.
func pointers[T any](rows [][]any, i int) []*T {
	all := make([]*T, len(rows))
	for n, row := range rows {
		if v, ok := row[i].(T); ok {
			all[n] = &v
		}
	}
	return all
}
