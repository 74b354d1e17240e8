//go:build !linux

package postgrestest

import "syscall"

// dieTogether does nothing: a test binary that is killed leaves its server behind.
func dieTogether(*syscall.SysProcAttr) {}
