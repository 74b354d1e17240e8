package sqlstore

import (
	"strings"
	"unicode/utf8"

	"github.com/concordat-dev/concordat/kit/sqldb"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// selection writes the condition that u is a user of the selection.
func (st *statement) selection(sel users.Selection) *statement {
	st.write("u.erased_at IS NULL")
	if !sel.ShowDeleted {
		st.write(" AND u.state <> 'DELETED'")
	}
	if sel.Filter != nil {
		st.write(" AND ").filter(sel.Filter)
	}
	return st
}

// filter writes the condition that the row u of users matches, which is true or false and never NULL: users.Matches says
// the same of the user.
func (st *statement) filter(f users.Filter) *statement {
	switch f := f.(type) {
	case users.And:
		return st.parts(f, " AND ", "TRUE")
	case users.Or:
		return st.parts(f, " OR ", "FALSE")
	case users.Not:
		return st.write("NOT (").filter(f.Filter).write(")")
	case users.Verified:
		return st.write("u.verified")
	case users.Present:
		return st.present(f)
	case users.Compare:
		return st.compare(f)
	default:
		// The domain has no other filters; what has no meaning here matches nobody.
		return st.write("FALSE")
	}
}

func (st *statement) parts(all []users.Filter, between, none string) *statement {
	if len(all) == 0 {
		return st.write(none)
	}
	st.write("(")
	for i, f := range all {
		if i > 0 {
			st.write(between)
		}
		st.filter(f)
	}
	return st.write(")")
}

// columns are those of users that filters look at. Labels have none.
var columns = map[users.Field]string{
	users.FieldID:          "u.user_id",
	users.FieldEmail:       "u.email_key",
	users.FieldDisplayName: "u.display_name",
	users.FieldFirstName:   "u.first_name",
	users.FieldLastName:    "u.last_name",
	users.FieldState:       "u.state",
	users.FieldCreatedAt:   "u.created_at",
	users.FieldUpdatedAt:   "u.updated_at",
	users.FieldDeletedAt:   "u.deleted_at",
}

func (st *statement) present(f users.Present) *statement {
	switch f.Field {
	case users.FieldLabel:
		return st.write("(").label(f.Label).write(" IS NOT NULL)")
	case users.FieldID:
		return st.write("TRUE")
	case users.FieldEmail:
		return st.write("(u.email_key IS NOT NULL)")
	case users.FieldCreatedAt, users.FieldUpdatedAt, users.FieldDeletedAt:
		return st.write("(", columns[f.Field], " IS NOT NULL)")
	default:
		return st.write("(", columns[f.Field], " <> '')")
	}
}

func (st *statement) compare(f users.Compare) *statement {
	switch {
	case f.Field == users.FieldLabel:
		// A label that is not there is NULL.
		return st.write("coalesce(").comparison(f, func() { st.label(f.Label) }).write(", FALSE)")
	case f.Field == users.FieldID && st.engine == sqldb.PostgreSQL:
		return st.compareUUID(f)
	case f.Field == users.FieldDeletedAt, f.Field == users.FieldEmail:
		column := columns[f.Field]
		return st.write("(", column, " IS NOT NULL AND ").compareColumn(f, column).write(")")
	default:
		return st.compareColumn(f, columns[f.Field])
	}
}

// compareColumn writes a comparison that may be NULL where the column is.
func (st *statement) compareColumn(f users.Compare, column string) *statement {
	if f.Field.IsTime() {
		return st.write(column, operator(f.Op)).arg(f.Time.UnixMicro())
	}
	return st.comparison(f, func() { st.write(column) })
}

// compareUUID compares the text of an id, which sorts as the id does. What is no UUID in its canonical form is no id.
func (st *statement) compareUUID(f users.Compare) *statement {
	if f.Op == users.Equal {
		if !isUUID(f.Text) {
			return st.write("FALSE")
		}
		return st.write("u.user_id = ").arg(f.Text)
	}
	return st.comparison(f, func() { st.write(`u.user_id::text COLLATE "C"`) })
}

// text1 writes the comparison of the text that value writes. A prefix is the range of the texts that begin with it.
func (st *statement) comparison(f users.Compare, value func()) *statement {
	if f.Op != users.Prefix {
		value()
		return st.write(operator(f.Op)).arg(f.Text)
	}
	st.write("(")
	value()
	st.write(" >= ").arg(f.Text)
	if end, ok := afterPrefix(f.Text); ok {
		st.write(" AND ")
		value()
		st.write(" < ").arg(end)
	}
	return st.write(")")
}

// label writes the value of a label of u, which is NULL when it has none.
func (st *statement) label(key string) *statement {
	if st.engine == sqldb.PostgreSQL {
		return st.write("(u.labels ->> CAST(").arg(key).write(` AS TEXT)) COLLATE "C"`)
	}
	// In the quotes of a path every character stands for itself but these two, which no key has.
	if strings.ContainsAny(key, `"\\`) {
		return st.write("NULL")
	}
	return st.write("(u.labels ->> ").arg(`$."` + key + `"`).write(")")
}

func operator(op users.Op) string {
	switch op {
	case users.Less:
		return " < "
	case users.LessOrEqual:
		return " <= "
	case users.Greater:
		return " > "
	case users.GreaterOrEqual:
		return " >= "
	default:
		return " = "
	}
}

// afterPrefix returns the least text that is greater than all that begin with a prefix, and whether there is one. Bytes of UTF-8
// compare as the characters do, so it is the prefix with its last character replaced by the next one that there is.
func afterPrefix(prefix string) (string, bool) {
	for prefix != "" {
		last, size := utf8.DecodeLastRuneInString(prefix)
		prefix = prefix[:len(prefix)-size]
		switch {
		case last == utf8.RuneError && size <= 1, last == utf8.MaxRune:
		case last == 0xD7FF: // the surrogates are no characters
			return prefix + "\uE000", true
		default:
			return prefix + string(last+1), true
		}
	}
	return "", false
}

// isUUID says whether a text is a UUID in its canonical form.
func isUUID(text string) bool {
	if len(text) != 36 {
		return false
	}
	for i := range len(text) {
		c := text[i]
		switch i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
				return false
			}
		}
	}
	return true
}
