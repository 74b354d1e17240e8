// Package repo finds the repository that a tool works on and runs programs in it.
//
// A tool may be started from any folder of the repository; what it reads and writes is always
// relative to the root, which is the folder that holds go.work.
package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ErrNoRoot: neither the start folder nor any folder above it holds a go.work.
var ErrNoRoot = errors.New("no go.work here or in any folder above")

// Root returns the absolute path of the repository that dir lies in. It returns ErrNoRoot where
// there is none.
func Root(dir string) (string, error) {
	start, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find repository: %w", err)
	}
	for at := start; ; at = filepath.Dir(at) {
		_, err := os.Stat(filepath.Join(at, "go.work"))
		if err == nil {
			return at, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("find repository: %w", err)
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("find repository from %s: %w", start, ErrNoRoot)
		}
	}
}

// A RunError is a program that ended with an exit code other than zero.
type RunError struct {
	// Command is the program and its arguments, as one line.
	Command string
	// Code is the exit code, or -1 where a signal ended the program.
	Code int
	// Stderr is what the program wrote to its standard error, trimmed.
	Stderr string
}

// Error names the command, its exit code and what it said.
func (e *RunError) Error() string {
	if e.Stderr == "" {
		return fmt.Sprintf("%s: exit code %d", e.Command, e.Code)
	}
	return fmt.Sprintf("%s: exit code %d: %s", e.Command, e.Code, e.Stderr)
}

// Output runs a program in dir, without standard input, and returns its trimmed standard output.
// A program that ran and failed is a *RunError; the output is returned with it.
func Output(ctx context.Context, dir string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	out := strings.TrimSpace(stdout.String())
	command := strings.Join(append([]string{name}, args...), " ")
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return out, &RunError{Command: command, Code: exit.ExitCode(), Stderr: strings.TrimSpace(stderr.String())}
	}
	if err != nil {
		return out, fmt.Errorf("run %s: %w", command, err)
	}
	return out, nil
}
