//go:build !linux

package machine

import (
	"errors"
	"os/exec"
	"time"
)

var errLinux = errors.New("the figures are measured on Linux alone: elsewhere a process is not kept on a processor of its own")

// Two fails.
func Two() (first, second int, err error) { return 0, 0, errLinux }

// StartOn fails.
func StartOn(int, *exec.Cmd) error { return errLinux }

// StayOn fails.
func StayOn(...int) (undo func() error, err error) { return nil, errLinux }

// ProcessorTime fails.
func ProcessorTime() (time.Duration, error) { return 0, errLinux }

// Used fails.
func Used(...int) (time.Duration, error) { return 0, errLinux }

// Resident fails.
func Resident(int) (uint64, error) { return 0, errLinux }

// ResidentWithChildren returns nothing.
func ResidentWithChildren(int) uint64 { return 0 }

// dieTogether does nothing: a process that is killed leaves those behind that it has started.
func dieTogether(*exec.Cmd) {}
