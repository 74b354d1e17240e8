// Package service runs the services of this repository as they are built, over mutual TLS, for harnesses that measure them.
package service

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/pki"
	"github.com/concordat-dev/concordat/proof/internal/load"
	"github.com/concordat-dev/concordat/proof/internal/machine"
)

// TrustDomain is that of the certificates.
const TrustDomain = "concordat"

// patience bounds each step of starting and ending.
const patience = time.Minute

// Program is a service that was built, with certificates for it and for who calls it.
type Program struct {
	// Name is that of its folder in services/, and in its certificate.
	Name string
	// Path is where the program is.
	Path string
	// PKI is the directory of the certificates.
	PKI string
	// Identity is that of the caller.
	Identity *pki.Identity

	dir string
}

// Build builds a service of the repository at root into a directory, and makes certificates for it and for its caller.
func Build(ctx context.Context, root, dir, name, caller string) (*Program, error) {
	p := &Program{Name: name, Path: filepath.Join(dir, name), PKI: filepath.Join(dir, "pki"), dir: dir}
	build := exec.CommandContext(ctx, "go", "build", "-o", p.Path, "./services/"+name)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	dev, err := pki.NewDevelopment(p.PKI, TrustDomain, clock.System())
	if err != nil {
		return nil, err
	}
	if err := dev.Ensure(ctx, name, caller); err != nil {
		return nil, err
	}
	p.Identity, err = dev.Identity(ctx, caller, func(error) {}) // made a moment ago, and not replaced
	return p, err
}

// TLS is how the caller connects.
func (p *Program) TLS() *tls.Config { return p.Identity.ClientTLS(p.Name) }

// Data is where a service keeps its data.
type Data struct {
	// Dir is its data directory.
	Dir string
	// URL is that of its database. Empty means SQLite in the directory.
	URL string
}

// Environment returns what the program runs with: nothing of ours that would change it, and where its database is, which other
// users of the machine cannot see there.
func (p *Program) Environment(data Data) []string {
	env := quiet(os.Environ())
	if data.URL != "" {
		env = append(env, "CONCORDAT_"+strings.ToUpper(p.Name)+"_DATABASE_URL="+data.URL)
	}
	return env
}

// quiet leaves out of an environment what would change a service: its settings, those of the runtime, of tracing and of
// PostgreSQL.
func quiet(environ []string) []string {
	var kept []string
	for _, v := range environ {
		name, _, _ := strings.Cut(v, "=")
		if strings.HasPrefix(name, "CONCORDAT_") || strings.HasPrefix(name, "OTEL_") || strings.HasPrefix(name, "GO") || strings.HasPrefix(name, "PG") {
			continue
		}
		kept = append(kept, v)
	}
	return kept
}

// Process is a service that runs.
type Process struct {
	// Name is what the harness calls it.
	Name string
	// Address is where it serves gRPC, Admin where its admin port is.
	Address, Admin string

	program *Program
	child   *machine.Child
	log     string // the file of its output
	killed  bool
}

// Start runs the program and returns once it is healthy. Its log goes to a file, and it dies with this process, however that ends.
func (p *Program) Start(ctx context.Context, name string, data Data, args ...string) (*Process, error) {
	s := &Process{Name: name, program: p, log: filepath.Join(p.dir, name+".log")}
	var err error
	for _, address := range []*string{&s.Address, &s.Admin} {
		if *address, err = machine.FreeAddress(); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command(p.Path, append([]string{"--listen", s.Address, "--admin", s.Admin, "--data", data.Dir, "--pki", p.PKI}, args...)...)
	cmd.Env = p.Environment(data)
	if err := s.launch(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	if err := s.healthy(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w\n%s", p.Name, err, s.said()), s.Kill())
	}
	return s, nil
}

func (s *Process) launch(cmd *exec.Cmd) error {
	out, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	s.child, err = machine.Start(cmd, nil)
	return err
}

// healthy waits until the service answers that it is well. That it listens is not announced, so it is tried again and again.
func (s *Process) healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		conn, err := load.Dial(ctx, s.Address, s.program.TLS())
		if err == nil {
			answer, err := load.Once(conn, &load.Request{Method: healthpb.Health_Check_FullMethodName, Timeout: patience})
			_ = conn.Close()
			if err != nil {
				return err
			}
			if bytes.Equal(answer, []byte{1 << 3, byte(healthpb.HealthCheckResponse_SERVING)}) { // field 1, a varint
				return nil
			}
		} else if !errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
		select {
		case <-time.After(time.Millisecond):
		case <-s.child.Ended:
			return errors.New("it ended")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// PID returns the id of the process.
func (s *Process) PID() int { return s.child.PID() }

// Stop ends the service as an operator does.
func (s *Process) Stop() error {
	if s.killed {
		return nil
	}
	if err := s.child.End(syscall.SIGTERM, patience); err != nil {
		return fmt.Errorf("stop %s: %w", s.program.Name, err)
	}
	if err := s.child.Err(); err != nil {
		return fmt.Errorf("stop %s: %w\n%s", s.program.Name, err, s.said())
	}
	return nil
}

// Kill ends the service as a crash does.
func (s *Process) Kill() error {
	s.killed = true
	return s.child.End(syscall.SIGKILL, patience)
}

// said returns the end of what it has printed.
func (s *Process) said() string {
	text, _ := os.ReadFile(s.log)
	return string(text[max(len(text)-2000, 0):])
}

// Connect opens connections for a load.
func (s *Process) Connect(ctx context.Context, count int) (conns []*load.Conn, closeAll func(), err error) {
	closeAll = func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}
	for range count {
		c, err := load.Dial(ctx, s.Address, s.program.TLS())
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		conns = append(conns, c)
	}
	return conns, closeAll, nil
}
