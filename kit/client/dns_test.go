package client_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// nameServer answers questions for the IPv4 addresses of one name until the test ends, and returns where.
func nameServer(t *testing.T, name string, addresses ...[4]byte) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for b := make([]byte, 512); ; {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m.Response, m.Authoritative, m.Additionals = true, true, nil
			switch {
			case q.Name.String() != name+".":
				m.RCode = dnsmessage.RCodeNameError
			case q.Type == dnsmessage.TypeA:
				for _, a := range addresses {
					m.Answers = append(m.Answers, dnsmessage.Resource{
						Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 60}, Body: &dnsmessage.AResource{A: a},
					})
				}
			}
			if answer, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(answer, from) // whoever has gone asks no more
			}
		}
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-ended
	})
	return conn.LocalAddr().String()
}

// samePort listens at one port of two addresses of this machine.
func samePort(t *testing.T) (port int, listeners [2]net.Listener) {
	t.Helper()
	for range 20 {
		listeners[0] = listen(t)
		port = listeners[0].Addr().(*net.TCPAddr).Port
		second, err := net.Listen("tcp", "127.0.0.2:"+strconv.Itoa(port))
		if errors.Is(err, syscall.EADDRNOTAVAIL) {
			if os.Getenv("CI") == "true" {
				t.Fatal(err) // Linux has it
			}
			t.Skip("this machine has no address 127.0.0.2")
		}
		if err == nil {
			listeners[1] = second
			t.Cleanup(func() { _ = second.Close() })
			return port, listeners
		}
	}
	t.Fatal("no port is free at both addresses")
	return 0, listeners
}

// A headless service of Kubernetes is such a name: all replicas have one port.
func TestTheReplicasBehindADNSNameAreCalledInTurnAsLongAsTheyServe(t *testing.T) {
	const name = "echo.default.svc.cluster.test"
	port, listeners := samePort(t)
	server := nameServer(t, name, [4]byte{127, 0, 0, 1}, [4]byte{127, 0, 0, 2})
	f := startFleetAt(t, fmt.Sprintf("dns://%s/%s:%d", server, name, port), listeners)
	before := [2]int32{f.replicas[0].calls.Load(), f.replicas[1].calls.Load()}
	f.round(t, 100)
	for i, r := range f.replicas {
		if n := r.calls.Load() - before[i]; n != 50 {
			t.Errorf("replica %d got %d of 100 calls, want 50", i, n)
		}
	}
	r := f.replicas[1]
	r.sick.Store(true)
	if err := r.clock.WaitPending(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	r.clock.Advance(time.Minute)
	f.until(t, "one is not serving", "replica 0")
}
