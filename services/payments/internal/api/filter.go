package api

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.einride.tech/aip/filtering"
	expr "google.golang.org/genproto/googleapis/api/expr/v1alpha1"

	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// maxComparisons is how many comparisons a filter has at most. Its length, and with it how deep it can be nested, is
// bounded by the contract.
const maxComparisons = 16

// The rules of a filter.
const (
	ruleFilterSize     = "filter.size"
	ruleFilterSyntax   = "filter.syntax"
	ruleFilterField    = "filter.field"
	ruleFilterOperator = "filter.operator"
	ruleFilterValue    = "filter.value"
)

// parseFilter returns what a filter in the syntax of AIP-160 means: comparisons that all have to be true. It returns
// ErrFilterInvalid.
func parseFilter(text string) ([]payments.Condition, error) {
	trimmed := strings.TrimSpace(text)
	if trimmed == "" {
		return nil, nil
	}
	if !utf8.ValidString(text) {
		return nil, filterError(text, 0, ruleFilterSyntax, "is no text in UTF-8")
	}
	var p filtering.Parser
	p.Init(trimmed)
	parsed, err := p.Parse()
	if err != nil {
		return nil, filterSyntax(text, err)
	}
	c := converter{
		text: text, shift: strings.Index(text, trimmed), positions: parsed.GetSourceInfo().GetPositions(),
	}
	if err := c.conjunction(parsed.GetExpr()); err != nil {
		return nil, err
	}
	return c.all, nil
}

// filterError returns ErrFilterInvalid for what is wrong at a byte of the filter.
func filterError(text string, offset int, rule, what string) error {
	offset = min(max(offset, 0), len(text))
	at := utf8.RuneCountInString(text[:offset]) + 1
	return payments.ErrFilterInvalid.WithViolation("filter", rule, fmt.Sprintf("character %d: %s", at, what))
}

// filterSyntax returns ErrFilterInvalid for an error of the parser: the innermost one says where.
func filterSyntax(text string, err error) error {
	type positioned interface {
		error
		Position() filtering.Position
	}
	offset := 0
	for next := err; next != nil; next = errors.Unwrap(next) {
		if at, ok := next.(positioned); ok {
			offset = int(at.Position().Offset)
		}
	}
	return filterError(text, offset, ruleFilterSyntax,
		`cannot be read from here on: a filter is made of comparisons joined by AND, such as state = "CAPTURED" AND amount_cents >= 500, and times stand in quotes`)
}

// converter makes conditions of what the library has parsed.
type converter struct {
	text      string
	shift     int
	positions map[int64]int32
	all       []payments.Condition
}

func (c *converter) fail(e *expr.Expr, rule, what string) error {
	return filterError(c.text, c.shift+int(c.positions[e.GetId()]), rule, what)
}

// conjunction adds the comparisons of an expression.
func (c *converter) conjunction(e *expr.Expr) error {
	call := e.GetCallExpr()
	switch function := call.GetFunction(); function {
	case filtering.FunctionAnd, filtering.FunctionFuzzyAnd:
		for _, arg := range call.GetArgs() {
			if err := c.conjunction(arg); err != nil {
				return err
			}
		}
		return nil
	case filtering.FunctionOr, filtering.FunctionNot:
		return c.fail(e, ruleFilterOperator, "comparisons are joined by AND alone")
	}
	if op, ok := operators()[call.GetFunction()]; ok && len(call.GetArgs()) == 2 {
		return c.comparison(e, op, call.GetArgs()[0], call.GetArgs()[1])
	}
	return c.fail(e, ruleFilterSyntax, `a field is compared with a value, such as state = "CAPTURED"`)
}

func operators() map[string]payments.Operator {
	return map[string]payments.Operator{
		filtering.FunctionEquals: payments.Equal, filtering.FunctionNotEquals: payments.NotEqual,
		filtering.FunctionLessThan: payments.Less, filtering.FunctionLessEquals: payments.LessOrEqual,
		filtering.FunctionGreaterThan: payments.Greater, filtering.FunctionGreaterEquals: payments.GreaterOrEqual,
	}
}

// states are the states by which payments are filtered.
func states() []payments.State {
	return []payments.State{
		payments.StateProcessing, payments.StateAuthorized, payments.StateCaptured, payments.StatePartiallyRefunded,
		payments.StateRefunded, payments.StateCanceled, payments.StateFailed,
	}
}

func (c *converter) comparison(e *expr.Expr, op payments.Operator, left, right *expr.Expr) error {
	if len(c.all) == maxComparisons {
		return c.fail(e, ruleFilterSize, fmt.Sprintf("more than %d comparisons", maxComparisons))
	}
	condition := payments.Condition{Field: payments.Field(left.GetIdentExpr().GetName()), Operator: op}
	value, err := c.value(right)
	ordered := false
	switch condition.Field {
	case payments.FieldState:
		condition.Value = payments.State(value)
		if err == nil && !slices.Contains(states(), payments.State(value)) {
			err = c.fail(right, ruleFilterValue, fmt.Sprintf("is no state: %v", states()))
		}
	case payments.FieldCurrency:
		condition.Value = payments.Currency(value)
	case payments.FieldOrder:
		condition.Value = payments.OrderID(value)
		if err == nil && strings.ContainsRune(value, 0) {
			err = c.fail(right, ruleFilterValue, "has a NUL in it")
		}
	case payments.FieldAmount:
		ordered = true
		amount, parseErr := strconv.ParseInt(value, 10, 64)
		condition.Value = amount
		if err == nil && parseErr != nil {
			err = c.fail(right, ruleFilterValue, "is no whole number")
		}
	case payments.FieldCreatedAt:
		ordered = true
		at, parseErr := time.Parse(time.RFC3339Nano, value)
		condition.Value = at.UTC()
		if err == nil && (parseErr != nil || at.Year() > 9999 || at.Year() < 1) {
			err = c.fail(right, ruleFilterValue, `is no time by RFC 3339, such as "2026-03-01T09:30:00Z"`)
		}
	default:
		return c.fail(left, ruleFilterField, "is no field of filters: state, currency, order_id, amount_cents, created_at")
	}
	if err != nil {
		return err
	}
	if !ordered && op != payments.Equal && op != payments.NotEqual {
		return c.fail(e, ruleFilterOperator, "is compared with = or != alone")
	}
	c.all = append(c.all, condition)
	return nil
}

// value returns the text of a value, in quotes or not.
func (c *converter) value(e *expr.Expr) (string, error) {
	switch k := e.GetConstExpr().GetConstantKind().(type) {
	case *expr.Constant_StringValue:
		return k.StringValue, nil
	case *expr.Constant_Int64Value:
		return strconv.FormatInt(k.Int64Value, 10), nil
	}
	if name := e.GetIdentExpr().GetName(); name != "" {
		return name, nil
	}
	if call := e.GetCallExpr(); call.GetFunction() == "-" && len(call.GetArgs()) == 1 {
		inner, err := c.value(call.GetArgs()[0])
		return "-" + inner, err
	}
	return "", c.fail(e, ruleFilterValue, "is no value: a text in quotes, or a whole number")
}
