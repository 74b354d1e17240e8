package api

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/concordat-dev/concordat/kit/filter"
	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// filterSyntax returns what is taken for a filter.
func filterSyntax() filter.Syntax {
	return filter.Syntax{Invalid: users.ErrFilterInvalid, Characters: 4096, Comparisons: 64, Levels: 16}
}

// parseFilter returns what a filter in the syntax of AIP-160 means, nil where it is empty. It returns ErrFilterInvalid.
func parseFilter(text string) (users.Filter, error) {
	parsed, err := filterSyntax().Parse(text)
	if err != nil || parsed.Root == nil {
		return nil, err
	}
	f, err := converter{parsed}.condition(parsed.Root)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// converter makes a filter of the domain from what was read.
type converter struct{ filter.Filter }

// condition converts what is true or false.
func (c converter) condition(n filter.Node) (users.Filter, error) {
	switch n := n.(type) {
	case filter.Not:
		f, err := c.condition(n.Node)
		return users.Not{Filter: f}, err
	case filter.And:
		all, err := c.conditions(n.All)
		return users.And(all), err
	case filter.Or:
		all, err := c.conditions(n.All)
		return users.Or(all), err
	case filter.Comparison:
		return c.comparison(n)
	case filter.Bare:
		if n.Field.Text == fieldVerified {
			return users.Verified{}, nil
		}
	}
	return nil, c.Refuse(n.At(), filter.RuleSyntax, `a field is compared with a value, such as state = ACTIVE`)
}

// conditions converts several.
func (c converter) conditions(nodes []filter.Node) ([]users.Filter, error) {
	all := make([]users.Filter, len(nodes))
	for i, n := range nodes {
		var err error
		if all[i], err = c.condition(n); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// noField refuses what is no field.
func (c converter) noField(o filter.Operand) error {
	what := " is no field of filters"
	if o.Path[0] == fieldVerified {
		what = " has no fields of its own"
	}
	return c.Refuse(o.Place, filter.RuleField, strconv.Quote(o.Path[0])+what)
}

// opOf returns what an operator compares; != is the contrary of =.
func opOf(op filter.Op) users.Op {
	switch op {
	case filter.Less:
		return users.Less
	case filter.LessOrEqual:
		return users.LessOrEqual
	case filter.Greater:
		return users.Greater
	case filter.GreaterOrEqual:
		return users.GreaterOrEqual
	default:
		return users.Equal
	}
}

// The fields that are not compared as texts or times.
const (
	fieldVerified = "verified"
	fieldLabels   = "labels"
)

// fieldOf returns the field of a name.
func fieldOf(name string) (users.Field, bool) {
	f, ok := map[string]users.Field{
		"user_id":      users.FieldID,
		"email":        users.FieldEmail,
		"display_name": users.FieldDisplayName,
		"first_name":   users.FieldFirstName,
		"last_name":    users.FieldLastName,
		"state":        users.FieldState,
		fieldLabels:    users.FieldLabel,
		"created_at":   users.FieldCreatedAt,
		"updated_at":   users.FieldUpdatedAt,
		"deleted_at":   users.FieldDeletedAt,
	}[name]
	return f, ok
}

// labelKey is what the key of a label looks like.
var labelKey = regexp.MustCompile(`^[a-z]([a-z0-9_-]{0,61}[a-z0-9])?$`)

// comparison converts a field, an operator and a value.
func (c converter) comparison(n filter.Comparison) (users.Filter, error) {
	path := n.Field.Path
	field, ok := fieldOf(path[0])
	verified := n.Field.Text == fieldVerified
	if !ok && !verified {
		return nil, c.noField(n.Field)
	}
	value, err := c.value(n.Value)
	if err != nil {
		return nil, err
	}
	if verified {
		return c.verified(n.Op, n.Value.Place, value)
	}
	label := ""
	switch {
	case field != users.FieldLabel && len(path) > 1:
		return nil, c.Refuse(n.Field.Place, filter.RuleField, strconv.Quote(path[0])+" has no fields of its own")
	case field == users.FieldLabel && len(path) == 1 && n.Op == filter.Has:
		if !labelKey.MatchString(value) {
			return nil, c.Refuse(n.Value.Place, filter.RuleValue, "is no key of a label")
		}
		return users.Present{Field: field, Label: value}, nil
	case field == users.FieldLabel && (len(path) != 2 || !labelKey.MatchString(path[1])):
		return nil, c.Refuse(n.Field.Place, filter.RuleField, `a label is labels.key, or labels."key" where the key has a hyphen`)
	case field == users.FieldLabel:
		label = path[1]
	}
	f, err := c.compare(users.Compare{Field: field, Label: label, Op: opOf(n.Op)}, n.Value.Place, value)
	if err != nil || n.Op != filter.NotEqual {
		return f, err
	}
	return users.Not{Filter: f}, nil
}

// compare completes a comparison with its value.
func (c converter) compare(f users.Compare, at filter.Place, value string) (users.Filter, error) {
	switch {
	case value == "*" && f.Op == users.Equal:
		return users.Present{Field: f.Field, Label: f.Label}, nil
	case f.Field.IsTime():
		day, err := time.Parse(time.RFC3339Nano, value)
		if err != nil {
			return nil, c.Refuse(at, filter.RuleValue, `is no time by RFC 3339, such as "2026-03-01T09:30:00Z"`)
		}
		if f.Time = day.UTC(); f.Time.Nanosecond()%1000 != 0 {
			return nil, c.Refuse(at, filter.RuleValue, "times are kept to the microsecond")
		}
		return f, nil
	case f.Field == users.FieldState:
		return c.state(f, at, value)
	}
	text, prefix := strings.CutSuffix(value, "*")
	switch {
	case strings.Contains(text, "*"):
		return nil, c.Refuse(at, filter.RuleValue, `a "*" stands at the end, for any end, or alone, for any value`)
	case prefix && f.Op != users.Equal:
		return nil, c.Refuse(at, filter.RuleOperator, `a value with a "*" is compared with =, != or :`)
	case prefix:
		f.Op = users.Prefix
	}
	f.Text = text
	switch f.Field {
	case users.FieldID:
		f.Text = string(users.CanonicalID(text))
	case users.FieldEmail:
		return c.email(f, at, text)
	}
	return f, nil
}

// email completes a comparison of the email, which goes by what is unique about it.
func (c converter) email(f users.Compare, at filter.Place, text string) (users.Filter, error) {
	if f.Op != users.Equal {
		f.Text = users.EmailKeyPrefix(text)
		return f, nil
	}
	email, err := users.ParseEmail("filter", text)
	if err != nil {
		return nil, c.Refuse(at, filter.RuleValue, "is no email")
	}
	f.Text = email.Key
	return f, nil
}

func (c converter) state(f users.Compare, at filter.Place, value string) (users.Filter, error) {
	state := users.State(strings.TrimPrefix(value, "USER_STATE_"))
	switch {
	case f.Op != users.Equal:
		return nil, c.Refuse(at, filter.RuleOperator, "a state is compared with = or !=")
	case !slices.Contains(users.States(), state):
		return nil, c.Refuse(at, filter.RuleValue, "is no state: ACTIVE, DISABLED or DELETED")
	}
	f.Text = string(state)
	return f, nil
}

func (c converter) verified(op filter.Op, at filter.Place, value string) (users.Filter, error) {
	var f users.Filter = users.Verified{}
	negated := op == filter.NotEqual
	switch {
	case op != filter.Equal && !negated:
		return nil, c.Refuse(at, filter.RuleOperator, "verified is compared with = or !=")
	case value != "true" && value != "false":
		return nil, c.Refuse(at, filter.RuleValue, "is neither true nor false")
	}
	if (value == "false") != negated {
		f = users.Not{Filter: f}
	}
	return f, nil
}

// value returns the text on the right of an operator: a string, or words as they stand.
func (c converter) value(o filter.Operand) (string, error) {
	switch {
	case o.Kind == filter.Number:
		return "", c.Refuse(o.Place, filter.RuleValue, "is no value: a number stands in quotes")
	case o.Kind == filter.Group:
		return "", c.Refuse(o.Place, filter.RuleValue, "is no value: a comparison has one value")
	case !utf8.ValidString(o.Text) || strings.ContainsRune(o.Text, 0):
		return "", c.Refuse(o.Place, filter.RuleValue, "has characters that no value has")
	}
	return o.Text, nil
}
