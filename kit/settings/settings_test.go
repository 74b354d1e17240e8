package settings_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/settings"
)

// config is a service's settings with one of each kind.
type config struct {
	Listen      settings.Address  `default:"127.0.0.1:50051" help:"Address to serve gRPC on, host:port."`
	Grace       time.Duration     `default:"10s" help:"How long calls in flight may take to finish when the service stops."`
	Workers     int               `default:"4" help:"Number of workers."`
	Reflection  bool              `default:"true" negatable:"" help:"Serve reflection."`
	LogLevel    string            `default:"info" enum:"debug,info,warn,error" help:"Least severe level that is logged."`
	Targets     []string          `help:"Addresses of the upstreams."`
	Labels      map[string]string `help:"Labels of the process."`
	DatabaseURL string            `name:"database-url" secret:"" help:"PostgreSQL to use instead of the embedded store."`
	SigningKey  settings.Secret   `help:"Key that signs tokens."`
	Pool        pool              `embed:"" prefix:"pool-"`
}

type pool struct {
	Least int `default:"1" help:"Connections that are kept open."`
	Most  int `default:"8" help:"Connections at most."`
}

func (p *pool) Validate() []settings.Problem {
	if p.Least > p.Most {
		return []settings.Problem{settings.Wrong(&p.Least, "%d is more than the %d at most", p.Least, p.Most)}
	}
	return nil
}

func (c *config) Validate() []settings.Problem {
	var problems []settings.Problem
	if c.Workers < 1 {
		problems = append(problems, settings.Wrong(&c.Workers, "%d is less than 1", c.Workers))
	}
	if c.DatabaseURL != "" && !strings.HasPrefix(c.DatabaseURL, "postgres://") {
		problems = append(problems, settings.Wrong(&c.DatabaseURL, "%q is not a postgres:// URL", c.DatabaseURL))
	}
	return problems
}

func users() settings.Program {
	return settings.Program{Name: "users", Description: "Keeps the profiles of users."}
}

// parse returns the configuration and the lines of what is wrong with it.
func parse(t *testing.T, args, environ []string) (*config, []string) {
	t.Helper()
	cfg := new(config)
	return cfg, problems(t, settings.Parse(users(), cfg, args, environ, io.Discard))
}

func problems(t *testing.T, err error) []string {
	t.Helper()
	var wrong *settings.Error
	if errors.As(err, &wrong) {
		return strings.Split(err.Error(), "\n")
	}
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	return nil
}

func TestAFlagBeatsAVariableBeatsADefault(t *testing.T) {
	cfg, wrong := parse(t,
		[]string{"--grace=1s", "--targets", "a:1", "--targets=b:2,c:3", "--no-reflection", "--pool-most", "20"},
		[]string{
			"CONCORDAT_USERS_GRACE=7s", "CONCORDAT_USERS_WORKERS=9", "CONCORDAT_USERS_TARGETS=z:9",
			"CONCORDAT_USERS_LABELS=zone=a;rack=b", "CONCORDAT_USERS_DATABASE_URL=postgres://db", "CONCORDAT_USERS_SIGNING_KEY=k",
			"CONCORDAT_USERS_POOL_LEAST=2", "CONCORDAT_USERS_WORKERS=11", "PATH=/bin", "HOME",
		})
	if wrong != nil {
		t.Fatal(wrong)
	}
	if cfg.Listen != "127.0.0.1:50051" {
		t.Errorf("the default of listen is %q", cfg.Listen)
	}
	if cfg.Grace != time.Second {
		t.Errorf("grace is %v, want that of the flag", cfg.Grace)
	}
	if cfg.Workers != 9 {
		t.Errorf("workers is %d, want that of the first variable", cfg.Workers)
	}
	if want := []string{"a:1", "b:2", "c:3"}; !slices.Equal(cfg.Targets, want) {
		t.Errorf("targets is %q, want %q", cfg.Targets, want)
	}
	if cfg.Labels["zone"] != "a" || cfg.Labels["rack"] != "b" || cfg.Reflection {
		t.Errorf("labels %v, reflection %v", cfg.Labels, cfg.Reflection)
	}
	if cfg.DatabaseURL != "postgres://db" || cfg.SigningKey.Reveal() != "k" {
		t.Errorf("database %q, key %q", cfg.DatabaseURL, cfg.SigningKey.Reveal())
	}
	if cfg.Pool.Least != 2 || cfg.Pool.Most != 20 {
		t.Errorf("pool %+v", cfg.Pool)
	}
}

