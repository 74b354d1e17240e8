package server

import (
	"context"
	"errors"
	"fmt"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// validator holds messages against the rules of their .proto.
type validator struct{ v protovalidate.Validator }

// newValidator compiles the rules of the request messages, so that no call pays for it and a rule that does not compile
// stops the start.
func newValidator(services []protoreflect.ServiceDescriptor) (*validator, error) {
	var inputs []proto.Message
	for _, s := range services {
		for i := range s.Methods().Len() {
			inputs = append(inputs, dynamicpb.NewMessage(s.Methods().Get(i).Input()))
		}
	}
	v, err := protovalidate.New(protovalidate.WithMessages(inputs...))
	if err != nil {
		return nil, fmt.Errorf("compile validation rules: %w", err)
	}
	for _, m := range inputs {
		var compile *protovalidate.CompilationError
		if err := v.Validate(m); errors.As(err, &compile) {
			return nil, fmt.Errorf("compile the rules of %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
		}
	}
	return &validator{v}, nil
}

// check returns INVALID_REQUEST with a violation for each rule that m breaks.
func (v *validator) check(m proto.Message) error {
	err := v.v.Validate(m)
	if err == nil {
		return nil
	}
	var broken *protovalidate.ValidationError
	if !errors.As(err, &broken) {
		return fmt.Errorf("validate %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	f := errInvalid
	for _, violation := range broken.Violations {
		p := violation.Proto
		f = f.WithViolation(protovalidate.FieldPathString(p.GetField()), p.GetRuleId(), p.GetMessage())
	}
	return f
}

// Validate holds one message against the rules of its .proto, for handlers of streams whose rows fail one by one. Its
// error is the fault that a unary call would have ended with.
func Validate(ctx context.Context, m proto.Message) error {
	c := callFrom(ctx)
	if c == nil {
		return errors.New("server: Validate outside of a call")
	}
	return c.server.validator.check(m)
}
