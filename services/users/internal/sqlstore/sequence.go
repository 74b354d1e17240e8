package sqlstore

import (
	"cmp"
	"strings"

	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// fewRows is up to how many users are gathered by an index and sorted for a page. Where a filter names more, the page is
// read in the order of another index.
const fewRows = 500

// The ids before and behind all others.
const (
	leastID    = "00000000-0000-0000-0000-000000000000"
	greatestID = "ffffffff-ffff-ffff-ffff-ffffffffffff"
)

// sequence is users in the order of a query: they are read from an edge on, as far as need be.
type sequence struct {
	entries func(st *statement) // FROM to WHERE or AND, for the entries of the index: rows l of user_labels or u of users
	rows    func(st *statement) // the same with the rows u of users; nil means that entries has them
	with    func(st *statement) // what stands before SELECT; nil means nothing
	key     string              // the column that it is ordered by, and then by
	id      string
	field   users.Field
	unique  bool  // whether no two users have the same key
	parts   []int // the places of those parts of the filter that hold for just the users of the sequence
}

// orders are the sequences of all users.
var orders = map[users.OrderBy]struct {
	field  users.Field
	index  string
	where  string // what the index holds, without those who were erased
	unique bool
}{
	users.ByCreatedAt:   {users.FieldCreatedAt, "users_created", "u.erased_at IS NULL AND ", false},
	users.ByUpdatedAt:   {users.FieldUpdatedAt, "users_updated", "u.erased_at IS NULL AND ", false},
	users.ByDisplayName: {users.FieldDisplayName, "users_display_name", "u.erased_at IS NULL AND ", false},
	users.ByEmail:       {users.FieldEmail, "users_email_key", "u.email_key IS NOT NULL AND ", true},
}

// sequenceOf returns the sequence in which to read the users of a filter: that of a label or of a state where the filter
// names one and the order is that of those, else that of all.
func sequenceOf(by users.OrderBy, parts []users.Filter) sequence {
	for i, part := range parts {
		c, ok := part.(users.Compare)
		if !ok || by != users.ByCreatedAt || c.Op != users.Equal {
			continue
		}
		if c.Field == users.FieldLabel {
			return labelSequence(c, i)
		}
		if rareState(c) {
			s := sequenceOfAll(by)
			s.parts = []int{i}
			s.entries = func(st *statement) {
				st.write(" FROM users u").indexedBy("users_state")
				st.write(" WHERE u.erased_at IS NULL AND u.state <> 'ACTIVE' AND u.state = ").arg(c.Text).write(" AND ")
			}
			return s
		}
	}
	return sequenceOfAll(by)
}

func sequenceOfAll(by users.OrderBy) sequence {
	o := orders[by]
	return sequence{key: columns[o.field], id: "u.user_id", field: o.field, unique: o.unique, entries: func(st *statement) {
		st.write(" FROM users u").indexedBy(o.index).write(" WHERE ", o.where)
	}}
}

func labelSequence(c users.Compare, place int) sequence {
	label := func(st *statement) {
		st.write("l.key = ").arg(c.Label).write(" AND l.value = ").arg(c.Text).write(" AND ")
	}
	return sequence{
		key: "l.created_at", id: "l.user_id", field: users.FieldCreatedAt, parts: []int{place},
		entries: func(st *statement) { label(st.write(" FROM user_labels l WHERE ")) },
		rows:    func(st *statement) { label(st.usersOf("user_labels l")) },
	}
}

// sequenceOfFew returns the sequence of users whom a source has.
func sequenceOfFew(by users.OrderBy, found source) sequence {
	s := sequenceOfAll(by)
	s.parts = found.parts
	s.with = func(st *statement) { found.with(st, fewRows) }
	s.entries = func(st *statement) { st.usersOf("few") }
	return s
}

// edge is a place in a sequence: before, at or behind the users with a key, or one of them.
type edge struct {
	set       bool
	key       any    // int64 or string
	id        string // empty means all users with the key
	inclusive bool
}

// compareKeys compares keys of the same sequence.
func compareKeys(a, b any) int {
	if t, ok := a.(int64); ok {
		return cmp.Compare(t, b.(int64))
	}
	return strings.Compare(a.(string), b.(string))
}

// begin returns the edge from which a sequence is read: behind a position, or where the filter allows the first user.
func (s sequence) begin(o users.Order, after users.Position, parts []users.Filter) edge {
	e := s.bound(parts, o.Desc)
	if after.Zero() {
		return e
	}
	p := s.at(after)
	if !e.set {
		return p
	}
	side := compareKeys(p.key, e.key)
	if o.Desc {
		side = -side
	}
	if side > 0 || side == 0 && e.inclusive {
		return p
	}
	return e
}

// end returns the edge up to which the filter allows users.
func (s sequence) end(o users.Order, parts []users.Filter) edge { return s.bound(parts, !o.Desc) }

// at returns the edge behind a position.
func (s sequence) at(p users.Position) edge {
	if s.field.IsTime() {
		return edge{set: true, key: p.Time.UnixMicro(), id: string(p.ID)}
	}
	return edge{set: true, key: p.Text, id: string(p.ID)}
}

// upTo returns the edge behind a position as an end: the user there is within.
func (s sequence) upTo(p users.Position) edge {
	e := s.at(p)
	e.inclusive = true
	return e
}

// last returns the id that is behind all others in an order.
func last(o users.Order) string {
	if o.Desc {
		return leastID
	}
	return greatestID
}

// bound returns the narrowest edge that the parts of a filter set to the key, below or above.
func (s sequence) bound(parts []users.Filter, above bool) edge {
	var found edge
	for _, part := range parts {
		c, ok := part.(users.Compare)
		if !ok || c.Field != s.field {
			continue
		}
		e := s.boundOf(c, above)
		if !e.set {
			continue
		}
		if !found.set {
			found = e
			continue
		}
		side := compareKeys(e.key, found.key)
		if above {
			side = -side
		}
		if side > 0 || side == 0 && !e.inclusive {
			found = e
		}
	}
	return found
}

func (s sequence) boundOf(c users.Compare, above bool) edge {
	e := edge{set: true, key: c.Text, inclusive: true}
	if s.field.IsTime() {
		e.key = c.Time.UnixMicro()
	}
	switch c.Op {
	case users.Less, users.LessOrEqual:
		e.set, e.inclusive = above, c.Op == users.LessOrEqual
	case users.Greater, users.GreaterOrEqual:
		e.set, e.inclusive = !above, c.Op == users.GreaterOrEqual
	case users.Prefix:
		if above {
			end, ok := afterPrefix(c.Text)
			e.set, e.key, e.inclusive = ok, end, false
		}
	}
	return e
}

// edges writes that a row of the sequence is between two edges, where they are set, and an AND behind each.
func (s sequence) edges(st *statement, o users.Order, begin, end edge) {
	if begin.set {
		s.edge(st, begin, o.Desc)
	}
	if end.set {
		s.edge(st, end, !o.Desc)
	}
}

// edge writes that a row is above an edge, or below it.
func (s sequence) edge(st *statement, e edge, below bool) {
	strictly, orAt := " > ", " >= "
	if below {
		strictly, orAt = " < ", " <= "
	}
	operator := strictly
	if e.inclusive {
		operator = orAt
	}
	switch {
	case e.id == "", s.unique && (e.id == leastID || e.id == greatestID):
		st.write(s.key, operator).arg(e.key).write(" AND ")
	case s.unique:
		// The index has no id: one is looked up only where the key is that of the edge.
		st.write(s.key, orAt).arg(e.key).write(" AND (", s.key, strictly).arg(e.key)
		st.write(" OR ", s.id, operator).arg(e.id).write(") AND ")
	default:
		st.write("(", s.key, ", ", s.id, ")", operator, "(").arg(e.key).write(", ").arg(e.id).write(") AND ")
	}
}

// orderBy writes the order of the sequence.
func (s sequence) orderBy(st *statement, o users.Order) {
	direction := ""
	if o.Desc {
		direction = " DESC"
	}
	st.write(" ORDER BY ", s.key, direction)
	if !s.unique {
		st.write(", ", s.id, direction)
	}
}
