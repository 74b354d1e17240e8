package settings

import (
	"fmt"
	"reflect"
)

// Validator is a configuration struct that checks what its settings mean together. Parse calls it after all
// values are read, on the configuration and on every struct that is embedded in it at any depth. It needs a
// pointer receiver, because a problem points at a field.
type Validator interface {
	// Validate returns all problems; none means that the settings are right.
	Validate() []Problem
}

// Problem is one setting that is wrong. Make it with Wrong.
type Problem struct {
	field any
	text  string
}

// Text returns what is wrong, without the names of the setting.
func (p Problem) Text() string { return p.text }

// Wrong returns the problem of the setting that field points at, a field of the configuration. The text says
// what is wrong, on one line. It must not hold the value of a secret; as a last defence Parse cuts such a value
// out where it finds it whole.
//
//	settings.Wrong(&c.Workers, "%d is more than the %d connections of the pool", c.Workers, c.Connections)
func Wrong(field any, format string, args ...any) Problem {
	return Problem{field: field, text: fmt.Sprintf(format, args...)}
}

// Required returns a problem for each of the settings that is empty. Each field points at a setting that is a string.
func Required(fields ...any) []Problem {
	var problems []Problem
	for _, f := range fields {
		if v := reflect.ValueOf(f).Elem(); v.Kind() == reflect.String && v.Len() == 0 {
			problems = append(problems, Wrong(f, "must not be empty"))
		}
	}
	return problems
}

// validate asks cfg and all that is embedded in it. It returns an error where a Validate points at no setting.
func (r *reading) validate(cfg any) error {
	all, err := validators(reflect.ValueOf(cfg).Elem())
	if err != nil {
		return err
	}
	for _, v := range all {
		for _, p := range v.Validate() {
			s := r.pointedAt(p.field)
			if s == nil {
				return fmt.Errorf("a problem of %T points at no setting: its Validate needs a pointer receiver", v)
			}
			if r.wrong[s] {
				continue // its value was not read
			}
			// A struct that embeds another anonymously promotes its Validate, which then answers twice; report
			// takes each line once.
			r.report("%v: %s", s, p.text)
		}
	}
	return nil
}

// validators returns all Validators in the struct v, the inner ones first.
func validators(v reflect.Value) ([]Validator, error) {
	var all []Validator
	for i := range v.NumField() {
		f := v.Type().Field(i)
		_, embedded := f.Tag.Lookup("embed")
		if f.Tag.Get("kong") == "-" || !f.Anonymous && !embedded {
			continue
		}
		inner := v.Field(i)
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if inner.Kind() != reflect.Struct {
			continue
		}
		if !f.IsExported() {
			if reflect.PointerTo(inner.Type()).Implements(reflect.TypeFor[Validator]()) {
				return nil, fmt.Errorf("%v embeds %v, whose Validate cannot be called because its name is not exported", v.Type(), inner.Type())
			}
			continue
		}
		nested, err := validators(inner)
		if err != nil {
			return nil, err
		}
		all = append(all, nested...)
	}
	if own, ok := v.Addr().Interface().(Validator); ok {
		all = append(all, own)
	}
	return all, nil
}

// pointedAt returns the setting whose field the pointer is, or nil.
func (r *reading) pointedAt(field any) *setting {
	p := reflect.ValueOf(field)
	if p.Kind() != reflect.Pointer {
		return nil
	}
	for _, s := range r.model.settings {
		t := s.flag.Target
		if t.Addr().Pointer() == p.Pointer() && t.Type() == p.Type().Elem() {
			return s
		}
	}
	return nil
}
