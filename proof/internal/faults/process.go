package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/pki"
	"github.com/concordat-dev/concordat/proof/internal/machine"
)

const (
	trustDomain = "concordat"
	// patience bounds each start, each end and each call of an audit.
	patience = 30 * time.Second
	// logKept is how much of the end of a log is kept, in bytes.
	logKept = 16 << 10
)

// lab is what the scenarios of one service share.
type lab struct {
	service  Service
	root     string // of the repository
	dir      string // without links, and gone after the run
	binary   string
	pki      string
	settings []string // that say where what it needs is
	extra    []string // of its environment
	edits    []Edit   // of the build; none of the one that is shipped
	creds    credentials.TransportCredentials
}

// with returns the same with another build, made by edits, and another directory.
func (l *lab) with(dir, binary string, edits []Edit) *lab {
	other := *l
	other.dir, other.binary, other.edits = dir, binary, edits
	return &other
}

// newLab builds the service from the repository at root, and makes certificates.
func newLab(ctx context.Context, root, dir string, service Service) (*lab, error) {
	l := &lab{service: service, root: root, dir: dir, pki: filepath.Join(dir, "pki")}
	var err error
	if l.binary, err = build(ctx, root, dir, service.Name, service.Name, nil); err != nil {
		return nil, err
	}
	dev, err := pki.NewDevelopment(l.pki, trustDomain, clock.System())
	if err != nil {
		return nil, err
	}
	if err := dev.Ensure(ctx, service.Name, service.Peer); err != nil {
		return nil, err
	}
	identity, err := dev.Identity(ctx, service.Peer, func(error) {}) // made a moment ago, and not replaced
	if err != nil {
		return nil, err
	}
	l.creds = credentials.NewTLS(identity.ClientTLS(service.Name))
	return l, nil
}

// store is where a service keeps its data: a directory, or a PostgreSQL database.
type store struct{ data, url string }

func (s store) engine() string {
	if s.url != "" {
		return "postgres"
	}
	return "sqlite"
}

// fresh returns a new directory, or rather the name of one.
func (l *lab) fresh(name string) string { return filepath.Join(l.dir, name) }

// environment returns the environment of the service: nothing of the harness's own settings, and the database, which is a secret.
func (l *lab) environment(s store) []string {
	var kept []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if !strings.HasPrefix(name, "CONCORDAT_") && !strings.HasPrefix(name, "OTEL_") && !strings.HasPrefix(name, "GO") && !strings.HasPrefix(name, "PG") {
			kept = append(kept, v)
		}
	}
	if s.url != "" {
		kept = append(kept, "CONCORDAT_"+strings.ToUpper(l.service.Name)+"_DATABASE_URL="+s.url)
	}
	return append(kept, l.extra...)
}

// verify runs the service's own check of its data, and returns what it complains of.
func (l *lab) verify(ctx context.Context, s store, prefix ...string) error {
	if len(l.service.Verify) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	args := append(append(append([]string{}, prefix...), l.binary), l.service.Verify...)
	args = append(args, "--data", s.data, "--pki", l.pki)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = l.environment(s)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(l.service.Verify, " "), err, bytes.TrimSpace(out[max(len(out)-2000, 0):]))
	}
	return nil
}

// process is a service that runs, alone or below another program that watches it.
type process struct {
	cmd   *exec.Cmd
	below bool // whether cmd is that other program, and not the service itself
	conn  *grpc.ClientConn
	log   *tail
	ended chan struct{} // closed when cmd has ended
	err   error         // how; read it only then
}

// endedError is what start returns of a service that ended before it was ready.
type endedError struct{ err error }

func (e *endedError) Error() string { return "the service ended before it was ready: " + e.err.Error() }
func (e *endedError) Unwrap() error { return e.err }

// start starts the service and returns once it is ready. A prefix is the program to run it with: below one that forks, or instead
// of one that becomes it. It returns an *endedError when the service ended first.
func (l *lab) start(ctx context.Context, s store, below bool, prefix ...string) (*process, error) {
	address, err := machine.FreeAddress()
	if err != nil {
		return nil, err
	}
	args := append(append([]string{}, prefix...), l.binary, "--listen", address, "--admin", "127.0.0.1:0", "--data", s.data, "--pki", l.pki)
	args = append(args, l.settings...)
	p := &process{below: below, log: newTail(l.service.Name + " is ready"), ended: make(chan struct{})}
	p.cmd = exec.CommandContext(ctx, args[0], args[1:]...)
	p.cmd.Env = l.environment(s)
	p.cmd.Stderr = p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that both go at once
	p.cmd.Cancel = func() error { return syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) }
	p.cmd.WaitDelay = patience
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	select {
	case <-p.log.seen:
	case <-p.ended:
		return nil, &endedError{fmt.Errorf("%w\n%s", p.err, p.log)}
	case <-time.After(patience):
		return nil, errors.Join(fmt.Errorf("%s is not ready after %s\n%s", l.service.Name, patience, p.log), p.kill())
	}
	p.conn, err = grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(l.creds))
	if err != nil {
		return nil, errors.Join(err, p.kill())
	}
	return p, nil
}

// kill ends the service with SIGKILL and waits for it.
func (p *process) kill() error {
	if p.below {
		return p.signal(syscall.SIGKILL, func(error) bool { return true })
	}
	return p.signal(syscall.SIGKILL, func(err error) bool {
		var exit *exec.ExitError
		return errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
	})
}

// stop ends the service as an operator does.
func (p *process) stop() error {
	return p.signal(syscall.SIGTERM, func(err error) bool { return err == nil })
}

// signal sends a signal to the service itself and waits for its end, which must be as expected.
func (p *process) signal(sig syscall.Signal, expected func(error) bool) error {
	if p.conn != nil {
		defer p.conn.Close()
	}
	if err := p.send(sig); err != nil {
		return err
	}
	select {
	case <-p.ended:
	case <-time.After(patience):
		return errors.Join(fmt.Errorf("the service does not end by %s\n%s", sig, p.log), p.cmd.Cancel())
	}
	if !expected(p.err) {
		return fmt.Errorf("the service ended with: %w\n%s", p.err, p.log)
	}
	return nil
}

// send sends a signal to the service itself, unless it has ended.
func (p *process) send(sig syscall.Signal) error {
	select {
	case <-p.ended:
		return nil
	default:
	}
	service := p.cmd.Process
	if p.below {
		pid, err := childOf(p.cmd.Process.Pid)
		if err != nil {
			return errors.Join(err, p.cmd.Cancel())
		}
		if service, err = os.FindProcess(pid); err != nil {
			return err
		}
	}
	if err := service.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// childOf returns the one child of a process.
func childOf(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// tail keeps the end of a log, and says when a line with certain words came.
type tail struct {
	words []byte
	seen  chan struct{}

	mu    sync.Mutex
	text  []byte
	found bool
}

func newTail(words string) *tail { return &tail{words: []byte(words), seen: make(chan struct{})} }

// Write implements io.Writer.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	if !t.found && bytes.Contains(t.text, t.words) {
		t.found = true
		close(t.seen)
	}
	if len(t.text) > 2*logKept {
		t.text = append([]byte(nil), t.text[len(t.text)-logKept:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text[max(len(t.text)-2000, 0):])
}
