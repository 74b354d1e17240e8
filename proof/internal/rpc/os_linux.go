package rpc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// cores returns the processors for the servers and for the client: the first two that this process may run on.
func cores() (server, client int, err error) {
	var may unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		return 0, 0, fmt.Errorf("ask for processors: %w", err)
	}
	var found []int
	for i := 0; len(found) < 2; i++ {
		if i >= len(may)*64 {
			return 0, 0, errors.New("the figures need two processors: one for the server, one for the client")
		}
		if may.IsSet(i) {
			found = append(found, i)
		}
	}
	return found[0], found[1], nil
}

// startOn starts the command on one processor.
func startOn(core int, cmd *exec.Cmd) error {
	// A child inherits what its parent's thread may run on.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, only unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return fmt.Errorf("ask for processors: %w", err)
	}
	only.Set(core)
	if err := unix.SchedSetaffinity(0, &only); err != nil {
		return fmt.Errorf("run on processor %d: %w", core, err)
	}
	err := cmd.Start()
	if back := unix.SchedSetaffinity(0, &before); back != nil {
		return errors.Join(err, fmt.Errorf("run on all processors again: %w", back))
	}
	return err
}

// stayOn keeps all threads of this process on one processor, and returns what undoes that.
func stayOn(core int) (undo func() error, err error) {
	var before, only unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return nil, fmt.Errorf("ask for processors: %w", err)
	}
	only.Set(core)
	if err := moveTo(&only); err != nil {
		return nil, err
	}
	procs := runtime.GOMAXPROCS(1)
	return func() error {
		runtime.GOMAXPROCS(procs)
		return moveTo(&before)
	}, nil
}

// moveTo moves all threads of this process. A new thread inherits from the one that makes it, so once a pass over all of
// them finds none to move, none is left.
func moveTo(set *unix.CPUSet) error {
	for {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("list threads: %w", err)
		}
		moved := false
		for _, task := range tasks {
			id, err := strconv.Atoi(task.Name())
			if err != nil {
				return fmt.Errorf("list threads: %w", err)
			}
			var now unix.CPUSet
			if err := unix.SchedGetaffinity(id, &now); errors.Is(err, unix.ESRCH) || now == *set {
				continue // it has ended, or is there already
			}
			if err := unix.SchedSetaffinity(id, set); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("move thread %d: %w", id, err)
			}
			moved = true
		}
		if !moved {
			return nil
		}
	}
}

// processorTime returns what this process has used.
func processorTime() (time.Duration, error) {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return 0, fmt.Errorf("ask for processor time: %w", err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano()), nil
}

// residentOf returns the resident memory of a process, in bytes, as the kernel counts it.
func residentOf(pid int) (uint64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, fmt.Errorf("ask for resident memory: %w", err)
	}
	var size, resident uint64
	if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
		return 0, fmt.Errorf("ask for resident memory: %q: %w", text, err)
	}
	return resident * uint64(os.Getpagesize()), nil
}
