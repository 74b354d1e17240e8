package conformance

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/pki"
)

// lab is what a run has in common: a PKI, in a directory that goes with it.
type lab struct {
	pki   string
	files pki.Files // of the client's certificate
	self  string    // the program that takes a role when it is told to
}

// newLab makes the certificates. The directory is the caller's to remove.
func newLab(ctx context.Context, dir string) (*lab, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	l := &lab{pki: filepath.Join(dir, "pki"), self: self}
	dev, err := pki.NewDevelopment(l.pki, trustDomain, clock.System())
	if err != nil {
		return nil, err
	}
	l.files = dev.Files(clientName)
	return l, dev.Ensure(ctx, serverName, clientName)
}

// command returns this program in a role, with an environment that has no settings of its own.
func (l *lab) command(ctx context.Context, role string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, l.self, args...)
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if !strings.HasPrefix(name, "CONCORDAT_") && !strings.HasPrefix(name, "OTEL_") && !strings.HasPrefix(name, "GRPC_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, Variable+"="+role)
	return cmd
}

// process is a server that runs.
type process struct {
	address string

	role string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	log  bytes.Buffer // written until the process has been waited for
}

// serve starts a server and returns once it serves. It ends when it is stopped, or with ctx.
func (l *lab) serve(ctx context.Context, role string) (*process, error) {
	p := &process{role: role, cmd: l.command(ctx, role, "--pki", l.pki)}
	p.cmd.Stderr = &p.log
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the server %s: %w", role, err)
	}
	line, err := p.out.ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the server %s: %w", role, err), p.stop())
	}
	p.address = strings.TrimSpace(line)
	return p, nil
}

// stop ends the server as the end of its input does, and waits for it.
func (p *process) stop() error {
	_ = p.in.Close() // it may have ended already, which Wait says
	_, _ = io.Copy(io.Discard, p.out)
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("stop the server %s: %w\n%s", p.role, err, tail(p.log.Bytes()))
	}
	return nil
}

// tail returns the end of what a process wrote.
func tail(text []byte) []byte { return bytes.TrimSpace(text[max(len(text)-2000, 0):]) }
