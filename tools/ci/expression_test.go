package ci

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/rhysd/actionlint"
)

// contexts are what expressions of a workflow see: github, runner, steps, inputs.
type contexts map[string]any

var (
	expression     = regexp.MustCompile(`\$\{\{(.*?)\}\}`)
	statusFunction = regexp.MustCompile(`\b(success|failure|cancelled|always)\(\)`)
)

// expand replaces every ${{ expression }} in a text by its value.
func (c contexts) expand(t *testing.T, text string) string {
	t.Helper()
	return expression.ReplaceAllStringFunc(text, func(found string) string {
		value := c.value(t, strings.TrimSpace(expression.FindStringSubmatch(found)[1]), "success")
		if value == nil {
			return ""
		}
		return fmt.Sprint(value)
	})
}

// condition tells whether an `if` holds after what came before ended as status says. Without a function of the status it
// holds only after a success.
func (c contexts) condition(t *testing.T, text, status string) bool {
	t.Helper()
	text = strings.TrimSpace(strings.ReplaceAll(text, "\n", " "))
	if found := expression.FindStringSubmatch(text); found != nil {
		text = strings.TrimSpace(found[1])
	}
	if !statusFunction.MatchString(text) && status != "success" {
		return false
	}
	return text == "" || truth(c.value(t, text, status))
}

// value evaluates an expression.
func (c contexts) value(t *testing.T, text, status string) any {
	t.Helper()
	node, err := actionlint.NewExprParser().Parse(actionlint.NewExprLexer(text + "}}"))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	var of func(actionlint.ExprNode) any
	of = func(node actionlint.ExprNode) any {
		switch n := node.(type) {
		case *actionlint.StringNode:
			return n.Value
		case *actionlint.BoolNode:
			return n.Value
		case *actionlint.NullNode:
			return nil
		case *actionlint.VariableNode:
			if c[n.Name] == nil {
				t.Fatalf("%s: no context %s here", text, n.Name)
			}
			return c[n.Name]
		case *actionlint.ObjectDerefNode:
			object, _ := of(n.Receiver).(map[string]any)
			return object[n.Property]
		case *actionlint.NotOpNode:
			return !truth(of(n.Operand))
		case *actionlint.LogicalOpNode:
			left := of(n.Left)
			if truth(left) == (n.Kind == actionlint.LogicalOpNodeKindOr) {
				return left
			}
			return of(n.Right)
		case *actionlint.CompareOpNode:
			same := strings.EqualFold(fmt.Sprint(of(n.Left)), fmt.Sprint(of(n.Right)))
			switch n.Kind {
			case actionlint.CompareOpNodeKindEq:
				return same
			case actionlint.CompareOpNodeKindNotEq:
				return !same
			}
		case *actionlint.FuncCallNode:
			switch n.Callee {
			case "success":
				return status == "success"
			case "failure":
				return status == "failure"
			case "cancelled":
				return false // a run that is cancelled is not run on here
			case "always":
				return true
			case "format":
				result := fmt.Sprint(of(n.Args[0]))
				for at, arg := range n.Args[1:] {
					result = strings.ReplaceAll(result, fmt.Sprintf("{%d}", at), fmt.Sprint(of(arg)))
				}
				return result
			}
		}
		t.Fatalf("%s: this test cannot evaluate %T", text, node)
		return nil
	}
	return of(node)
}

// truth is how a condition takes a value.
func truth(value any) bool { return value != nil && value != "" && value != false }

func TestExpressionsAreEvaluatedAsGitHubDoes(t *testing.T) {
	c := contexts{"github": map[string]any{"base_ref": "main", "event": map[string]any{"before": "abc"}, "event_name": "push"}}
	for text, want := range map[string]string{
		"${{ github.base_ref && format('origin/{0}', github.base_ref) || github.event.before }}": "origin/main",
		"${{ github.head_ref && 'x' || github.event.before }}":                                   "abc",
		"a ${{ github.nothing.at.all }} b ${{ !cancelled() && github.event_name == 'PUSH' }}":    "a  b true",
		"${{ github.event_name != 'push' }}":                                                     "false",
	} {
		if got := c.expand(t, text); got != want {
			t.Errorf("%s: %q; want %q", text, got, want)
		}
	}
	for _, row := range []struct {
		text, status string
		want         bool
	}{
		{"", "success", true},
		{"", "failure", false},
		{"github.event_name == 'push'", "failure", false},
		{"${{ !cancelled() }}", "failure", true},
		{"${{ failure() }}", "success", false},
	} {
		if got := c.condition(t, row.text, row.status); got != row.want {
			t.Errorf("if: %q after %s: %v; want %v", row.text, row.status, got, row.want)
		}
	}
}
