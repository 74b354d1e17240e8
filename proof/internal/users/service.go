package users

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/reflect/protoreflect"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/client"
	"github.com/concordat-dev/concordat/proof/internal/load"
	"github.com/concordat-dev/concordat/proof/internal/machine"
)

// databaseVariable is where the service finds its database: other users of the machine cannot see it there.
const databaseVariable = "CONCORDAT_USERS_DATABASE_URL"

// patience bounds each step of starting and ending, and each call that is not measured.
const patience = time.Minute

// program is a program that runs until it is ended.
type program struct {
	cmd   *exec.Cmd
	log   string // the file of its output
	ended chan struct{}
	err   error // of Wait; read it once ended is closed
}

// launch starts a program whose output goes to a file. It dies with this process, however that ends.
func launch(cmd *exec.Cmd, log string) (*program, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	machine.DieTogether(cmd)
	p := &program{cmd: cmd, log: log, ended: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the system ends the program with the thread that started it
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// signal sends a signal and waits for the end.
func (p *program) signal(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(patience):
		return errors.Join(fmt.Errorf("%s does not end by %s", p.cmd.Path, sig), p.cmd.Process.Kill())
	}
}

// said returns the end of what it has printed.
func (p *program) said() string {
	text, _ := os.ReadFile(p.log)
	return string(text[max(len(text)-2000, 0):])
}

// service is a users service that runs.
type service struct {
	*program
	name, address, admin string
	data                 *database // nil for SQLite
	killed               bool
}

// start runs the service over a database, or a directory of that name, and returns once it is healthy.
func (r *run) start(ctx context.Context, name string, data *database) (*service, error) {
	s := &service{name: name, data: data}
	var err error
	for _, address := range []*string{&s.address, &s.admin} {
		if *address, err = freeAddress(); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command(r.binary, "--listen", s.address, "--admin", s.admin, "--data", filepath.Join(r.dir, name), "--pki", filepath.Join(r.dir, "pki"))
	cmd.Env = quiet(os.Environ())
	if data != nil {
		cmd.Env = append(cmd.Env, data.environment())
	}
	if s.program, err = launch(cmd, filepath.Join(r.dir, name+".log")); err != nil {
		return nil, fmt.Errorf("start users: %w", err)
	}
	if err := s.healthy(ctx, r.tls()); err != nil {
		return nil, errors.Join(fmt.Errorf("start users: %w\n%s", err, s.said()), s.kill())
	}
	return s, nil
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

// freeAddress returns an address of this machine that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// healthy waits until the service answers that it is well. That it listens is not announced, so it is tried again and again.
func (s *service) healthy(ctx context.Context, config *tls.Config) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		conn, err := load.Dial(ctx, s.address, config)
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
		case <-s.ended:
			return errors.New("it ended")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// stop ends the service as an operator does.
func (s *service) stop() error {
	if s.killed {
		return nil
	}
	if err := s.signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop users: %w", err)
	}
	if s.err != nil {
		return fmt.Errorf("stop users: %w\n%s", s.err, s.said())
	}
	return nil
}

// kill ends the service as a crash does.
func (s *service) kill() error {
	s.killed = true
	return s.signal(syscall.SIGKILL)
}

func (r *run) tls() *tls.Config { return r.identity.ClientTLS(serverName) }

// connect opens connections for a load.
func (r *run) connect(ctx context.Context, s *service, count int) (conns []*load.Conn, closeAll func(), err error) {
	closeAll = func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}
	for range count {
		c, err := load.Dial(ctx, s.address, r.tls())
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		conns = append(conns, c)
	}
	return conns, closeAll, nil
}

// dial returns a client as services have it, of one service or of several that are replicas.
func (r *run) dial(services ...*service) (*grpc.ClientConn, error) {
	var addresses []string
	for _, s := range services {
		addresses = append(addresses, s.address)
	}
	return client.Dial(client.Config{
		Target: "static:///" + strings.Join(addresses, ","), Server: serverName, Identity: r.identity,
		Services: []protoreflect.ServiceDescriptor{usersv1.File_users_v1_user_service_proto.Services().ByName("UserService")},
	})
}

// memory follows the resident memory of a process.
type memory struct {
	before uint64
	done   chan struct{}
	over   sync.WaitGroup
	most   atomic.Uint64
	err    error
}

// sampling is how often the memory is looked at.
const sampling = 10 * time.Millisecond

// watchMemory begins to follow.
func watchMemory(pid int) (*memory, error) {
	before, err := machine.Resident(pid)
	if err != nil {
		return nil, err
	}
	m := &memory{before: before, done: make(chan struct{})}
	m.most.Store(before)
	m.over.Go(func() {
		ticker := time.NewTicker(sampling)
		defer ticker.Stop()
		for {
			select {
			case <-m.done:
				return
			case <-ticker.C:
			}
			now, err := machine.Resident(pid)
			if err != nil {
				m.err = err
				return
			}
			m.most.Store(max(m.most.Load(), now))
		}
	})
	return m, nil
}

// soFar returns by how much the memory was larger at most than in the beginning, in MiB.
func (m *memory) soFar() float64 { return float64(m.most.Load()-m.before) / mebibytes }

// growth ends it, and returns what soFar does.
func (m *memory) growth() (float64, error) {
	close(m.done)
	m.over.Wait()
	return m.soFar(), m.err
}
