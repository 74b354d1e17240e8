package kit

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/concordat-dev/concordat/kit/settings"
)

type commandConfig struct {
	Port   int `help:"A number." default:"1"`
	Common `embed:""`
	To     string `help:"A file." required:""`
}

func TestACommandIsNamedByTheFirstArgumentAndKnowsTheSettingsOfItsProgram(t *testing.T) {
	var got commandConfig
	commands := []Command{
		NewCommand("copy", "copies.", func(_ context.Context, cfg commandConfig, _ Deps) error { got = cfg; return nil }),
	}
	for name, row := range map[string]struct {
		args []string
		want bool
	}{
		"nothing":       {nil, false},
		"a flag":        {[]string{"--port=2"}, false},
		"the command":   {[]string{"copy", "--to=x"}, true},
		"another word":  {[]string{"copies"}, false},
		"not the first": {[]string{"--port=2", "copy"}, false},
	} {
		if _, _, ok := pick(commands, row.args); ok != row.want {
			t.Errorf("%s: picked is %t", name, ok)
		}
	}
	c, args, _ := pick(commands, []string{"copy", "--to=x"})
	var stdout, stderr bytes.Buffer
	program := settings.Program{Name: "users", Description: "A test."}
	if code := c.start(t.Context(), program, args, []string{"CONCORDAT_USERS_PORT=7"}, &stdout, &stderr); code != 0 || got.To != "x" || got.Port != 7 {
		t.Errorf("ended with %d and %+v: %s", code, got, &stderr)
	}
	if code := c.start(t.Context(), program, nil, nil, &stdout, &stderr); code != 2 || !strings.Contains(stderr.String(), "--to") {
		t.Errorf("without what is required it ended with %d: %s", code, &stderr)
	}
	stdout.Reset()
	if code := c.start(t.Context(), program, []string{"--help"}, nil, &stdout, &stderr); code != 0 || !strings.Contains(stdout.String(), "Usage: users copy --to") {
		t.Errorf("the help ended with %d and does not show how the command is called: %s", code, &stdout)
	}
	if text := describe(program, commands).Description; !strings.Contains(text, "users copy") {
		t.Errorf("the help does not name the command: %s", text)
	}
}
