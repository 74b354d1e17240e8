package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/concordat-dev/concordat/kit/client"
	"github.com/concordat-dev/concordat/kit/clock/clocktest"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/kittest/echo"
)

// mortal is a listener that can die: its connections are cut, as if the process was killed.
type mortal struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
	dead  bool
}

func (m *mortal) Accept() (net.Conn, error) {
	c, err := m.Listener.Accept()
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		_ = c.Close()
	}
	m.conns = append(m.conns, c)
	return c, nil
}

// kill cuts the connections; those that come are cut at once.
func (m *mortal) kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = true
	for _, c := range m.conns {
		_ = c.Close()
	}
}

// fleet is two replicas of echo.v1 and a connection to both.
type fleet struct {
	conn     *grpc.ClientConn
	replicas [2]*replica
}

// replica answers with its own name.
type replica struct {
	harness  *kittest.Harness
	listener *mortal
	clock    *clocktest.Manual
	calls    atomic.Int32
	sick     atomic.Bool                                 // its checks fail
	unary    atomic.Pointer[func(context.Context) error] // what it does before it answers
}

func startFleet(t *testing.T) *fleet {
	t.Helper()
	listeners := [2]net.Listener{listen(t), listen(t)}
	return startFleetAt(t, fmt.Sprintf("static:///%s,%s", listeners[0].Addr(), listeners[1].Addr()), listeners)
}

