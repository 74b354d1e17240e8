package filter

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"go.einride.tech/aip/filtering"
	expr "google.golang.org/genproto/googleapis/api/expr/v1alpha1"

	"github.com/concordat-dev/concordat/kit/fault"
)

var errInvalid = fault.New(fault.InvalidArgument, "FILTER_INVALID", "the filter is not valid")

func syntax() Syntax {
	return Syntax{Invalid: errInvalid, Characters: 100, Comparisons: 3, Levels: 2}
}

// What the texts say is the subject here: they are for people.
func TestWhoeverWroteAFilterIsToldWhatIsWrongAndWhere(t *testing.T) {
	for _, row := range []struct{ filter, rule, says string }{
		{"a AND", RuleSyntax, "character 3: there is no condition behind AND"},
		{"a = 1 OR ", RuleSyntax, "character 7: there is no condition behind OR"},
		{"NOT", RuleSyntax, "character 1: there is no condition behind NOT"},
		{"AND a", RuleSyntax, "character 1: AND stands between two conditions, and there is none in front of it"},
		{"a AND OR b", RuleSyntax, "character 7: OR stands between two conditions, and there is none in front of it"},
		{"(a AND)", RuleSyntax, "character 4: there is no condition behind AND"},
		{"(", RuleSyntax, "character 1: the parenthesis that opens here is not closed"},
		{"ü (a = 1", RuleSyntax, "character 3: the parenthesis that opens here is not closed"},
		{")", RuleSyntax, "character 1: there is no open parenthesis that this one closes"},
		{"()", RuleSyntax, "character 2: there is no condition in the parentheses"},
		{`a = "b\*"`, RuleSyntax, `character 5: behind a "\" in quotes stands a quote, another "\" or the code of a character; a "*" cannot be escaped`},
		{`a = "b`, RuleSyntax, "character 5: the quotes that begin here are not closed"},
		{"a = 'b", RuleSyntax, "character 5: the quotes that begin here are not closed"},
		{"a = \xff", RuleSyntax, "character 5: is no text in UTF-8"},
		{"a = \"\xff\"", RuleSyntax, "character 5: is no text in UTF-8"},
		{"a = b and c = d", RuleSyntax, `character 7: "and" is written in capitals: AND`},
		{"a = b Or c = d", RuleSyntax, `character 7: "Or" is written in capitals: OR`},
		{"not a", RuleSyntax, `character 1: "not" is written in capitals: NOT`},
		{"a > 2026-03-01T09:30:00Z", RuleSyntax, "character 5: what has signs in it, such as a time, stands in quotes"},
		{"a > 2026-03-01", RuleSyntax, "character 5: what has signs in it, such as a time, stands in quotes"},
		{"a = 0195f000-0000", RuleSyntax, "character 5: what has signs in it, such as a time, stands in quotes"},
		{"a = x-y", RuleSyntax, "character 5: what has signs in it, such as a time, stands in quotes"},
		{"a.x-y = z", RuleSyntax, "character 1: what has signs in it, such as a time, stands in quotes"},
		{"a =", RuleSyntax, `character 4: there is no value behind "="`},
		{"(a >= )", RuleSyntax, `character 7: there is no value behind ">="`},
		{"a = AND", RuleSyntax, `character 5: there is no value behind "="; AND as a value stands in quotes`},
		{"a = NOT b", RuleSyntax, `character 5: there is no value behind "="; NOT as a value stands in quotes`},
		{"a = NOT(b)", RuleSyntax, `character 5: there is no value behind "="; NOT as a value stands in quotes`},
		{"= b", RuleSyntax, `character 1: there is no field in front of "="`},
		{"a == b", RuleSyntax, `character 4: "=" is one operator too many: there is one between a field and its value`},
		{"a = 1, b = 2", RuleSyntax, "character 6: a comma joins nothing: AND does"},
		{"size(a) = 1", RuleSyntax, "character 5: there are no functions, and a keyword is followed by a space"},
		{"a = 1 AND(b = 2)", RuleSyntax, "character 10: there are no functions, and a keyword is followed by a space"},
		{`"a" = b`, RuleField, "character 1: a comparison begins with a field, which is not in quotes"},
		{"7 = b", RuleField, "character 1: a comparison begins with a field, which is not in quotes"},
		{`"a"`, RuleSyntax, "character 1: a field is compared with a value, and there is only a value"},
		{"a ! b", RuleSyntax, "character 3: cannot be read from here on: a filter is made of comparisons, such as state = ACTIVE, with AND between them, and a value with signs in it stands in quotes"},
		{"a = 99999999999999999999", RuleSyntax, "character 5: cannot be read from here on"},
		{"a b c d", RuleSize, "character 7: more than 3 comparisons"},
		{"a=1 a=2 a=3 a=4", RuleSize, "character 14: more than 3 comparisons"},
		{"(((a)))", RuleSize, "character 3: more than 2 levels"},
		{strings.Repeat("ü", 101), RuleSize, "character 102: more than 100 characters"},
	} {
		t.Run(row.filter, func(t *testing.T) {
			got, err := syntax().Parse(row.filter)
			f, ok := fault.As(err)
			if !ok || !errors.Is(err, errInvalid) || got.Root != nil {
				t.Fatalf("got %#v, %v", got, err)
			}
			v := f.Violations()
			if len(v) != 1 || v[0].Field != "filter" || v[0].Rule != row.rule || !strings.HasPrefix(v[0].Text, row.says) {
				t.Errorf("got %+v, want %s: %s", v, row.rule, row.says)
			}
		})
	}
}

