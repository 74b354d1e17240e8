package app

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	paymentsv1 "github.com/concordat-dev/concordat/gen/go/payments/v1"
	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
)

// lateListener accepts connections on which the end of a request's body comes at the worst of moments: just when the
// edge gives up waiting for it.
type lateListener struct {
	net.Listener
	giveUp chan struct{} // the edge is about to; one for the first connection that it does so on
	used   atomic.Bool
}

func (l *lateListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &lateConn{Conn: c, listener: l, reads: make(chan struct{}, 100)}, nil
}

type lateConn struct {
	net.Conn
	listener *lateListener
	reads    chan struct{} // one for each that began
}

func (c *lateConn) Read(p []byte) (int, error) {
	select {
	case c.reads <- struct{}{}:
	default:
	}
	return c.Conn.Read(p)
}

// SetReadDeadline holds a deadline of the past back until the reading goes on after what waits: net/http has read the
// body to its end and looks whether the caller leaves.
func (c *lateConn) SetReadDeadline(t time.Time) error {
	if t.Equal(time.Unix(1, 0)) && !c.listener.used.Swap(true) {
		for len(c.reads) > 0 {
			<-c.reads
		}
		close(c.listener.giveUp)
		select {
		case <-c.reads:
		case <-time.After(10 * time.Second):
		}
	}
	return c.Conn.SetReadDeadline(t)
}

// An answer that comes before the request has ended must not cost the next request on the connection its life: the
// reading that is broken off looks to net/http as if the caller had left.
func TestACallThatIsAnsweredEarlyHarmsNoOtherOnItsConnection(t *testing.T) {
	late := &lateListener{Listener: listen(t), giveUp: make(chan struct{})}
	w := start(t, func(c *Config) { c.HTTPListener = late }).ready()
	conn, err := net.Dial("tcp", late.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	const headers = "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/grpc-web+proto\r\nTransfer-Encoding: chunked\r\n%s\r\n"
	message := frame(0, "\n\x00") // of no user
	chunk := fmt.Sprintf("%x\r\n%s\r\n", len(message), message)
	answers := bufio.NewReader(conn)
	answer := func() *http.Response {
		t.Helper()
		resp, err := http.ReadResponse(answers, &http.Request{Method: http.MethodPost})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(resp.Body); err != nil {
			t.Fatal(err)
		}
		return resp
	}
	// A message has come and the end has not, when the call is refused for lack of a token.
	if _, err := fmt.Fprintf(conn, headers+chunk, usersv1.UserService_CreateUsers_FullMethodName, ""); err != nil {
		t.Fatal(err)
	}
	select {
	case <-late.giveUp:
	case <-time.After(10 * time.Second):
		t.Fatal("the edge waits for the end of a request that it has answered")
	}
	if _, err := io.WriteString(conn, "0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	first := answer()
	if code := first.Header.Get("Grpc-Status"); code != "16" {
		t.Fatalf("without a token the code is %q", code)
	}
	// Either the connection takes another call, or its end was said with the answer to the first.
	if first.Close {
		if _, err := answers.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the connection was to be closed: %v", err)
		}
		return
	}
	if _, err := fmt.Fprintf(conn, headers+"0\r\n\r\n", usersv1.UserService_CreateUsers_FullMethodName, w.bearer()+"\r\n"); err != nil {
		t.Fatal(err)
	}
	if again := answer(); again.Header.Get("Grpc-Status") != "" {
		t.Fatalf("the next call on the connection ends with %q", again.Header.Get("Grpc-Message"))
	}
}

// A call of one message waits for the end of its request, so that its connection is good for the next one.
func TestACallOfOneMessageKeepsItsConnectionHoweverLateItsEnd(t *testing.T) {
	w := start(t).ready()
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	message := frame(0, "")
	answers := bufio.NewReader(conn)
	for range 3 {
		_, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/grpc-web+proto\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n",
			paymentsv1.PaymentService_ListPayments_FullMethodName, len(message), message)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := answers.ReadByte(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("answered before the request has ended: %v", err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(answers, &http.Request{Method: http.MethodPost})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(resp.Body); err != nil {
			t.Fatal(err)
		}
		if resp.Close || resp.Header.Get("Grpc-Status") != "16" {
			t.Fatalf("code %q, connection to be closed: %t", resp.Header.Get("Grpc-Status"), resp.Close)
		}
	}
}

// The rest of a request that is refused is not waited for.
func TestARefusedRequestThatNeverEndsHoldsNothing(t *testing.T) {
	w := start(t).ready()
	for _, path := range []string{"/nowhere", "/healthz", usersv1.UserService_CreateUsers_FullMethodName} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(w.base, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/connect+json\r\nTransfer-Encoding: chunked\r\n\r\n", path); err != nil {
			t.Fatal(err)
		}
		if all, err := io.ReadAll(conn); err != nil || !strings.Contains(string(all), "Connection: close") {
			t.Errorf("%s: %v, %q", path, err, all)
		}
	}
}
