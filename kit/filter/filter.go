// Package filter reads filters in the syntax of AIP-160 and says of one that cannot be read what is wrong and where, in
// words for the person who wrote it. What the fields are and what they are compared with is the service's to know: it
// walks the tree.
//
// What is promised: a filter larger than its Syntax allows is refused in one pass, before it is parsed; nothing has
// functions; and every refusal has the place, counted in characters from 1.
package filter

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.einride.tech/aip/filtering"
	expr "google.golang.org/genproto/googleapis/api/expr/v1alpha1"

	"github.com/concordat-dev/concordat/kit/fault"
)

// The rules of the violations on the field "filter".
const (
	RuleSize     = "filter.size"     // larger than what is taken
	RuleSyntax   = "filter.syntax"   // not in the syntax of AIP-160
	RuleField    = "filter.field"    // names what is no field
	RuleOperator = "filter.operator" // compares a field as it cannot be compared
	RuleValue    = "filter.value"    // compares a field with what it cannot be
)

// Syntax is what a service takes for a filter.
type Syntax struct {
	// Invalid is what is returned for a filter that is refused, with one violation of "filter".
	Invalid *fault.Fault
	// Characters, Comparisons and Levels (of parentheses) are how many a filter has at most.
	Characters, Comparisons, Levels int
}

// Filter is a filter that was read.
type Filter struct {
	// Root is what must be true; nil, of an empty filter, is true of everything.
	Root Node

	syntax Syntax
	text   string
}

// Place is where something begins, in bytes from 0.
type Place int

// At returns the place.
func (p Place) At() Place { return p }

// Node is what is true or false: And, Or, Not, Comparison or Bare.
type Node interface{ At() Place }

type (
	// And is true where all are; it has two at least.
	And struct {
		Place
		All []Node
	}
	// Or is true where one is; it has two at least.
	Or struct {
		Place
		All []Node
	}
	// Not is true where the other is not.
	Not struct {
		Place
		Node Node
	}
	// Comparison holds a field against a value.
	Comparison struct {
		Place
		Field Operand // a Word
		Op    Op
		Value Operand
	}
	// Bare is a field without an operator.
	Bare struct {
		Place
		Field Operand // a Word
	}
)

// Op is the operator of a comparison, as it is written.
type Op string

// The operators.
const (
	Equal          Op = "="
	NotEqual       Op = "!="
	Less           Op = "<"
	LessOrEqual    Op = "<="
	Greater        Op = ">"
	GreaterOrEqual Op = ">="
	Has            Op = ":"
)

// Operand is what stands on one side of an operator.
type Operand struct {
	Place
	Kind Kind
	Path []string // of a Word: its names, such as labels and plan of labels.plan
	Text string   // of a Word its names with their dots, of a Quoted what is between the quotes, of a Number its digits
}

// Kind is what an operand is.
type Kind int

// The kinds of operands.
const (
	Word   Kind = iota // names, joined by dots
	Quoted             // a text in quotes; and a name behind ":"
	Number             // a number, whole or not, also below zero
	Group              // something in parentheses
)

// Refuse returns the syntax's Invalid with a violation of a rule, which says what is wrong at a place.
func (f Filter) Refuse(at Place, rule, what string) error {
	offset := min(max(int(at), 0), len(f.text))
	character := utf8.RuneCountInString(f.text[:offset]) + 1
	return f.syntax.Invalid.WithViolation("filter", rule, fmt.Sprintf("character %d: %s", character, what))
}

// Parse reads a filter, or returns why it is refused; see Refuse.
//
// The library that parses has no bound of its own on how deep it recurses, and takes what looks like a function for
// one, even if it is named AND; both are refused before it is asked, and so is what people get wrong most, because the
// library says of it what it had expected by the names of its grammar.
func (s Syntax) Parse(text string) (Filter, error) {
	f := Filter{syntax: s, text: text}
	if strings.TrimSpace(text) == "" {
		return f, nil
	}
	readable, err := f.scan()
	if err != nil {
		return Filter{}, err
	}
	var p filtering.Parser
	p.Init(readable)
	parsed, err := p.Parse()
	if err != nil {
		return Filter{}, f.unreadable(err)
	}
	// The parser counts from the first character that is no space.
	trimmed := strings.TrimLeftFunc(text, func(r rune) bool { return strings.TrimSpace(string(r)) == "" })
	b := builder{Filter: f, shift: len(text) - len(trimmed), positions: parsed.GetSourceInfo().GetPositions()}
	if f.Root, err = b.node(parsed.GetExpr()); err != nil {
		return Filter{}, err
	}
	return f, nil
}

