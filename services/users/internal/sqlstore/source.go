package sqlstore

import (
	"slices"
	"strings"

	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// conjuncts returns the filters that all hold where f does, as many as there are.
func conjuncts(f users.Filter) []users.Filter {
	if f == nil {
		return nil
	}
	all, ok := f.(users.And)
	if !ok {
		return []users.Filter{f}
	}
	var parts []users.Filter
	for _, part := range all {
		parts = append(parts, conjuncts(part)...)
	}
	return parts
}

// without returns the filter of the parts but for some, by their places.
func without(parts []users.Filter, some []int) users.Filter {
	var rest users.And
	for i, part := range parts {
		if !slices.Contains(some, i) {
			rest = append(rest, part)
		}
	}
	if len(rest) == 0 {
		return nil
	}
	return rest
}

// source is an index that has all who match a filter.
type source struct {
	// query writes the query for up to limit ids, each once.
	query func(st *statement, limit int)
	// counted writes what stands behind the SELECT list of a query for the entries of the index, from FROM on. It is nil where
	// the index does not know who is deleted.
	counted func(st *statement, showDeleted bool)
	// deleted writes the same for those of the entries whose users are deleted, where on SQLite another index has them: they are
	// taken off. It is nil where the index knows.
	deleted func(st *statement)
	// parts are the places of those parts of the filter that hold for just the users of the source.
	parts []int
}

// indexed are the fields whose values are found by an index of users, the most telling first.
var indexed = []struct {
	field users.Field
	index string
	where string // what the index holds, where that is not every row
}{
	{users.FieldID, "users_user_id", ""},
	{users.FieldEmail, "users_email_key", "u.email_key IS NOT NULL AND "},
	{users.FieldDisplayName, "users_display_name", "u.erased_at IS NULL AND "},
	{users.FieldUpdatedAt, "users_updated", "u.erased_at IS NULL AND "},
	{users.FieldCreatedAt, "users_created", "u.erased_at IS NULL AND "},
}

// sources returns the sources of a filter by its parts, the most telling first, without those of the parts at some places.
func sources(parts []users.Filter, but []int) []source {
	var all []source
	for _, i := range indexed {
		if s, ok := fieldSource(parts, but, i.field, i.index, i.where); ok {
			all = append(all, s)
		}
	}
	for i, part := range parts {
		if slices.Contains(but, i) {
			continue
		}
		switch f := part.(type) {
		case users.Compare:
			if s, ok := labelSource(f, i); ok {
				all = append(all, s)
			}
			if s, ok := stateSource(f, i); ok {
				all = append(all, s)
			}
		case users.Or:
			if s, ok := union(f); ok {
				all = append(all, s)
			}
		}
	}
	return all
}

// fieldSource returns the source of all parts that compare a field.
func fieldSource(parts []users.Filter, but []int, field users.Field, index, where string) (source, bool) {
	var s source
	for i, part := range parts {
		c, ok := part.(users.Compare)
		if ok && c.Field == field && !slices.Contains(but, i) && (field != users.FieldID || c.Op == users.Equal) {
			s.parts = append(s.parts, i)
		}
	}
	from := func(st *statement, index, where string) *statement {
		st.write(" FROM users u").indexedBy(index).write(" WHERE ", where)
		for n, i := range s.parts {
			if n > 0 {
				st.write(" AND ")
			}
			st.filter(parts[i])
		}
		return st
	}
	s.query = func(st *statement, limit int) {
		from(st.write("SELECT u.user_id"), index, where).write(" LIMIT ").number(limit)
	}
	if where != "" {
		s.counted = func(st *statement, showDeleted bool) { from(st, index, where).listed("u.", showDeleted) }
	}
	if field == users.FieldEmail {
		s.deleted = func(st *statement) { from(st, "users_deleted_email", "u.state = 'DELETED' AND "+where) }
	}
	return s, len(s.parts) > 0
}

// listed writes that somebody of a table with states is not deleted, unless those are shown.
func (st *statement) listed(table string, showDeleted bool) {
	if !showDeleted {
		st.write(" AND ", table, "state <> 'DELETED'")
	}
}

// labelSource returns the source of the users who have a label with a value.
func labelSource(f users.Compare, place int) (source, bool) {
	if f.Field != users.FieldLabel || f.Op != users.Equal && f.Op != users.Prefix {
		return source{}, false
	}
	from := func(st *statement) *statement {
		st.write(" FROM user_labels l WHERE l.key = ").arg(f.Label).write(" AND ")
		return st.comparison(f, func() { st.write("l.value") })
	}
	return source{
		query:   func(st *statement, limit int) { from(st.write("SELECT l.user_id")).write(" LIMIT ").number(limit) },
		counted: func(st *statement, showDeleted bool) { from(st).listed("l.", showDeleted) },
		parts:   []int{place},
	}, true
}

// stateSource returns the source of the users of a state that few have.
func stateSource(f users.Compare, place int) (source, bool) {
	if !rareState(f) {
		return source{}, false
	}
	from := func(st *statement) *statement {
		st.write(" FROM users u").indexedBy("users_state")
		return st.write(" WHERE u.erased_at IS NULL AND u.state <> 'ACTIVE' AND u.state = ").arg(f.Text)
	}
	return source{
		query:   func(st *statement, limit int) { from(st.write("SELECT u.user_id")).write(" LIMIT ").number(limit) },
		counted: func(st *statement, showDeleted bool) { from(st).listed("u.", showDeleted) },
		parts:   []int{place},
	}, true
}

// rareState says whether a filter is for a state that users_state has.
func rareState(f users.Compare) bool {
	return f.Field == users.FieldState && f.Op == users.Equal && f.Text != string(users.Active)
}

// union returns the source of a filter each of whose alternatives has one. Its users need not match.
func union(f users.Or) (source, bool) {
	if len(f) == 0 {
		return source{}, false
	}
	var all []source
	for _, part := range f {
		found := sources(conjuncts(part), nil)
		if len(found) == 0 {
			return source{}, false
		}
		all = append(all, found[0])
	}
	return source{query: func(st *statement, limit int) {
		st.write("SELECT user_id FROM (")
		for i, s := range all {
			if i > 0 {
				st.write(" UNION ")
			}
			st.write("SELECT user_id FROM (")
			s.query(st, limit)
			st.write(") AS alternative")
		}
		st.write(") AS alternatives LIMIT ").number(limit)
	}}, true
}

// with writes the ids of a source, as the table few, in front of a statement.
func (s source) with(st *statement, limit int) *statement {
	st.write("WITH few AS MATERIALIZED (")
	s.query(st, limit)
	return st.write(") ")
}

// usersOf writes FROM to WHERE or AND: the rows u of users of the ids in a table, by its name or "table name", which is read first
// and in its order.
func (st *statement) usersOf(table string) *statement {
	name := table[strings.LastIndexByte(table, ' ')+1:]
	if st.engine == sqldb.PostgreSQL {
		// OFFSET 0 keeps the planner from joining in another way: it may be wrong about how many there are.
		return st.write(" FROM ", table, " CROSS JOIN LATERAL (SELECT * FROM users i WHERE i.user_id = ", name, ".user_id OFFSET 0) AS u WHERE ")
	}
	return st.write(" FROM ", table, " CROSS JOIN users u WHERE u.user_id = ", name, ".user_id AND ")
}
