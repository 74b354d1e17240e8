package main_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/reflect/protoreflect"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/kit/client"
	"github.com/concordat-dev/concordat/kit/clock"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/pki"
	"github.com/concordat-dev/concordat/kit/sqldb/postgrestest"
)

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

// patience ends a test that hangs.
const patience = 2 * time.Minute

// replica is a users process.
type replica struct {
	cmd     *exec.Cmd
	address string
	ended   chan struct{}
}

// ready is the line with which the service says where it is.
var ready = regexp.MustCompile(`"users is ready" address=(\S+)`)

// start runs the program over a database, with the certificates below dir, and returns once it is ready.
func start(t *testing.T, program, dir, name, database string) *replica {
	t.Helper()
	r := &replica{ended: make(chan struct{})}
	r.cmd = exec.Command(program, "--listen=127.0.0.1:0", "--admin=", "--data="+filepath.Join(dir, name), "--pki="+filepath.Join(dir, "pki"))
	r.cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "CONCORDAT_") || strings.HasPrefix(v, "PG") || strings.HasPrefix(v, "OTEL_")
	}), "CONCORDAT_USERS_DATABASE_URL="+database)
	out, in := io.Pipe()
	r.cmd.Stdout, r.cmd.Stderr = in, in
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	address, read := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			said.WriteString(lines.Text() + "\n")
			if m := ready.FindStringSubmatch(lines.Text()); m != nil {
				address <- m[1]
			}
		}
	}()
	go func() {
		_ = r.cmd.Wait() // how it ended is for its output to say
		_ = in.Close()
		<-read
		close(r.ended)
	}()
	t.Cleanup(func() {
		r.kill()
		if t.Failed() {
			t.Logf("%s printed:\n%s", name, said.String()[max(said.Len()-4000, 0):])
		}
	})
	select {
	case r.address = <-address:
	case <-r.ended:
		t.Fatalf("%s ended before it was ready", name)
	case <-time.After(patience):
		t.Fatalf("%s does not become ready", name)
	}
	return r
}

// kill ends the process as a crash does.
func (r *replica) kill() {
	_ = r.cmd.Process.Kill() // it may have ended already
	<-r.ended
}

// connect returns a connection to the replicas, as another service has it.
func connect(t *testing.T, dir string, replicas ...*replica) *grpc.ClientConn {
	t.Helper()
	dev, err := pki.NewDevelopment(filepath.Join(dir, "pki"), "concordat", clock.System())
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Ensure(t.Context(), "payments"); err != nil {
		t.Fatal(err)
	}
	identity, err := dev.Identity(t.Context(), "payments", func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	var addresses []string
	for _, r := range replicas {
		addresses = append(addresses, r.address)
	}
	conn, err := client.Dial(client.Config{
		Target: "static:///" + strings.Join(addresses, ","), Server: "users", Identity: identity,
		Services: []protoreflect.ServiceDescriptor{usersv1.File_users_v1_user_service_proto.Services().ByName("UserService")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// watch is a watcher who goes on with another stream when one breaks.
type watch struct {
	client usersv1.UserServiceClient
	stream grpc.ServerStreamingClient[usersv1.WatchUsersResponse]
	token  string
	by     []string // the addresses of the replicas that served it, in turn
}

// open begins a stream where the last one ended.
func (w *watch) open(ctx context.Context) error {
	stream, err := w.client.WatchUsers(ctx, &usersv1.WatchUsersRequest{ResumeToken: w.token})
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if first.GetEvent() != nil {
		return errors.New("the first response has an event")
	}
	w.stream, w.token = stream, first.GetResumeToken()
	p, ok := peer.FromContext(stream.Context())
	if !ok {
		return errors.New("a stream without a peer")
	}
	w.by = append(w.by, p.Addr.String())
	return nil
}

// until returns the ids of the users of all events up to that of the user last.
func (w *watch) until(ctx context.Context, last string) (ids []string, err error) {
	for {
		resp, err := w.stream.Recv()
		if fault.KindOf(err) == fault.Unavailable {
			if err := w.open(ctx); err != nil {
				return ids, fmt.Errorf("resume: %w", err)
			}
			continue
		}
		if err != nil {
			return ids, err
		}
		w.token = resp.GetResumeToken()
		if e := resp.GetEvent(); e != nil {
			if ids = append(ids, e.GetUserId()); e.GetUserId() == last {
				return ids, nil
			}
		}
	}
}

// user returns a request for the n-th user.
func user(n int) *usersv1.CreateUserRequest {
	return &usersv1.CreateUserRequest{
		UserId: fmt.Sprintf("01890a5d-ac96-774b-8000-%012x", n), RequestId: fmt.Sprintf("7d9a0000-0000-4000-8000-%012x", n),
		Email: fmt.Sprintf("person.%d@example.com", n), DisplayName: fmt.Sprintf("Person %d", n),
	}
}

// Two processes on one PostgreSQL are one service: who calls, or watches, does not notice that one of them dies.
func TestAKilledReplicaIsNotNoticed(t *testing.T) {
	database, dir := postgrestest.Database(t), t.TempDir()
	program := filepath.Join(dir, "users")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	victim, survivor := start(t, program, dir, "victim", database), start(t, program, dir, "survivor", database)
	users := usersv1.NewUserServiceClient(connect(t, dir, victim, survivor))

	// Streams go to the replicas in turn, as soon as both are connected: one watch on each.
	watches := map[string]*watch{}
	for len(watches) < 2 {
		w := &watch{client: users}
		if err := w.open(ctx); err != nil {
			t.Fatal(err)
		}
		if watches[w.by[0]] == nil {
			watches[w.by[0]] = w
		}
	}

	const before, after, callers = 200, 400, 8
	made, numbers, load := make(chan string), make(chan int), sync.WaitGroup{}
	for range callers {
		load.Go(func() {
			for n := range numbers {
				u, err := users.CreateUser(ctx, user(n))
				if err == nil {
					_, err = users.GetUser(ctx, &usersv1.GetUserRequest{UserId: u.GetUser().GetUserId()})
				}
				if err != nil {
					t.Errorf("a call failed: %v", err)
				}
				made <- u.GetUser().GetUserId()
			}
		})
	}
	go func() {
		defer close(numbers)
		for n := range before + after {
			numbers <- n
		}
	}()
	var want []string
	for range before + after {
		if len(want) == before {
			victim.kill() // while all callers call
		}
		want = append(want, <-made)
	}
	load.Wait()
	last, err := users.CreateUser(ctx, user(before+after))
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, last.GetUser().GetUserId())
	slices.Sort(want)

	var orders [][]string
	for on, w := range watches {
		ids, err := w.until(ctx, last.GetUser().GetUserId())
		if err != nil {
			t.Fatalf("the watch that began on %s: %v", on, err)
		}
		orders = append(orders, ids)
		if sorted := slices.Sorted(slices.Values(ids)); !slices.Equal(sorted, want) {
			t.Errorf("the watch that began on %s has %d events, %d of them distinct; %d users were made", on, len(ids), len(slices.Compact(sorted)), len(want))
		}
	}
	if !slices.Equal(orders[0], orders[1]) {
		t.Error("the two watches have the events in different orders")
	}
	if by := watches[victim.address].by; len(by) != 2 || by[1] != survivor.address {
		t.Errorf("the watch of the killed replica was served by %v, the survivor is %s", by, survivor.address)
	}
	if by := watches[survivor.address].by; len(by) != 1 {
		t.Errorf("the watch of the survivor was served by %v", by)
	}
}
