package fault_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/concordat-dev/concordat/kit/fault"
)

// timeout is like the errors of package net, which say that they are a context error without being one.
type timeout struct{}

func (timeout) Error() string        { return "i/o timeout" }
func (timeout) Is(target error) bool { return target == context.DeadlineExceeded }

func TestWhatAnErrorMeansToACaller(t *testing.T) {
	unknownOutcome := fault.New(fault.Aborted, "OUTCOME_UNKNOWN", "retry with the same key")
	gone := notFound()
	for _, row := range []struct {
		name  string
		err   error
		kind  fault.Kind
		fault *fault.Fault // nil where none decides
	}{
		{"a fault", gone, fault.NotFound, gone},
		{"a wrapped fault", fmt.Errorf("get: %w", gone), fault.NotFound, gone},
		{"an unknown error", errors.New("boom"), fault.Internal, nil},
		{"no error", nil, fault.Internal, nil},
		{"a fault whose kind was forgotten", &fault.Fault{}, fault.Internal, &fault.Fault{}},
		{"a nil fault", (*fault.Fault)(nil), fault.Internal, nil},
		{"a cancelled context", context.Canceled, fault.Canceled, nil},
		{"a wrapped deadline", fmt.Errorf("query: %w", context.DeadlineExceeded), fault.DeadlineExceeded, nil},
		{"an error that says it is a deadline", fmt.Errorf("read: %w", timeout{}), fault.DeadlineExceeded, nil},
		{
			"a fault that knows better than the context error in it",
			fmt.Errorf("commit: %w", unknownOutcome.Because(context.Canceled)), fault.Aborted, unknownOutcome,
		},
		{
			"the outer of two faults",
			unknownOutcome.Because(fmt.Errorf("get: %w", gone)), fault.Aborted, unknownOutcome,
		},
		{"a context error beside a fault", errors.Join(gone, context.Canceled), fault.Canceled, nil},
		{"a fault beside an unknown error", errors.Join(errors.New("close"), gone), fault.NotFound, gone},
		{"the first of two faults beside each other", fmt.Errorf("%w, %w", gone, unknownOutcome), fault.NotFound, gone},
		{
			"a fault in a branch that has a context error as its cause",
			errors.Join(errors.New("close"), unknownOutcome.Because(context.Canceled)), fault.Aborted, unknownOutcome,
		},
		{"unknown errors beside each other", errors.Join(errors.New("a"), errors.New("b")), fault.Internal, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := fault.KindOf(row.err); got != row.kind {
				t.Errorf("KindOf = %v, want %v", got, row.kind)
			}
			f, ok := fault.As(row.err)
			if ok != (row.fault != nil) {
				t.Fatalf("As = %v, %v", f, ok)
			}
			if ok && (f.Kind() != row.fault.Kind() || f.Reason() != row.fault.Reason()) {
				t.Errorf("As found %v, want %v", f, row.fault)
			}
		})
	}
}

func TestEveryKindHasItsOwnName(t *testing.T) {
	seen := make(map[string]fault.Kind)
	for _, k := range fault.Kinds() {
		if other, twice := seen[k.String()]; twice || k.String() == "" {
			t.Errorf("kinds %d and %d are both called %q", other, k, k)
		}
		seen[k.String()] = k
	}
	if len(seen) != 15 || seen["INTERNAL"] != 0 || seen["DATA_LOSS"] != fault.DataLoss {
		t.Errorf("the kinds are %v", seen)
	}
	if got := fault.Kind(200).String(); got != "INTERNAL" {
		t.Errorf("a kind that does not exist is called %q", got)
	}
}
