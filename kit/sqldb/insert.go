package sqldb

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"strings"
)

const (
	// insertValues is how many values one statement of several rows has at most. The driver of SQLite looks through all
	// of them for each, so that more would cost more than the statements that they save.
	insertValues = 64
	// CopyLeast is how many rows Insert adds by COPY on PostgreSQL. For fewer the round trip is not worth it.
	CopyLeast = 16
	// copyChunk is how many bytes of rows are sent at a time: the server adds them while the next are made.
	copyChunk = 16 << 10
)

// Insert adds n rows to a table, in their order, as fast as the database takes them: by COPY on PostgreSQL, which
// writes a page of them at once, and by statements of several rows on SQLite. fill sets the values of the i-th row, one
// for each of the columns, which are nil before: an int64, a string, a []byte, or nil for NULL. It is called once for
// each row, in their order, and on PostgreSQL while the server adds those before. The columns are of the types bigint,
// text and bytea there. The names are written into the statement as they are.
//
// A constraint that one row breaks is an error of all, as of any statement.
func (t *Tx) Insert(ctx context.Context, table string, columns []string, n int, fill func(i int, row []any)) error {
	if t.copy != nil && n >= CopyLeast {
		rows := &copyRows{n: n, row: make([]any, len(columns)), fill: fill, made: []byte(copyHeader)}
		return t.copy(ctx, "COPY "+table+" ("+strings.Join(columns, ", ")+") FROM STDIN BINARY", rows)
	}
	most := max(1, insertValues/len(columns))
	args := make([]any, min(n, most)*len(columns))
	for i := 0; i < n; {
		if n-i < most {
			most = 1 // so that there are two statements for each table, which stay prepared
		}
		some := args[:most*len(columns)]
		clear(some)
		for row := some; len(row) > 0; row = row[len(columns):] {
			fill(i, row[:len(columns):len(columns)])
			i++
		}
		if _, err := t.ExecContext(ctx, insertStatement(t.engine, table, columns, most), some...); err != nil {
			return err
		}
	}
	return nil
}

// insertStatement returns the statement that adds n rows.
func insertStatement(engine Engine, table string, columns []string, n int) string {
	b := new(strings.Builder)
	b.WriteString("INSERT INTO " + table + " (" + strings.Join(columns, ", ") + ") VALUES (")
	for i := range n * len(columns) {
		if i > 0 && i%len(columns) == 0 {
			b.WriteString("), (")
		} else if i > 0 {
			b.WriteString(", ")
		}
		if engine == PostgreSQL {
			fmt.Fprintf(b, "$%d", i+1)
		} else {
			b.WriteString("?") // which the driver finds faster than a name
		}
	}
	b.WriteString(")")
	return b.String()
}

// copyHeader begins the binary format of COPY: its signature, no flags, no more header. copyEnd ends it.
// https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format".
const (
	copyHeader = "PGCOPY\n\xff\r\n\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00"
	copyEnd    = "\xff\xff"
)

// copyRows reads as rows in the binary format of COPY.
type copyRows struct {
	n, at int
	row   []any
	fill  func(i int, row []any)
	made  []byte // and not read yet
	ended bool
}

// Read fills p with what was made, and makes the next rows before that is all.
func (c *copyRows) Read(p []byte) (int, error) {
	for len(c.made) < min(len(p), copyChunk) && c.at < c.n {
		clear(c.row)
		c.fill(c.at, c.row)
		c.at++
		if err := c.add(); err != nil {
			return 0, err
		}
	}
	if c.at == c.n && !c.ended {
		c.made, c.ended = append(c.made, copyEnd...), true
	}
	n := copy(p, c.made)
	c.made = c.made[:copy(c.made, c.made[n:])]
	if c.ended && len(c.made) == 0 {
		return n, io.EOF
	}
	return n, nil
}

// add encodes the row.
func (c *copyRows) add() error {
	b := binary.BigEndian.AppendUint16(c.made, uint16(len(c.row)))
	for _, value := range c.row {
		switch v := value.(type) {
		case nil:
			b = binary.BigEndian.AppendUint32(b, math.MaxUint32) // -1
		case int64:
			b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(b, 8), uint64(v))
		case string:
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...)
		case []byte:
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...)
		default:
			return fmt.Errorf("a %T is no value of a column", value)
		}
	}
	c.made = b
	return nil
}

// copyFrom runs a COPY of rows on the connection.
func (c *pgConn) copyFrom(ctx context.Context, statement string, rows io.Reader) error {
	if c.broken != nil {
		return &statementError{c.broken}
	}
	if _, err := c.pg().CopyFrom(ctx, rows, statement); err != nil {
		return c.note(err)
	}
	c.used = true
	return nil
}
