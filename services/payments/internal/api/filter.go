package api

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/concordat-dev/concordat/kit/filter"
	"github.com/concordat-dev/concordat/services/payments/internal/payments"
)

// filterSyntax returns what is taken for a filter. Its length is bounded by the contract too.
func filterSyntax() filter.Syntax {
	return filter.Syntax{Invalid: payments.ErrFilterInvalid, Characters: 1024, Comparisons: 16, Levels: 16}
}

// parseFilter returns what a filter in the syntax of AIP-160 means: comparisons that all have to be true. It returns
// ErrFilterInvalid.
func parseFilter(text string) ([]payments.Condition, error) {
	parsed, err := filterSyntax().Parse(text)
	if err != nil || parsed.Root == nil {
		return nil, err
	}
	c := converter{Filter: parsed}
	if err := c.conjunction(parsed.Root); err != nil {
		return nil, err
	}
	return c.all, nil
}

// converter makes conditions of what was read.
type converter struct {
	filter.Filter
	all []payments.Condition
}

// conjunction adds the comparisons of a node.
func (c *converter) conjunction(n filter.Node) error {
	switch n := n.(type) {
	case filter.And:
		for _, part := range n.All {
			if err := c.conjunction(part); err != nil {
				return err
			}
		}
		return nil
	case filter.Comparison:
		return c.comparison(n)
	case filter.Bare:
		return c.Refuse(n.Place, filter.RuleSyntax, `a field is compared with a value, such as state = "CAPTURED"`)
	default:
		return c.Refuse(n.At(), filter.RuleOperator, "comparisons are joined by AND alone")
	}
}

func operators() map[filter.Op]payments.Operator {
	return map[filter.Op]payments.Operator{
		filter.Equal: payments.Equal, filter.NotEqual: payments.NotEqual, filter.Less: payments.Less,
		filter.LessOrEqual: payments.LessOrEqual, filter.Greater: payments.Greater, filter.GreaterOrEqual: payments.GreaterOrEqual,
	}
}

// states are the states by which payments are filtered.
func states() []payments.State {
	return []payments.State{
		payments.StateProcessing, payments.StateAuthorized, payments.StateCaptured, payments.StatePartiallyRefunded,
		payments.StateRefunded, payments.StateCanceled, payments.StateFailed,
	}
}

func (c *converter) comparison(n filter.Comparison) error {
	condition := payments.Condition{Field: payments.Field(n.Field.Text)}
	ordered := condition.Field == payments.FieldAmount || condition.Field == payments.FieldCreatedAt
	var known bool
	switch condition.Operator, known = operators()[n.Op]; {
	case !slices.Contains(fields(), condition.Field):
		return c.Refuse(n.Field.Place, filter.RuleField, fmt.Sprintf("%q is no field of filters, which are %v", n.Field.Text, fields()))
	case !known:
		return c.Refuse(n.Place, filter.RuleOperator, fmt.Sprintf("%s is not compared with %q", condition.Field, n.Op))
	case !ordered && n.Op != filter.Equal && n.Op != filter.NotEqual:
		return c.Refuse(n.Place, filter.RuleOperator, fmt.Sprintf("%s is compared with = or != alone", condition.Field))
	case n.Value.Kind == filter.Group:
		return c.Refuse(n.Value.Place, filter.RuleValue, "is no value: a text in quotes, or a whole number")
	}
	var wrong string
	if condition.Value, wrong = valueOf(condition.Field, n.Value.Text); wrong != "" {
		return c.Refuse(n.Value.Place, filter.RuleValue, wrong)
	}
	c.all = append(c.all, condition)
	return nil
}

// fields are what payments are filtered by.
func fields() []payments.Field {
	return []payments.Field{payments.FieldState, payments.FieldCurrency, payments.FieldOrder, payments.FieldAmount, payments.FieldCreatedAt}
}

// valueOf returns a text as a value of a field, or what is wrong with it.
func valueOf(field payments.Field, text string) (value any, wrong string) {
	if strings.ContainsRune(text, 0) {
		return nil, "has a NUL in it"
	}
	switch field {
	case payments.FieldState:
		if !slices.Contains(states(), payments.State(text)) {
			return nil, fmt.Sprintf("is no state: %v", states())
		}
		return payments.State(text), ""
	case payments.FieldCurrency:
		return payments.Currency(text), ""
	case payments.FieldAmount:
		amount, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, "is no whole number"
		}
		return amount, ""
	case payments.FieldCreatedAt:
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil || at.Year() > 9999 || at.Year() < 1 {
			return nil, `is no time by RFC 3339, such as "2026-03-01T09:30:00Z"`
		}
		return at.UTC(), ""
	default:
		return payments.OrderID(text), ""
	}
}
