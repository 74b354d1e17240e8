package sqlstore

import (
	"strconv"
	"strings"

	"github.com/concordat-dev/concordat/kit/sqldb"
)

// statement is the text of a statement and its arguments, which are written together and in the same order. Nothing that a
// client said comes into the text: it is always an argument.
type statement struct {
	engine sqldb.Engine
	text   strings.Builder
	args   []any
}

func (s *Store) statement() *statement { return &statement{engine: s.db.Engine()} }

// write adds text as it is.
func (st *statement) write(parts ...string) *statement {
	for _, p := range parts {
		st.text.WriteString(p)
	}
	return st
}

// arg adds a placeholder and its value.
func (st *statement) arg(value any) *statement {
	st.args = append(st.args, value)
	if st.engine == sqldb.SQLite {
		// The driver looks for each placeholder with a name among all arguments.
		st.text.WriteByte('?')
		return st
	}
	st.text.WriteByte('$')
	st.text.WriteString(strconv.Itoa(len(st.args)))
	return st
}

// number adds a number of ours, one that the planner of PostgreSQL should know.
func (st *statement) number(n int) *statement { return st.write(strconv.Itoa(n)) }

// indexedBy makes SQLite use an index or refuse the statement. PostgreSQL has no such clause: there the statements are such
// that no other plan is near.
func (st *statement) indexedBy(index string) *statement {
	if st.engine == sqldb.SQLite {
		st.write(" INDEXED BY ", index)
	}
	return st
}

func (st *statement) String() string { return st.text.String() }