// written returns a tree as a text with every place.
func written(n Node) string {
	many := func(name string, all []Node) string {
		parts := make([]string, len(all))
		for i, part := range all {
			parts[i] = written(part)
		}
		return name + "(" + strings.Join(parts, " ") + ")"
	}
	operand := func(o Operand) string {
		return fmt.Sprintf("%s@%d", [...]string{"", "quoted:", "number:", "group"}[o.Kind]+o.Text, o.Place)
	}
	switch n := n.(type) {
	case And:
		return many("and", n.All)
	case Or:
		return many("or", n.All)
	case Not:
		return "not(" + written(n.Node) + ")"
	case Bare:
		return operand(n.Field)
	case Comparison:
		return "[" + operand(n.Field) + string(n.Op) + operand(n.Value) + "]"
	default:
		return "nothing"
	}
}

func TestAFilterIsReadWithItsPlaces(t *testing.T) {
	for filter, want := range map[string]string{
		"":                           "nothing",
		" \n\t":                      "nothing",
		"a":                          "a@0",
		"  a":                        "a@2",
		"a AND b AND c":              "and(a@0 b@6 c@12)",
		"a b c":                      "and(a@0 b@2 c@4)",
		"a OR b OR c":                "or(a@0 b@5 c@10)",
		"a AND b OR c":               "and(a@0 or(b@6 c@11))",
		"( a ) AND ( b )":            "and(a@2 b@12)",
		"NOT a -b":                   "and(not(a@4) not(b@7))",
		"NOT (a)":                    "not(a@5)",
		"a.b.c=d.e":                  "[a.b.c@0=d.e@6]",
		"a.NOT = 'AND'":              "[a.NOT@0=quoted:AND@8]",
		`a != "b \"\\ \u00e9"`:       `[a@0!=quoted:b "\ é@5]`,
		"a <= -5 b >= 1.50":          "and([a@0<=number:-5@5] [b@8>=number:1.5@13])",
		"a:b":                        "[a@0:quoted:b@2]",
		"a:*":                        "[a@0:quoted:*@2]",
		"a = ada@example.com":        "[a@0=ada@example.com@4]",
		"a = (b = c)":                "[a@0=group@5]",
		"a = (NOT b)":                "[a@0=group@5]",
		`a > "2026-03-01T09:30:00Z"`: "[a@0>quoted:2026-03-01T09:30:00Z@4]",
		"a = and":                    "[a@0=and@4]",
	} {
		t.Run(filter, func(t *testing.T) {
			got, err := syntax().Parse(filter)
			if err != nil || written(got.Root) != want {
				t.Errorf("got %s, %v; want %s", written(got.Root), err, want)
			}
		})
	}
}

