package client_test

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/test/bufconn"

	"github.com/concordat-dev/concordat/kit/client"
	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/kittest/echo"
)

// A service config that comes with the addresses, as DNS can bring one, is somebody else's: the contract alone says how a
// service is called.
func TestAServiceConfigFromOutsideIsNotTaken(t *testing.T) {
	l := listen(t)
	h := kittest.Start(t, echo.Handlers{}.Register, func(o *kittest.Options) { o.Name, o.Listener = "echo", l })
	found := manual.NewBuilderWithScheme("found")
	found.BuildCallback = func(_ resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) {
		cfg := cc.ParseServiceConfig(`{"methodConfig":[{"name":[{}],"timeout":"0.000000001s"}]}`)
		if cfg.Err != nil {
			t.Error(cfg.Err)
		}
		found.InitialState(resolver.State{Addresses: []resolver.Address{{Addr: l.Addr().String(), ServerName: "echo"}}, ServiceConfig: cfg})
	}
	conn := dial(t, h, "found:///echo", func(c *client.Config) { c.Options = []grpc.DialOption{grpc.WithResolvers(found)} })
	if _, err := echo.Call(t, conn, echo.Public, "", "", grpc.WaitForReady(true)); err != nil {
		t.Errorf("with a timeout of a nanosecond from outside: %v", err)
	}
}

// proxied names the process that has a proxy in its environment, which is read once.
const proxied = "CLIENT_TEST_PROXIED"

func TestNoProxyIsBetweenServices(t *testing.T) {
	if os.Getenv(proxied) == "" {
		proxy := listen(t)
		var used atomic.Int64
		go func() {
			for {
				c, err := proxy.Accept()
				if err != nil {
					return
				}
				used.Add(1)
				_ = c.Close()
			}
		}()
		cmd := exec.Command(os.Args[0], "-test.run=^TestNoProxyIsBetweenServices$")
		cmd.Env = append(os.Environ(), proxied+"=1", "HTTPS_PROXY=http://"+proxy.Addr().String(), "https_proxy=http://"+proxy.Addr().String(), "NO_PROXY=", "no_proxy=")
		if out, err := cmd.CombinedOutput(); err != nil || used.Load() != 0 {
			t.Errorf("%d connections to the proxy, %v:\n%s", used.Load(), err, out)
		}
		return
	}
	l := listen(t)
	h := kittest.Start(t, echo.Handlers{}.Register, func(o *kittest.Options) { o.Name, o.Listener = "echo", l })
	// This machine by an address that is not one of loopback, for which no proxy is asked anyway.
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn := dial(t, h, "dns:///0.0.0.0:"+port, func(*client.Config) {})
	if _, err := echo.Call(t, conn, echo.Public, "", ""); err != nil {
		t.Error(err)
	}
}

// silent is a connection that can go dead: what is written is lost, and nothing comes.
type silent struct {
	net.Conn
	dead   *atomic.Bool
	closed chan struct{}
	once   sync.Once
}

func (s *silent) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if s.dead.Load() {
		<-s.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (s *silent) Write(p []byte) (int, error) {
	if s.dead.Load() {
		return len(p), nil
	}
	return s.Conn.Write(p)
}

func (s *silent) Close() error {
	s.once.Do(func() { close(s.closed) })
	return s.Conn.Close()
}

// In a bubble of package synctest, in which minutes pass at once.
func TestAPeerThatHasGoneWithoutAWordIsFoundAfterFortySeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := bufconn.Listen(1 << 20)
		h := kittest.Start(t, echo.Handlers{}.Register, func(o *kittest.Options) { o.Name, o.Listener = "echo", memory })
		var dead atomic.Bool
		conn := dial(t, h, "passthrough:///echo", func(c *client.Config) {
			c.Options = []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				raw, err := memory.DialContext(ctx)
				return &silent{Conn: raw, dead: &dead, closed: make(chan struct{})}, err
			})}
		})
		watch, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := watch.Recv(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(75 * time.Second) // alive, it is not given up
		dead.Store(true)
		began := time.Now()
		for err = nil; err == nil; {
			_, err = watch.Recv()
		}
		kittest.WantFault(t, err, codes.Unavailable, "UPSTREAM_UNAVAILABLE")
		if took := time.Since(began); took < 9*time.Second || took > 41*time.Second {
			t.Errorf("found %s after it went: %v", took, err)
		}
	})
}

func TestAServiceThatIsAwayIsLookedForEveryTwoSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := bufconn.Listen(1 << 20)
		h := kittest.Start(t, echo.Handlers{}.Register, func(o *kittest.Options) { o.Name, o.Listener = "echo", memory })
		var there atomic.Bool
		var tries atomic.Int64
		conn := dial(t, h, "passthrough:///echo", func(c *client.Config) {
			c.Options = []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				tries.Add(1)
				if !there.Load() {
					return nil, errors.New("nobody is there")
				}
				return memory.DialContext(ctx)
			})}
		})
		conn.Connect()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := tries.Load(); n < 250 || n > 400 {
			t.Errorf("looked for %d times in ten minutes, want every two seconds or so", n)
		}
		there.Store(true)
		began := time.Now()
		for { // a call has two seconds, and the wait may be a little longer
			if _, err := echo.Call(t, conn, echo.Public, "", "", grpc.WaitForReady(true)); err == nil || time.Since(began) > time.Minute {
				break
			}
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("found %s after it came", took)
		}
	})
}