func TestAnEmptyVariableIsUnset(t *testing.T) {
	cfg, wrong := parse(t, nil, []string{"CONCORDAT_USERS_LISTEN=", "CONCORDAT_USERS_WORKERS=", "CONCORDAT_USERS_LISTN="})
	if wrong != nil {
		t.Fatal(wrong)
	}
	if cfg.Listen != "127.0.0.1:50051" || cfg.Workers != 4 {
		t.Errorf("listen %q, workers %d, want the defaults", cfg.Listen, cfg.Workers)
	}
}

func TestAFlagCanBeSetToNothing(t *testing.T) {
	cfg, wrong := parse(t, []string{"--listen="}, []string{"CONCORDAT_USERS_LISTEN=:1"})
	if wrong != nil || cfg.Listen != "" {
		t.Errorf("listen is %q, problems %v", cfg.Listen, wrong)
	}
}

func TestAVariableThatAFlagOverridesIsNotRead(t *testing.T) {
	cfg, wrong := parse(t, []string{"--workers=2"}, []string{"CONCORDAT_USERS_WORKERS=many"})
	if wrong != nil || cfg.Workers != 2 {
		t.Errorf("workers is %d, problems %v", cfg.Workers, wrong)
	}
}

func TestOneProblemIsOneLine(t *testing.T) {
	const key = "hunter2 hunter3"
	for _, row := range []struct {
		name    string
		args    []string
		environ []string
		want    string
	}{
		{
			"a flag", []string{"--listen=99999"}, nil,
			`users: --listen (CONCORDAT_USERS_LISTEN): "99999" is not host:port`,
		},
		{
			"a variable", nil, []string{"CONCORDAT_USERS_LISTEN=a:99999"},
			`users: --listen (CONCORDAT_USERS_LISTEN): "a:99999" is not host:port with a port from 0 to 65535`,
		},
		{
			"a choice", []string{"--log-level", "loud"}, nil,
			`users: --log-level (CONCORDAT_USERS_LOG_LEVEL): "loud" is not one of debug, info, warn, error`,
		},
		{
			"a choice by variable", nil, []string{"CONCORDAT_USERS_LOG_LEVEL=loud"},
			`users: --log-level (CONCORDAT_USERS_LOG_LEVEL): "loud" is not one of debug, info, warn, error`,
		},
		{
			"what Validate finds", []string{"--workers=0"}, nil,
			`users: --workers (CONCORDAT_USERS_WORKERS): 0 is less than 1`,
		},
		{
			"what Validate of an embedded struct finds", []string{"--pool-least=9"}, nil,
			`users: --pool-least (CONCORDAT_USERS_POOL_LEAST): 9 is more than the 8 at most`,
		},
		{
			"what Validate says about a secret", nil, []string{"CONCORDAT_USERS_DATABASE_URL=mysql://root:pw@db"},
			`users: --database-url (CONCORDAT_USERS_DATABASE_URL): "[secret]" is not a postgres:// URL`,
		},
		{
			"a secret without a value", []string{"--database-url"}, nil,
			`users: --database-url (CONCORDAT_USERS_DATABASE_URL): the value cannot be used; it is not shown because it is secret`,
		},
		{
			"a secret that the shell has split", []string{"--signing-key", "hunter2", "hunter3"}, nil,
			`users: --signing-key (CONCORDAT_USERS_SIGNING_KEY): the value cannot be used; it is not shown because it is secret`,
		},
		{
			"a variable that is misspelt", nil, []string{"CONCORDAT_USERS_LISTNE=" + key},
			`users: CONCORDAT_USERS_LISTNE: no such setting; the nearest is CONCORDAT_USERS_LISTEN (--listen)`,
		},
		{
			"a variable without a service", nil, []string{"CONCORDAT_LOG_LEVEL=debug"},
			`users: CONCORDAT_LOG_LEVEL: no such setting; the nearest is CONCORDAT_USERS_LOG_LEVEL (--log-level)`,
		},
		{
			"a variable of a service that is misspelt", nil, []string{"CONCORDAT_PAYMENT_LISTEN=:1"},
			`users: CONCORDAT_PAYMENT_LISTEN: no such setting; is CONCORDAT_PAYMENTS_LISTEN meant?`,
		},
		{
			"a variable that only begins like a service", nil, []string{"CONCORDAT_AUTH=on"},
			`users: CONCORDAT_AUTH: no such setting; the nearest is CONCORDAT_USERS_LISTEN (--listen)`,
		},
		{
			"a flag that is misspelt", []string{"--listn=" + key}, nil,
			`users: unknown flag --listn, did you mean "--listen"?`,
		},
		{
			"an argument", []string{"serve"}, nil,
			`users: unexpected argument serve`,
		},
		{
			"an argument behind a flag with its value", []string{"--listen", ":80", "serve"}, nil,
			`users: unexpected argument serve`,
		},
		{
			"an argument behind a flag that is set", []string{"--listen=:80", "serve"}, nil,
			`users: unexpected argument serve`,
		},
		{
			"an argument behind a flag that takes none", []string{"--reflection", "serve"}, nil,
			`users: unexpected argument serve`,
		},
		{
			"a number below zero", []string{"--workers", "-1"}, nil,
			`users: --workers (CONCORDAT_USERS_WORKERS): -1 is less than 1`,
		},
		{
			"a number below zero behind one", []string{"--workers", "3", "-1"}, nil,
			`users: unknown flag -1, did you mean "-h"?`,
		},
		{
			"what stands behind a secret", []string{"--database-url", "postgres://ada:" + key[:7], key[8:]}, nil,
			`users: --database-url (CONCORDAT_USERS_DATABASE_URL): the value cannot be used; it is not shown because it is secret`,
		},
		{
			"an argument behind the flags", []string{"--reflection", "--", "--listen=:1"}, nil,
			`users: unexpected argument --listen=:1`,
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, wrong := parse(t, row.args, row.environ)
			if len(wrong) != 1 || wrong[0] != row.want {
				t.Errorf("got  %s\nwant %s", strings.Join(wrong, "\n     "), row.want)
			}
		})
	}
}

