package machine

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Child is a process that this one has started, and that dies with it, however it dies.
type Child struct {
	// Ended is closed when it has ended.
	Ended <-chan struct{}

	cmd *exec.Cmd
	err error
}

// Start starts the command. Read, unless it is nil, reads the pipe of its output to the end, before the process is waited for.
func Start(cmd *exec.Cmd, read func()) (*Child, error) {
	dieTogether(cmd)
	started, ended := make(chan error, 1), make(chan struct{})
	c := &Child{Ended: ended, cmd: cmd}
	go func() {
		runtime.LockOSThread() // the system ends the child with the thread that started it
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		if read != nil {
			read()
		}
		c.err = cmd.Wait()
		close(ended)
	}()
	return c, <-started
}

// PID returns the id of the process.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// Err returns how it ended, once it has: nil for status 0.
func (c *Child) Err() error {
	<-c.Ended
	return c.err
}

// End sends a signal and waits until the process has ended. If it does not within patience it is killed, and that is the error.
func (c *Child) End(sig syscall.Signal, patience time.Duration) error {
	if err := c.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-c.Ended:
		return nil
	case <-time.After(patience):
		return errors.Join(fmt.Errorf("%s does not end by %s", c.cmd.Path, sig), c.cmd.Process.Kill())
	}
}

// FreeAddress returns an address of this machine that nobody listens on, for a program that is told where to listen.
func FreeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
