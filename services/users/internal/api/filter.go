package api

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.einride.tech/aip/filtering"
	expr "google.golang.org/genproto/googleapis/api/expr/v1alpha1"

	"github.com/concordat-dev/concordat/services/users/internal/users"
)

// What a filter may cost. A filter that is larger is refused before it is parsed.
const (
	maxFilterChars = 4096
	maxComparisons = 64
	maxLevels      = 16
)

// The rules of a filter.
const (
	ruleFilterSize     = "filter.size"
	ruleFilterSyntax   = "filter.syntax"
	ruleFilterField    = "filter.field"
	ruleFilterOperator = "filter.operator"
	ruleFilterValue    = "filter.value"
)

// parseFilter returns what a filter in the syntax of AIP-160 means, nil where it is empty. It returns ErrFilterInvalid.
//
// The library parses, and the types are ours to check: so an error says what is wrong in the terms of this service and where.
// It has no bound of its own on how deep it recurses, and it takes what looks like a function for one, even if it is named AND; both
// are refused before it is asked.
func parseFilter(text string) (users.Filter, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	readable, err := measure(text)
	if err != nil {
		return nil, err
	}
	var p filtering.Parser
	p.Init(readable)
	parsed, err := p.Parse()
	if err != nil {
		return nil, filterSyntax(text, err)
	}
	// The parser counts from the first character that is no space.
	c := converter{text: text, shift: len(text) - len(strings.TrimLeftFunc(text, isSpace)), positions: parsed.GetSourceInfo().GetPositions()}
	f, err := c.condition(parsed.GetExpr())
	if err != nil {
		return nil, err
	}
	return f, nil
}

// isSpace is what strings.TrimSpace trims.
func isSpace(r rune) bool { return strings.TrimSpace(string(r)) == "" }

// filterError returns ErrFilterInvalid for what is wrong at a byte of the filter.
func filterError(text string, offset int, rule, what string) error {
	offset = min(max(offset, 0), len(text))
	at := utf8.RuneCountInString(text[:offset]) + 1
	return users.ErrFilterInvalid.WithViolation("filter", rule, fmt.Sprintf("character %d: %s", at, what))
}

// measure refuses a filter that is larger than what is taken, in one pass over its tokens, and returns it as the parser can read it: it
// does not know spaces before a closing parenthesis, so they stand behind it. All else stays in its place.
func measure(text string) (string, error) {
	if utf8.RuneCountInString(text) > maxFilterChars {
		return "", filterError(text, len(text), ruleFilterSize, "more than 4096 characters")
	}
	var lexer filtering.Lexer
	lexer.Init(text)
	var readable strings.Builder
	var before filtering.TokenType
	spaces := "" // read and not written yet
	comparisons, level := 0, 0
	for {
		token, err := lexer.Lex()
		if errors.Is(err, io.EOF) {
			return readable.String() + spaces, nil
		}
		if err != nil {
			return "", filterSyntax(text, err)
		}
		at := int(token.Position.Offset)
		switch t := token.Type; {
		case t.IsComparator():
			comparisons++
		case t == filtering.TokenTypeLeftParen:
			level++
			if before == filtering.TokenTypeText || before == filtering.TokenTypeAnd || before == filtering.TokenTypeOr {
				return "", filterError(text, at, ruleFilterSyntax, "there are no functions, and a keyword is followed by a space")
			}
		case t == filtering.TokenTypeRightParen:
			level--
		}
		switch before = token.Type; before {
		case filtering.TokenTypeWhitespace:
			spaces += token.Value
		case filtering.TokenTypeRightParen:
			readable.WriteString(token.Value)
		default:
			readable.WriteString(spaces + token.Value)
			spaces = ""
		}
		if comparisons > maxComparisons {
			return "", filterError(text, at, ruleFilterSize, "more than 64 comparisons")
		}
		if level > maxLevels {
			return "", filterError(text, at, ruleFilterSize, "more than 16 levels")
		}
	}
}

// filterSyntax returns ErrFilterInvalid for an error of the lexer or the parser: the innermost one says what and where.
func filterSyntax(text string, err error) error {
	type positioned interface {
		error
		Position() filtering.Position
		Message() string
	}
	var inner positioned
	for next := err; errors.As(next, &inner); next = errors.Unwrap(inner) {
		if errors.Unwrap(inner) == nil {
			break
		}
	}
	if inner == nil {
		return filterError(text, 0, ruleFilterSyntax, "cannot be read")
	}
	return filterError(text, int(inner.Position().Offset), ruleFilterSyntax, "cannot be read: "+inner.Message())
}

