// Package postgres runs a PostgreSQL server of the harnesses' own, from what is installed, in a directory that goes with it. It
// syncs what it commits, as a server in earnest does.
package postgres

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/concordat-dev/concordat/proof/internal/machine"
)

// ErrMissing: PostgreSQL is not installed.
var ErrMissing = errors.New("PostgreSQL is not installed: apt-get install postgresql")

const (
	superuser = "proof"
	// patience bounds each step of starting and ending.
	patience = 60 * time.Second
	// look is how often a server that starts is asked whether it is ready: it has no other way to say so.
	look = 20 * time.Millisecond
)

// Server is a PostgreSQL server on 127.0.0.1. It is for one goroutine.
type Server struct {
	bin, dir string
	password string
	port     int
	settings []string
	owner    *syscall.Credential // who runs it; nil means who runs the harness
	count    int

	process *machine.Child
	output  *bytes.Buffer // of the process; read it once that has ended
}

// Start makes a cluster and starts a server on it; settings are such as "max_connections=50". It returns ErrMissing where there is no
// PostgreSQL. The caller ends it with Close.
func Start(ctx context.Context, settings ...string) (*Server, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, password: rand.Text(), settings: append([]string{
		"listen_addresses=127.0.0.1", "shared_buffers=64MB", "log_min_messages=warning", "lc_messages=C", "unix_socket_permissions=0700",
	}, settings...)}
	if s.owner, err = owner(); err != nil {
		return nil, err
	}
	// A short name: the path of a socket has at most about 100 bytes.
	if s.dir, err = os.MkdirTemp("", "pgproof"); err != nil {
		return nil, err
	}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Server) start(ctx context.Context) error {
	if s.owner != nil {
		if err := os.Chown(s.dir, int(s.owner.Uid), int(s.owner.Gid)); err != nil {
			return err
		}
	}
	secret := filepath.Join(s.dir, "password")
	if err := os.WriteFile(secret, []byte(s.password+"\n"), 0o600); err != nil {
		return err
	}
	if s.owner != nil {
		if err := os.Chown(secret, int(s.owner.Uid), int(s.owner.Gid)); err != nil {
			return err
		}
	}
	if err := s.tool(ctx, "initdb", "--pgdata="+s.data(), "--username="+superuser, "--pwfile="+secret, "--auth=scram-sha-256",
		"--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"); err != nil {
		return err
	}
	var err error
	for range 5 { // the port may be taken before the server has it
		if s.port, err = freePort(); err != nil {
			return err
		}
		if err = s.Restart(ctx); err == nil || !strings.Contains(err.Error(), "could not bind") {
			return err
		}
	}
	return err
}

// programs returns the directory of the newest PostgreSQL that is installed.
func programs() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		program, err := exec.LookPath("postgres")
		if err != nil {
			return "", ErrMissing
		}
		if program, err = filepath.EvalSymlinks(program); err != nil {
			return "", err
		}
		return filepath.Dir(program), nil
	}
	version := func(program string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(program)))) // what is no number is the oldest
		return n
	}
	return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })), nil
}

// owner returns who is to run the server: PostgreSQL refuses root.
func owner() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uerr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gerr := strconv.ParseUint(u.Gid, 10, 32)
		if uerr == nil && gerr == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
		}
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// Command returns a program of PostgreSQL, such as psql or pgbench, run by the owner of the server and with nothing of the environment
// of the harness but the password. Flags say where the server is.
func (s *Server) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, name), args...)
	cmd.Env = []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "PGPASSWORD=" + s.password}
	cmd.Dir = s.dir
	// A process group of its own: an interrupt at the keyboard is for the harness, which ends the server.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.owner, Setpgid: true}
	return cmd
}

// Flags are the arguments with which the programs of PostgreSQL find the server.
func (s *Server) Flags() []string {
	return []string{"--host=127.0.0.1", "--port=" + strconv.Itoa(s.port), "--username=" + superuser}
}

// PID returns the id of the server's first process, the parent of the others.
func (s *Server) PID() int { return s.process.PID() }

// tool runs a program to its end.
func (s *Server) tool(ctx context.Context, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if out, err := s.Command(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

// Database makes a database and returns its URL, which holds the password.
func (s *Server) Database(ctx context.Context) (string, error) {
	s.count++
	name := fmt.Sprintf("proof_%d", s.count)
	if err := s.tool(ctx, "createdb", append(s.Flags(), "--template=template0", name)...); err != nil {
		return "", err
	}
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(superuser, s.password), Host: fmt.Sprintf("127.0.0.1:%d", s.port),
		Path: name, RawQuery: "sslmode=disable",
	}
	return u.String(), nil
}

// Restart starts the server on its port after Stop or Kill, and returns once it takes connections.
func (s *Server) Restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := s.run(ctx)
		// After a Kill its children take a moment to notice.
		if err == nil || !strings.Contains(err.Error(), "still in use") && !strings.Contains(err.Error(), "already exists") {
			return err
		}
		select {
		case <-time.After(look):
		case <-ctx.Done():
			return err
		}
	}
}

func (s *Server) run(ctx context.Context) error {
	args := []string{"-D", s.data(), "-p", strconv.Itoa(s.port), "-k", s.dir}
	for _, setting := range s.settings {
		args = append(args, "-c", setting)
	}
	output := new(bytes.Buffer)
	process := s.Command(context.WithoutCancel(ctx), "postgres", args...)
	process.Stdout, process.Stderr = output, output
	process.WaitDelay = time.Second // its children keep the pipe of the output, and nobody waits for them
	child, err := machine.Start(process, nil)
	if err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	s.process, s.output = child, output
	for {
		ready := s.Command(ctx, "pg_isready", "--quiet", "--host=127.0.0.1", "--port="+strconv.Itoa(s.port), "--timeout=1")
		if ready.Run() == nil {
			return nil
		}
		select {
		case <-child.Ended:
			return fmt.Errorf("postgres ended: %s", output)
		case <-ctx.Done():
			return fmt.Errorf("postgres does not get ready: %w", ctx.Err())
		case <-time.After(look):
		}
	}
}

// Stop ends the server as an administrator does who is in a hurry: sessions are cut, what was committed is on the disk.
func (s *Server) Stop() error { return s.signal(syscall.SIGINT) }

// Kill ends the server's first process with SIGKILL, as a crash does.
func (s *Server) Kill() error { return s.signal(syscall.SIGKILL) }

// signal sends a signal to the server and waits for its end.
func (s *Server) signal(sig syscall.Signal) error {
	if s.process == nil {
		return nil
	}
	return s.process.End(sig, patience)
}

// Close ends the server at once, what it has is needed no more, and removes its files.
func (s *Server) Close() error {
	err := s.signal(syscall.SIGQUIT)
	if err != nil {
		err = errors.Join(err, s.signal(syscall.SIGKILL))
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}
