package filter

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"go.einride.tech/aip/filtering"
)

// scanner goes over the tokens of a filter once. What it refuses the library would not read either, or not within a
// bound.
type scanner struct {
	Filter
	readable strings.Builder
	spaces   string // read and not written yet

	last        filtering.Token // the last token that is no space; none at the beginning
	apart       bool            // whether there is space behind it
	operand     Place           // where the operand begins that the last token belongs to, -1 if it belongs to none
	open        []Place         // the parentheses that are not closed
	comparisons int
}

// scan refuses a filter that is larger than what is taken, or wrong in a way that can be told better here, and returns
// it as the parser can read it: it does not know spaces before a closing parenthesis, so they stand behind it. All else
// stays in its place.
func (f Filter) scan() (string, error) {
	if utf8.RuneCountInString(f.text) > f.syntax.Characters {
		return "", f.Refuse(Place(len(f.text)), RuleSize, fmt.Sprintf("more than %d characters", f.syntax.Characters))
	}
	var lexer filtering.Lexer
	lexer.Init(f.text)
	s := scanner{Filter: f, operand: -1}
	for {
		at := Place(lexer.Position().Offset)
		token, err := lexer.Lex()
		switch {
		case errors.Is(err, io.EOF):
			return s.readable.String() + s.spaces, s.end()
		case err != nil && strings.ContainsAny(f.text[at:min(int(at)+1, len(f.text))], `"'`) && utf8.ValidString(f.text):
			return "", f.Refuse(at, RuleSyntax, "the quotes that begin here are not closed")
		case err != nil:
			return "", f.Refuse(at, RuleSyntax, "is no text in UTF-8")
		case token.Type == filtering.TokenTypeWhitespace:
			s.apart = true
			s.spaces += token.Value
			continue
		case s.last.Type == filtering.TokenTypeDot && token.Type.IsKeyword():
			token.Type = filtering.TokenTypeText // a name, such as that of labels.NOT
		}
		if err := s.token(token); err != nil {
			return "", err
		}
		if token.Type != filtering.TokenTypeRightParen {
			s.readable.WriteString(s.spaces)
			s.spaces = ""
		}
		s.readable.WriteString(token.Value)
		s.last, s.apart = token, false
	}
}

// token looks at one token that is no space.
func (s *scanner) token(t filtering.Token) error {
	at := Place(t.Position.Offset)
	switch {
	case t.Type.IsComparator():
		return s.comparator(at, t)
	case t.Type == filtering.TokenTypeLeftParen:
		return s.leftParen(at)
	case t.Type == filtering.TokenTypeRightParen:
		return s.rightParen(at)
	case t.Type == filtering.TokenTypeAnd || t.Type == filtering.TokenTypeOr:
		if err := s.keyword(at, t); err != nil {
			return err
		}
	case t.Type == filtering.TokenTypeNot && s.last.Type.IsComparator():
		return s.keyword(at, t)
	case t.Type == filtering.TokenTypeComma:
		return s.Refuse(at, RuleSyntax, "a comma joins nothing: AND does")
	case t.Type == filtering.TokenTypeString:
		if _, err := t.Unquote(); err != nil {
			return s.Refuse(at, RuleSyntax, `behind a "\" in quotes stands a quote, another "\" or the code of a character; a "*" cannot be escaped`)
		}
		fallthrough
	default:
		return s.part(at, t)
	}
	s.operand = -1
	return nil
}

// part looks at a token of a field or a value. One that has signs in it falls into several tokens without space between
// them.
func (s *scanner) part(at Place, t filtering.Token) error {
	if s.operand < 0 || s.apart {
		if s.operand = at; t.Type == filtering.TokenTypeNot || t.Type == filtering.TokenTypeMinus && !s.last.Type.IsComparator() {
			s.operand = -1
		}
		return nil
	}
	number := isNumber(s.last.Type)
	switch {
	case s.last.Type == filtering.TokenTypeMinus && isNumber(t.Type), t.Type == filtering.TokenTypeDot, s.last.Type == filtering.TokenTypeDot:
		return nil
	case t.Type == filtering.TokenTypeMinus, number:
		return s.Refuse(s.operand, RuleSyntax, "what has signs in it, such as a time, stands in quotes")
	}
	return nil
}

func isNumber(t filtering.TokenType) bool {
	return t == filtering.TokenTypeNumber || t == filtering.TokenTypeHexNumber
}

func (s *scanner) comparator(at Place, t filtering.Token) error {
	switch {
	case s.comparisons >= s.syntax.Comparisons:
		return s.tooMany(at)
	case s.last.Type.IsComparator():
		return s.Refuse(at, RuleSyntax, fmt.Sprintf("%q is one operator too many: there is one between a field and its value", t.Value))
	case s.wantsCondition():
		return s.Refuse(at, RuleSyntax, fmt.Sprintf("there is no field in front of %q", t.Value))
	}
	s.comparisons++
	s.operand = -1
	return nil
}

// wantsCondition says whether a condition begins with what comes next.
func (s *scanner) wantsCondition() bool {
	switch s.last.Type {
	case "", filtering.TokenTypeLeftParen, filtering.TokenTypeAnd, filtering.TokenTypeOr, filtering.TokenTypeNot:
		return true
	default:
		return false
	}
}

// keyword refuses one that does not stand between two conditions.
func (s *scanner) keyword(at Place, t filtering.Token) error {
	switch {
	case s.last.Type.IsComparator():
		return s.Refuse(at, RuleSyntax, fmt.Sprintf("there is no value behind %q; %s as a value stands in quotes", s.last.Value, t.Value))
	case s.wantsCondition():
		return s.Refuse(at, RuleSyntax, t.Value+" stands between two conditions, and there is none in front of it")
	}
	return nil
}

func (s *scanner) leftParen(at Place) error {
	switch s.last.Type {
	case filtering.TokenTypeText, filtering.TokenTypeAnd, filtering.TokenTypeOr:
		if !s.apart {
			return s.Refuse(at, RuleSyntax, "there are no functions, and a keyword is followed by a space")
		}
	}
	if s.open = append(s.open, at); len(s.open) > s.syntax.Levels {
		return s.Refuse(at, RuleSize, fmt.Sprintf("more than %d levels", s.syntax.Levels))
	}
	s.operand = -1
	return nil
}

func (s *scanner) rightParen(at Place) error {
	if len(s.open) == 0 {
		return s.Refuse(at, RuleSyntax, "there is no open parenthesis that this one closes")
	}
	if err := s.unfinished(at); err != nil {
		return err
	}
	s.open = s.open[:len(s.open)-1]
	s.operand = -1
	return nil
}

// end refuses a filter that ends in the middle of something.
func (s *scanner) end() error {
	if s.last.Type != filtering.TokenTypeLeftParen {
		if err := s.unfinished(Place(len(s.text))); err != nil {
			return err
		}
	}
	if n := len(s.open); n > 0 {
		return s.Refuse(s.open[n-1], RuleSyntax, "the parenthesis that opens here is not closed")
	}
	return nil
}

// unfinished refuses a condition that ends at a place and lacks something.
func (s *scanner) unfinished(at Place) error {
	switch {
	case s.last.Type.IsComparator():
		return s.Refuse(at, RuleSyntax, fmt.Sprintf("there is no value behind %q", s.last.Value))
	case s.last.Type.IsKeyword():
		return s.Refuse(Place(s.last.Position.Offset), RuleSyntax, "there is no condition behind "+s.last.Value)
	case s.last.Type == filtering.TokenTypeLeftParen:
		return s.Refuse(at, RuleSyntax, "there is no condition in the parentheses")
	}
	return nil
}
