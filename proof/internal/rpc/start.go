package rpc

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/proof/internal/figure"
	"github.com/concordat-dev/concordat/proof/internal/load"
	"github.com/concordat-dev/concordat/proof/internal/machine"
)

// birth is how one start of the users service went; times run from exec.
type birth struct {
	listening, shaken, served time.Duration
	resident                  float64 // bytes, after a second without calls
}

// idle is how long the service has nothing to do before its memory is looked at.
const idle = time.Second

// start measures how long the users service takes from exec to the answer of its first call, with its data, its key and its
// certificate already there.
func (r *run) start(ctx context.Context) ([]figure.Figure, error) {
	binary := filepath.Join(r.dir, serverName)
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./services/users")
	build.Dir = r.opts.Root
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build users: %w\n%s", err, out)
	}
	create, err := proto.Marshal(&usersv1.CreateUserRequest{
		UserId: theUser, Email: "ada@example.com", DisplayName: "Ada Lovelace", RequestId: theUser,
	})
	if err != nil {
		return nil, err
	}
	if _, err := r.birth(ctx, binary, &load.Request{Method: usersv1.UserService_CreateUser_FullMethodName, Message: create, Timeout: patience}, 0, nil); err != nil {
		return nil, fmt.Errorf("the first start: %w", err)
	}
	get, err := proto.Marshal(&usersv1.GetUserRequest{UserId: theUser})
	if err != nil {
		return nil, err
	}
	request := &load.Request{Method: getUser, Message: get, Timeout: patience}
	var births []birth
	for range r.starts {
		b, err := r.birth(ctx, binary, request, idle, nil)
		if err != nil {
			return nil, fmt.Errorf("start: %w", err)
		}
		births = append(births, b)
	}
	var trace bytes.Buffer
	if _, err := r.birth(ctx, binary, request, 0, &trace); err != nil {
		return nil, fmt.Errorf("start with a trace: %w", err)
	}
	list := func(of func(birth) float64) (values []float64) {
		for _, b := range births {
			values = append(values, of(b))
		}
		return values
	}
	part := func(of func(birth) time.Duration) string {
		return fmt.Sprintf("%.1f", figure.Median("", list(func(b birth) float64 { return milliseconds(of(b)) })).Value)
	}
	packages, slowest := initialised(&trace)
	r.out.Table("users from exec to its first answer, ms", [][]string{
		{"exec, the runtime, settings, until the port is open", part(func(b birth) time.Duration { return b.listening })},
		{"of that in the init of packages", fmt.Sprintf("%.1f (%s)", packages, slowest)},
		{"certificate, store, schema, policies, rules, until the handshake is done", part(func(b birth) time.Duration { return b.shaken - b.listening })},
		{"the first call", part(func(b birth) time.Duration { return b.served - b.shaken })},
		{"all", part(func(b birth) time.Duration { return b.served })},
	})
	return []figure.Figure{
		figure.Median("rpc.start", list(func(b birth) float64 { return milliseconds(b.served) })),
		figure.Median("rpc.idle_rss", list(func(b birth) float64 { return b.resident / 1e6 })),
	}, nil
}

// birth starts the service, makes the call, lets it rest, and stops it. With trace, the runtime says there what the
// initialisation of packages takes.
func (r *run) birth(ctx context.Context, binary string, request *load.Request, rest time.Duration, trace *bytes.Buffer) (b birth, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	address, err := machine.FreeAddress()
	if err != nil {
		return b, err
	}
	var log bytes.Buffer
	cmd := exec.CommandContext(ctx, binary, "--listen", address, "--admin", "127.0.0.1:0", "--data", filepath.Join(r.dir, "data"), "--pki", filepath.Join(r.dir, "pki"))
	cmd.Env = quiet(os.Environ())
	cmd.Stderr = &log
	if trace != nil {
		cmd.Env, cmd.Stderr = append(cmd.Env, "GODEBUG=inittrace=1"), trace
	}
	begun := time.Now()
	if err := machine.StartOn(r.serverCore, cmd); err != nil {
		return b, err
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended already, which Wait says
		if waitErr := cmd.Wait(); waitErr != nil {
			err = errors.Join(err, fmt.Errorf("stop: %w\n%s", waitErr, log.Bytes()))
		}
	}()
	raw, err := connect(ctx, address)
	if err != nil {
		return b, err
	}
	defer raw.Close()
	b.listening = time.Since(begun)
	secure := tls.Client(raw, r.asService)
	if err := secure.HandshakeContext(ctx); err != nil {
		return b, fmt.Errorf("handshake: %w", err)
	}
	b.shaken = time.Since(begun)
	conn, err := load.NewConn(ctx, secure)
	if err != nil {
		return b, err
	}
	if _, err := load.Once(conn, request); err != nil {
		return b, err
	}
	b.served = time.Since(begun)
	if rest > 0 {
		select {
		case <-time.After(rest):
		case <-ctx.Done():
			return b, ctx.Err()
		}
	}
	resident, err := machine.Resident(cmd.Process.Pid)
	b.resident = float64(resident)
	return b, err
}

// connect connects as soon as somebody listens. That is not announced, so it is tried again and again.
func connect(ctx context.Context, address string) (net.Conn, error) {
	var dialer net.Dialer
	for {
		c, err := dialer.DialContext(ctx, "tcp", address)
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return c, err
		}
		select {
		case <-time.After(100 * time.Microsecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// initLine is what the runtime prints of each package with GODEBUG=inittrace=1.
var initLine = regexp.MustCompile(`^init (\S+) @[0-9.]+ ms, ([0-9.]+) ms clock`)

// initialised returns how long all packages took to initialise, in ms, and names the slowest.
func initialised(trace *bytes.Buffer) (total float64, slowest string) {
	type pkg struct {
		name string
		took float64
	}
	var all []pkg
	for lines := bufio.NewScanner(trace); lines.Scan(); {
		m := initLine.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		took, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			continue
		}
		total += took
		all = append(all, pkg{m[1], took})
	}
	slices.SortFunc(all, func(a, b pkg) int {
		if a.took > b.took {
			return -1
		}
		return 1
	})
	for i, p := range all[:min(5, len(all))] {
		if i > 0 {
			slowest += ", "
		}
		slowest += fmt.Sprintf("%s %.1f", p.name, p.took)
	}
	return total, slowest
}
