package fault

import (
	"context"
)

// As returns the fault that decides what err means to a caller, as KindOf finds it. It returns false when err
// holds none, or when a context error decides.
func As(err error) (*Fault, bool) {
	f, _ := find(err)
	return f, f != nil
}

// KindOf returns what err means to a caller. It walks err from the outside in, and the first that it meets
// decides:
//
//   - A Fault counts by its kind, even where its cause is a context error. Whoever wrapped it saw the context end and knows
//     better: a commit that was cancelled has an unknown outcome and must not look like a call that was merely cancelled.
//   - context.Canceled and context.DeadlineExceeded, or an error that says it is one of them, count as Canceled and DeadlineExceeded.
//   - Where several errors are joined, a branch that ends in a context error comes before one that ends in a Fault: a
//     fault that appears beside the end of the call is mostly its consequence.
//
// All else is Internal. KindOf(nil) is Internal too: ask only about an error.
func KindOf(err error) Kind {
	f, kind := find(err)
	if f != nil {
		return f.kind
	}
	return kind
}

// find returns the fault that decides, or nil with the kind that a context error gives, or nil with Internal.
func find(err error) (*Fault, Kind) {
	for err != nil {
		if f, ok := err.(*Fault); ok {
			if f == nil {
				return nil, Internal
			}
			return f, f.kind
		}
		if kind, ok := contextKind(err); ok {
			return nil, kind
		}
		switch w := err.(type) {
		case interface{ Unwrap() error }:
			err = w.Unwrap()
		case interface{ Unwrap() []error }:
			return findJoined(w.Unwrap())
		default:
			return nil, Internal
		}
	}
	return nil, Internal
}

func findJoined(errs []error) (*Fault, Kind) {
	var first *Fault
	for _, e := range errs {
		f, kind := find(e)
		if f == nil && kind != Internal {
			return nil, kind
		}
		if first == nil {
			first = f
		}
	}
	if first == nil {
		return nil, Internal
	}
	return first, first.kind
}

// contextKind looks at err itself, not at what it wraps.
func contextKind(err error) (Kind, bool) {
	is, _ := err.(interface{ Is(error) bool })
	for _, c := range [...]struct {
		sentinel error
		kind     Kind
	}{
		{context.Canceled, Canceled},
		{context.DeadlineExceeded, DeadlineExceeded},
	} {
		if err == c.sentinel || is != nil && is.Is(c.sentinel) {
			return c.kind, true
		}
	}
	return Internal, false
}

var _ interface {
	error
	Is(error) bool
	Unwrap() error
} = (*Fault)(nil)