// unreadable refuses what the library does not take. Its innermost error says where.
func (f Filter) unreadable(err error) error {
	type positioned interface{ Position() filtering.Position }
	at := Place(0)
	for next := err; next != nil; next = errors.Unwrap(next) {
		if p, ok := next.(positioned); ok {
			at = Place(p.Position().Offset)
		}
	}
	return f.Refuse(at, RuleSyntax, "cannot be read from here on: a filter is made of comparisons, such as state = ACTIVE, "+
		"with AND between them, and a value with signs in it stands in quotes")
}

// builder makes the tree of what the library has parsed.
type builder struct {
	Filter
	shift       int
	positions   map[int64]int32
	comparisons int
}

func (b *builder) place(e *expr.Expr) Place { return Place(b.shift + int(b.positions[e.GetId()])) }

func (b *builder) node(e *expr.Expr) (Node, error) {
	call, at := e.GetCallExpr(), b.place(e)
	if call == nil {
		return b.bare(e)
	}
	args := call.GetArgs()
	switch function := call.GetFunction(); {
	case len(args) == 1 && function == filtering.FunctionNot:
		inner, err := b.node(args[0])
		return Not{at, inner}, err
	case len(args) != 2:
		return nil, b.Refuse(at, RuleSyntax, "there are no functions")
	case function == filtering.FunctionAnd, function == filtering.FunctionFuzzyAnd:
		left, right, err := b.both(args)
		if chain, ok := left.(And); ok { // so that a long chain is no deep tree
			return And{chain.Place, append(chain.All, right)}, err
		}
		return And{at, []Node{left, right}}, err
	case function == filtering.FunctionOr:
		left, right, err := b.both(args)
		if chain, ok := left.(Or); ok {
			return Or{chain.Place, append(chain.All, right)}, err
		}
		return Or{at, []Node{left, right}}, err
	case filtering.TokenType(function).IsComparator():
		return b.comparison(at, Op(function), args[0], args[1])
	default:
		return nil, b.Refuse(at, RuleSyntax, "there are no functions")
	}
}

// both makes two nodes, the left one first.
func (b *builder) both(args []*expr.Expr) (left, right Node, err error) {
	if left, err = b.node(args[0]); err != nil {
		return nil, nil, err
	}
	right, err = b.node(args[1])
	return left, right, err
}

func (b *builder) bare(e *expr.Expr) (Node, error) {
	field := b.operand(e)
	if field.Kind != Word {
		return nil, b.Refuse(field.Place, RuleSyntax, "a field is compared with a value, and there is only a value")
	}
	if keyword := strings.ToUpper(field.Text); filtering.TokenType(keyword).IsKeyword() {
		return nil, b.Refuse(field.Place, RuleSyntax, strconv.Quote(field.Text)+" is written in capitals: "+keyword)
	}
	return Bare{field.Place, field}, b.count(field.Place)
}

func (b *builder) comparison(at Place, op Op, left, right *expr.Expr) (Node, error) {
	c := Comparison{Place: at, Field: b.operand(left), Op: op, Value: b.operand(right)}
	if err := b.count(c.Field.Place); err != nil {
		return nil, err
	}
	if c.Field.Kind != Word {
		return nil, b.Refuse(c.Field.Place, RuleField, "a comparison begins with a field, which is not in quotes")
	}
	return c, nil
}

// count counts what is compared; a bare field is, too.
func (b *builder) count(at Place) error {
	if b.comparisons++; b.comparisons > b.syntax.Comparisons {
		return b.tooMany(at)
	}
	return nil
}

func (f Filter) tooMany(at Place) error {
	return f.Refuse(at, RuleSize, fmt.Sprintf("more than %d comparisons", f.syntax.Comparisons))
}

func (b *builder) operand(e *expr.Expr) Operand {
	o := Operand{Place: b.place(e), Kind: Group}
	switch k := e.GetConstExpr().GetConstantKind().(type) {
	case *expr.Constant_StringValue:
		o.Kind, o.Text = Quoted, k.StringValue
	case *expr.Constant_Int64Value:
		o.Kind, o.Text = Number, strconv.FormatInt(k.Int64Value, 10)
	case *expr.Constant_DoubleValue:
		o.Kind, o.Text = Number, strconv.FormatFloat(k.DoubleValue, 'f', -1, 64)
	default:
		if path := pathOf(e); path != nil {
			o.Kind, o.Path, o.Text = Word, path, strings.Join(path, ".")
		}
	}
	return o
}

// pathOf returns the names of a member, such as labels and plan of labels.plan; nil for what is no member.
func pathOf(e *expr.Expr) []string {
	depth := 1
	for inner := e; inner.GetSelectExpr() != nil; inner = inner.GetSelectExpr().GetOperand() {
		depth++
	}
	path := make([]string, depth)
	for ; depth > 1; depth-- {
		path[depth-1] = e.GetSelectExpr().GetField()
		e = e.GetSelectExpr().GetOperand()
	}
	if e.GetIdentExpr() == nil {
		return nil
	}
	path[0] = e.GetIdentExpr().GetName()
	return path
}
