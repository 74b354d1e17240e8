package rules

import (
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/concordat-dev/concordat/tools/review/schema"
)

// limitNames are the rules that bound one value. They are judged together: `gt = 0` that becomes `gte = 0` is one rule
// less and one more, and refuses less.
var limitNames = []string{"gt", "gte", "lt", "lte"}

// limitOf splits the attribute of a limit into the path of the value's rules, such as `(buf.validate.field).int32`, and
// tells whether it is one.
func limitOf(attr string) (path string, ok bool) {
	at := strings.LastIndexByte(attr, '.')
	return attr[:max(at, 0)], slices.Contains(limitNames, attr[at+1:])
}

// limitsChanged judges the limits below a path. Where one alone was touched, it is named; else all are.
func limitsChanged(change *schema.Change, path string) judgement {
	was, is := change.Before, change.After
	if is == nil {
		is = change.Became
	}
	var touched []schema.AttrChange
	for _, name := range limitNames {
		if a, ok := change.Attr(path + "." + name); ok {
			touched = append(touched, a)
		}
	}
	j := judgement{AttrChange: touched[0], way: unclear}
	if len(touched) > 1 {
		j.AttrChange = schema.AttrChange{Name: path, Old: limitsText(was, path), New: limitsText(is, path)}
	}
	old, oldOK := limitsOf(was, path)
	now, nowOK := limitsOf(is, path)
	if oldOK && nowOK {
		j.way = old.become(now, path[strings.LastIndexByte(path, '.')+1:])
	}
	return j
}

func limitsText(e *schema.Element, path string) string {
	var said []string
	for _, name := range limitNames {
		if value := e.Attr(path + "." + name); value != "" {
			said = append(said, name+" "+value)
		}
	}
	return strings.Join(said, ", ")
}

// A limit is one end of what is valid.
type limit struct {
	at       *big.Rat
	included bool
}

// limits are both ends; nil where there is none. A low end above the high one leaves out what lies between them, as
// protovalidate has it.
type limits struct{ low, high *limit }

// limitsOf reads the limits below a path; false where one is no number, duration or time.
func limitsOf(e *schema.Element, path string) (limits, bool) {
	var l limits
	for _, name := range limitNames {
		text := e.Attr(path + "." + name)
		if text == "" {
			continue
		}
		at := number(text)
		if at == nil {
			return l, false
		}
		end := &limit{at, strings.HasSuffix(name, "e")}
		if strings.HasPrefix(name, "g") {
			l.low = end
		} else {
			l.high = end
		}
	}
	return l, true
}

// A point is a value, or with a side what lies just below or just above it.
type point struct {
	at   *big.Rat
	side int
}

func (l limits) hold(p point) bool {
	low, high := true, true
	if l.low != nil {
		order := p.at.Cmp(l.low.at)
		low = order > 0 || order == 0 && (p.side > 0 || p.side == 0 && l.low.included)
	}
	if l.high != nil {
		order := p.at.Cmp(l.high.at)
		high = order < 0 || order == 0 && (p.side < 0 || p.side == 0 && l.high.included)
	}
	if l.low != nil && l.high != nil && l.high.at.Cmp(l.low.at) < 0 {
		return low || high
	}
	return low && high
}

// become tells what other limits do to values of a type of protovalidate's. Between two ends that are next to each other
// all values are judged alike, so that it is enough to look at the ends and at what lies beside them.
func (l limits) become(now limits, kind string) way {
	result := same
	for _, end := range []*limit{l.low, l.high, now.low, now.high} {
		if end == nil {
			continue
		}
		for _, p := range beside(end.at, kind) {
			switch was, is := l.hold(p), now.hold(p); {
			case was && !is:
				result |= tightened
			case is && !was:
				result |= loosened
			}
		}
	}
	return result
}

// beside returns a value and its neighbours, as far as the type has them.
func beside(at *big.Rat, kind string) []point {
	if kind == "float" || kind == "double" {
		return []point{{at, -1}, {at, 0}, {at, 1}}
	}
	var points []point
	for _, step := range []int64{-1, 0, 1} {
		if p := new(big.Rat).Add(at, big.NewRat(step, 1)); inRange(p, kind) {
			points = append(points, point{at: p})
		}
	}
	return points
}

// inRange tells whether a type has a value. Durations and times are counted in nanoseconds, and end far away.
func inRange(value *big.Rat, kind string) bool {
	var low, high int64
	bits := uint(0)
	switch kind {
	case "uint32", "fixed32":
		bits = 32
	case "uint64", "fixed64":
		bits = 64
	case "int32", "sint32", "sfixed32":
		low, high = -1<<31, 1<<31-1
	case "int64", "sint64", "sfixed64":
		low, high = -1<<63, 1<<63-1
	default:
		return true
	}
	if bits > 0 {
		return value.Sign() >= 0 && value.Num().Cmp(new(big.Int).Lsh(big.NewInt(1), bits)) < 0
	}
	return value.Cmp(big.NewRat(low, 1)) >= 0 && value.Cmp(big.NewRat(high, 1)) <= 0
}

// number reads a limit exactly: a number, a duration or a time, the last two in nanoseconds; nil where it is none.
func number(text string) *big.Rat {
	if n, ok := new(big.Int).SetString(text, 10); ok {
		return new(big.Rat).SetInt(n)
	}
	if n, err := strconv.ParseFloat(text, 64); err == nil {
		return new(big.Rat).SetFloat64(n) // nil where it is not finite
	}
	if d, err := time.ParseDuration(text); err == nil {
		return new(big.Rat).SetInt64(int64(d))
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		at := new(big.Int).Mul(big.NewInt(t.Unix()), big.NewInt(int64(time.Second)))
		return new(big.Rat).SetInt(at.Add(at, big.NewInt(int64(t.Nanosecond()))))
	}
	return nil
}
