//go:build !linux

package rpc

import (
	"errors"
	"os/exec"
	"time"
)

var errLinux = errors.New("the figures are measured on Linux alone: elsewhere a process is not kept on a processor of its own")

func cores() (server, client int, err error) { return 0, 0, errLinux }

func startOn(int, *exec.Cmd) error { return errLinux }

func stayOn(int) (undo func() error, err error) { return nil, errLinux }

func processorTime() (time.Duration, error) { return 0, errLinux }

func residentOf(int) (uint64, error) { return 0, errLinux }