func TestAWordHasItsNames(t *testing.T) {
	got, err := syntax().Parse(`a."b-c".d = x`)
	if err != nil {
		t.Fatal(err)
	}
	if path := got.Root.(Comparison).Field.Path; !reflect.DeepEqual(path, []string{"a", "b-c", "d"}) {
		t.Errorf("got %q", path)
	}
}

// hasFunction says whether something in an expression is called by a name that is no operator, or called NOT where a value stands:
// a = NOT(b) is a call to the library, whose tree is that of a = (NOT b).
func hasFunction(e *expr.Expr) bool {
	if s := e.GetSelectExpr(); s != nil {
		return hasFunction(s.GetOperand())
	}
	call := e.GetCallExpr()
	if call == nil {
		return false
	}
	for _, arg := range call.GetArgs() {
		if hasFunction(arg) {
			return true
		}
	}
	switch f := call.GetFunction(); f {
	case filtering.FunctionAnd, filtering.FunctionFuzzyAnd, filtering.FunctionOr:
		return len(call.GetArgs()) != 2
	case filtering.FunctionNot:
		return len(call.GetArgs()) != 1
	default:
		if !filtering.TokenType(f).IsComparator() {
			return true
		}
		value := call.GetArgs()[len(call.GetArgs())-1]
		return value.GetCallExpr().GetFunction() == filtering.FunctionNot
	}
}

// hasComma says whether there is a comma outside of quotes, which to the library joins the arguments of a call, such as AND(a,b): its
// tree is that of a AND b.
func hasComma(text string) bool {
	var lexer filtering.Lexer
	lexer.Init(text)
	for {
		token, err := lexer.Lex()
		if err != nil || token.Type == filtering.TokenTypeComma {
			return err == nil
		}
	}
}

// FuzzScan looks for a filter that is refused before it is parsed, although it could have been.
func FuzzScan(f *testing.F) {
	for _, seed := range []string{
		`state = ACTIVE AND labels.plan = "pro"`, `NOT (a OR b:"c*")`, `-a b >= "2026-03-01T09:30:00Z"`, `a:b c:*`, "a AND", "AND(a b)", "OR()", `a.b.c = "\x00"`, "((((",
		"\x00", `x=-1.5`, `0x = .5`, `"a"."b"<c`, "NOT(a)", "a.NOT(b)", "a--b", "a = b-c", "1.2.3", "a.1-b", "a = b and c", "a ! b", "NOT NOT a", "a.AND = OR.b", "a,b", "-(a)", "a=-b",
	} {
		f.Add(seed)
	}
	wide := Syntax{Invalid: errInvalid, Characters: 60, Comparisons: 60, Levels: 60}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > wide.Characters || strings.TrimSpace(text) == "" {
			return
		}
		got, err := wide.Parse(text)
		if (err == nil) != (got.Root != nil) {
			t.Fatalf("got %#v, %v", got, err)
		}
		var p filtering.Parser
		p.Init(text)
		parsed, perr := p.Parse()
		if err == nil || perr != nil || hasFunction(parsed.GetExpr()) || hasComma(text) {
			return
		}
		// Only what the tree cannot have is refused of what the library reads.
		if _, serr := (Filter{syntax: wide, text: text}).scan(); serr != nil {
			t.Fatalf("%q is refused with %v, and could be read", text, serr)
		}
	})
}
