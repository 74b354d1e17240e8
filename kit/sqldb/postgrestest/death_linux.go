package postgrestest

import "syscall"

// dieTogether makes the system kill the process when the test binary dies, however that dies.
func dieTogether(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
