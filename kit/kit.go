// Package kit is what every server of ours needs and none owns. This file holds the start and the end of a process; the
// packages beside it hold one concern each: server the request path, client its other end, policy what the contract
// allows, pki the certificates, token the access tokens, sqldb and eventlog the data.
package kit

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/settings"
	"github.com/concordat-dev/concordat/kit/telemetry"
	"github.com/concordat-dev/concordat/kit/usage"
)

// Deps is what a process gives to all that runs in it. Every field is required.
type Deps struct {
	// Clock is the time.
	Clock clock.Clock
	// Random is where keys, tokens and ids come from.
	Random io.Reader
	// Log is for operators.
	Log *slog.Logger
	// Telemetry is that of the process, where several services share one. It and Usage are the only fields that may be nil: a
	// service by itself makes its own.
	Telemetry *telemetry.Telemetry
	// Usage counts for the process, where several services share Telemetry.
	Usage *usage.Recorder
	// Out is for the person who started the process.
	Out io.Writer
}

// Main is the main function of a service: it reads the settings, runs until the process is told to stop (SIGINT,
// SIGTERM; a second signal ends it at once), and exits: 0 after a stop that was asked for, 2 for bad settings, 1 for
// everything else, with one line on standard error. Where the first argument names one of the commands, that runs instead.
func Main[C any](name, description string, run func(context.Context, C, Deps) error, commands ...Command) {
	MainOf(settings.Program{Name: name, Description: description}, run, commands...)
}

// MainOf is Main for a program that holds several services.
func MainOf[C any](program settings.Program, run func(context.Context, C, Deps) error, commands ...Command) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal meets the default: the end
	tuneMemory(os.Getenv, machine())
	if c, args, ok := pick(commands, os.Args[1:]); ok {
		os.Exit(c.start(ctx, program, args, os.Environ(), os.Stdout, os.Stderr))
	}
	os.Exit(start(ctx, describe(program, commands), run, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

func start[C any](ctx context.Context, program settings.Program, run func(context.Context, C, Deps) error, args, environ []string, stdout, stderr io.Writer) int {
	var cfg C
	switch err := settings.Parse(program, &cfg, args, environ, stdout); {
	case errors.Is(err, settings.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, err)
		return 2
	}
	lines := telemetry.NewLog(telemetry.LogConfig{Out: stderr})
	if l, ok := any(&cfg).(interface {
		Lines(io.Writer) *telemetry.Log
	}); ok {
		lines = l.Lines(stderr)
	}
	deps := Deps{Clock: clock.System(), Random: rand.Reader, Log: lines.Logger(), Out: stdout}
	err := run(ctx, cfg, deps)
	_ = lines.Close() // who could be told that standard error is broken?
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", program.Name, err)
		return 1
	}
	return 0
}