func TestEveryProblemIsListed(t *testing.T) {
	_, wrong := parse(t,
		[]string{"--grace=soon", "--bogus", "--workers=0", "--reflection=maybe", "--pool-least=10", "--grace=later"},
		[]string{"CONCORDAT_USERS_POOL_MOST=many", "CONCORDAT_USERS_LISTEN=nowhere", "CONCORDAT_USERS_B=1", "CONCORDAT_USERS_A=1"})
	names := []string{
		"--grace (CONCORDAT_USERS_GRACE)", "unknown flag --bogus", "--reflection (", "--grace (CONCORDAT_USERS_GRACE)",
		"--listen (", "--pool-most (", "CONCORDAT_USERS_A:", "CONCORDAT_USERS_B:", "--pool-least (", "--workers (",
	}
	if len(wrong) != len(names) {
		t.Fatalf("%d problems, want %d:\n%s", len(wrong), len(names), strings.Join(wrong, "\n"))
	}
	for i, name := range names {
		if !strings.HasPrefix(wrong[i], "users: "+name) {
			t.Errorf("problem %d is %q, want one of %s", i, wrong[i], name)
		}
	}
}

func TestAProblemIsOneLineWhateverTheValueHolds(t *testing.T) {
	_, wrong := parse(t, []string{"--workers=1\n2"}, []string{"CONCORDAT_USERS_LOG_LEVEL=a\r\nb"})
	if len(wrong) != 2 {
		t.Errorf("%d lines, want 2:\n%s", len(wrong), strings.Join(wrong, "\n"))
	}
}

// leaky puts a secret into the text of a problem, which it must not.
type leaky struct {
	Key string `secret:"" help:"The key."`
}

