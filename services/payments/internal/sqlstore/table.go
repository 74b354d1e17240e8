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
	n       int
	fill    func(i int, row []any) // sets the values of the i-th row, which are nil before; see sqldb.Tx.Insert
}

// values returns the rows.
func (c *change) values() [][]any {
	all := make([][]any, c.n)
	for i := range all {
		all[i] = make([]any, len(c.columns))
		c.fill(i, all[i])
	}
	return all
}

// write writes all changes: on PostgreSQL many new rows of a table by COPY, and all the rest by one statement, because a
// round trip for each table would be dearer.
func write(ctx context.Context, tx *sqldb.Tx, changes []change) error {
	var few []change
	for _, c := range changes {
		if tx.Engine() == sqldb.PostgreSQL && (c.update || c.n < sqldb.CopyLeast) {
			few = append(few, c)
			continue
		}
		if err := c.write(ctx, tx); err != nil {
			return fmt.Errorf("write %s: %w", c.table, err)
		}
	}
	return writeArrays(ctx, tx, few)
}

// write writes the rows, those that are there one by one.
func (c *change) write(ctx context.Context, tx *sqldb.Tx) error {
	if !c.update {
		return tx.Insert(ctx, c.table, c.names(), c.n, c.fill)
	}
	names := c.names()
	statement := "UPDATE " + c.table + " SET " + strings.Join(names[1:], " = ?, ") + " = ? WHERE " + names[0] + " = ?"
	for _, row := range c.values() {
		if _, err := tx.ExecContext(ctx, statement, append(row[1:], row[0])...); err != nil {
			return err
		}
	}
	return nil
}

func (c *change) names() []string {
	names := make([]string, len(c.columns))
	for i, col := range c.columns {
		names[i] = col.name
	}
	return names
}

// writeArrays writes changes on PostgreSQL by one statement, with an array for each column.
func writeArrays(ctx context.Context, tx *sqldb.Tx, changes []change) error {
	var (
		parts []string
		args  []any
	)
	for _, c := range changes {
		if c.n == 0 {
			continue
		}
		rows, names := c.values(), c.names()
		arrays, sets := make([]string, len(names)), make([]string, len(names))
		for j, col := range c.columns {
			args = append(args, col.kind.array(rows, j))
			arrays[j] = "$" + strconv.Itoa(len(args)) + "::" + string(col.kind) + "[]"
			sets[j] = col.name + " = r." + col.name
		}
		list := strings.Join(names, ", ")
		from := " FROM unnest(" + strings.Join(arrays, ", ") + ") AS r (" + list + ")"
		if c.update {
			parts = append(parts, "UPDATE "+c.table+" AS t SET "+strings.Join(sets[1:], ", ")+from+" WHERE t."+names[0]+" = r."+names[0])
		} else {
			parts = append(parts, "INSERT INTO "+c.table+" ("+list+") SELECT "+list+from)
		}
	}
	if len(parts) == 0 {
		return nil
	}
	query, last := "", len(parts)-1
	for i, part := range parts[:last] {
		query += fmt.Sprintf("w%d AS (%s), ", i, part)
	}
	if query != "" {
		query = "WITH " + strings.TrimSuffix(query, ", ") + " "
	}
	if _, err := tx.ExecContext(ctx, query+parts[last], args...); err != nil {
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