// startFleetAt is startFleet for replicas that are found by a target.
func startFleetAt(t *testing.T, target string, listeners [2]net.Listener) *fleet {
	t.Helper()
	f, dir := &fleet{}, t.TempDir()
	for i := range f.replicas {
		r := &replica{listener: &mortal{Listener: listeners[i]}, clock: clocktest.New(time.Now())}
		f.replicas[i] = r
		name := fmt.Sprintf("replica %d", i)
		h := echo.Handlers{Unary: func(ctx context.Context, _ proto.Message) (proto.Message, error) {
			r.calls.Add(1)
			if do := r.unary.Load(); do != nil {
				if err := (*do)(ctx); err != nil {
					return nil, err
				}
			}
			return echo.Message(name, ""), nil
		}}
		r.harness = kittest.Start(t, h.Register, func(o *kittest.Options) {
			o.Listener, o.Name, o.Dir, o.Clock = r.listener, "echo", dir, r.clock
			o.Checks = map[string]func(context.Context) error{"store": func(context.Context) error {
				if r.sick.Load() {
					return errors.New("sick")
				}
				return nil
			}}
		})
	}
	conn, err := client.Dial(client.Config{
		Target: target, Server: "echo", Identity: f.replicas[0].harness.Identity("orders"),
		Services: []protoreflect.ServiceDescriptor{echo.Contract()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	f.conn = conn
	f.until(t, "both answer", "replica 0", "replica 1")
	return f
}

// until calls until a round of calls is answered by exactly these replicas. No call may fail meanwhile.
func (f *fleet) until(t *testing.T, what string, want ...string) {
	t.Helper()
	for last := time.Now().Add(10 * time.Second); ; {
		got := f.round(t, 10)
		if slices.Equal(got, want) {
			return
		}
		if time.Now().After(last) {
			t.Fatalf("%s: %v answer, want %v", what, got, want)
		}
	}
}

// round makes n calls and returns who answered, sorted.
func (f *fleet) round(t *testing.T, n int) []string {
	t.Helper()
	var by []string
	for range n {
		got, err := echo.Call(t, f.conn, echo.Public, "", "")
		if err != nil {
			t.Fatalf("a call failed: %v", err)
		}
		by = append(by, got)
	}
	slices.Sort(by)
	return slices.Compact(by)
}

func TestCallsGoToReplicasInTurn(t *testing.T) {
	f := startFleet(t)
	before := [2]int32{f.replicas[0].calls.Load(), f.replicas[1].calls.Load()}
	f.round(t, 100)
	for i, r := range f.replicas {
		if n := r.calls.Load() - before[i]; n != 50 {
			t.Errorf("replica %d got %d of 100 calls, want 50", i, n)
		}
	}
}

func TestAReplicaThatSaysItDoesNotServeGetsNoCallsAndNoCallFails(t *testing.T) {
	f := startFleet(t)
	r := f.replicas[1]
	turn := func(sick bool) {
		t.Helper()
		r.sick.Store(sick)
		if err := r.clock.WaitPending(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		r.clock.Advance(time.Minute)
	}
	turn(true)
	f.until(t, "one is not serving", "replica 0")
	calls := r.calls.Load()
	f.round(t, 100)
	if n := r.calls.Load() - calls; n != 0 {
		t.Errorf("the replica that does not serve got %d calls", n)
	}
	turn(false)
	f.until(t, "it serves again", "replica 0", "replica 1")
}

func TestACallWhoseReplicaIsKilledIsAnsweredByTheOther(t *testing.T) {
	f := startFleet(t)
	// Each replica holds its call; the first to have one is killed with it.
	held := make(chan int, 2)
	for i, r := range f.replicas {
		do := func(ctx context.Context) error {
			held <- i
			<-ctx.Done()
			return ctx.Err()
		}
		r.unary.Store(&do)
	}
	answer := make(chan string, 1)
	go func() {
		got, err := echo.Call(t, f.conn, echo.Public, "", "")
		answer <- fmt.Sprint(got, err)
	}()
	killed := <-held
	f.replicas[killed].unary.Store(nil)
	f.replicas[1-killed].unary.Store(nil)
	f.replicas[killed].listener.kill()
	if got, want := <-answer, fmt.Sprint(fmt.Sprintf("replica %d", 1-killed), nil); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	f.until(t, "one is dead", fmt.Sprintf("replica %d", 1-killed))
}

func TestASlowReplicaIsOvertakenByTheOther(t *testing.T) {
	f := startFleet(t)
	stuck, left := make(chan struct{}, 1), make(chan struct{}, 1)
	do := func(ctx context.Context) error {
		stuck <- struct{}{}
		<-ctx.Done()
		left <- struct{}{}
		return ctx.Err()
	}
	f.replicas[0].unary.Store(&do)
	for range 2 { // in turn: one of two begins at the slow one
		if got, err := echo.Call(t, f.conn, echo.Hedged, "", ""); err != nil || got != "replica 1" {
			t.Errorf("%q, %v; want the answer of replica 1", got, err)
		}
	}
	<-stuck
	<-left // its caller has gone, and it knows
}

func TestRetriesStopWhileMostCallsFail(t *testing.T) {
	var calls atomic.Int32
	var healthy atomic.Bool
	busy := fault.New(fault.Unavailable, "BUSY", "come back")
	conn, _ := serve(t, echo.Handlers{Unary: func(_ context.Context, m proto.Message) (proto.Message, error) {
		calls.Add(1)
		if healthy.Load() {
			return m, nil
		}
		return nil, busy
	}}, "echo")
	call := func() error { _, err := echo.Call(t, conn, echo.Keyed, "", "key"); return err }
	kittest.WantFault(t, call(), codes.Unavailable, "BUSY")
	if n := calls.Load(); n != 3 {
		t.Fatalf("a call was sent %d times, want 3", n)
	}
	for range 60 {
		_ = call()
	}
	calls.Store(0)
	kittest.WantFault(t, call(), codes.Unavailable, "BUSY")
	if n := calls.Load(); n != 1 {
		t.Errorf("with the brake on, a call was sent %d times, want 1", n)
	}
	healthy.Store(true)
	for range 1000 { // each puts a tenth of a token back
		if err := call(); err != nil {
			t.Fatal(err)
		}
	}
	healthy.Store(false)
	calls.Store(0)
	_ = call()
	if n := calls.Load(); n != 3 {
		t.Errorf("with the brake off again, a call was sent %d times, want 3", n)
	}
}
