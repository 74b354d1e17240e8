// Package settings reads the settings of a program from its flags, then from its environment, then from the
// defaults in its configuration struct. The struct is kong's: field tags name, document and default each flag.
// On top of kong, every problem is reported at once, an unknown CONCORDAT_* variable is an error, an empty
// variable counts as unset, and the value of a secret is never echoed.
//
// A setting has two names, a flag and a variable that follows from it:
//
//	program      field in the struct         flag             variable
//	users        Listen                      --listen         CONCORDAT_USERS_LISTEN
//	standalone   Listen                      --listen         CONCORDAT_STANDALONE_LISTEN
//	standalone   Users (prefix "users-")     --users-listen   CONCORDAT_USERS_LISTEN
//
// Tags: help:"…" is required, default:"…", enum:"a,b", required:"", placeholder:"…", secret:"" and, on a nested
// struct, embed:"" with prefix:"…-".
package settings

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// ErrHelp is returned by Parse after it has printed the help that was asked for. The program ends with exit
// code 0.
var ErrHelp = errors.New("help was printed")

// Program is whose settings are read.
type Program struct {
	// Name is the command, such as "users". In variables it is in capitals, with "_" for "-".
	Name string
	// Command is the one of the program's commands that the settings are for, such as "backup": the help has it in its usage.
	// Empty means none.
	Command string
	// Description is what the program is, in a sentence or two; the help begins with it.
	Description string
	// Shared says that the program holds several services in one process. Settings that are embedded with the
	// prefix of a service, such as "users-", then have the variables of that service.
	Shared bool
}

// Services returns the names of the services and programs that read CONCORDAT_<NAME>_* variables. One file of
// variables serves them all, so each ignores those of the others.
func Services() []string {
	return []string{"auth", "gateway", "payments", "standalone", "users"}
}

// Error lists everything that is wrong with the settings of a program.
type Error struct {
	Program  string
	Problems []string // each one line that names its setting; never empty
}

// Error returns one line for each problem; each begins with the name of the program.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = e.Program + ": " + p
	}
	return strings.Join(lines, "\n")
}

// Parse fills cfg, a pointer to a struct, from args (without the program's name) and environ (in the form of
// os.Environ). A flag beats a variable, a variable beats a default.
//
// It returns ErrHelp after --help or -h, whatever else is wrong, when the help is printed to stdout; an *Error
// that lists all problems that the person who started the program can mend; and any other error where the
// struct itself is at fault.
func Parse(p Program, cfg any, args, environ []string, stdout io.Writer) error {
	m, err := newModel(p, cfg, stdout)
	if err != nil {
		return fmt.Errorf("settings of %s: %w", p.Name, err)
	}
	if asksForHelp(args) {
		if err := m.printHelp(); err != nil {
			return fmt.Errorf("print help: %w", err)
		}
		return ErrHelp
	}
	r := reading{model: m, given: make(map[*setting]bool), wrong: make(map[*setting]bool)}
	r.readArgs(args)
	r.readEnviron(environ)
	r.findMissing()
	if err := r.apply(); err != nil {
		return fmt.Errorf("settings of %s: %w", p.Name, err)
	}
	if err := r.validate(cfg); err != nil {
		return fmt.Errorf("settings of %s: %w", p.Name, err)
	}
	if len(r.problems) > 0 {
		return &Error{Program: p.Name, Problems: r.problems}
	}
	return nil
}

// KnownNames returns the sorted names of all variables that Parse reads for this program and configuration. A
// test holds the documented sample against them.
func KnownNames(p Program, cfg any) ([]string, error) {
	m, err := newModel(p, cfg, io.Discard)
	if err != nil {
		return nil, fmt.Errorf("settings of %s: %w", p.Name, err)
	}
	names := make([]string, 0, len(m.settings))
	for _, s := range m.settings {
		names = append(names, s.env)
	}
	slices.Sort(names)
	return names, nil
}

// asksForHelp looks no further than "--", behind which nothing is a flag.
func asksForHelp(args []string) bool {
	for _, a := range args {
		switch a {
		case "--":
			return false
		case "--help", "-h":
			return true
		}
	}
	return false
}