// converter makes a filter of the domain from what the library has parsed.
type converter struct {
	text        string
	shift       int
	positions   map[int64]int32
	comparisons int
}

func (c *converter) fail(e *expr.Expr, rule, what string) error {
	return filterError(c.text, c.shift+int(c.positions[e.GetId()]), rule, what)
}

// condition converts what is true or false.
func (c *converter) condition(e *expr.Expr) (users.Filter, error) {
	call := e.GetCallExpr()
	if call == nil {
		return c.bare(e)
	}
	args := call.GetArgs()
	op, compares := operators()[call.GetFunction()]
	switch function := call.GetFunction(); {
	case len(args) == 1 && function == filtering.FunctionNot:
		f, err := c.condition(args[0])
		return users.Not{Filter: f}, err
	case len(args) != 2:
		return nil, c.fail(e, ruleFilterSyntax, "there are no functions")
	case function == filtering.FunctionAnd, function == filtering.FunctionFuzzyAnd:
		left, right, err := c.both(args)
		if chain, ok := left.(users.And); ok { // so that a long chain is no deep tree
			return append(chain, right), err
		}
		return users.And{left, right}, err
	case function == filtering.FunctionOr:
		left, right, err := c.both(args)
		if chain, ok := left.(users.Or); ok {
			return append(chain, right), err
		}
		return users.Or{left, right}, err
	case compares:
		return c.comparison(function, op, args[0], args[1])
	default:
		return nil, c.fail(e, ruleFilterSyntax, "there are no functions")
	}
}

// operators returns what the operators compare; != is the contrary of =.
func operators() map[string]users.Op {
	return map[string]users.Op{
		filtering.FunctionEquals: users.Equal, filtering.FunctionNotEquals: users.Equal, filtering.FunctionHas: users.Equal,
		filtering.FunctionLessThan: users.Less, filtering.FunctionLessEquals: users.LessOrEqual,
		filtering.FunctionGreaterThan: users.Greater, filtering.FunctionGreaterEquals: users.GreaterOrEqual,
	}
}

// both converts two conditions.
func (c *converter) both(args []*expr.Expr) (left, right users.Filter, err error) {
	if left, err = c.condition(args[0]); err != nil {
		return nil, nil, err
	}
	right, err = c.condition(args[1])
	return left, right, err
}

// bare converts a condition without an operator.
func (c *converter) bare(e *expr.Expr) (users.Filter, error) {
	if path, _ := pathOf(e); len(path) == 1 && path[0] == fieldVerified {
		return users.Verified{}, c.count(e)
	}
	return nil, c.fail(e, ruleFilterSyntax, `a field is compared with a value, such as state = ACTIVE`)
}

func (c *converter) count(e *expr.Expr) error {
	if c.comparisons++; c.comparisons > maxComparisons {
		return c.fail(e, ruleFilterSize, "more than 64 comparisons")
	}
	return nil
}

