package server_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/concordat-dev/concordat/kit/kittest"
	"github.com/concordat-dev/concordat/kit/kittest/echo"
)

// inMemory is a server, and clients of it, for a bubble of package synctest, in which hours pass at once.
type inMemory struct {
	*kittest.Harness
	memory *bufconn.Listener
	dialed atomic.Int64 // connections
}

func bubbled(t *testing.T) *inMemory {
	m := &inMemory{memory: bufconn.Listen(1 << 20)}
	m.Harness = kittest.Start(t, echo.Handlers{}.Register, func(o *kittest.Options) { o.Listener = m.memory })
	return m
}

func (m *inMemory) dial(ctx context.Context) (net.Conn, error) {
	m.dialed.Add(1)
	return m.memory.DialContext(ctx)
}

func (m *inMemory) client(t *testing.T, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///memory", append([]grpc.DialOption{
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return m.dial(ctx) }),
		grpc.WithTransportCredentials(credentials.NewTLS(m.Identity("orders").ClientTLS("test"))),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// frames opens a connection whose frames are the test's own, as far as its settings.
func (m *inMemory) frames(t *testing.T) *http2.Framer {
	t.Helper()
	raw, err := m.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	secure := tls.Client(raw, m.Identity("orders").ClientTLS("test"))
	t.Cleanup(func() { _ = secure.Close() })
	_, err = io.WriteString(secure, http2.ClientPreface)
	framer := http2.NewFramer(secure, secure)
	if err := errors.Join(err, framer.WriteSettings()); err != nil {
		t.Fatal(err)
	}
	return framer
}

func TestAConnectionWithoutACallIsAskedToLeaveAfterAQuarterOfAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := bubbled(t).client(t, grpc.WithIdleTimeout(0))
		if _, err := echo.Call(t, conn, echo.Public, "", ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(15*time.Minute - time.Second)
		synctest.Wait()
		if s := conn.GetState(); s != connectivity.Ready {
			t.Errorf("a second before the time: %s", s)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s := conn.GetState(); s != connectivity.Idle {
			t.Errorf("a second after it: %s", s)
		}
	})
}

// grpc-go varies the age by a tenth, so that not all come back at once.
func TestAnOldConnectionIsAskedToLeaveAndWhatIsOpenHasFiveMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := bubbled(t)
		conn := m.client(t, grpc.WithIdleTimeout(0))
		watch, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		began, ended := time.Now(), make(chan time.Duration, 1)
		go func() {
			for {
				if _, err := watch.Recv(); err != nil {
					ended <- time.Since(began)
					return
				}
			}
		}()
		var replaced time.Duration
		for replaced == 0 && time.Since(began) < time.Hour {
			time.Sleep(time.Second)
			if _, err := echo.Call(t, conn, echo.Public, "", ""); err != nil {
				t.Fatal(err)
			}
			if m.dialed.Load() > 1 {
				replaced = time.Since(began)
			}
		}
		if replaced < 27*time.Minute || replaced > 33*time.Minute+5*time.Second {
			t.Errorf("another connection after %s, want half an hour and a tenth of it more or less", replaced)
		}
		// grpc-go waits for a ping before it counts on.
		if after := <-ended - replaced; after < 5*time.Minute-5*time.Second || after > 5*time.Minute+10*time.Second {
			t.Errorf("what was open ended %s after that, want five minutes", after)
		}
	})
}

func TestWhoPingsTooOftenIsSentAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := bubbled(t)
		// One ping in ten seconds is what a client of grpc-go may send at most, calls or not.
		conn := m.client(t, grpc.WithIdleTimeout(0), grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true,
		}))
		if _, err := echo.Call(t, conn, echo.Public, "", ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if s, n := conn.GetState(), m.dialed.Load(); s != connectivity.Ready || n != 1 {
			t.Errorf("with a ping every ten seconds: %s, %d connections", s, n)
		}

		framer := m.frames(t)
		away := make(chan *http2.GoAwayFrame, 1)
		go func() {
			defer close(away)
			for {
				f, err := framer.ReadFrame()
				if err != nil {
					return
				}
				if g, ok := f.(*http2.GoAwayFrame); ok {
					away <- g
				}
			}
		}()
		for range 6 {
			if framer.WritePing(false, [8]byte{}) != nil {
				break // it was sent away already
			}
			time.Sleep(9 * time.Second)
		}
		select {
		case g := <-away:
			if g == nil || g.ErrCode != http2.ErrCodeEnhanceYourCalm {
				t.Errorf("sent away with %v", g)
			}
		default:
			t.Error("a ping every nine seconds is put up with")
		}
	})
}

