package settings

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
)

// reading is one call of Parse. kong stops at the first problem, so each argument and each variable is first
// tried alone; what is right then goes through kong together.
type reading struct {
	*model
	args     []string // the arguments that are right
	given    map[*setting]bool
	wrong    map[*setting]bool
	secrets  []string // raw values that must not be printed
	problems []string
}

// shortestSecret is the length in bytes from which a value is looked for in the text of a problem.
const shortestSecret = 4

// report adds a problem, once: one line, without the values of secrets.
func (r *reading) report(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	for _, s := range r.secrets {
		if len(s) < shortestSecret {
			continue // it would cut the names to pieces
		}
		line = strings.ReplaceAll(line, s, hidden)
		if quoted := strconv.Quote(s); len(quoted) > 2 {
			line = strings.ReplaceAll(line, quoted[1:len(quoted)-1], hidden)
		}
	}
	line = strings.Join(strings.FieldsFunc(line, func(c rune) bool { return c == '\n' || c == '\r' }), " ")
	if !slices.Contains(r.problems, line) {
		r.problems = append(r.problems, line)
	}
}

// reject reports that kong could not read the value of s.
func (r *reading) reject(s *setting, err error) {
	r.wrong[s] = true
	if s.secret {
		// The text of the error may hold any part of the value.
		r.report("%v: the value cannot be used; it is not shown because it is secret", s)
		return
	}
	r.report("%v: %s", s, strings.TrimPrefix(err.Error(), "--"+s.flag.Name+": "))
}

// readArgs tries each flag of args with its value, and what is neither.
func (r *reading) readArgs(args []string) {
	for _, group := range r.groups(args) {
		s := r.flagOf(group[0])
		if s != nil {
			r.given[s] = true
			r.keepSecret(s, group)
		}
		ctx, err := kong.Trace(r.kong, group)
		if err == nil {
			err = ctx.Error
		}
		if err == nil && s != nil {
			err = check(s, reflect.ValueOf(ctx.FlagValue(s.flag)))
		}
		switch {
		case err != nil && s != nil:
			r.reject(s, err)
		case err != nil:
			r.report("%s", err)
		default:
			r.args = append(r.args, group...)
		}
	}
}

// groups cuts args so that every flag stands with its value, and what belongs to no flag by itself. A number below
// zero, which looks like a flag, is the value of the flag before it. What follows a secret stays with it, because it
// may be a part of it.
func (r *reading) groups(args []string) (groups [][]string) {
	room := false // for what follows in the last group
	for i, a := range args {
		var before *setting
		if room {
			before = r.flagOf(groups[len(groups)-1][0])
		}
		switch {
		case a == "--":
			return append(groups, args[i:])
		case before != nil && before.takesNext(groups[len(groups)-1]) && belowZero(a) && strings.HasPrefix(groups[len(groups)-1][0], "--"):
			groups[len(groups)-1] = []string{groups[len(groups)-1][0] + "=" + a}
			room = before.secret
		case len(a) > 1 && a[0] == '-' || !room:
			groups = append(groups, []string{a})
			s := r.flagOf(a)
			room = strings.HasPrefix(a, "-") && (s == nil || s.secret || s.takesNext(groups[len(groups)-1]))
		default:
			groups[len(groups)-1] = append(groups[len(groups)-1], a)
			room = before == nil || before.secret
		}
	}
	return groups
}

// takesNext says whether the value of the flag is the argument behind it.
func (s *setting) takesNext(group []string) bool {
	return len(group) == 1 && !strings.Contains(group[0], "=") && !s.flag.IsBool() && !s.flag.IsCounter()
}

// belowZero says whether an argument looks like a number, or a duration, below zero.
func belowZero(arg string) bool {
	return len(arg) > 1 && arg[0] == '-' && (arg[1] >= '0' && arg[1] <= '9' || arg[1] == '.')
}