// pathOf returns the names of a member, such as labels and plan of labels.plan; nothing for what is no member.
func pathOf(e *expr.Expr) ([]string, bool) {
	var path []string
	for e.GetSelectExpr() != nil {
		path = append(path, e.GetSelectExpr().GetField())
		e = e.GetSelectExpr().GetOperand()
	}
	if e.GetIdentExpr() == nil {
		return nil, false
	}
	path = append(path, e.GetIdentExpr().GetName())
	slices.Reverse(path)
	return path, true
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
func (c *converter) comparison(function string, op users.Op, left, right *expr.Expr) (users.Filter, error) {
	if err := c.count(left); err != nil {
		return nil, err
	}
	path, ok := pathOf(left)
	if !ok {
		return nil, c.fail(left, ruleFilterField, "a comparison begins with a field")
	}
	value, err := c.value(right)
	if err != nil {
		return nil, err
	}
	if len(path) == 1 && path[0] == fieldVerified {
		return c.verified(function, right, value)
	}
	field, ok := fieldOf(path[0])
	if !ok {
		return nil, c.fail(left, ruleFilterField, strconv.Quote(path[0])+" is no field of filters")
	}
	label := ""
	switch {
	case field != users.FieldLabel && len(path) > 1:
		return nil, c.fail(left, ruleFilterField, strconv.Quote(path[0])+" has no fields of its own")
	case field == users.FieldLabel && len(path) == 1 && function == filtering.FunctionHas:
		if !labelKey.MatchString(value) {
			return nil, c.fail(right, ruleFilterValue, "is no key of a label")
		}
		return users.Present{Field: field, Label: value}, nil
	case field == users.FieldLabel && (len(path) != 2 || !labelKey.MatchString(path[1])):
		return nil, c.fail(left, ruleFilterField, `a label is labels.key, or labels."key" where the key has a hyphen`)
	case field == users.FieldLabel:
		label = path[1]
	}
	f, err := c.compare(users.Compare{Field: field, Label: label, Op: op}, right, value)
	if err != nil || function != filtering.FunctionNotEquals {
		return f, err
	}
	return users.Not{Filter: f}, nil
}

// compare completes a comparison with its value.
func (c *converter) compare(f users.Compare, e *expr.Expr, value string) (users.Filter, error) {
	switch {
	case value == "*" && f.Op == users.Equal:
		return users.Present{Field: f.Field, Label: f.Label}, nil
	case f.Field.IsTime():
		at, err := time.Parse(time.RFC3339Nano, value)
		if err != nil {
			return nil, c.fail(e, ruleFilterValue, `is no time by RFC 3339, such as "2026-03-01T09:30:00Z"`)
		}
		if f.Time = at.UTC(); f.Time.Nanosecond()%1000 != 0 {
			return nil, c.fail(e, ruleFilterValue, "times are kept to the microsecond")
		}
		return f, nil
	case f.Field == users.FieldState:
		return c.state(f, e, value)
	}
	text, prefix := strings.CutSuffix(value, "*")
	switch {
	case strings.Contains(text, "*"):
		return nil, c.fail(e, ruleFilterValue, `a "*" stands at the end, for any end, or alone, for any value`)
	case prefix && f.Op != users.Equal:
		return nil, c.fail(e, ruleFilterOperator, `a value with a "*" is compared with =, != or :`)
	case prefix:
		f.Op = users.Prefix
	}
	f.Text = text
	switch f.Field {
	case users.FieldID:
		f.Text = string(users.CanonicalID(text))
	case users.FieldEmail:
		return c.email(f, e, text)
	}
	return f, nil
}

// email completes a comparison of the email, which goes by what is unique about it.
func (c *converter) email(f users.Compare, e *expr.Expr, text string) (users.Filter, error) {
	if f.Op != users.Equal {
		f.Text = users.EmailKeyPrefix(text)
		return f, nil
	}
	email, err := users.ParseEmail("filter", text)
	if err != nil {
		return nil, c.fail(e, ruleFilterValue, "is no email")
	}
	f.Text = email.Key
	return f, nil
}

func (c *converter) state(f users.Compare, e *expr.Expr, value string) (users.Filter, error) {
	state := users.State(strings.TrimPrefix(value, "USER_STATE_"))
	switch {
	case f.Op != users.Equal:
		return nil, c.fail(e, ruleFilterOperator, "a state is compared with = or !=")
	case !slices.Contains(users.States(), state):
		return nil, c.fail(e, ruleFilterValue, "is no state: ACTIVE, DISABLED or DELETED")
	}
	f.Text = string(state)
	return f, nil
}

func (c *converter) verified(function string, e *expr.Expr, value string) (users.Filter, error) {
	var f users.Filter = users.Verified{}
	negated := function == filtering.FunctionNotEquals
	switch {
	case function != filtering.FunctionEquals && !negated:
		return nil, c.fail(e, ruleFilterOperator, "verified is compared with = or !=")
	case value != "true" && value != "false":
		return nil, c.fail(e, ruleFilterValue, "is neither true nor false")
	}
	if (value == "false") != negated {
		f = users.Not{Filter: f}
	}
	return f, nil
}

// value returns the text on the right of an operator: a string, or words as they stand.
func (c *converter) value(e *expr.Expr) (string, error) {
	text := ""
	switch path, ok := pathOf(e); {
	case ok:
		text = strings.Join(path, ".")
	default:
		constant, ok := e.GetConstExpr().GetConstantKind().(*expr.Constant_StringValue)
		if !ok {
			return "", c.fail(e, ruleFilterValue, "is no value: numbers, dates and whatever has signs in it stand in quotes")
		}
		text = constant.StringValue
	}
	if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		return "", c.fail(e, ruleFilterValue, "has characters that no value has")
	}
	return text, nil
}
