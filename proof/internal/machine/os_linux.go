package machine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Two returns the first two processors that this process may run on.
func Two() (first, second int, err error) {
	var may unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		return 0, 0, fmt.Errorf("ask for processors: %w", err)
	}
	var found []int
	for i := 0; len(found) < 2; i++ {
		if i >= len(may)*64 {
			return 0, 0, errors.New("the figures need two processors")
		}
		if may.IsSet(i) {
			found = append(found, i)
		}
	}
	return found[0], found[1], nil
}

// StartOn starts the command on one processor.
func StartOn(core int, cmd *exec.Cmd) error {
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

// StayOn keeps all threads of this process on these processors, and with them what it starts, and returns what undoes that.
func StayOn(cores ...int) (undo func() error, err error) {
	var before, only unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return nil, fmt.Errorf("ask for processors: %w", err)
	}
	for _, core := range cores {
		only.Set(core)
	}
	if err := moveTo(&only); err != nil {
		return nil, err
	}
	procs := runtime.GOMAXPROCS(len(cores))
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

// ProcessorTime returns what this process has used.
func ProcessorTime() (time.Duration, error) {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return 0, fmt.Errorf("ask for processor time: %w", err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano()), nil
}

// ticks is how many units of /proc/PID/stat a second has, on every Linux that Go runs on.
const ticks = 100

// Used returns the processor time that processes have used so far, with the children that they have and had.
func Used(pids ...int) (total time.Duration, err error) {
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, fmt.Errorf("ask for processor time: %w", err)
		}
		_, rest, _ := strings.Cut(string(text), ") ") // the name before it may hold anything
		fields := strings.Fields(rest)
		for _, i := range []int{11, 12, 13, 14} { // its own and that of children that have ended, each for programs and for the kernel
			if i >= len(fields) {
				return 0, fmt.Errorf("ask for processor time: %q", text)
			}
			n, err := strconv.ParseInt(fields[i], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("ask for processor time: %w", err)
			}
			total += time.Duration(n) * time.Second / ticks
		}
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
		if err != nil {
			return 0, fmt.Errorf("ask for children: %w", err)
		}
		for _, field := range strings.Fields(string(children)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				return 0, fmt.Errorf("ask for children: %w", err)
			}
			if used, err := Used(child); err == nil { // it may have ended in between
				total += used
			}
		}
	}
	return total, nil
}

// Resident returns the resident memory of a process, in bytes, as the kernel counts it.
func Resident(pid int) (uint64, error) {
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

// ResidentWithChildren returns the resident memory of a process and of all that it has started and that runs, in bytes. What two of
// them share is counted for each. A process that has ended counts nothing.
func ResidentWithChildren(pid int) uint64 {
	total, _ := Resident(pid)
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, task := range tasks { // each thread has the children that it has started
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name()))
		for _, field := range strings.Fields(string(children)) {
			if child, err := strconv.Atoi(field); err == nil {
				total += ResidentWithChildren(child)
			}
		}
	}
	return total
}

// dieTogether makes the system kill the process when this one dies, however it dies. The thread that starts it must not end.
func dieTogether(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}
