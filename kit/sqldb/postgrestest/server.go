package postgrestest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	superuser = "tests"
	// password is that of the superuser, on a server that only listens to this machine. Tests look for it in errors.
	password = "not-so-secret-word"
	// patience bounds each step of starting and ending.
	patience = 60 * time.Second
)

// Server is a PostgreSQL server. It is safe for concurrent use, except for what starts and ends it.
type Server struct {
	bin, dir string
	port     int
	settings map[string]string
	owner    *syscall.Credential // who runs it; nil means who runs the tests

	databases databases
	process   *exec.Cmd
	ended     chan struct{} // closed when the process has ended
	output    *bytes.Buffer // of the process; read it once that has ended
}

// start makes a cluster and starts a server on it.
func start(opts Options) (*Server, error) { return startWith(opts, (*Server).make) }

// startWith starts a server on the cluster that make makes.
func startWith(opts Options, make func(*Server) error) (_ *Server, err error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, settings: map[string]string{
		"listen_addresses":        "127.0.0.1",
		"shared_buffers":          "32MB",
		"max_connections":         "200",
		"log_min_messages":        "warning",
		"unix_socket_permissions": "0700",
		"lc_messages":             "C",
	}}
	if !opts.Durable {
		s.settings["fsync"], s.settings["full_page_writes"] = "off", "off"
	}
	for name, value := range opts.Settings {
		s.settings[name] = value
	}
	if s.owner, err = owner(); err != nil {
		return nil, err
	}
	// Not below the directory of the test: the path of a socket has at most about 100 bytes.
	if s.dir, err = os.MkdirTemp("", "pgtest"); err != nil {
		return nil, err
	}
	if s.owner != nil {
		err = os.Chown(s.dir, int(s.owner.Uid), int(s.owner.Gid))
	}
	if err == nil {
		err = make(s)
	}
	if err == nil && opts.Certificate != nil {
		err = s.offerTLS(opts)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.dir))
	}
	if err := s.startAnywhere(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.dir))
	}
	return s, nil
}

// owner returns who is to run the server: initdb refuses root.
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

// command returns a program of PostgreSQL, run by the owner, with nothing of the environment of the tests.
func (s *Server) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, name), args...)
	cmd.Env = []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH"), "HOME=" + s.dir}
	cmd.Dir = s.dir
	// A process group of its own: an interrupt at the keyboard is for the tests, which end the server.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.owner, Setpgid: true}
	dieTogether(cmd.SysProcAttr)
	return cmd
}

// make makes the cluster.
func (s *Server) make() error {
	secret := filepath.Join(s.dir, "password")
	if err := os.WriteFile(secret, []byte(password+"\n"), 0o644); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := s.command(ctx, "initdb", "--pgdata="+s.data(), "--username="+superuser, "--pwfile="+secret, "--auth=scram-sha-256",
		"--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions").CombinedOutput()
	if err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	return nil
}

// offerTLS gives the server a certificate.
func (s *Server) offerTLS(opts Options) error {
	for setting, content := range map[string][]byte{"ssl_cert_file": opts.Certificate, "ssl_key_file": opts.Key} {
		file := filepath.Join(s.dir, setting+".pem")
		if err := os.WriteFile(file, content, 0o600); err != nil {
			return err
		}
		if s.owner != nil {
			if err := os.Chown(file, int(s.owner.Uid), int(s.owner.Gid)); err != nil {
				return err
			}
		}
		s.settings[setting] = file
	}
	s.settings["ssl"] = "on"
	return nil
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// startAnywhere starts the server on a port that is free, which another process may take first.
func (s *Server) startAnywhere() error {
	var err error
	for range 5 {
		if s.port, err = freePort(); err != nil {
			return err
		}
		if err = s.run(); err == nil || !strings.Contains(err.Error(), "could not bind") {
			return err
		}
	}
	return err
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}

// run starts the server and waits until it answers.
func (s *Server) run() error {
	args := []string{"-D", s.data(), "-p", strconv.Itoa(s.port), "-k", s.dir}
	for name, value := range s.settings {
		args = append(args, "-c", name+"="+value)
	}
	s.output = new(bytes.Buffer)
	s.process = s.command(context.Background(), "postgres", args...)
	s.process.Stdout, s.process.Stderr = s.output, s.output
	// Its children keep the pipe of the output; nobody waits for them.
	s.process.WaitDelay = time.Second
	ended := make(chan struct{})
	started := make(chan error, 1)
	go s.supervise(s.process, started, ended)
	if err := <-started; err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	s.ended = ended
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, s.Admin())
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-ended:
			return fmt.Errorf("postgres ended: %s", s.output)
		case <-ctx.Done():
			return fmt.Errorf("postgres does not answer: %w", err)
		case <-time.After(10 * time.Millisecond): // it has no other way to say that it is ready
		}
	}
}

// supervise starts a process and waits for its end. The system kills the process when the thread that started it ends, so
// the thread is kept.
func (s *Server) supervise(cmd *exec.Cmd, started chan<- error, ended chan<- struct{}) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Start()
	started <- err
	if err != nil {
		return
	}
	_ = cmd.Wait() // how it ended is for its output to say
	close(ended)
}

// Admin returns the URL of the database "postgres", for the superuser.
func (s *Server) Admin() string { return address(s.port, password, "postgres") }

// Standby starts a server that follows this one, until Promote; it ends with the test.
func (s *Server) Standby(t testing.TB) *Server {
	t.Helper()
	standby, err := startWith(Options{}, func(standby *Server) error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		cmd := standby.command(ctx, "pg_basebackup", "--pgdata="+standby.data(), "--write-recovery-conf", "--checkpoint=fast", "--no-sync",
			"--dbname="+s.Admin())
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("pg_basebackup: %w: %s", err, out)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := standby.end(); err != nil {
			t.Errorf("end the standby: %v", err)
		}
	})
	return standby
}

// Promote makes a standby take writes.
func (s *Server) Promote(t testing.TB) {
	t.Helper()
	s.Exec(t, `SELECT pg_promote()`)
}

// Port returns the port on 127.0.0.1.
func (s *Server) Port() int { return s.port }

// Password returns the password in all URLs of the server, so that tests can look for it where it must not be.
func (s *Server) Password() string { return password }

// Database makes a database and returns its URL. It is dropped with the test.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	name := s.databases.next()
	s.Exec(t, "CREATE DATABASE "+name+" TEMPLATE template0")
	t.Cleanup(func() {
		if s.Running() {
			s.Exec(t, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
		}
	})
	return address(s.port, password, name)
}

// Exec runs a statement as superuser in the database "postgres".
func (s *Server) Exec(t testing.TB, statement string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.Admin())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// Running says whether the server runs.
func (s *Server) Running() bool {
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// Stop ends the server as an administrator does: sessions are cut, what was committed is on the disk.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	if err := s.signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
}

// Kill ends the server with SIGKILL, as a crash does.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if err := s.signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// Restart starts the server again, on the same port, after Stop or Kill.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := s.run()
		if err == nil {
			return
		}
		// After a Kill its children take a moment to notice.
		if !strings.Contains(err.Error(), "still in use") && !strings.Contains(err.Error(), "already exists") || time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// signal sends a signal to the server and waits for its end.
func (s *Server) signal(sig syscall.Signal) error {
	if !s.Running() {
		return nil
	}
	if err := s.process.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-s.ended:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("it does not end by %s", sig)
	}
}

// end ends the server at once, what it has is needed no more, and removes its files.
func (s *Server) end() error {
	err := s.signal(syscall.SIGQUIT)
	if err != nil {
		err = errors.Join(err, s.signal(syscall.SIGKILL))
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}