func (l *leaky) Validate() []settings.Problem {
	return []settings.Problem{
		settings.Wrong(&l.Key, "plain: %s", l.Key),
		settings.Wrong(&l.Key, "quoted: %q", l.Key),
	}
}

func TestASecretIsCutOutOfTheTextOfAProblem(t *testing.T) {
	for name, value := range map[string]string{"simple": "hunter2", "with quotes": `hun"ter\2`, "two lines": "hun\nter2"} {
		for way, err := range map[string]error{
			"flag and value": settings.Parse(users(), new(leaky), []string{"--key", value}, nil, io.Discard),
			"flag":           settings.Parse(users(), new(leaky), []string{"--key=" + value}, nil, io.Discard),
			"variable":       settings.Parse(users(), new(leaky), nil, []string{"CONCORDAT_USERS_KEY=" + value}, io.Discard),
		} {
			want := []string{
				"users: --key (CONCORDAT_USERS_KEY): plain: [secret]",
				`users: --key (CONCORDAT_USERS_KEY): quoted: "[secret]"`,
			}
			if got := problems(t, err); !slices.Equal(got, want) {
				t.Errorf("%s by %s: got %q", name, way, got)
			}
		}
	}
}

func TestARequiredSettingMustBeGiven(t *testing.T) {
	type needs struct {
		Key  settings.Secret `required:"" help:"The key."`
		Name string          `required:"" help:"The name."`
		Port int             `required:"" default:"1" help:"The port."`
	}
	var cfg needs
	err := settings.Parse(users(), &cfg, nil, nil, io.Discard)
	want := []string{
		"users: --key (CONCORDAT_USERS_KEY): it is required",
		"users: --name (CONCORDAT_USERS_NAME): it is required",
	}
	if got := problems(t, err); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	err = settings.Parse(users(), &cfg, []string{"--name=n"}, []string{"CONCORDAT_USERS_KEY=k"}, io.Discard)
	if err != nil || cfg.Key.Reveal() != "k" || cfg.Name != "n" || cfg.Port != 1 {
		t.Errorf("got %+v, %v", cfg, err)
	}
}

func TestVariablesOfOthersAreNotProblems(t *testing.T) {
	for _, row := range []struct{ name, variable string }{
		{"another service", "CONCORDAT_AUTH_LISTEN=:1"},
		{"another service's unknown setting", "CONCORDAT_STANDALONE_WHATEVER=1"},
		{"a Kubernetes link to a host", "CONCORDAT_USERS_SERVICE_HOST=10.0.0.1"},
		{"a Kubernetes link to a port", "CONCORDAT_USERS_SERVICE_PORT=50051"},
		{"a Kubernetes link to a named port", "CONCORDAT_USERS_SERVICE_PORT_GRPC=50051"},
		{"a Kubernetes link", "CONCORDAT_USERS_PORT=tcp://10.0.0.1:50051"},
		{"a Kubernetes link with a port", "CONCORDAT_ORDERS_V2_PORT_50051_TCP=tcp://10.0.0.1:50051"},
		{"a Kubernetes link's protocol", "CONCORDAT_ORDERS_PORT_50051_TCP_PROTO=tcp"},
		{"a Kubernetes link's address", "CONCORDAT_ORDERS_PORT_53_UDP_ADDR=10.0.0.1"},
		{"another project", "CONCORDATX_LISTEN=:1"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if _, wrong := parse(t, nil, []string{row.variable}); wrong != nil {
				t.Error(wrong)
			}
		})
	}
}

func TestWhatOnlyLooksLikeAKubernetesLinkIsAProblem(t *testing.T) {
	for _, variable := range []string{
		"CONCORDAT_USERS_PORT=50051", "CONCORDAT_USERS_PORT=http://x", "CONCORDAT_USERS_SERVICE_PORT=http",
		"CONCORDAT_USERS_PORT_X_TCP=tcp://10.0.0.1:1", "CONCORDAT_TYPO_X=1", "CONCORDAT_USERS_HOST=x",
	} {
		if _, wrong := parse(t, nil, []string{variable}); len(wrong) != 1 {
			t.Errorf("%s: %d problems, want 1", variable, len(wrong))
		}
	}
}

