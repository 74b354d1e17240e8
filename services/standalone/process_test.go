package main_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/sqldb/postgrestest"
)

// The binaries are built once, into a directory of the test run.
var built = struct {
	sync.Mutex
	dir string
	by  map[string]string
}{by: map[string]string{}}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "concordat-standalone-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	built.dir = dir
	code := postgrestest.Main(m)
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// root is the repository, from the folder of this test.
const root = "../.."

// binary builds a service and returns the path of its program.
func binary(t *testing.T, service string) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if path, ok := built.by[service]; ok {
		return path
	}
	path := filepath.Join(built.dir, service)
	cmd := exec.Command("go", "build", "-o", path, "./services/"+service)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", service, err, out)
	}
	built.by[service] = path
	return path
}

// process is a program under test.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  *watched // both outputs
	done chan struct{}
	err  error // once done
}

// start runs a program in a directory of its own, with an environment that holds nothing of ours.
func start(t *testing.T, dir, program string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(program, args...), out: newWatched(), done: make(chan struct{})}
	p.cmd.Dir = dir
	p.cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "CONCORDAT_") })
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		p.out.close()
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("%s printed:\n%s", filepath.Base(program), p.out)
		}
	})
	return p
}

// find waits until the program has printed a line that matches and returns its groups.
func (p *process) find(pattern string) []string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	groups, err := p.out.find(ctx, regexp.MustCompile(pattern))
	if err != nil {
		p.t.Fatalf("%s: no line that matches %s: %v", filepath.Base(p.cmd.Path), pattern, err)
	}
	return groups
}

// signal sends a signal and waits for the end; it returns the exit code, -1 for one by the signal.
func (p *process) signal(sig syscall.Signal) int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
	return p.wait()
}

// wait waits for the end and returns the exit code.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		p.t.Fatal("the program does not end")
	}
	var exit *exec.ExitError
	if p.err != nil && !errors.As(p.err, &exit) {
		p.t.Fatal(p.err)
	}
	return p.cmd.ProcessState.ExitCode()
}

// watched is an output that can be waited on.
type watched struct {
	mu    sync.Mutex
	text  strings.Builder
	news  chan struct{} // closed and made anew with each write
	ended bool
}

func newWatched() *watched { return &watched{news: make(chan struct{})} }

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text.Write(p)
	close(w.news)
	w.news = make(chan struct{})
	return len(p), nil
}

func (w *watched) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	close(w.news)
	w.news = make(chan struct{})
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

func (w *watched) find(ctx context.Context, re *regexp.Regexp) ([]string, error) {
	for {
		w.mu.Lock()
		text, news, ended := w.text.String(), w.news, w.ended
		w.mu.Unlock()
		lines := bufio.NewScanner(strings.NewReader(text))
		for lines.Scan() {
			if groups := re.FindStringSubmatch(lines.Text()); groups != nil {
				return groups, nil
			}
		}
		if ended {
			return nil, errors.New("the program has ended")
		}
		select {
		case <-news:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// standalone is a running standalone and where it is.
type standalone struct {
	*process
	http, grpc, auth, users, payments string
}

// run starts standalone on free ports over the data below dir, and waits until it is ready.
func run(t *testing.T, dir string, args ...string) *standalone {
	t.Helper()
	s := &standalone{process: start(t, dir, binary(t, "standalone"), append(anyPorts(), args...)...)}
	s.find(`^Concordat is ready \(`)
	s.http = s.find(`^ +HTTP +https?://(\S+)`)[1]
	s.grpc = s.find(`^ +gRPC +(\S+)`)[1]
	s.auth = s.find(`^ +auth +(\S+)`)[1]
	s.users = s.find(`^ +users +(\S+)`)[1]
	s.payments = s.find(`^ +payments +(\S+)`)[1]
	return s
}

func anyPorts() []string {
	return []string{
		"--auth-listen=127.0.0.1:0", "--users-listen=127.0.0.1:0", "--payments-listen=127.0.0.1:0",
		"--gateway-http=127.0.0.1:0", "--gateway-grpc=127.0.0.1:0", "--admin=127.0.0.1:0",
	}
}

// ownAddress returns a loopback address that no other test or program uses, so that fixed ports on it are free: Linux has
// all of 127.0.0.0/8.
func ownAddress(t *testing.T) string {
	t.Helper()
	pid := os.Getpid()
	ip := fmt.Sprintf("127.83.%d.%d", pid>>8&0xff, pid&0xff)
	l, err := net.Listen("tcp", ip+":0")
	if err != nil {
		t.Skipf("this system has no loopback address %s: %v", ip, err)
	}
	_ = l.Close()
	return ip
}
