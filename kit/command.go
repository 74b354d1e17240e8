package kit

import (
	"context"
	"io"
	"strings"

	"github.com/concordat-dev/concordat/kit/settings"
)

// Command is something that a program does other than to serve: the first argument names it. Made with NewCommand.
type Command struct {
	name  string
	start func(ctx context.Context, program settings.Program, args, environ []string, stdout, stderr io.Writer) int
}

// NewCommand returns a command. Its settings embed those of the program, so that the flags and the variables of the service are
// known to it; its name is of lower-case letters.
func NewCommand[C any](name, description string, run func(context.Context, C, Deps) error) Command {
	return Command{name: name, start: func(ctx context.Context, program settings.Program, args, environ []string, stdout, stderr io.Writer) int {
		program.Command, program.Description = name, program.Name+" "+name+" "+description
		return start(ctx, program, run, args, environ, stdout, stderr)
	}}
}

// pick returns the command that the arguments name and what stands behind its name, or false when they name none.
func pick(commands []Command, args []string) (Command, []string, bool) {
	if len(args) > 0 {
		for _, c := range commands {
			if c.name == args[0] {
				return c, args[1:], true
			}
		}
	}
	return Command{}, args, false
}

// describe adds the names of the commands to the description of a program.
func describe(program settings.Program, commands []Command) settings.Program {
	if len(commands) == 0 {
		return program
	}
	names := make([]string, len(commands))
	for i, c := range commands {
		names[i] = program.Name + " " + c.name
	}
	program.Description += " Other commands, each with a --help of its own: " + strings.Join(names, ", ") + "."
	return program
}