// standalone holds two services, one of which has settings that begin with the name of the other.
type standalone struct {
	Listen settings.Address `default:"127.0.0.1:8080" help:"Address of the console."`
	Demo   bool             `help:"Run the demonstration and exit."`
	Users  config           `embed:"" prefix:"users-"`
	Auth   struct {
		UsersTarget settings.Address `default:"127.0.0.1:50051" help:"Where users is."`
	} `embed:"" prefix:"auth-"`
	UsersFile string `help:"File of users to import."`
}

func all() settings.Program {
	return settings.Program{Name: "standalone", Description: "Everything in one process.", Shared: true}
}

func TestAProgramOfSeveralServicesReadsTheirVariables(t *testing.T) {
	var cfg standalone
	err := settings.Parse(all(), &cfg, []string{"--users-listen=:5"}, []string{
		"CONCORDAT_STANDALONE_LISTEN=:1", "CONCORDAT_AUTH_USERS_TARGET=:2", "CONCORDAT_USERS_POOL_MOST=3",
		"CONCORDAT_STANDALONE_USERS_FILE=f", "CONCORDAT_GATEWAY_LISTEN=:4",
	}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Listen != ":1" || cfg.Auth.UsersTarget != ":2" || cfg.Users.Pool.Most != 3 || cfg.UsersFile != "f" || cfg.Users.Listen != ":5" {
		t.Errorf("got %+v", cfg)
	}
}

func TestAProgramOfSeveralServicesNamesTheirProblems(t *testing.T) {
	var cfg standalone
	err := settings.Parse(all(), &cfg, []string{"--users-pool-least=9"}, []string{
		"CONCORDAT_USERS_WORKERS=0", "CONCORDAT_USERS_LISTN=1", "CONCORDAT_STANDALONE_DEMOS=1", "CONCORDAT_AUTH_LISTEN=:1",
	}, io.Discard)
	want := []string{
		"standalone: CONCORDAT_AUTH_LISTEN: no such setting; the nearest is CONCORDAT_USERS_LISTEN (--users-listen)",
		"standalone: CONCORDAT_STANDALONE_DEMOS: no such setting; the nearest is CONCORDAT_STANDALONE_DEMO (--demo)",
		"standalone: CONCORDAT_USERS_LISTN: no such setting; the nearest is CONCORDAT_USERS_LISTEN (--users-listen)",
		"standalone: --users-pool-least (CONCORDAT_USERS_POOL_LEAST): 9 is more than the 8 at most",
		"standalone: --users-workers (CONCORDAT_USERS_WORKERS): 0 is less than 1",
	}
	if got := problems(t, err); !slices.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestTheNamesThatTheCodeKnows(t *testing.T) {
	got, err := settings.KnownNames(all(), new(standalone))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"CONCORDAT_STANDALONE_LISTEN", "CONCORDAT_STANDALONE_USERS_FILE", "CONCORDAT_USERS_LISTEN", "CONCORDAT_AUTH_USERS_TARGET",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is not among %q", want, got)
		}
	}
	if !slices.IsSorted(got) || len(got) != 15 {
		t.Errorf("%d names, want 15 in order: %q", len(got), got)
	}
}

func TestTheHelpDocumentsEverySetting(t *testing.T) {
	t.Setenv("COLUMNS", "100")
	for _, args := range [][]string{{"--help"}, {"--bogus", "-h"}} {
		var out bytes.Buffer
		err := settings.Parse(users(), new(config), args, []string{"CONCORDAT_USERS_BOGUS=1", "CONCORDAT_USERS_WORKERS=77"}, &out)
		if !errors.Is(err, settings.ErrHelp) {
			t.Fatalf("Parse(%q) = %v, want ErrHelp", args, err)
		}
		help := strings.Join(strings.Fields(out.String()), " ")
		names, err := settings.KnownNames(users(), new(config))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range append(names,
			"Usage: users", "Keeps the profiles of users.", "--listen=HOST:PORT", "--grace=DURATION", "Default: 127.0.0.1:50051.", "Default: 10s.",
			"One of: debug, info, warn, error.", "--[no-]reflection", "--database-url=SECRET", "Secret: it is never printed.",
			"--pool-least=", "--help",
		) {
			if !strings.Contains(help, want) {
				t.Errorf("the help does not have %q:\n%s", want, out.String())
			}
		}
		if strings.Contains(help, "77") {
			t.Errorf("the help depends on the environment:\n%s", out.String())
		}
	}
}