// flagOf returns the setting that an argument such as "--listen" or "--listen=:80" names, or nil.
func (r *reading) flagOf(arg string) *setting {
	name, _, _ := strings.Cut(arg, "=")
	for _, s := range r.settings {
		f := s.flag
		if name == "--"+f.Name || f.Short != 0 && strings.HasPrefix(arg, "-"+string(f.Short)) {
			return s
		}
		if slices.Contains(f.Aliases, strings.TrimPrefix(name, "--")) {
			return s
		}
		if f.Tag.Negatable != "" && (name == "--no-"+f.Name || name == "--"+f.Tag.Negatable) {
			return s
		}
	}
	return nil
}

// keepSecret remembers what must not be printed of a group of arguments.
func (r *reading) keepSecret(s *setting, group []string) {
	if !s.secret {
		return
	}
	if _, value, found := strings.Cut(group[0], "="); found && value != "" {
		r.secrets = append(r.secrets, value)
	}
	for _, value := range group[1:] {
		if value != "" {
			r.secrets = append(r.secrets, value)
		}
	}
}

// readEnviron tries the variable of each setting that no argument sets, and reports variables that are nobody's.
func (r *reading) readEnviron(environ []string) {
	unknown := make(map[string]bool)
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, envPrefix) || value == "" || isServiceLink(name, value) {
			continue
		}
		s := r.byEnv[name]
		if s == nil {
			if !r.isForeign(name) {
				unknown[name] = true
			}
			continue
		}
		if _, twice := r.environ[name]; twice || r.given[s] {
			continue
		}
		if s.secret {
			r.secrets = append(r.secrets, value)
		}
		r.environ[name] = value
	}
	for _, s := range r.settings {
		raw, ok := r.environ[s.env]
		if !ok {
			continue
		}
		r.given[s] = true
		if err := try(s, raw); err != nil {
			delete(r.environ, s.env)
			r.reject(s, err)
		}
	}
	names := make([]string, 0, len(unknown))
	for name := range unknown {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		r.report("%s: no such setting%s", name, r.nearest(name))
	}
}

// try reads raw as the value of s without setting it.
func try(s *setting, raw string) error {
	target := reflect.New(s.flag.Target.Type()).Elem()
	token := kong.Token{Type: kong.FlagValueToken, Value: raw}
	if err := s.flag.Parse(kong.ScanFromTokens(token), target); err != nil {
		return err
	}
	return check(s, target)
}

// check asks what kong asks only of the first wrong value: is it one of the choices, and does its type accept it.
func check(s *setting, v reflect.Value) error {
	if s.flag.Enum != "" {
		if err := checkEnum(s.flag.EnumSlice(), v); err != nil {
			return err
		}
	}
	if own, ok := v.Interface().(interface{ Validate() error }); ok && (v.Kind() != reflect.Pointer || !v.IsNil()) {
		return own.Validate()
	}
	return nil
}

func checkEnum(choices []string, v reflect.Value) error {
	switch v.Kind() {
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if err := checkEnum(choices, v.Index(i)); err != nil {
				return err
			}
		}
		return nil
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return checkEnum(choices, v.Elem())
	}
	if got := fmt.Sprint(v.Interface()); !slices.Contains(choices, got) {
		return fmt.Errorf("%q is not one of %s", got, strings.Join(choices, ", "))
	}
	return nil
}

// findMissing reports every required setting that is not given, which kong then need not do.
func (r *reading) findMissing() {
	for _, s := range r.settings {
		if s.flag.Required && !s.flag.HasDefault && !r.given[s] {
			r.wrong[s] = true
			r.report("%v: it is required", s)
		}
		s.flag.Required = false
	}
}

// apply lets kong set the configuration from all that is right. What kong still refuses is a relation between
// flags, such as xor, or a default that its own type does not take, which is an error of the struct.
func (r *reading) apply() error {
	_, err := r.kong.Parse(r.args)
	if err == nil {
		return nil
	}
	var parse *kong.ParseError
	if errors.As(err, &parse) && parse.ExitCode() == exitUsage {
		r.report("%s", err)
		return nil
	}
	return err
}

// exitUsage is the exit code by which kong says that the command line is at fault.
const exitUsage = 80
