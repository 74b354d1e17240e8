package settings

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// envPrefix is what every variable of this project begins with.
const envPrefix = "CONCORDAT_"

// setting is one flag with its variable.
type setting struct {
	flag   *kong.Flag
	env    string
	secret bool
}

// String returns both names, as problems show them.
func (s *setting) String() string { return fmt.Sprintf("--%s (%s)", s.flag.Name, s.env) }

// model is the settings of a program, as the tags of its struct say.
type model struct {
	program  Program
	kong     *kong.Kong
	settings []*setting // in the order of the struct
	byEnv    map[string]*setting
	environ  map[string]string // what the variables say, by setting; filled by readEnviron
}

func newModel(p Program, cfg any, stdout io.Writer) (*model, error) {
	if !regexp.MustCompile(`^[a-z][a-z0-9-]*$`).MatchString(p.Name) {
		return nil, fmt.Errorf("program name %q is not lower case letters, digits and \"-\"", p.Name)
	}
	m := &model{program: p, byEnv: make(map[string]*setting), environ: make(map[string]string)}
	k, err := kong.New(cfg,
		kong.Name(strings.TrimSuffix(p.Name+" "+p.Command, " ")),
		kong.Description(p.Description),
		kong.Writers(stdout, io.Discard),
		kong.Exit(func(int) {}),
		kong.ConfigureHelp(kong.HelpOptions{WrapUpperBound: 110}),
		kong.ValueFormatter(m.describe),
		kong.Resolvers(kong.ResolverFunc(m.resolve)),
	)
	if err != nil {
		return nil, err
	}
	m.kong = k
	if len(k.Model.Children) > 0 || len(k.Model.Positional) > 0 {
		return nil, errors.New("commands and positional arguments are not supported")
	}
	for _, f := range k.Model.Flags {
		if f == k.Model.HelpFlag {
			f.Help = "Print this help and exit."
			continue
		}
		s := &setting{flag: f, env: envName(p, f), secret: isSecret(f)}
		switch other := m.byEnv[s.env]; {
		case f.Help == "":
			return nil, fmt.Errorf("%v has no help text", s)
		case len(f.Envs) > 0:
			return nil, fmt.Errorf("%v has an env tag: its variable follows from the flag", s)
		case isLinkName(s.env):
			return nil, fmt.Errorf("%v has a variable that Kubernetes sets by itself", s)
		case other != nil:
			return nil, fmt.Errorf("%v and %v have the same variable", other, s)
		case s.secret && f.HasDefault && f.Default != "":
			return nil, fmt.Errorf("%v is secret and has a default", s)
		}
		if f.PlaceHolder == "" {
			f.PlaceHolder = placeholder(s)
		}
		m.settings = append(m.settings, s)
		m.byEnv[s.env] = s
	}
	return m, nil
}

// envName derives the variable from the flag.
func envName(p Program, f *kong.Flag) string {
	name := p.Name + "-" + f.Name
	if p.Shared {
		if owner, _, found := strings.Cut(f.Tag.Prefix, "-"); found && slices.Contains(Services(), owner) {
			name = f.Name
		}
	}
	return envPrefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

func isSecret(f *kong.Flag) bool {
	t := f.Target.Type()
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	return f.Tag.Has("secret") || t == reflect.TypeFor[Secret]()
}

// placeholder says in the help what kind of value a flag takes, where its tag does not. Empty leaves it to kong.
func placeholder(s *setting) string {
	switch t := s.flag.Target.Type(); {
	case s.secret:
		return "SECRET"
	case t == reflect.TypeFor[time.Duration]():
		return "DURATION"
	case t == reflect.TypeFor[Address]():
		return "HOST:PORT"
	}
	return ""
}

// find returns the setting of a flag, or nil for the help flag.
func (m *model) find(f *kong.Flag) *setting {
	for _, s := range m.settings {
		if s.flag == f {
			return s
		}
	}
	return nil
}

// describe is the text of a value in the help: what it is, its choices, its default, its variable, whether it
// is secret.
func (m *model) describe(v *kong.Value) string {
	s := m.find(v.Flag)
	if s == nil {
		return v.Help
	}
	text := strings.TrimSuffix(v.Help, ".") + "."
	if v.Enum != "" {
		text += " One of: " + strings.Join(v.EnumSlice(), ", ") + "."
	}
	switch {
	case v.Required && !v.HasDefault:
		text += " Required."
	case v.HasDefault && v.Default != "":
		text += " Default: " + v.Default + "."
	}
	if s.secret {
		text += " Secret: it is never printed."
	}
	return text + " Variable: " + s.env + "."
}

// resolve gives kong the value of the variable of a flag that the arguments do not set.
func (m *model) resolve(_ *kong.Context, _ *kong.Path, f *kong.Flag) (any, error) {
	if s := m.find(f); s != nil {
		if raw, ok := m.environ[s.env]; ok {
			return raw, nil
		}
	}
	return nil, nil
}

func (m *model) printHelp() error {
	ctx, err := kong.Trace(m.kong, nil)
	if err != nil {
		return err
	}
	return ctx.PrintUsage(false)
}