// It has left the headers of a call open meanwhile, and would hold them for ever.
func TestAClientThatAnswersNoPingIsClosedAfterFortySeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := bubbled(t)
		framer := m.frames(t)
		err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}})
		if err != nil {
			t.Fatal(err)
		}
		began, pinged := time.Now(), false
		for err == nil {
			var f http2.Frame
			if f, err = framer.ReadFrame(); err == nil && f.Header().Type == http2.FramePing {
				pinged = true
			}
		}
		if took := time.Since(began); !pinged || took < 39*time.Second || took > 41*time.Second {
			t.Errorf("closed after %s, pinged: %t; want 40 s, true", took, pinged)
		}
	})
}

func TestAConnectionHasAThousandCallsAtOnceAndNoMore(t *testing.T) {
	const most = 1000
	entered, release := make(chan struct{}, 2*most), make(chan struct{})
	h, address := onPort(t, echo.Handlers{Unary: func(_ context.Context, req proto.Message) (proto.Message, error) {
		entered <- struct{}{}
		<-release
		return req, nil
	}})
	w := dialWire(t, h, address)
	defer close(release)
	stream := uint32(1)
	open := func() {
		t.Helper()
		if err := w.open(stream, echo.Public); err != nil {
			t.Fatal(err)
		}
		if err := w.framer.WriteData(stream, true, message(false, nil)); err != nil {
			t.Fatal(err)
		}
		stream += 2
	}
	for range most {
		open()
	}
	for n := range most {
		select {
		case <-entered:
		case <-time.After(10 * time.Second):
			t.Fatalf("%d of %d calls got to their handler", n, most)
		}
	}
	open()
	if a := w.end(stream - 2); a.reset != http2.ErrCodeRefusedStream {
		t.Errorf("one more ended with %+v", a)
	}
}

func TestNoMessageAbove4MiBIsSent(t *testing.T) {
	const most = 4 << 20
	text := func(size int) proto.Message { return echo.Message(strings.Repeat("x", size), "") }
	overhead := proto.Size(text(most)) - most
	for name, tc := range map[string]struct {
		message proto.Message
		code    codes.Code
	}{
		"the largest": {text(most - overhead), codes.OK},
		"a byte more": {text(most - overhead + 1), codes.ResourceExhausted},
	} {
		t.Run(name, func(t *testing.T) {
			h := kittest.Start(t, echo.Handlers{
				Unary: func(context.Context, proto.Message) (proto.Message, error) { return tc.message, nil },
				Watch: func(_ proto.Message, s grpc.ServerStream) error { return s.SendMsg(tc.message) },
				Chat: func(s grpc.ServerStream) error {
					var p grpc.PreparedMsg
					if err := p.Encode(s, tc.message); err != nil {
						return err
					}
					return s.SendMsg(&p)
				},
			}.Register)
			conn := h.Anonymous()
			_, err := echo.Call(t, conn, echo.Public, "", "", grpc.MaxCallRecvMsgSize(2*most))
			errs := map[string]error{"unary": err}
			for _, method := range []string{echo.Watch, echo.Chat} {
				s, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method, grpc.MaxCallRecvMsgSize(2*most))
				if err != nil {
					t.Fatal(err)
				}
				// A call may have ended before the request of it is sent: then RecvMsg tells how.
				if err := s.SendMsg(echo.Message("", "")); err != nil && !errors.Is(err, io.EOF) {
					t.Fatal(err)
				}
				if err := s.CloseSend(); err != nil {
					t.Fatal(err)
				}
				errs[method] = s.RecvMsg(echo.Message("", ""))
			}
			for method, err := range errs {
				if status.Code(err) != tc.code {
					t.Errorf("%s: %v, want %v", method, err, tc.code)
				}
				if tc.code != codes.OK && method != echo.Chat {
					kittest.WantFault(t, err, tc.code, "MESSAGE_TOO_LARGE")
				}
			}
		})
	}
}