type broken struct{ err error }

func (b broken) Write([]byte) (int, error) { return 0, b.err }

func TestHelpThatCannotBePrintedIsAnError(t *testing.T) {
	full := errors.New("disk full")
	err := settings.Parse(users(), new(config), []string{"--help"}, nil, broken{full})
	if !errors.Is(err, full) {
		t.Errorf("Parse = %v, want %v", err, full)
	}
}

func TestTheNamesOfProgramsAreChecked(t *testing.T) {
	for _, name := range []string{"", "Users", "users service", "1users"} {
		err := settings.Parse(settings.Program{Name: name}, new(config), nil, nil, io.Discard)
		if err == nil {
			t.Errorf("the name %q is accepted", name)
		}
	}
}

func TestAStructThatIsAtFaultIsNotTheUsersProblem(t *testing.T) {
	for name, cfg := range map[string]any{
		"no help text": &struct{ Listen string }{},
		"env tag": &struct {
			Listen string `env:"X" help:"x"`
		}{},
		"Kubernetes sets": &struct {
			ServiceHost string `help:"x"`
		}{},
		"same variable": &struct {
			AB string `name:"a-b" help:"x"`
			Ab string `name:"a_b" help:"x"`
		}{},
		"secret and has a default": &struct {
			Key settings.Secret `default:"k" help:"x"`
		}{},
		"positional": &struct {
			File string `arg:"" help:"x"`
		}{},
		"points at no setting": &byValue{Port: 1},
		"not exported":         &struct{ hiding }{},
		"expected a pointer":   config{},
		"expected a valid 64 bit int": &struct {
			Port int `default:"x" help:"x"`
		}{},
	} {
		err := settings.Parse(users(), cfg, nil, nil, io.Discard)
		var wrong *settings.Error
		if err == nil || errors.As(err, &wrong) {
			t.Errorf("%s: Parse = %v", name, err)
			continue
		}
		if !strings.Contains(err.Error(), name) {
			t.Errorf("Parse = %q, want %q in it", err, name)
		}
	}
}

type byValue struct {
	Port int `default:"1" help:"x"`
}

func (b byValue) Validate() []settings.Problem {
	return []settings.Problem{settings.Wrong(&b.Port, "wrong")}
}

type hiding struct {
	Port int `default:"1" help:"x"`
}

func (h *hiding) Validate() []settings.Problem { return nil }

// Server is embedded without a name, so that its Validate is promoted to what embeds it.
type Server struct {
	Port int `default:"0" help:"The port."`
}

func (s *Server) Validate() []settings.Problem {
	return []settings.Problem{settings.Wrong(&s.Port, "%d is not free", s.Port)}
}

func TestAPromotedValidateReportsOnce(t *testing.T) {
	var cfg struct {
		Server
	}
	got := problems(t, settings.Parse(users(), &cfg, nil, nil, io.Discard))
	if want := []string{"users: --port (CONCORDAT_USERS_PORT): 0 is not free"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFlagsThatExcludeEachOtherAreAProblem(t *testing.T) {
	var cfg struct {
		A bool `xor:"one" help:"x"`
		B bool `xor:"one" help:"x"`
	}
	if got := problems(t, settings.Parse(users(), &cfg, []string{"--a", "--b"}, nil, io.Discard)); len(got) != 1 {
		t.Errorf("problems: %q", got)
	}
}

func ExampleParse() {
	var cfg struct {
		Listen settings.Address `default:"127.0.0.1:50051" help:"Address to serve on."`
	}
	err := settings.Parse(settings.Program{Name: "users"}, &cfg, []string{"--listen=99999"}, nil, io.Discard)
	fmt.Println(err)
	// Output: users: --listen (CONCORDAT_USERS_LISTEN): "99999" is not host:port
}
